"""Mapping files: what is read, and that a wrong one fails when it is loaded, not in the middle of an ingest."""

from __future__ import annotations

from pathlib import Path

import pytest

from rolecall.features.mapping import Mapping, load_mapping, mapping_names
from rolecall.features.schema import TABLES
from rolecall.platform.errors import InputError, NotFoundError

GOOD = """
[[table]]
target = "jobs"
files = ["a.csv"]
[table.columns]
job_id = "Id"
title = "Role"
updated_at = { from = "Changed", zone = "Europe/Berlin" }
"""


def written(folder: Path, text: str) -> Mapping:
    path = folder / "own.toml"
    path.write_text(text)
    return load_mapping(path)


@pytest.mark.parametrize("name", mapping_names())
def test_every_shipped_mapping_loads_and_says_what_it_is_for(name: str) -> None:
    mapping = load_mapping(name)
    assert mapping.name == name
    assert mapping.description
    assert {spec.target for spec in mapping.table} <= set(TABLES)


def test_a_name_that_stands_alone_is_a_rename(tmp_path: Path) -> None:
    mapping = written(tmp_path, GOOD)
    assert mapping.name == "own"
    assert mapping.table[0].columns["title"].source == "Role"
    assert mapping.parse(mapping.table[0].columns["updated_at"]).zone == "Europe/Berlin"


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('target = "jobs"', 'target = "posts"', "allowed are jobs"),
        ('title = "Role"', "", "missing columns"),
        ('title = "Role"', 'titel = "Role"', "unknown columns"),
        ('title = "Role"', 'title = { form = "Role" }', "form"),
        ('title = "Role"', 'title = { from = "Role", constant = "x" }', "exactly one of"),
        ('title = "Role"', 'title = { split = "," }', "exactly one of"),
        ('title = "Role"', 'title = { fields = { a = "b" } }', "need `fold`"),
        ('files = ["a.csv"]', "files = []", "files"),
        ("[[table]]", "[[table]", "not TOML"),
        ('zone = "Europe/Berlin"', 'zone = "Mars/Olympus"', "time zone"),
    ],
)
def test_a_wrong_mapping_is_refused_when_it_is_loaded(tmp_path: Path, old: str, new: str, told: str) -> None:
    assert old in GOOD
    with pytest.raises(InputError, match=told):
        written(tmp_path, GOOD.replace(old, new, 1))


def test_a_mapping_that_does_not_exist_names_those_that_do() -> None:
    with pytest.raises(NotFoundError, match="careerbuilder, native, sjr"):
        load_mapping("nowhere")


def test_same_names_ask_only_for_what_the_table_requires() -> None:
    jobs = load_mapping("native").table[0]
    wanted = {name for name, column in jobs.resolved().items() if not column.optional}
    assert wanted == set(TABLES["jobs"].required)
