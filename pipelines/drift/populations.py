"""Whose features are counted each day.

| source | rows of a day | one unit |
|---|---|---|
| `view.<name>` | the newest row of each key as known at the midnight that ends the day | its entity |
| `jobs` | the jobs live at that midnight | a job |
| `postings` | the jobs posted that day | a job |
| `activity` | what each candidate who came that day did | a candidate |
| `requests` | what the fine ranker reads of that day's requests | a request |
| `people` | what the people ranker reads of that day's requests | a request |

The first two are states: most of it was there the day before. The others are arrivals, new every day.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from rolecall.features.feature import Feature
from rolecall.features.pages import people_features, ranked_features
from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.features.views import VIEWS, ViewShape
from rolecall.pipelines.drift.sketch import Sketch
from rolecall.pipelines.drift.statistics import Day, Definition, FeatureStatistics, Key
from rolecall.pipelines.examples import TrainingSet

VIEW = "view."
JOBS, POSTINGS, ACTIVITY, REQUESTS, PEOPLE = "jobs", "postings", "activity", "requests", "people"
_LEARNED_FROM = 200_000
"""Rows that bins are fitted to, at most."""

JOB_CONTENT = (
    Feature(name="pay", meaning="middle of the salary range as posted", unit="the posting's currency a year"),
    Feature(name="skills", kind="list", meaning="skills the job asks for"),
    Feature(name="seniority", kind="text", meaning="the job's seniority, one of SENIORITIES"),
    Feature(name="country", kind="text", meaning="the country of the job"),
    Feature(name="region", kind="text", meaning="the region of the job"),
    Feature(name="currency", kind="text", meaning="the currency of the salary"),
    Feature(name="employment_type", kind="text", meaning="kind of employment"),
    Feature(name="category", kind="text", meaning="the job's top category"),
    Feature(name="title_length", meaning="characters of the title", unit="characters"),
    Feature(name="description_length", meaning="characters of the description", unit="characters"),
    Feature(name="remote", meaning="1 for a remote job", unit="yes or no"),
    Feature(name="life", meaning="time from posting to expiry", unit="days"),
    Feature(name="lat", meaning="latitude of the job's place", unit="degrees"),
    Feature(name="lon", meaning="longitude of the job's place", unit="degrees"),
)
"""What pair columns compute of a job, as posted: new postings are seen here before anybody is shown them."""

_KINDS = ("impression", *ENGAGEMENT_EVENTS, "dismiss")
CANDIDATE_DAY = (
    *(Feature(name=kind, meaning=f"{kind} events of the candidate", unit="events", window="1 day") for kind in _KINDS),
    Feature(name="engagement_rate", meaning="views, clicks, saves and applies an impression", window="1 day"),
)
"""What a candidate did on a day; activity windows add these up."""


@dataclass(frozen=True, kw_only=True)
class Population:
    """A source: its columns, and its rows of a day with the number of units behind them.

    `state`: a day's rows are mostly the day before's.
    """

    source: str
    features: tuple[Feature, ...]
    state: bool
    rows: Callable[[date], tuple[pl.DataFrame, int]]

    def digests(self) -> dict[Key, str]:
        return {(self.source, one.name): _digest(one) for one in self.features}


def count_days(populations: Sequence[Population], days: Sequence[date], known: FeatureStatistics) -> FeatureStatistics:
    """Statistics of every source on these days; what `known` has of them, under the same definitions, is taken over."""
    digests = {key: digest for one in populations for key, digest in one.digests().items()}
    found = known.knowing(digests)
    for population in populations:
        if _fits_at_last(population, days, found):
            found.drop(population.source)
        missing = [day for day in days if not found.has(day, population.source)]
        if missing:
            _learn(population, missing, found)
            for day in missing:
                found.add(_counted(population, day, found))
    return found


def view_populations(folder: Path) -> list[Population]:
    """The materialised views: `<view>.parquet` in a folder."""
    return [_view(shape, folder / f"{shape.name}.parquet") for shape in VIEWS]


def job_populations(jobs: pl.LazyFrame) -> list[Population]:
    """Jobs live at each midnight, and by the day they were posted; one without a day is not counted."""
    content = (
        jobs.filter(pl.col("posted_at").is_not_null())
        .select(
            "posted_at",
            "expires_at",
            pl.mean_horizontal("salary_min", "salary_max").alias("pay"),
            *[pl.col(name) for name in ("skills", "seniority", "country", "region", "currency", "employment_type")],
            pl.col("category_path").list.first().alias("category"),
            pl.col("title").str.len_chars().alias("title_length"),
            pl.col("description").str.len_chars().alias("description_length"),
            pl.col("remote"),
            ((pl.col("expires_at") - pl.col("posted_at")).dt.total_seconds() / 86_400).alias("life"),
            pl.col("lat"),
            pl.col("lon"),
        )
        .collect()
    )

    def live(day: date) -> tuple[pl.DataFrame, int]:
        until = _midnight_after(day)
        rows = content.filter(pl.col("posted_at") < until, (pl.col("expires_at") > until).fill_null(True))
        return rows, rows.height

    posted = content.with_columns(pl.col("posted_at").dt.date().alias("day")).drop("posted_at", "expires_at")
    return [
        Population(source=JOBS, features=JOB_CONTENT, state=True, rows=live),
        _arrivals(POSTINGS, JOB_CONTENT, posted),
    ]


def activity_population(events: pl.DataFrame) -> Population:
    """Candidates' own events by candidate and day."""
    counts = [(pl.col("kind") == kind).sum().alias(kind) for kind in _KINDS]
    shown = pl.max_horizontal("impression", "engaged")
    told = (
        events.filter(pl.col("actor") == "candidate")
        .group_by("candidate_id", pl.col("occurred_at").dt.date().alias("day"))
        .agg(*counts, pl.col("kind").is_in(ENGAGEMENT_EVENTS).sum().alias("engaged"))
        .with_columns(pl.when(shown > 0).then(pl.col("engaged") / shown).alias("engagement_rate"))
    )
    return _arrivals(ACTIVITY, CANDIDATE_DAY, told.drop("candidate_id", "engaged"))


