"""A file of groups is read whole or refused with what is wrong about it."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from rolecall.features.schema import TABLES
from rolecall.pipelines.evaluation.groups import GROUP, Groups, read_groups
from rolecall.platform.errors import InputError
from rolecall.platform.settings import FairnessSettings


def test_parquet_and_csv_say_the_same(tmp_path: Path) -> None:
    rows = pl.DataFrame({"candidate_id": ["c2", "c1"], "group": ["x", "y"], "other": [1, 2]})
    rows.write_parquet(tmp_path / "g.parquet")
    rows.write_csv(tmp_path / "g.csv")
    for name in ("g.parquet", "g.csv"):
        assert read_groups(tmp_path / name, "candidate_id") == {"c1": "y", "c2": "x"}
    read = Groups.from_settings(FairnessSettings(candidate_groups=str(tmp_path / "g.csv")))
    assert (dict(read.candidates), dict(read.jobs)) == ({"c1": "y", "c2": "x"}, {})


def test_without_a_file_there_are_no_groups() -> None:
    assert Groups.from_settings(FairnessSettings()) == Groups()


def test_numbers_as_ids_and_groups_are_read_as_text(tmp_path: Path) -> None:
    (tmp_path / "g.csv").write_text("job_id,group\n17,1\n18,2\n")
    assert read_groups(tmp_path / "g.csv", "job_id") == {"17": "1", "18": "2"}
    rows = "".join(f"{n:05},{n % 2}\n" for n in range(200))
    (tmp_path / "g.csv").write_text(f"job_id,group\n{rows}c-17,1\n")
    read = read_groups(tmp_path / "g.csv", "job_id")
    assert (read["00017"], read["c-17"], len(read)) == ("1", "1", 201)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("candidate_id,sex\nc1,f\n", "add group"),
        ("person,group\nc1,f\n", "add candidate_id"),
        ("candidate_id,group\nc1,f\nc1,m\n", "'c1' is in two groups"),
        ("candidate_id,group\nc1,\n", "1 rows without"),
        ("candidate_id,group\n" + "".join(f"c{n},g{n}\n" for n in range(60)), "60 groups"),
        ("candidate_id,group\nc1,f,x,y\n", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused_with_what_is_wrong(tmp_path: Path, text: str, wrong: str) -> None:
    (tmp_path / "g.csv").write_text(text)
    with pytest.raises(InputError, match=wrong):
        read_groups(tmp_path / "g.csv", "candidate_id")


def test_a_file_that_is_not_there_or_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "g.xlsx").write_text("")
    for name, wrong in (("none.csv", "does not exist"), ("g.xlsx", "Parquet or CSV")):
        with pytest.raises(InputError, match=wrong):
            read_groups(tmp_path / name, "candidate_id")


def test_a_file_that_names_nobody_known_is_refused_with_both_kinds_of_id() -> None:
    groups = Groups(candidates={"17": "a", "18": "b"})
    groups.require_known(["17", "99"], [])
    groups.require_known([], ["j"])
    with pytest.raises(InputError, match=r"such as '17'.*such as 'c-17'"):
        groups.require_known(["c-17", "c-18"], ["17"])
    with pytest.raises(InputError, match="job_id"):
        Groups(jobs={"17": "a"}).require_known(["17"], ["j-17"])


def test_no_table_has_a_column_of_groups() -> None:
    assert not [schema.name for schema in TABLES.values() if GROUP in schema.columns.names]
