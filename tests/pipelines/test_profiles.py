"""A profile edited today leaves what it said before in place for requests of the past."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest

from rolecall.features.schema import CANDIDATES, PROFILES
from rolecall.pipelines.knowledge import newest_profiles, profiles_as_of
from rolecall.pipelines.materialize import feature_store, materialize
from rolecall.pipelines.profiles import remember_profiles
from rolecall.pipelines.training_set import read_contexts
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore

MONDAY = datetime(2026, 9, 7, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def tables(tmp_path: Path) -> TableStore:
    return TableStore(str(tmp_path / "tables"))


def write(tables: TableStore, title: str, at: datetime) -> None:
    row = {"candidate_id": "c1", "desired_titles": [title], "updated_at": at}
    tables.upsert(CANDIDATES, pa.Table.from_pylist([row], schema=CANDIDATES.columns))


def pinned(tables: TableStore) -> dict[str, int | None]:
    return {schema.name: tables.version(schema.name) for schema in (CANDIDATES, PROFILES)}


def test_a_context_of_the_past_has_the_profile_of_the_past(tables: TableStore, tmp_path: Path) -> None:
    for title, at in (("cook", MONDAY), ("nurse", MONDAY + 2 * DAY)):
        write(tables, title, at)
        remember_profiles(tables)
    settings = Settings(home=tmp_path)
    materialize(tables, pinned(tables), as_of=MONDAY + 3 * DAY, settings=settings, folder=tmp_path / "views")
    store = feature_store(settings, tmp_path / "views")
    asked = [("c1", MONDAY - DAY), ("c1", MONDAY + DAY), ("c1", MONDAY + 3 * DAY)]
    titles = [context.desired_titles for context in read_contexts(store, asked, "ranker_full")]
    assert titles == [(), ("cook",), ("nurse",)]
    assert store.online_candidates(["c1"], at=MONDAY + 3 * DAY)[0]["desired_titles"] == ["nurse"]


def test_remembering_twice_keeps_each_row_once(tables: TableStore) -> None:
    write(tables, "cook", MONDAY)
    assert [remember_profiles(tables), remember_profiles(tables)] == [1, 0]
    assert profiles_as_of(tables, pinned(tables), MONDAY).height == 1


def test_a_row_corrected_without_a_new_time_replaces_the_one_kept(tables: TableStore) -> None:
    write(tables, "cok", MONDAY)
    remember_profiles(tables)
    write(tables, "cook", MONDAY)
    remember_profiles(tables)
    assert profiles_as_of(tables, pinned(tables), MONDAY)["desired_titles"].to_list() == [["cook"]]


def test_a_day_before_the_edit_does_not_know_it(tables: TableStore) -> None:
    write(tables, "cook", MONDAY)
    remember_profiles(tables)
    write(tables, "nurse", MONDAY + DAY)
    remember_profiles(tables)
    assert profiles_as_of(tables, pinned(tables), MONDAY)["desired_titles"].to_list() == [["cook"]]


def test_without_kept_profiles_the_candidates_table_speaks_alone(tables: TableStore) -> None:
    write(tables, "cook", MONDAY)
    assert profiles_as_of(tables, {"candidates": tables.version("candidates")}, MONDAY).height == 1


def agreed(tables: TableStore, at: datetime, **consent: object) -> None:
    row = {"candidate_id": "c1", "desired_titles": ["cook"], "consent": True, "updated_at": at} | consent
    tables.upsert(CANDIDATES, pa.Table.from_pylist([row], schema=CANDIDATES.columns))
    remember_profiles(tables)


def test_a_consent_taken_back_after_the_instant_is_obeyed_by_its_run(tables: TableStore, tmp_path: Path) -> None:
    """The daily run of a day's first moment comes hours after it; and a backfill weeks after."""
    agreed(tables, MONDAY, visibility="applied", hidden_from=["e1"])
    agreed(tables, MONDAY + DAY, consent=False)
    (row,) = newest_profiles(tables, pinned(tables), MONDAY + DAY / 2).to_dicts()
    assert (row["consent"], row["visibility"], row["hidden_from"]) == (False, "applied", ["e1"])
    settings = Settings(home=tmp_path)
    at = MONDAY + DAY / 2
    materialize(tables, pinned(tables), as_of=at, settings=settings, folder=tmp_path / "views")
    assert feature_store(settings).online_consent(["c1"], at=MONDAY + 2 * DAY)[0]["consent"] == 0


@pytest.mark.parametrize(
    ("before", "after", "left"),
    [
        ({}, {"visibility": "none"}, (True, "none", [])),
        ({}, {"visibility": "applied", "hidden_from": ["e2"]}, (True, "applied", ["e2"])),
        ({"visibility": "applied", "hidden_from": ["e1"]}, {"hidden_from": ["e2"]}, (True, "applied", ["e1", "e2"])),
        ({"consent": False}, {"consent": True}, (False, None, [])),
        ({"consent": None}, {"consent": True}, (None, None, [])),
    ],
)
def test_what_is_said_after_the_instant_never_allows_more(
    tables: TableStore, before: dict[str, object], after: dict[str, object], left: tuple[object, ...]
) -> None:
    agreed(tables, MONDAY, **before)
    agreed(tables, MONDAY + DAY, **after)
    (row,) = newest_profiles(tables, pinned(tables), MONDAY + DAY / 2).to_dicts()
    assert (row["consent"], row["visibility"], row["hidden_from"]) == left
    assert row["updated_at"] == MONDAY
