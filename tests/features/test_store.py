"""The feature store against real Feast: Parquet files offline, SQLite or Redis (with PostgreSQL as registry) online."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import redis

from rolecall.features.activity import TIMESTAMP, candidate_consent, candidate_history, employer_rating, job_activity
from rolecall.features.candidates import candidate_context
from rolecall.features.feast_repository import redis_address
from rolecall.features.schema import EMPLOYERS, EVENTS
from rolecall.features.store import FeatureStore
from rolecall.features.views import VIEWS, candidate_feature_columns, job_feature_columns, service_views
from rolecall.platform.errors import InputError, SettingsError
from rolecall.platform.settings import FeatureSettings
from tests.services import PostgresServer

START = datetime(2026, 3, 1, tzinfo=UTC)
AS_OF = START + timedelta(days=10)


def make_events() -> pl.DataFrame:
    rng = np.random.default_rng(3)
    empty = pl.DataFrame(EVENTS.columns.empty_table())
    rows = [
        dict.fromkeys(empty.columns)
        | {
            "event_id": f"e{number}",
            "actor": "candidate",
            "candidate_id": f"c{rng.integers(5)}",
            "job_id": f"j{rng.integers(8)}",
            "kind": str(rng.choice(["impression", "click", "apply"])),
            "occurred_at": START + timedelta(minutes=float(rng.integers(0, 10 * 24 * 60))),
        }
        for number in range(300)
    ]
    return pl.DataFrame(rows, schema=empty.schema)


def make_consents() -> pl.DataFrame:
    """c0 took it back after a week, c1 hides from one employer, c2 never said anything."""
    told = [("c0", START, True, "all", None), ("c0", START + timedelta(days=7), False, "all", None)]
    told += [("c1", START, True, "applied", ["e"]), ("c2", START, None, None, None)]
    kinds = {"candidate_id": pl.String, "updated_at": TIMESTAMP, "consent": pl.Boolean, "visibility": pl.String}
    return pl.DataFrame(told, schema=kinds | {"hidden_from": pl.List(pl.String)}, orient="row")


def write_sources(folder: Path, events: pl.DataFrame) -> None:
    """Every view's file; views this test says nothing about are empty."""
    employers = pl.DataFrame(EMPLOYERS.columns.empty_table())
    seen = [
        dict.fromkeys(employers.columns)
        | {"employer_id": "e", "observed_at": START + timedelta(days=d), "name": "E", "rating": float(d)}
        for d in (1, 5)
    ]
    frames = {
        "candidate_consent": candidate_consent(make_consents()),
        "candidate_history": candidate_history(events, history_length=3),
        "job_activity": job_activity(events, start=START, end=AS_OF),
        "employer_rating": employer_rating(pl.DataFrame(seen, schema=employers.schema)),
    }
    folder.mkdir(parents=True)
    for view in VIEWS:
        kinds = {f"{view.entity}_id": pl.String(), "event_timestamp": TIMESTAMP}
        kinds |= dict.fromkeys(view.lists, pl.List(pl.String)) | dict.fromkeys(view.texts, pl.String())
        kinds |= dict.fromkeys(view.numbers, pl.Float64())
        frames.get(view.name, pl.DataFrame(schema=kinds)).write_parquet(folder / f"{view.name}.parquet")


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return make_events()


@pytest.fixture(scope="module", params=["sqlite", "redis"])
def settings(request: pytest.FixtureRequest) -> FeatureSettings:
    """Either all in files, or what a cluster has."""
    if request.param == "sqlite":
        return FeatureSettings()
    database: PostgresServer = request.getfixturevalue("postgresql")
    address: str = request.getfixturevalue("redis_server")
    redis.Redis.from_url(address).flushall()
    return FeatureSettings(online_store="redis", redis_url=address, registry_url=database.database())


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, events: pl.DataFrame, settings: FeatureSettings) -> FeatureStore:
    home = tmp_path_factory.mktemp("features")
    write_sources(home / "sources", events)
    store = FeatureStore(home / "feast", settings, sources=home / "sources")
    assert store.materialize(AS_OF)
    return store


def entities(*rows: tuple[str, str, str | None, datetime]) -> pl.DataFrame:
    schema = {"candidate_id": pl.String, "job_id": pl.String, "employer_id": pl.String, "event_timestamp": TIMESTAMP}
    return pl.DataFrame(rows, schema=schema, orient="row")


def test_historical_rows_are_the_newest_strictly_before_and_keep_their_order(
    store: FeatureStore, events: pl.DataFrame
) -> None:
    asked = events.sort("event_id").select(
        "candidate_id", "job_id", pl.lit("e").alias("employer_id"), pl.col("occurred_at").alias("event_timestamp")
    )
    rows = store.historical(asked, "ranker_full")
    assert rows.select(asked.columns).equals(asked)
    for row in rows.to_dicts():
        past = events.filter(
            pl.col("candidate_id") == row["candidate_id"],
            pl.col("occurred_at") < row["event_timestamp"],
            pl.col("kind") != "impression",
        )
        assert (row["engagement_count"] or 0) == past.height
        days = (row["event_timestamp"] - START).total_seconds() / 86_400
        assert row["employer_rating"] == (None if days < 1 else 1.0 if days < 5 else 5.0)


