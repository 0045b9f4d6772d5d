"""Names of many cultures are seen wherever a name can stand; titles, employers and skills are not taken for names."""

from __future__ import annotations

import os
import re
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.features.context import CandidateContext
from rolecall.features.name_positions import Known, name_spans, own_names, title_spans
from rolecall.features.names import GIVEN_NAMES
from rolecall.features.ordinary import folded, is_word
from rolecall.features.text import candidate_text, desired_titles, neutral

_LISTED = """
Adaeze_Okonkwo Oluwaseun_Adeyemi Chukwuemeka_Nwosu Thabo_Nkosi Nomvula_Dlamini Kwame_Mensah Akosua_Boateng
Wanjiru_Kamau Tendai_Moyo Fatoumata_Diallo Mamadou_Traoré Amadou_Sow Selamawit_Tesfaye Dawit_Bekele Hiroto_Tanaka
Yui_Nakamura Kenji_Watanabe Sakura_Yamamoto Min-jun_Park Seo-yeon_Choi Jiho_Kwon Xiaoming_Zhang Weiwei_Huang
Yifan_Zhou Nguyen_Van_Tuan Thi_Thuy_Pham Somchai_Suwannarat Putri_Wulandari Agus_Setiawan Siddharth_Iyer
Kavitha_Venkatesan Harpreet_Kaur_Sandhu Gurpreet_Dhaliwal Anirudh_Chatterjee Lakshmi_Narayanan Zainab_Qureshi
Bilal_Chaudhry Nusrat_Jahan Farhana_Hossain Tharindu_Perera Nilufar_Yusupova Bekzod_Karimov Aigerim_Nurlanova
Leyla_Aliyeva Emre_Yılmaz Ayşegül_Özdemir Shirin_Ebadi Reza_Hosseini Mahsa_Rahimi Yousef_Al-Rashid Noura_bint_Khalid
Tariq_Haddad Layla_Mansour Shlomo_Ben-David Avigail_Mizrahi Wojtek_Wójcik Ludmiła_Kowalczyk Zdeněk_Dvořák
Jiřina_Novotná Ioana_Popescu Radu_Ionescu Dragana_Petrović Miloš_Jovanović Blerta_Hoxha Arben_Krasniqi
Nikos_Papadakis Eleni_Stavrou Oksana_Shevchenko Taras_Kovalenko Ольга_Петрова Иван_Сидоров Eirik_Haugen
Sigrid_Solberg Björk_Guðmundsdóttir Aino_Virtanen Eero_Korhonen Siobhán_O'Sullivan Aoife_Ní_Bhriain Rhys_Llewellyn
Angharad_Pugh Guadalupe_Hernández Ximénez_Quispe Itzel_Cuauhtlé Thiago_Fagundes Joaquim_da_Silva Iker_Etxeberria
Lieke_van_der_Berg Joost_de_Vries Giuseppina_Esposito Ludovico_Ferrari Anouk_Lefèvre Théo_Dubois Lakeisha_Jefferson
DeShawn_Robinson Tayshaun_Franklin Waleed_El-Amin Kaimana_Kealoha Aroha_Ngata Talulah_Begay
"""
_LATER = """
Hyun-woo_Kim Wei_Li Bo_Chen Mei_Lin An_Nguyen Duc_Tran Quang_Vo Rina_Suzuki Takeshi_Mori Ravi_Kumar Uma_Sharma
Dev_Patel Asha_Rao Sunita_Devi Manpreet_Gill Imran_Khan Sana_Malik Hamza_Sheikh Rukhsana_Begum Olumide_Bello
Ifeoma_Eze Chinedu_Obi Kofi_Annan Yaw_Asante Abebe_Bikila Hodan_Warsame Abdirahman_Farah Sipho_Zulu Lindiwe_Khumalo
Rania_Saleh Khaled_Nasser Huda_Aziz Omid_Karimi Parisa_Tehrani Serkan_Demir Gizem_Kaya Volkan_Arslan Agata_Nowak
Grzegorz_Lis Jadwiga_Zając Vaclav_Havel Istvan_Nagy Zsofia_Kiss Bence_Szabo Milica_Ilic Goran_Babic Ilir_Meta
Bogdana_Rusu Yannis_Vlachos Oksana_Melnyk Dmytro_Bondar Anatoly_Orlov Lars-Erik_Lund Ingunn_Vik Pekka_Nieminen
Maarit_Laine Deirdre_Walsh Ciaran_Byrne Eoin_Ryan Bronwyn_Evans Xochitl_Ramos Yesenia_Rivera Jose-Luis_Vega
Dulce_Flores Caio_Rocha Beatriz_Nunes Nuno_Pinto Matteo_Conti Chiara_Gallo Fleur_Bakker Sjoerd_Visser Maelle_Roux
Baptiste_Girard Anneliese_Vogel Gundula_Kraus Torben_Petersen Keanu_Mahoe Tama_Walker Jaylen_Brooks Shanice_Coleman
Marquis_Banks Ebony_Jackson Tyrese_Gibson LaToya_Price Dakota_Whitehorse
"""
_WORDS = """
Precious_Moyo Destiny_Jackson Autumn_Reed Mason_Wright Hunter_Price Faith_Adeyemi Blessing_Okafor Ruby_Singh
Jasmine_Kaur Lily_Wong Brooklyn_Davis Skyler_Long Sage_Green Rowan_Day River_Stone Grace_Baker Hope_Miller
Rose_Taylor Amber_Carter Summer_Cook Ivy_Hill Violet_Mensah Melody_Park Patience_Osei Goodluck_Eze Angel_Cruz
Mercedes_Ruiz Christian_Weber Frank_Schneider Ernst_Fischer Dean_Potter Chase_Turner
"""


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.replace("_", " ") for name in text.split())