def request_population(sets: Sequence[TrainingSet]) -> Population:
    """Feature rows by the day of their request; a request is one unit, however many rows it has."""
    return _requested(REQUESTS, sets, ranked_features(sets[0].columns))


def people_population(examples: TrainingSet) -> Population:
    """The same of people for jobs; only the days that are learned from."""
    return _requested(PEOPLE, [examples], people_features(examples.columns))


def _requested(source: str, sets: Sequence[TrainingSet], features: tuple[Feature, ...]) -> Population:
    rows = pl.concat([_request_rows(examples, number) for number, examples in enumerate(sets)])
    return _arrivals(source, features, rows.drop("request"), units=rows.group_by("day").agg(pl.n_unique("request")))


def _view(shape: ViewShape, file: Path) -> Population:
    key, features = f"{shape.entity}_id", tuple(one for one in shape.features if not _packed(one))
    wanted = [key, "event_timestamp", *(one.name for one in features)]  # packed states are most of a file
    everything = pl.read_parquet(file, columns=wanted).sort("event_timestamp", maintain_order=True)

    def rows(day: date) -> tuple[pl.DataFrame, int]:
        until = _midnight_after(day)
        known = everything.filter(pl.col("event_timestamp") <= until)
        if shape.ttl:
            known = known.filter(pl.col("event_timestamp") >= until - shape.ttl)
        newest = known.unique(key, keep="last", maintain_order=True)
        return newest, newest.height

    return Population(source=VIEW + shape.name, features=features, state=True, rows=rows)


def _packed(feature: Feature) -> bool:
    """Whether a column is no value of its own: a packed state, or an instant, which is another number every day."""
    return "since 1970" in feature.unit or (feature.internal and feature.kind == "text")


def _arrivals(
    source: str, features: tuple[Feature, ...], frame: pl.DataFrame, units: pl.DataFrame | None = None
) -> Population:
    by_day = {key[0]: rows for key, rows in frame.partition_by("day", as_dict=True, include_key=False).items()}
    counted = dict(units.iter_rows()) if units is not None else {day: rows.height for day, rows in by_day.items()}
    empty = frame.clear().drop("day")

    def rows(day: date) -> tuple[pl.DataFrame, int]:
        return by_day.get(day, empty), counted.get(day, 0)

    return Population(source=source, features=features, state=False, rows=rows)


def _request_rows(examples: TrainingSet, number: int) -> pl.DataFrame:
    requests = np.arange(examples.requests, dtype=np.int64) + (number << 32)
    asked = pl.DataFrame(
        {
            "request": np.repeat(requests, examples.groups),
            "day": pl.Series(np.repeat(examples.times, examples.groups)).cast(pl.Datetime("us")).dt.date(),
        }
    )
    return asked.hstack(pl.from_numpy(examples.features, schema=list(examples.columns)))


def _learn(population: Population, days: Sequence[date], found: FeatureStatistics) -> None:
    """Bins for columns that have none: of a state from its newest day, of arrivals from all of them."""
    new = [one for one in population.features if (population.source, one.name) not in found.definitions]
    if not new:
        return
    wanted = [one.name for one in new]
    asked = list(days)[-1:] if population.state else days
    rows = pl.concat([population.rows(day)[0].select(wanted) for day in asked])
    if rows.height > _LEARNED_FROM:
        rows = rows.gather_every(rows.height // _LEARNED_FROM + 1)
    for one in new:
        found.definitions[population.source, one.name] = Definition(sketch=_sketch(one, rows), digest=_digest(one))


def _fits_at_last(population: Population, days: Sequence[date], found: FeatureStatistics) -> bool:
    """Whether a column that had too few values for bins when it was first seen has enough now: then the source is
    counted anew, else nothing it does would ever be seen."""
    definitions = ((one, found.definitions.get((population.source, one.name))) for one in population.features)
    blank = [one for one, definition in definitions if definition is not None and definition.sketch.blank]
    if not blank or not days:
        return False
    rows = population.rows(days[-1])[0]
    return any(not _sketch(one, rows).blank for one in blank)


def _sketch(feature: Feature, rows: pl.DataFrame) -> Sketch:
    return Sketch.learn(rows[feature.name], feature.kind, named=not feature.name.endswith("_ids"))


def _counted(population: Population, day: date, found: FeatureStatistics) -> Day:
    rows, units = population.rows(day)
    columns = {
        one.name: found.definitions[population.source, one.name].sketch.statistics(rows[one.name])
        for one in population.features
    }
    return Day(day=day, source=population.source, units=units, columns=columns)


def _digest(feature: Feature) -> str:
    return hashlib.sha256(repr(sorted(asdict(feature).items())).encode()).hexdigest()[:16]


def _midnight_after(day: date) -> datetime:
    return datetime.combine(day + timedelta(days=1), time(), UTC)
