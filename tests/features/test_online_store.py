"""What goes online: only what changed, late rows included, nothing older over newer; SQLite and a real Redis."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rolecall.features.activity import TIMESTAMP, candidate_consent
from rolecall.features.feast_repository import PROJECT
from rolecall.features.online_erasure import OnlineRows, entity_key
from rolecall.features.online_journal import open_journal
from rolecall.features.online_rows import Stamp, entity_keys
from rolecall.features.online_store import Knowledge
from rolecall.features.store import FeatureStore
from rolecall.features.views import CONSENT_VIEW, VIEWS
from rolecall.platform.settings import FeatureSettings

START = datetime(2026, 3, 1, tzinfo=UTC)
EMPLOYER = next(view for view in VIEWS if view.name == "employer_rating")
JOB = next(view for view in VIEWS if view.name == "job_activity")
KEYS = ("a", "b", "c")
Told = tuple[str, int, int]
"""A key, the hour of its row, its value."""

ROWS = st.lists(st.tuples(st.sampled_from(KEYS), st.integers(0, 5), st.integers(0, 3)), max_size=6)
RUNS = st.lists(st.tuples(ROWS, st.integers(0, 6)), min_size=1, max_size=5)


@dataclass(kw_only=True)
class Online:
    """A store, and days that no example before this one has used: it starts with fresh keys at a later time."""

    home: Path
    settings: FeatureSettings
    store: FeatureStore
    example: int = 0
    told: list[Told] = field(default_factory=list)

    def begin(self) -> None:
        self.example += 1
        self.told = []

    def at(self, hour: int) -> datetime:
        return START + timedelta(days=10 * self.example, hours=hour)

    def run(self, rows: Sequence[Told], hour: int, *, version: int | None = None) -> Mapping[str, int] | None:
        """One daily run as of an hour over these rows, of this version of their table. Returns rows written a view."""
        self.sources(EMPLOYER.name, employer_rows([(self.key(name), self.at(h), v) for name, h, v in rows]))
        tables = Knowledge(versions={EMPLOYER.source.table: None if version is None else self.version(version)})
        done = self.store.materialize(self.at(hour), known=tables)
        return None if done is None else done.written

    def sources(self, view: str, rows: pl.DataFrame) -> None:
        rows.write_parquet(self.home / "sources" / f"{view}.parquet")

    def version(self, number: int) -> int:
        """Of a table: higher than any example before this one had."""
        return 100 * self.example + number

    def read(self, hour: int) -> list[float | None]:
        columns = self.store.online_jobs(["j"] * len(KEYS), [self.key(name) for name in KEYS], at=self.at(hour))
        return [None if value != value else float(value) for value in columns["employer_rating"]]

    def key(self, name: str) -> str:
        return f"{name}{self.example}"


def employer_rows(rows: Sequence[tuple[str, datetime, int]]) -> pl.DataFrame:
    told = [(name, at, float(value), 1.0, None) for name, at, value in rows]
    return pl.DataFrame(told, schema=no_rows(EMPLOYER.name).schema, orient="row")


def no_rows(view_name: str) -> pl.DataFrame:
    view = next(view for view in VIEWS if view.name == view_name)
    kinds: dict[str, pl.DataType] = {f"{view.entity}_id": pl.String(), "event_timestamp": TIMESTAMP}
    kinds |= dict.fromkeys(view.lists, pl.List(pl.String)) | dict.fromkeys(view.texts, pl.String())
    return pl.DataFrame(schema=kinds | dict.fromkeys(view.numbers, pl.Float64()))


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def feature_settings(request: pytest.FixtureRequest) -> FeatureSettings:
    if request.param == "sqlite":
        return FeatureSettings()
    address: str = request.getfixturevalue("redis_server")
    redis.Redis.from_url(address).flushall()
    return FeatureSettings(online_store="redis", redis_url=address)


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory, feature_settings: FeatureSettings) -> Online:
    home = tmp_path_factory.mktemp("online")
    (home / "sources").mkdir()
    for view in VIEWS:
        no_rows(view.name).write_parquet(home / "sources" / f"{view.name}.parquet")
    store = FeatureStore(home / "feast", feature_settings, sources=home / "sources")
    return Online(home=home, settings=feature_settings, store=store)


@pytest.fixture
def online(opened: Online) -> Iterator[Online]:
    opened.begin()
    yield opened
    for view in VIEWS:
        opened.sources(view.name, no_rows(view.name))


def newest(rows: Sequence[Told], hour: int) -> list[float | None]:
    """Of each key the row with the latest hour up to `hour`, of two the one that came later."""
    held: dict[str, Told] = {}
    for row in rows:
        if row[1] <= hour and (row[0] not in held or held[row[0]][1] <= row[1]):
            held[row[0]] = row
    return [float(held[name][2]) if name in held else None for name in KEYS]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=RUNS)
def test_whatever_the_order_of_arrival_the_newest_known_row_is_online(opened: Online, runs: object) -> None:
    """Each run sees all rows that arrived so far; one of an earlier hour than the newest is a backfill."""
    opened.begin()
    arrived: list[Told] = []
    through = -1
    expected: list[float | None] = [None] * len(KEYS)
    for rows, hour in runs:  # type: ignore[attr-defined]
        arrived += rows
        before = expected
        written = opened.run(arrived, hour)
        if hour < through:
            assert written is None
        else:
            through, expected = hour, newest(arrived, hour)
            assert written is not None
            assert (written["employer_rating"] == 0) <= (expected == before)
            again = opened.run(arrived, hour)
            assert again is not None
            assert not any(again.values())
        assert opened.read(6) == expected


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(ROWS, min_size=1, max_size=6))
def test_a_run_that_knows_less_puts_nothing_older_over_newer(opened: Online, runs: object) -> None:
    """Each run sees only its own rows, as one that was pinned long ago does."""
    opened.begin()
    told: list[Told] = []
    for rows in runs:  # type: ignore[attr-defined]
        told += rows
        opened.run(rows, 6)
        assert opened.read(6) == newest(told, 6)


def test_an_earlier_day_that_ends_after_a_later_one_does_not_take_it_back(online: Online) -> None:
    journal = open_journal(online.home / "feast" / "online.db", online.settings, PROJECT)
    online.run([("a", 1, 1)], 5)
    version = journal.version()
    journal.advance(online.at(4))  # the end of a run that began before the other had ended
    assert journal.through() == online.store.materialized_through() == online.at(5)
    assert journal.version() > version


def test_only_what_changed_is_written_and_a_row_under_its_old_instant_is_corrected(online: Online) -> None:
    first = [("a", 1, 1), ("b", 2, 1), ("c", 3, 1)]
    assert (online.run(first, 3) or {})["employer_rating"] == 3
    assert (online.run([*first, ("b", 1, 3)], 4) or {})["employer_rating"] == 0, "late, and older than the newest"
    assert (online.run([*first, ("b", 2, 3)], 5) or {})["employer_rating"] == 1, "late, and counted in the newest"
    assert online.read(5) == [1.0, 3.0, 1.0]


def test_a_row_past_its_ttl_is_neither_written_nor_read(online: Online) -> None:
    rows = [{"job_id": f"j{online.example}", "event_timestamp": online.at(0), "job_applies_total": 2.0}]
    online.sources(JOB.name, pl.DataFrame(rows, schema=no_rows(JOB.name).schema))
    late = 1 + int(JOB.ttl / timedelta(hours=1))
    assert (online.run([], late) or {})[JOB.name] == 0
    asked = online.store.online_jobs([f"j{online.example}"], [None], at=online.at(0))
    assert asked["job_applies_total"].tolist() != [2.0]


def consents(name: str, at: datetime, *, consent: bool) -> pl.DataFrame:
    kinds: dict[str, pl.DataType] = {"candidate_id": pl.String(), "updated_at": TIMESTAMP, "consent": pl.Boolean()}
    kinds |= {"visibility": pl.String(), "hidden_from": pl.List(pl.String)}
    return candidate_consent(pl.DataFrame([(name, at, consent, "all", None)], schema=kinds, orient="row"))


@pytest.mark.parametrize("hour", [1, 2, 3, 30], ids=["older", "equal", "newer", "ahead of the clock"])
def test_a_consent_taken_back_is_obeyed_whatever_its_instant(online: Online, hour: int) -> None:
    name = online.key("p")
    online.sources(CONSENT_VIEW.name, consents(name, online.at(2), consent=True))
    online.run([], 4)
    assert online.store.online_consent([name], at=online.at(4))[0]["consent"] == 1.0
    taken_back = consents(name, online.at(hour), consent=False)
    assert online.store.write_consents(taken_back)
    assert online.store.online_consent([name], at=online.at(4))[0]["consent"] == 0.0
    online.store.materialize(online.at(5), consents=taken_back)  # a run whose tables did not have it yet
    assert online.store.online_consent([name], at=online.at(5))[0]["consent"] == 0.0


def test_a_person_who_is_erased_leaves_no_stamp_and_is_written_anew(online: Online) -> None:
    name = online.key("p")
    online.sources(CONSENT_VIEW.name, consents(name, online.at(2), consent=True))
    online.run([], 4)
    held = OnlineRows(online.home / "feast", online.settings)
    assert held.count(name)
    assert held.erase(name)
    assert held.count(name) == 0
    assert online.store.online_consent([name], at=online.at(4))[0]["consent"] is None
    assert (online.run([], 4) or {})[CONSENT_VIEW.name] == 1
    assert held.erase(name)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(st.tuples(ROWS, st.integers(0, 4)), min_size=1, max_size=5))
def test_a_row_that_left_its_table_is_removed_and_by_nobody_who_knows_less(opened: Online, runs: object) -> None:
    """Each run sees the rows of its version of the table alone; one of an earlier version removes nothing."""
    opened.begin()
    told: list[Told] = []
    newest_version = 0
    for rows, version in runs:  # type: ignore[attr-defined]
        present = {name for name, hour, _ in rows if hour <= 6}
        told = [row for row in told if version < newest_version or row[0] in present] + rows
        newest_version = max(newest_version, version)
        opened.run(rows, 6, version=version)
        assert opened.read(6) == newest(told, 6)
        journal = open_journal(opened.home / "feast" / "online.db", opened.settings, PROJECT)
        mine = {*entity_keys(EMPLOYER, [opened.key(name) for name in KEYS])}
        held = {key for key, _ in journal.written(EMPLOYER)} & mine
        assert held == {*entity_keys(EMPLOYER, [opened.key(name) for name in {row[0] for row in told}])}


def test_a_row_told_since_the_day_of_a_run_is_not_removed_by_it(online: Online) -> None:
    name = online.key("new")
    online.run([], 4)
    online.store.write_consents(consents(name, online.at(5), consent=True))  # ingested after the run was pinned
    online.store.materialize(online.at(4), known=Knowledge(versions={"candidates": online.version(0)}))
    assert online.store.online_consent([name], at=online.at(5))[0]["consent"] == 1.0
    online.store.materialize(online.at(6), known=Knowledge(versions={"candidates": online.version(1)}))
    assert online.store.online_consent([name], at=online.at(6))[0]["consent"] is None


def test_whom_the_tables_no_longer_hold_is_not_told_though_history_remembers_them(online: Online) -> None:
    name = online.key("p")
    online.sources(CONSENT_VIEW.name, consents(name, online.at(2), consent=True))
    known = Knowledge(versions={"candidates": online.version(0)}, held={CONSENT_VIEW.name: frozenset({name})})
    online.store.materialize(online.at(4), known=known)
    assert online.store.online_consent([name], at=online.at(4))[0]["consent"] == 1.0
    gone = Knowledge(versions={"candidates": online.version(1)}, held={CONSENT_VIEW.name: frozenset()})
    done = online.store.materialize(online.at(4), known=gone)
    assert done is not None
    assert done.removed[CONSENT_VIEW.name] >= 1
    assert online.store.online_consent([name], at=online.at(4))[0]["consent"] is None


def test_one_consent_is_told_without_reading_everybodys_stamps(tmp_path: Path) -> None:
    journal = open_journal(tmp_path / "online.db", FeatureSettings(), PROJECT)
    known = Stamp(event_us=1, digest=b"0" * 16)
    many = entity_keys(CONSENT_VIEW, [f"c{number}" for number in range(20_000)])
    journal.remember(CONSENT_VIEW.name, dict.fromkeys(many, known))
    assert journal.stamps(CONSENT_VIEW.name, [*many[:1_500], b"nobody"]) == [*[known] * 1_500, None]
    tracemalloc.start()
    assert journal.stamps(CONSENT_VIEW.name, many[-1:]) == [known]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 200_000, "bytes"


def test_keys_are_written_as_feast_writes_them() -> None:
    names = ["c1", "é ü", "x" * 300]
    assert entity_keys(CONSENT_VIEW, names) == [entity_key(name) for name in names]
