"""Text views and the tokenizer."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.features.context import CandidateContext
from rolecall.features.name_positions import Known
from rolecall.features.names import GIVEN_NAMES
from rolecall.features.text import (
    candidate_lexical_text,
    candidate_text,
    job_lexical_text,
    job_text,
    neutral,
    resume_words,
    text_hash,
    tokens,
)

JOB = {
    "title": "  Data\nEngineer ",
    "employer_name": "Acme",
    "skills": ["sql", "python"],
    "category_path": ["it", "data"],
    "description": "word " * 100,
    "city": "Köln",
    "region": "NRW",
}


def test_a_job_reads_title_first_then_employer_skills_category_and_a_cut_description() -> None:
    text = job_text(JOB)
    assert text.startswith("Data Engineer | Acme | sql, python | data | word word")
    assert text.count("word") == 48


def test_a_resume_is_read_without_names_and_pronouns() -> None:
    assert neutral("Mary, 5 years as a nurse. She is used to: charts.") == "5 years as a nurse. is used to: charts."
    assert neutral("Lakisha Washington, PhD. His work at IBM.") == "PhD. work at IBM."
    assert neutral("Mr. Smith: MS Office, HIS systems") == "MS Office, HIS systems"


def test_accents_digits_and_underscores_hide_no_name() -> None:
    assert neutral("José Álvarez, chef. Joa\u0303o cooks") == "chef. cooks"
    assert neutral("Daniel1985@mail.example and Anna_Schmidt her_name") == "and _Schmidt _name"


@pytest.mark.parametrize(
    "text",
    [
        *("Python, Julia, R", "San Jose, California", "Managed St. Louis, Missouri", "Jan 2019", "cook in Sofia, BG"),
        *("Art Grant Will Rose Frank Java", "Santa Clara clinic", "this shed, the theme, usher"),
    ],
)
def test_skills_places_and_months_are_no_names(text: str) -> None:
    assert neutral(text) == text


def test_what_stands_below_a_name_is_no_family_name() -> None:
    assert neutral("Maria\nElectrician\nBerlin") == "Electrician Berlin"
    assert neutral("Maria Lopez\nElectrician") == "Electrician"


def test_an_employer_that_is_called_like_a_person_keeps_its_name() -> None:
    for kept in (
        "welder at Robert Bosch GmbH since 2010",
        "Eric Miller & Sons Ltd, carpenter",
        "degree of Anna University",
        "Otto Group: logistics",
    ):
        assert neutral(kept) == kept
    assert neutral("Anna Schmidt\nRobert Bosch GmbH") == "Robert Bosch GmbH"
    assert neutral("Anna Schmidt, University of Bonn") == "University of Bonn"  # a comma ends the name
    assert neutral("Robert Bosch, welder") == "welder"
    assert neutral("welder at Robert Bosch since 2010") == "welder at Robert Bosch since 2010"
    assert neutral("welder, Robert Bosch", Known(employers=("Robert Bosch",))) == "welder, Robert Bosch"


def test_a_long_resume_of_names_alone_takes_no_time() -> None:
    begun = time.process_time()
    for text in (
        "Anna " * 800,
        ("Anna" + " " * 10) * 280,
        "Anna" + " " * 3990 + "x",
        "San " * 1000,
        "A" * 4000,
        "a@" * 2000,
    ):
        neutral(text[:4000])
    assert time.process_time() - begun < 1


@given(
    st.lists(
        st.sampled_from(["Anna", "Smith", "Smith,", "Anna.", "she", "(He", "\n", "cook", "\u0301", "San", "GmbH", "&"]),
        max_size=90,
    ),
    st.integers(0, 60),
)
@settings(deadline=None, max_examples=300)
def test_the_first_words_of_a_resume_are_those_of_the_whole(words: list[str], count: int) -> None:
    text = " ".join(words)
    assert resume_words(CandidateContext(resume_text=text), count) == " ".join(neutral(text).split()[:count])


@given(
    st.sampled_from(sorted(GIVEN_NAMES)),
    st.sampled_from(sorted(GIVEN_NAMES)),
    st.sampled_from(["{0}: cook, 3 years.", "Cook. {0} has {1} own knives", "{0} Miller, {2} cooks. Ask {0}."]),
)
@settings(deadline=None)
def test_a_profile_reads_the_same_under_any_name(one: str, other: str, resume: str) -> None:
    he, she = (resume.format(one, "his", "he"), resume.format(other, "her", "she"))
    titles = ("cook",)
    texts = [candidate_text(CandidateContext(desired_titles=titles, resume_text=text)) for text in (he, she)]
    assert texts[0] == texts[1]


@given(st.lists(st.sampled_from(["cook", "SQL", "Mason", "C++", "Berlin", "the", "HE", "shed", "this"]), max_size=20))
def test_other_words_stay(words: list[str]) -> None:
    assert neutral(" ".join(words)).split() == words


def test_absent_and_null_columns_leave_no_trace() -> None:
    bare = {"title": "Nurse", "skills": None, "category_path": None, "description": None, "employer_name": None}
    assert job_text(bare) == job_text({"title": "Nurse"}) == "Nurse"
    assert job_lexical_text({"title": "Nurse", "city": None, "skills": None}) == "Nurse"


def test_lexical_texts_hold_title_place_and_skills() -> None:
    assert job_lexical_text(JOB) == "Data Engineer Köln NRW sql python"


def test_a_candidate_reads_as_a_job_does() -> None:
    person = CandidateContext(desired_titles=("Data Engineer",), skills=("sql",), city="Köln", resume_text="Built  it")
    assert candidate_text(person) == "Data Engineer | sql | Built it"
    assert candidate_lexical_text(person) == "Data Engineer Köln sql"


def test_of_an_unknown_candidate_nothing_is_said() -> None:
    assert candidate_text(CandidateContext()) == candidate_lexical_text(CandidateContext()) == ""


def test_tokens_fold_case_accents_and_plurals_and_keep_language_names() -> None:
    assert tokens("Nurses, CITIES; Köln École C++/C# .NET node.js") == [
        *("nurse", "city", "koln", "ecole", "c++", "c#", "net", "node", "js")
    ]


def test_words_that_only_look_plural_stay() -> None:
    assert tokens("business analysis campus bus gas class") == ["business", "analysis", "campus", "bus", "gas", "class"]


def test_other_scripts_are_words_too() -> None:
    assert tokens("инженер 工程师 مهندس") == ["инженер", "工程师", "مهندس"]


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=80))
def test_tokens_of_any_text_are_plain_words_and_do_not_depend_on_case(text: str) -> None:
    words = tokens(text)
    assert all(word and not any(c.isspace() for c in word) for word in words)
    assert tokens(text.lower()) == words


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_different_texts_have_different_hashes(a: str, b: str) -> None:
    assert (text_hash(a) == text_hash(b)) == (a == b)