NAMES, LATER, WORDS = map(_names, (_LISTED, _LATER, _WORDS))
"""Names that hardly any list holds; such as were written down when the rules stood; such as are words as well."""

PLACES = (
    "{0}\nRegistered nurse, 5 years.",
    "{0}: nurse, 5 years.",
    "{0} - Senior Nurse | Berlin",
    "My name is {0}. I am a nurse.",
    "Name: {0}\nNurse",
    "Ich hei\u00dfe {0} und bin Koch.",
    "Je m'appelle {0}, infirmier.",
    "Me llamo {0} y soy cocinero.",
    "Nurse, 5 years.\n\nKind regards,\n{0}",
    "Nurse, 5 years. {0} has led a ward.",
    "I am {0}, a nurse.",
    "Resume of {0}\nNurse",
    "Nurse. Ask Ms {0} about it",
)
TOLD = tuple(place for place in PLACES if re.search("name|appelle|hei|llamo|regards|Ms ", place))
"""Where the text says that it is a name."""


def left(name: str, text: str) -> list[str]:
    """Words of a name that a text keeps."""
    kept = {folded(word) for word in re.findall(r"[\w'-]+", neutral(text))}
    return [word for word in name.split() if word[0].isupper() and folded(word) in kept]


def test_none_of_these_names_is_known_by_heart() -> None:
    assert not {name.split()[0] for name in NAMES} & GIVEN_NAMES
    assert len(NAMES) > 90


@pytest.mark.parametrize("place", PLACES)
def test_a_name_nobody_listed_goes_wherever_a_name_can_stand(place: str) -> None:
    for names, most in (
        (NAMES, 0.03),
        (LATER, 0.0 if place in TOLD else 0.06),
        (WORDS, 0.0 if place in TOLD else 0.26),
    ):
        kept = [name for name in names if left(name, place.format(name))]
        assert len(kept) <= most * len(names), kept


@given(st.sampled_from(NAMES), st.sampled_from(PLACES))
@settings(deadline=None, max_examples=150)
def test_a_name_that_was_told_once_goes_everywhere(name: str, place: str) -> None:
    text = place.format(name)
    if left(name, text):
        return
    first = name.split()[0]
    again = f"{text}\nBoth wards praised {first} for it; {name.upper()} stayed."
    assert not left(name, again)
    assert not left(name, f"{text} Write to {folded(first)}.x@mail.example, or see www.{folded(first)}.example.")


@given(st.sampled_from(NAMES), st.sampled_from(NAMES), st.sampled_from(PLACES))
@settings(deadline=None, max_examples=150)
def test_a_title_goes_without_the_name_its_resume_tells(one: str, other: str, place: str) -> None:
    if left(one, place.format(one)) or left(other, place.format(other)):
        return
    texts = [
        CandidateContext(resume_text=place.format(name), desired_titles=(f"Nurse like {name.split()[0]}",))
        for name in (one, other)
    ]
    assert desired_titles(texts[0]) == desired_titles(texts[1]) == ("Nurse like",)
    assert candidate_text(texts[0]) == candidate_text(texts[1])


def test_an_address_names_whoever_it_is_made_of() -> None:
    assert neutral("Nurse. Praised by Okonkwo. adaeze.okonkwo@mail.example") == "Nurse. Praised by ."
    assert own_names("cook@example.org") == frozenset()


def test_scripts_without_capitals_are_read_where_a_name_is_introduced() -> None:
    assert neutral("\u6211\u53eb\u738b\u4f1f\uff0c\u53a8\u5e08") == "\u6211\u53eb\uff0c\u53a8\u5e08"
    assert "\u738b\u4f1f" not in neutral("\u59d3\u540d\uff1a\u738b\u4f1f\n\u53a8\u5e08")


