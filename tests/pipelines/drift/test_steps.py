"""The drift step over a small marketplace, two days one after the other: what the first counted, the second keeps."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from rolecall.features.schema import TABLES
from rolecall.pipelines.daily_steps import TRAINING_SET, VIEWS
from rolecall.pipelines.drift.measure import KEPT_DAYS, DriftReport
from rolecall.pipelines.drift.statistics import STATISTICS_FILE, STATISTICS_PART, FeatureStatistics
from rolecall.pipelines.drift.steps import DRIFT_FILE, DriftSteps, last_day, statistics_before
from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.knowledge import read_as_of
from rolecall.pipelines.market import MarketConfig, generate
from rolecall.pipelines.materialize import feature_sources, write_sources
from rolecall.pipelines.people_steps import PEOPLE_TRAINING_SET
from rolecall.pipelines.steps import StepContext, StepRecord, StepResult
from rolecall.platform.release import ReleaseBuilder
from rolecall.platform.release_store import ReleaseStore
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore

MARKET = MarketConfig(jobs=300, candidates=60, employers=20, occupations=10, days=44, max_words=6, end=date(2026, 9, 1))
COLUMNS = ("log_salary", "candidate.apply_count")


@dataclass
class Releases:
    """What the step asks of a registry, over a real release store."""

    releases: ReleaseStore
    known: list[str] = field(default_factory=list)
    tainted: set[str] = field(default_factory=set)

    def list(self) -> list[SimpleNamespace]:
        taint = SimpleNamespace(purged_at=None)
        return [SimpleNamespace(release_id=one, taint=taint if one in self.tainted else None) for one in self.known]

    def reconcile(self) -> str | None:
        return self.known[-1] if self.known else None


class SmallSteps(DriftSteps):
    """Without the newest requests, for which a whole release is needed."""

    def _newest_requests(self, step: StepContext, events: pl.DataFrame) -> TrainingSet:
        return requests([step.as_of - timedelta(hours=hour) for hour in range(1, 40)])


def requests(times: Sequence[datetime], columns: tuple[str, ...] = COLUMNS) -> TrainingSet:
    size = len(times)
    return TrainingSet(
        features=np.random.default_rng(size).normal(0, 1, (size, len(columns))).astype(np.float32),
        columns=columns,
        labels=np.zeros(size, np.int8),
        shown=np.ones(size, np.bool_),
        groups=np.ones(size, np.int32),
        times=np.array([int(at.timestamp() * 1e6) for at in times], np.int64),
        held_out=np.zeros(size, np.bool_),
    )


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    tables = TableStore(settings.tables_uri)
    for name, rows in generate(MARKET).tables().items():
        tables.upsert(TABLES[name], rows)
    return settings


def drift(settings: Settings, registry: Releases, as_of: datetime, folder: Path) -> StepResult:
    """The step as of an instant, in its own folder."""
    work: Any = SmallSteps(settings=settings, registry=registry, mlflow_run="")  # type: ignore[arg-type]
    versions = {name: work.tables.version(name) for name in TABLES}
    frames = (read_as_of(work.tables, TABLES[name], versions, as_of) for name in ("events", "candidates", "employers"))
    write_sources(feature_sources(*frames, settings=settings, as_of=as_of), folder / "features" / VIEWS)
    days = [as_of - timedelta(days=day, hours=-1) for day in range(3, 30) for _ in range(3)]
    for name, file, columns in (
        ("training-set", TRAINING_SET, COLUMNS),
        ("people-rankers", PEOPLE_TRAINING_SET, ("log_salary", "positions")),
    ):
        (folder / name).mkdir()
        requests(days, columns).save(folder / name / file)
    (folder / "drift").mkdir()
    names = ("ingest", "features", "training-set", "people-rankers")
    inputs = {
        name: StepRecord(
            name=name, folder=folder / name, values={"versions": versions}, metrics={}, files={}, seconds=0.0
        )
        for name in names
    }
    step = StepContext(
        name="drift", run="r", as_of=as_of, folder=folder / "drift", inputs=inputs, report=lambda _message: None
    )
    return work.drift(step)  # type: ignore[no-any-return]


def published(registry: Releases, folder: Path, as_of: datetime) -> None:
    builder = ReleaseBuilder(folder / "release")
    builder.add(STATISTICS_PART, STATISTICS_FILE, source=folder / "drift" / STATISTICS_FILE)
    manifest = builder.seal(as_of=as_of, code_version="1", tables={}, settings={})
    registry.releases.publish(builder.folder)
    registry.known.append(manifest.id)


def test_a_day_is_counted_once_and_kept_with_the_release_for_the_next(settings: Settings, tmp_path: Path) -> None:
    registry = Releases(ReleaseStore(str(tmp_path / "artifacts"), tmp_path / "cache"))
    yesterday, today = MARKET.ends_at - timedelta(days=1), MARKET.ends_at
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    first = drift(settings, registry, yesterday, tmp_path / "one")
    published(registry, tmp_path / "one", yesterday)
    tables = TableStore(settings.tables_uri)
    jobs = pl.DataFrame(pl.from_arrow(tables.read(TABLES["jobs"]))).with_columns(
        pl.col("salary_max", "salary_min") / 12
    )
    tables.upsert(TABLES["jobs"], jobs.to_arrow().cast(TABLES["jobs"].columns))
    second = drift(settings, registry, today, tmp_path / "two")

    before, after = (
        FeatureStatistics.from_bytes((tmp_path / name / "drift" / STATISTICS_FILE).read_bytes())
        for name in ("one", "two")
    )
    assert last_day(today) == MARKET.end - timedelta(days=1)
    assert len(after.of("jobs")) == KEPT_DAYS
    kept = {key: day for key, day in before.days.items() if key in after.days}
    assert len(kept) == len(before.days) * (KEPT_DAYS - 1) // KEPT_DAYS
    assert all(repr(after.days[key]) == repr(day) for key, day in kept.items())
    assert first.values["warnings"] == []
    assert first.metrics["drift.alarms"] == 0
    report = DriftReport.from_dict(json.loads((tmp_path / "two" / "drift" / DRIFT_FILE).read_text()))
    assert ("jobs", "pay") in {(one.source, one.column) for one in report.alarms}
    assert report.warnings() == second.values["warnings"]
    assert report.training

    assert statistics_before(registry, today) is not None  # type: ignore[arg-type]
    registry.tainted |= {*registry.known}  # somebody it counted asked to be forgotten
    assert statistics_before(registry, today) is None  # type: ignore[arg-type]