def test_rows_that_share_key_and_instant_and_rows_nothing_is_known_of_all_come_back(store: FeatureStore) -> None:
    rows = store.historical(
        entities(("c1", "j1", "e", AS_OF), ("c1", "j1", "e", AS_OF), ("new", "new", None, AS_OF)), "ranker_full"
    )
    assert rows.height == 3
    assert rows["employer_rating"].to_list() == [5.0, 5.0, None]
    assert rows["recent_job_ids"].to_list()[2] is None


def test_content_service_has_no_column_of_other_candidates_behaviour(store: FeatureStore) -> None:
    rows = store.historical(entities(("c1", "j1", "e", AS_OF)), "ranker_content")
    assert not [name for name in rows.columns if name.startswith("job_") and name != "job_id"]
    assert set(job_feature_columns("ranker_content")) == set(service_views("ranker_content")[-1].numbers)


def test_online_and_offline_give_one_context(store: FeatureStore) -> None:
    ids = ["c0", "c1", "c4", "nobody"]
    offline = store.historical(entities(*((c, "j1", "e", AS_OF) for c in ids)), "ranker_full").to_dicts()
    online = store.online_candidates(ids, at=AS_OF)
    names = set(online[0])
    for candidate, past, now in zip(ids, offline, online, strict=True):
        same = {name: value for name, value in past.items() if name in names}
        assert candidate_context(candidate, same, at=AS_OF) == candidate_context(candidate, now, at=AS_OF)
    assert not candidate_context("nobody", online[3], at=AS_OF).known
    assert set(candidate_context("c0", online[0], at=AS_OF).activity) <= set(candidate_feature_columns("ranker_full"))


def test_stale_values_are_missing_online_as_they_are_offline(store: FeatureStore) -> None:
    fresh = store.online_jobs(["j1", "j2"], ["e", None], at=AS_OF)
    assert not np.isnan(fresh["job_engagements_30d"]).any()
    assert np.isnan(fresh["employer_rating"]).tolist() == [False, True]
    late = AS_OF + timedelta(days=3)
    stale = store.online_jobs(["j1", "j2"], ["e", "e"], at=late)
    offline = store.historical(entities(("c1", "j1", "e", late)), "ranker_full")
    assert np.isnan(stale["job_engagements_30d"]).all()
    assert offline["job_engagements_30d"].to_list() == [None]
    assert stale["employer_rating"].tolist() == [5.0, 5.0]


def test_nothing_later_than_the_instant_is_read_online(store: FeatureStore) -> None:
    assert np.isnan(store.online_jobs(["j1"], ["e"], at=START)["employer_rating"]).all()


def test_the_newest_consent_is_read_online_and_by_no_ranker(store: FeatureStore) -> None:
    taken_back, hides, silent, nobody = store.online_consent(["c0", "c1", "c2", "nobody"], at=AS_OF)
    assert taken_back["consent"] == 0
    assert hides == {"consent": 1.0, "visibility": "applied", "hidden_from": ["e"]}
    assert silent["consent"] == 0
    assert nobody["consent"] is None
    assert not {"consent", "visibility", "hidden_from"} & set(store.online_candidates(["c0"], at=AS_OF)[0])


def test_a_backfill_does_not_put_the_past_online(store: FeatureStore) -> None:
    before = store.online_candidates(["c1"], at=AS_OF)
    assert not store.materialize(AS_OF - timedelta(days=4))
    assert store.online_candidates(["c1"], at=AS_OF) == before
    assert store.materialize(AS_OF)


def test_a_second_reader_sees_what_was_materialized(
    store: FeatureStore, settings: FeatureSettings, tmp_path: Path
) -> None:
    """With Redis from another machine too: one that has none of this one's files."""
    home = store._feast.home if settings.online_store == "sqlite" else tmp_path
    reader = FeatureStore(home, settings)
    assert reader.online_candidates(["c1"], at=AS_OF) == store.online_candidates(["c1"], at=AS_OF)


def test_any_thread_may_ask_whichever_opened_the_store(store: FeatureStore, settings: FeatureSettings) -> None:
    home = store._feast.home
    shared = FeatureStore(home, settings, sources=home.parent / "sources")
    with ThreadPoolExecutor(1) as opener:
        opener.submit(shared.online_consent, ["c0"], at=AS_OF).result()
    with ThreadPoolExecutor(1) as reader:
        assert reader.submit(shared.online_candidates, ["c0"], at=AS_OF).result()[0]["engagement_count"] is not None
        asked = entities(("c0", "j1", "e", AS_OF))
        assert reader.submit(shared.historical, asked, "ranker_full").result().height == 1


def test_before_the_first_run_everything_is_missing(tmp_path: Path) -> None:
    reader = FeatureStore(tmp_path / "feast", FeatureSettings())
    assert set(reader.online_candidates(["c1"], at=AS_OF)[0].values()) == {None}
    assert reader.online_candidates([], at=AS_OF) == []
    assert np.isnan(reader.online_jobs(["j1"], [None], at=AS_OF)["job_applies_total"]).all()


def test_unaligned_employers_are_refused(store: FeatureStore) -> None:
    with pytest.raises(InputError, match="2 jobs, 1 employers"):
        store.online_jobs(["j1", "j2"], ["e"], at=AS_OF)


def test_a_redis_url_keeps_every_part_of_it_in_feasts_notation() -> None:
    assert redis_address("redis://cache") == "cache:6379,db=0"
    assert redis_address("rediss://me:p%40ss@cache:7000/2") == "cache:7000,db=2,username=me,password=p@ss,ssl=true"
    for wrong in ("cache:6379", "http://cache", "redis://:a%2Cb@cache"):
        with pytest.raises(SettingsError):
            redis_address(wrong)
