"""Which files a mapping takes, and the reasons against them before a row is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rolecall.features.mapping import Mapping
from rolecall.pipelines.layout import plan
from rolecall.platform.errors import InputError, SchemaError

COLUMNS = {"job_id": "Id", "title": "Role", "updated_at": {"constant": "2026-03-01T12:00:00Z"}}


def mapping(**section: Any) -> Mapping:
    table = {"target": "jobs", "files": ["a*.csv", "a*.jsonl"], "columns": COLUMNS} | section
    return Mapping.model_validate({"name": "own", "table": [table]})


def test_files_are_taken_by_pattern_in_order_of_name(tmp_path: Path) -> None:
    for name in ("a2.csv", "a1.csv", "b.csv"):
        (tmp_path / name).write_text("Id,Role\n")
    assert [file.path.name for file in plan(tmp_path, mapping())[0].files] == ["a1.csv", "a2.csv"]
    assert [file.path.name for file in plan(tmp_path / "a2.csv", mapping())[0].files] == ["a2.csv"]


def test_a_source_that_does_not_exist_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        plan(tmp_path / "nowhere", mapping())


def test_a_column_may_be_absent_only_where_the_mapping_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Id,Role\n")
    with pytest.raises(SchemaError, match=r"a\.csv has no column Town"):
        plan(tmp_path, mapping(columns=COLUMNS | {"city": "Town"}))
    assert plan(tmp_path, mapping(columns=COLUMNS | {"city": {"from": "Town", "optional": True}}))


def test_json_lines_must_show_only_what_the_table_requires(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"Id": 1, "Role": "x"}\n')
    assert plan(tmp_path, mapping(columns=COLUMNS | {"city": "Town"}))
    with pytest.raises(SchemaError, match="no column Name"):
        plan(tmp_path, mapping(columns=COLUMNS | {"title": "Name"}))


def test_files_that_are_folded_complete_one_another_but_each_has_the_key(tmp_path: Path) -> None:
    people = {"candidate_id": "Id", "city": "Town", "updated_at": "At"}
    section = {"target": "candidates", "fold": ["Id"], "columns": people}
    (tmp_path / "a1.csv").write_text("Id,Town\n")
    (tmp_path / "a2.csv").write_text("Id,At\n")
    assert plan(tmp_path, mapping(**section))
    (tmp_path / "a2.csv").write_text("At\n")
    with pytest.raises(SchemaError, match=r"a2\.csv has no column Id"):
        plan(tmp_path, mapping(**section))


def test_joined_files_and_their_keys_must_be_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("Id,Role\n")
    join = [{"name": "firm", "file": "firms.csv", "on": {"Id": "Key"}}]
    with pytest.raises(InputError, match="lacks the joined files"):
        plan(tmp_path, mapping(join=join))
    (tmp_path / "firms.csv").write_text("Other\n")
    with pytest.raises(SchemaError, match=r"firms\.csv has no column Key"):
        plan(tmp_path, mapping(join=join))