@pytest.mark.parametrize(
    "text",
    [
        *(
            "Phlebotomist, 5 years",
            "Senior Data Engineer\nPython",
            "I am Certified Nurse",
            "Skills: Kotlin, Kubernetes",
        ),
        *("Gelernte K\u00f6chin, 5 Jahre", "Medizinische Fachangestellte\nPraxis", "San Jose, California", "AZ 85001"),
        *("Python is what I know. Docker has its place", "Registered Nurse at Garden City Hospital", "Retail | Sales"),
    ],
)
def test_titles_skills_and_places_are_no_names(text: str) -> None:
    assert name_spans(text) == []


@pytest.mark.parametrize("employer", ["Robert Bosch", "Marks Spencer", "Eli Lilly", "Goldman Sachs", "John Deere"])
def test_a_past_employer_keeps_its_name(employer: str) -> None:
    told = Known(employers=(employer,))
    for text in (f"welder, {employer}, 2010", f"Cook.\n{employer}: sold tools", f"Sales for {employer} until 2012"):
        assert employer in neutral(text, told)
    assert neutral(f"welder at {employer} since 2010") == f"welder at {employer} since 2010"


def test_who_is_called_like_an_employer_is_still_a_person_where_the_text_says_so() -> None:
    told = Known(employers=("Anna Schmidt", "Otto"))
    assert neutral("My name is Anna Schmidt. Cook.", told) == "My name is . Cook."
    assert neutral("Anna Schmidt\nCook", told) == "Cook"
    assert neutral("Otto has cooked", told) == "has cooked"


def test_a_title_is_read_as_a_title() -> None:
    assert title_spans("Phlebotomist, Night", ()) == []
    assert title_spans("Assistant to Okonkwo", {"okonkwo"}) == [(13, 20)]


def test_words_and_their_endings_are_known_and_names_are_not() -> None:
    assert all(map(is_word, ["nurse", "nurses", "assembler", "phlebotomist", "fachangestellte", "krankenpflegerin"]))
    rare = [name for name in NAMES if not any(is_word(folded(word)) for word in name.split())]
    assert len(rare) > 0.9 * len(NAMES)


def test_what_is_missed_is_what_the_module_says() -> None:
    """The limits, so that a change of them is seen: names that are words, and names within a sentence alone."""
    assert neutral("Grace Baker\nNurse") == "Grace Baker Nurse"
    assert neutral("My name is Grace Baker. Baker by trade. Grace cooks") == "My name is . Baker by trade. cooks"
    assert neutral("The ward thanked Adaeze for it.") == "The ward thanked Adaeze for it."
    assert neutral("\u738b\u4f1f\n\u53a8\u5e08") == "\u738b\u4f1f \u53a8\u5e08"


@given(st.text(max_size=200))
@settings(deadline=None, max_examples=200)
def test_spans_lie_in_the_text_in_order(text: str) -> None:
    spans = name_spans(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(one[1] < other[0] for one, other in pairwise(spans))


def real(file: str, column: str) -> list[str]:
    folder = Path(os.environ.get("BENCH_DATA", Path(__file__).parents[3] / "shared" / "data")) / "sjr"
    if not (folder / file).is_file():
        pytest.skip(f"no {folder / file}")
    texts = pl.read_csv(folder / file, columns=[column], infer_schema=False, null_values=["NA", ""])
    return sorted(set(texts[column].drop_nulls()))


@pytest.mark.parametrize(
    ("file", "column", "resume", "most"),
    [
        ("Positions_Of_Interest.csv", "Position.Of.Interest", "{0}\n5 years", 0.035),
        ("Experience.csv", "Position.Name", "{0}, 5 years of work", 0.035),
        ("Experience.csv", "Position.Name", "Worked as {0}.", 0.01),
        ("Experience.csv", "Employer.Name", "Cook at {0} since 2010.", 0.015),
        ("Experience.csv", "Job.Description", "{0}", 0.05),
    ],
)
def test_few_real_titles_employers_and_accounts_of_work_are_touched(
    file: str, column: str, resume: str, most: float
) -> None:
    """Of real texts of applicants, at the place where each would stand. Most of what is touched in accounts of work are
    the names of colleagues and web addresses."""
    texts, before = real(file, column), len(resume.split("{")[0])
    touched = [
        text
        for text in texts
        if any(start < before + len(text) and end > before for start, end in name_spans(resume.format(text)))
    ]
    assert len(touched) <= most * len(texts), (len(touched), len(texts), touched[:20])


def test_real_employers_that_a_profile_lists_stay() -> None:
    """Robert Bosch and the like: without a legal form, in a line of their own."""
    names = real("Experience.csv", "Employer.Name")
    lost = [
        name
        for name in names
        if (told := Known(employers=(name,)))
        and any(
            end > 17 and start < 17 + len(name) for start, end in name_spans(f"Cook.\n5 years.\n- {name}, 2010", told)
        )
    ]
    assert len(lost) <= 0.005 * len(names), (len(lost), lost[:20])
