"""Marketplaces whose every day is counted, and what may go wrong with their tables on the newest one."""

from __future__ import annotations

import shutil
import tempfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from rolecall.features.catalogue import Catalogue, Floats
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import Lexicon
from rolecall.features.pairs import PairFeatures
from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.features.text import job_text, tokens
from rolecall.pipelines.drift.measure import KEPT_DAYS, DriftReport, measure
from rolecall.pipelines.drift.populations import (
    Population,
    activity_population,
    count_days,
    job_populations,
    request_population,
    view_populations,
)
from rolecall.pipelines.drift.statistics import FeatureStatistics
from rolecall.pipelines.market import MarketConfig, generate
from rolecall.pipelines.materialize import feature_sources, feature_store, write_sources
from rolecall.pipelines.training_set import build_training_set
from rolecall.platform.settings import Settings

Tables = Mapping[str, pl.DataFrame]
SERVICE = "ranker_full"
WIDTH = 64
WARM_UP = 8
"""First days of a log, on which everything is new."""


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How large the marketplaces are. `runs`: days that are judged in each, `apart` days from one another;
    `requests`: how many of the log are ranked, 0 for none."""

    jobs: int = 3000
    candidates: int = 600
    visits: float = 10
    runs: int = 5
    apart: int = 6
    requests: int = 1000

    @property
    def days(self) -> int:
        return WARM_UP + KEPT_DAYS + (self.runs - 1) * self.apart

    def market(self, seed: int) -> MarketConfig:
        return MarketConfig(
            jobs=self.jobs,
            candidates=self.candidates,
            employers=max(20, self.jobs // 20),
            occupations=60,
            days=self.days,
            requests_per_candidate=self.visits * self.days / 30,
            max_words=12,
            seed=seed,
            end=date(2026, 9, 1) + timedelta(days=seed % 7),
        )


class CountedWorld:
    """One marketplace with the statistics of its last days."""

    def __init__(self, shape: Shape, seed: int) -> None:
        self.shape, self.market = shape, shape.market(seed)
        self.tables: Tables = {
            name: pl.DataFrame(pl.from_arrow(rows)) for name, rows in generate(self.market).tables().items()
        }

    @property
    def newest(self) -> date:
        return self.market.end - timedelta(days=1)

    @cached_property
    def statistics(self) -> FeatureStatistics:
        """Every source on every day that a run looks at."""
        span = KEPT_DAYS + (self.shape.runs - 1) * self.shape.apart
        return count_days(self._populations(self.tables, span), _days(self.newest, span), FeatureStatistics())

    def run(self, number: int) -> DriftReport:
        """What the run of a day says; number 0 is the newest."""
        return self.judge(self.statistics, self.newest - timedelta(days=number * self.shape.apart))

    def planted(self, plant: Plant) -> DriftReport:
        """What the newest run says after something went wrong with the tables that morning. The requests of the day
        are left as they were: detection rests on views, jobs and events."""
        before = self.statistics.since(date.min, self.newest - timedelta(days=1))
        if (asked := self.statistics.days.get((self.newest, "requests"))) is not None:
            before.add(asked)
        spoilt = plant(self.tables, self.market.ends_at - timedelta(days=1))
        populations = self._populations(spoilt, 2, requests=False)
        digests = {key: one.digest for key, one in before.definitions.items() if key[0] == "requests"}
        kept = before.knowing(digests)
        counted = count_days(populations, _days(self.newest, KEPT_DAYS), before)
        counted.definitions.update(kept.definitions)
        counted.days.update(kept.days)
        return self.judge(counted, self.newest)

    def judge(self, statistics: FeatureStatistics, day: date) -> DriftReport:
        return measure(statistics.since(day - timedelta(days=KEPT_DAYS - 1), day), day)

    def _populations(self, tables: Tables, span: int, *, requests: bool = True) -> list[Population]:
        folder = Path(tempfile.mkdtemp(prefix="rcd"))
        settings = Settings.model_validate(
            {
                "home": folder / "home",
                "ranking": {
                    "train_days": span,
                    "evaluation_days": 1,
                    "max_training_requests": max(10, self.shape.requests),
                },
            }
        )
        try:
            sources = feature_sources(
                tables["events"],
                tables["candidates"],
                tables["employers"],
                settings=settings,
                as_of=self.market.ends_at,
            )
            write_sources(sources, folder / "views")
            found = [
                *view_populations(folder / "views"),
                *job_populations(tables["jobs"].lazy()),
                activity_population(tables["events"]),
            ]
            if requests and self.shape.requests:
                found.append(self._requests(settings, folder / "views", span))
            return found
        finally:
            shutil.rmtree(folder)

    def _requests(self, settings: Settings, views: Path, span: int) -> Population:
        catalogue = Catalogue.from_table(self.tables["jobs"].sort("job_id").to_arrow())
        examples = build_training_set(
            self.tables["events"],
            start=self.market.ends_at - timedelta(days=span),
            end=self.market.ends_at,
            store=feature_store(settings, views),
            service=SERVICE,
            pairs=PairFeatures(catalogue, Lexicon.fit(catalogue), _vectors(catalogue)),
            embed=hashed_words,
            settings=settings.ranking,
        )
        return request_population([examples])


Plant = Callable[[Tables, datetime], dict[str, pl.DataFrame]]


def another_unit(tables: Tables, _morning: datetime) -> dict[str, pl.DataFrame]:
    """Salaries a month instead of a year."""
    monthly = [pl.col(name) / 12 for name in ("salary_min", "salary_max")]
    return {**tables, "jobs": tables["jobs"].with_columns(monthly)}


def another_unit_for_new_jobs(tables: Tables, morning: datetime) -> dict[str, pl.DataFrame]:
    """The same in the postings of the day alone."""
    new = pl.col("posted_at") >= morning
    monthly = [
        pl.when(new).then(pl.col(name) / 12).otherwise(pl.col(name)).alias(name)
        for name in ("salary_min", "salary_max")
    ]
    return {**tables, "jobs": tables["jobs"].with_columns(monthly)}


def dropped_column(tables: Tables, _morning: datetime) -> dict[str, pl.DataFrame]:
    """No candidate has skills any more."""
    gone = pl.lit(None, dtype=pl.List(pl.String)).alias("skills")
    return {**tables, "candidates": tables["candidates"].with_columns(gone)}


def country_gone(tables: Tables, _morning: datetime) -> dict[str, pl.DataFrame]:
    """The candidates of the second largest country are lost, with all they did."""
    country = str(tables["candidates"]["country"].drop_nulls().value_counts(sort=True)["country"][1])
    left = tables["candidates"].filter(pl.col("country").ne_missing(country))
    events = tables["events"].join(left.select("candidate_id"), on="candidate_id", how="semi", maintain_order="left")
    return {**tables, "candidates": left, "events": events}


def half_of_the_people(tables: Tables, morning: datetime) -> dict[str, pl.DataFrame]:
    """Of the day, what every other candidate did is lost."""
    lost = (pl.col("candidate_id").hash(1) % 2 == 0) & (pl.col("occurred_at") >= morning)
    return {**tables, "events": tables["events"].filter(~lost)}


def doubled_rate(tables: Tables, morning: datetime) -> dict[str, pl.DataFrame]:
    """Each engagement of the day is logged twice: engagements an impression double."""
    return _twice(tables, morning, ENGAGEMENT_EVENTS)


def doubled_applies(tables: Tables, morning: datetime) -> dict[str, pl.DataFrame]:
    """Each application of the day is logged twice."""
    return _twice(tables, morning, ("apply",))


def _twice(tables: Tables, morning: datetime, kinds: Sequence[str]) -> dict[str, pl.DataFrame]:
    again: Any = tables["events"].filter(
        pl.col("kind").is_in(kinds), pl.col("occurred_at") >= morning, pl.col("actor") == "candidate"
    )
    copies = again.with_columns(pl.col("event_id") + "-again", pl.col("occurred_at") + timedelta(microseconds=1))
    return {**tables, "events": pl.concat([tables["events"], copies]).sort("occurred_at", "event_id")}


def hashed_words(texts: Sequence[str]) -> Floats:
    """A stand-in for the sentence embedder: the mean direction of one fixed random vector a word."""
    sums = np.stack([sum((_word(word) for word in tokens(text)), np.zeros(WIDTH, np.float32)) for text in texts])
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-9), np.float32)


@cache
def _word(word: str) -> Floats:
    return np.random.default_rng(zlib.crc32(word.encode())).standard_normal(WIDTH, np.float32)


def _vectors(catalogue: Catalogue) -> JobVectors:
    vectors = hashed_words([job_text(job) for job in catalogue.table.to_pylist()])
    scales = np.maximum(np.abs(vectors).max(axis=1), 1e-9) / 127
    return JobVectors(np.rint(vectors / scales[:, None]).astype(np.int8), scales.astype(np.float32))


def _days(newest: date, count: int) -> list[date]:
    return [newest - timedelta(days=back) for back in range(count - 1, -1, -1)]
