"""The arms to compare with: TF-IDF, popularity, chance, and the truth as an upper bound.

They see the same tables and the same event log as a release would, every night anew, and keep the same rules: only
live jobs that the candidate has not engaged with, applied to or dismissed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import polars as pl

from rolecall.features.activity import candidate_history, candidate_profile, job_activity
from rolecall.features.catalogue import Catalogue
from rolecall.features.context import CandidateContext
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import TextField
from rolecall.features.schema import CANDIDATES, EVENTS, TABLES
from rolecall.pipelines.knowledge import catalogue_as_of, read_as_of
from rolecall.pipelines.lab.home import Home
from rolecall.pipelines.lab.policies import Policy, RandomPolicy, Scores, ScoringPolicy, Visit
from rolecall.serving.policy import Policy as Rules
from rolecall.serving.reader import CandidateReader

Wanted = Callable[[Catalogue], Callable[[Visit], Scores]]
"""The truth: of a catalogue, how likely the candidate of a visit applies to each of its jobs."""


class NightFeatures:
    """What the candidate views say as of a midnight, without Feast: the rows it would give, of all candidates."""

    def __init__(self, candidates: pl.DataFrame, events: pl.DataFrame, *, history_length: int) -> None:
        frames = (candidate_profile(candidates), candidate_history(events, history_length=history_length))
        self._rows: dict[str, dict[str, object]] = {}
        for frame in frames:
            newest = frame.sort("event_timestamp").group_by("candidate_id", maintain_order=True).last()
            for row in newest.drop("event_timestamp").iter_rows(named=True):
                self._rows.setdefault(row["candidate_id"], {}).update(row)

    def online_candidates(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Mapping[str, object]]:
        """Rows in the order asked; `at` is later than the midnight they were made for."""
        return [
            {name: value for name, value in self._rows.get(who, {}).items() if name != "candidate_id"}
            for who in candidate_ids
        ]


@dataclass(frozen=True, kw_only=True)
class Night:
    """What a yardstick knows at a midnight. `columns`: daily activity of every job, by catalogue row."""

    catalogue: Catalogue
    rules: Rules
    reader: CandidateReader
    columns: Mapping[str, Scores]

    @classmethod
    def of(cls, home: Home, midnight: datetime) -> Night:
        """Move the day's events into the table and read everything known at `midnight`."""
        home.drain()
        settings, tables = home.settings, home.tables
        versions = {name: tables.version(name) for name in TABLES}
        window = timedelta(days=settings.ranking.train_days)
        catalogue = Catalogue.from_table(catalogue_as_of(tables, versions, midnight, window=window))
        events = read_as_of(tables, EVENTS, versions, midnight)
        candidates = read_as_of(tables, CANDIDATES, versions, midnight)
        length = settings.features.history_length
        features = NightFeatures(candidates, events, history_length=length)
        none = JobVectors(np.zeros((len(catalogue), 1), np.int8), np.ones(len(catalogue), np.float32))
        return cls(
            catalogue=catalogue,
            rules=Rules(settings.policy, catalogue, none),
            reader=CandidateReader(features, home.log, history_length=length),
            columns=_activity(catalogue, events, midnight),
        )

    def scoring(self, score: Callable[[Visit, CandidateContext], Scores], slots: int) -> ScoringPolicy:
        """The policy that shows the highest scores."""
        return ScoringPolicy(score, self.catalogue, self.rules, self.reader, slots=slots)


@dataclass(frozen=True, kw_only=True)
class Tfidf:
    """TF-IDF (1- and 2-grams, refitted every night) of the profile and of the mean of the history, added up.

    `columns`: what of a job is read.
    """

    slots: int
    columns: tuple[str, ...] = ("title", "skills", "description", "city", "region")

    @contextlib.contextmanager
    def open(self, home: Home, midnight: datetime) -> Iterator[Policy]:
        night = Night.of(home, midnight)
        field = TextField.fit([_job_words(job, self.columns) for job in night.catalogue.table.to_pylist()])
        rows = np.arange(len(night.catalogue), dtype=np.int32)

        def score(visit: Visit, context: CandidateContext) -> Scores:
            history = night.catalogue.rows_of(context.history)
            found = field.similarity(field.query(rows=history, texts=[_profile_words(context)]), rows)
            past = found[:, :-1].mean(axis=1) if len(history) else 0.0
            return np.asarray(found[:, -1] + past, np.float32)

        yield night.scoring(score, self.slots)


@dataclass(frozen=True, kw_only=True)
class Popularity:
    """The live jobs most applied to in the last seven days; of equal ones the most engaged with."""

    slots: int

    @contextlib.contextmanager
    def open(self, home: Home, midnight: datetime) -> Iterator[Policy]:
        night = Night.of(home, midnight)
        applied, engaged = night.columns["job_applies_7d"], night.columns["job_engagements_7d"]
        scores = np.asarray(applied + engaged / (1.0 + engaged.max(initial=0.0)), np.float32)
        yield night.scoring(lambda visit, context: scores, self.slots)


@dataclass(frozen=True, kw_only=True)
class Chance:
    """Live jobs at random."""

    slots: int

    @contextlib.contextmanager
    def open(self, home: Home, midnight: datetime) -> Iterator[Policy]:
        night = Night.of(home, midnight)
        yield RandomPolicy(night.catalogue, night.rules, night.reader, slots=self.slots)


@dataclass(frozen=True, kw_only=True)
class Oracle:
    """The jobs that the truth says are wanted most: what no recommender can know, as an upper bound."""

    wanted: Wanted
    slots: int

    @contextlib.contextmanager
    def open(self, home: Home, midnight: datetime) -> Iterator[Policy]:
        night = Night.of(home, midnight)
        score = self.wanted(night.catalogue)
        yield night.scoring(lambda visit, context: score(visit), self.slots)


def _activity(catalogue: Catalogue, events: pl.DataFrame, midnight: datetime) -> dict[str, Scores]:
    jobs = pl.DataFrame({"job_id": list(catalogue.job_ids)})
    snapshot = job_activity(events, start=midnight, end=midnight).drop("event_timestamp")
    joined = jobs.join(snapshot, on="job_id", how="left", maintain_order="left")
    return {name: joined[name].fill_null(0.0).to_numpy() for name in joined.columns if name != "job_id"}


def _job_words(job: Mapping[str, object], columns: Sequence[str]) -> str:
    values = (job[name] for name in columns)
    return " ".join(" ".join(map(str, value)) if isinstance(value, list) else str(value) for value in values if value)


def _profile_words(context: CandidateContext) -> str:
    place = (context.city, context.region)
    return " ".join(filter(None, (*context.desired_titles, *context.skills, context.resume_text, *place)))
