"""What the table store promises, against real Delta tables."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from rolecall.features.schema import EVENTS, JOBS
from rolecall.platform.errors import InputError, NotFoundError, SchemaError
from rolecall.platform.tables import TableSchema, TableStore

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.fixture(params=["tables", "my täbles #1"])
def store(tmp_path: Path, request: pytest.FixtureRequest) -> TableStore:
    """Below a plain folder, and below one that a URI writes in another way."""
    return TableStore(str(tmp_path / request.param))


def rows(schema: TableSchema, *given: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([dict.fromkeys(schema.columns.names) | row for row in given], schema=schema.columns)


def job(number: int, **over: object) -> dict[str, object]:
    return {
        "job_id": f"j{number}",
        "title": f"title {number}",
        "skills": ["sql", "python"],
        "salary_min": 1.5,
        "updated_at": NOON,
    } | over


def event(name: str, at: datetime) -> dict[str, object]:
    return {
        "event_id": name,
        "actor": "candidate",
        "candidate_id": "c",
        "job_id": "j",
        "kind": "view",
        "occurred_at": at,
    }


def test_a_table_that_does_not_exist_reads_as_empty(store: TableStore) -> None:
    assert store.version("jobs") is None
    assert store.read(JOBS).num_rows == 0
    assert store.scan(JOBS).collect().height == 0


def test_upsert_inserts_updates_and_leaves_known_rows_alone(store: TableStore) -> None:
    store.upsert(JOBS, rows(JOBS, job(1), job(2)))
    result = store.upsert(JOBS, rows(JOBS, job(2), job(1, skills=["sql"]), job(3)))
    assert (result.inserted, result.updated, result.unchanged) == (1, 1, 1)
    stored = {row["job_id"]: row["skills"] for row in store.read(JOBS).to_pylist()}
    assert stored == {"j1": ["sql"], "j2": ["sql", "python"], "j3": ["sql", "python"]}


def test_without_replace_a_known_key_keeps_its_row(store: TableStore) -> None:
    store.upsert(JOBS, rows(JOBS, job(1)))
    result = store.upsert(JOBS, rows(JOBS, job(1, title="new"), job(2)), replace=False)
    assert (result.inserted, result.updated, result.unchanged) == (1, 0, 1)
    assert sorted(store.read(JOBS)["title"].to_pylist()) == ["title 1", "title 2"]


def test_writing_the_same_rows_again_makes_no_version(store: TableStore) -> None:
    first = store.upsert(JOBS, rows(JOBS, job(1), job(2)))
    again = store.upsert(JOBS, rows(JOBS, job(2), job(1)))
    assert again.version == first.version
    assert again.unchanged == 2


def test_an_old_version_reads_as_it_was(store: TableStore) -> None:
    old = store.upsert(JOBS, rows(JOBS, job(1))).version
    store.upsert(JOBS, rows(JOBS, job(1, title="new")))
    assert store.read(JOBS, version=old, columns=["title"]).to_pylist() == [{"title": "title 1"}]
    with pytest.raises(NotFoundError, match="no version 99"):
        store.read(JOBS, version=99)


def test_replace_day_touches_that_day_only(store: TableStore) -> None:
    store.upsert(EVENTS, rows(EVENTS, event("a", NOON), event("b", NOON + timedelta(days=1))))
    store.replace_day(EVENTS, date(2026, 3, 1), rows(EVENTS, event("c", NOON)))
    assert {row["event_id"] for row in store.read(EVENTS).to_pylist()} == {"b", "c"}


def test_replace_day_refuses_rows_of_another_day(store: TableStore) -> None:
    with pytest.raises(InputError, match="outside 2026-03-01"):
        store.replace_day(EVENTS, date(2026, 3, 1), rows(EVENTS, event("c", NOON + timedelta(days=1))))
    assert store.version("events") is None


@pytest.mark.parametrize("write", ["upsert", "replace", "replace_day"])
def test_a_table_written_before_a_column_existed_is_read_and_written(store: TableStore, write: str) -> None:
    columns = pa.schema([field for field in EVENTS.columns if field.name != "position"])
    older = TableSchema(name=EVENTS.name, key=EVENTS.key, required=EVENTS.required, time=EVENTS.time, columns=columns)
    store.upsert(older, rows(older, event("a", NOON)))
    assert store.read(EVENTS).to_pylist() == [dict.fromkeys(EVENTS.columns.names) | event("a", NOON)]
    assert store.read(EVENTS, columns=["position", "kind"]).to_pylist() == [{"position": None, "kind": "view"}]
    assert store.upsert(EVENTS, rows(EVENTS, event("a", NOON))).unchanged == 1
    new = rows(EVENTS, event("b", NOON) | {"position": 3})
    if write == "upsert":
        store.upsert(EVENTS, new)
    else:
        _ = store.replace(EVENTS, new) if write == "replace" else store.replace_day(EVENTS, NOON.date(), new)
    kept = {"a": None, "b": 3} if write == "upsert" else {"b": 3}
    assert {row["event_id"]: row["position"] for row in store.read(EVENTS).to_pylist()} == kept


def test_wrong_columns_repeated_keys_and_missing_values_are_refused(store: TableStore) -> None:
    with pytest.raises(SchemaError, match="unknown"):
        store.upsert(JOBS, rows(JOBS, job(1)).append_column("colour", pa.array(["red"])))
    with pytest.raises(InputError, match="occurs twice"):
        store.upsert(JOBS, rows(JOBS, job(1), job(1)))
    with pytest.raises(SchemaError, match="nulls in"):
        store.upsert(JOBS, rows(JOBS, job(1, title=None)))
    assert store.version("jobs") is None
