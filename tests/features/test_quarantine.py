"""Quarantine says of each source what its latest ingest refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from rolecall.features.quarantine import keep, no_rows, refused_rows, unread_rows
from rolecall.features.schema import QUARANTINE
from rolecall.features.validation import MESSAGE, REASON, ROW
from rolecall.platform.tables import TableStore

AT = datetime(2026, 3, 1, tzinfo=UTC)
ROWS = pl.DataFrame({"Id": ["1", "2"], ROW: [1, 2], REASON: [None, "no_zone"], MESSAGE: [None, "why"]})


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return TableStore(str(tmp_path))


def test_a_refused_row_keeps_its_number_its_source_columns_and_its_reason() -> None:
    assert refused_rows("a.csv", "jobs", ROWS, ROWS).to_dicts() == [
        {
            "source": "a.csv",
            "table": "jobs",
            "row_number": 2,
            "row": '{"Id":"2"}',
            "reason": "no_zone",
            "message": "why",
        }
    ]


def test_nothing_refused_writes_nothing(store: TableStore) -> None:
    keep(store, [("a.csv", "jobs")], no_rows(), at=AT)
    assert store.version(QUARANTINE.name) is None


def test_keeping_again_changes_nothing_and_a_mended_source_leaves(store: TableStore) -> None:
    first, other = refused_rows("a.csv", "jobs", ROWS, ROWS), unread_rows("b.csv", "jobs", [(7, "bad_utf8", "m", "t")])
    keep(store, [("a.csv", "jobs"), ("b.csv", "jobs")], pl.concat([first, other]), at=AT)
    version = store.version(QUARANTINE.name)
    keep(store, [("a.csv", "jobs")], first, at=AT + timedelta(days=1))
    assert store.version(QUARANTINE.name) == version
    keep(store, [("a.csv", "jobs")], no_rows(), at=AT)
    assert store.read(QUARANTINE)["source"].to_pylist() == ["b.csv"]
