"""Evaluation of a release's own funnel on what happened after everything it learned from.

Every target is answered by the stage objects that serve, from recall to the fine ranker, out of the whole
catalogue; masked are the candidate's history and what is not live at the instant, whatever recall gives. Job features
are those of the midnight before, as serving has them. Nothing depends on the order of a table: ranks count ties half,
lists break them by id.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Catalogue
from rolecall.features.context import CandidateContext
from rolecall.features.store import FeatureStore
from rolecall.pipelines.evaluation.baselines import BASELINES, NOISE, Columns, Question, fair_baselines
from rolecall.pipelines.evaluation.exposure import Popularity, Shown, catalogue_metrics
from rolecall.pipelines.evaluation.impressions import ImpressionQuality, ImpressionRequest, judge_impressions
from rolecall.pipelines.evaluation.metrics import APPLIED, METRICS, Array, best_rows, ranks_of
from rolecall.pipelines.evaluation.people_targets import PeopleTarget
from rolecall.pipelines.evaluation.slices import candidate_slices, job_slices, reported
from rolecall.pipelines.evaluation.statistics import Interval, bootstrap
from rolecall.pipelines.evaluation.targets import Target, instants
from rolecall.pipelines.knowledge import midnight_before
from rolecall.pipelines.training_set import job_columns_at, read_contexts
from rolecall.serving.funnel import Funnel, SnapshotJobFeatures

FUNNEL = "funnel"
MAIN_METRIC = "ndcg@10"
LISTED = 20
"""Jobs of each target's list that are kept."""

Values = npt.NDArray[np.float64]
"""One number a target; NaN where it does not apply."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Per-target values of every system, and what follows from them. Equal releases give equal `to_dict`.

    `systems`: system to metric to values; `stages`: recall of each stage; `slices`: "kind=value" to values of the
    main metric (`slices.py` says which); `milliseconds`: what the funnel took for each target (not in `to_dict`: it
    differs every time).
    `reachable`: share of a target's relevant jobs that the release holds and that were live at the instant: more than
    that no system can find. `lists`: by system the first LISTED ids of each target, best first, ties by id;
    `catalogue`: by system what the lists do to the catalogue (`exposure.py`); `impressions`: None where none were
    logged, or the judge was given none.
    """

    targets: tuple[Target, ...] | tuple[PeopleTarget, ...]
    systems: Mapping[str, Mapping[str, Values]]
    stages: Mapping[str, Values]
    slices: Mapping[str, Values]
    milliseconds: Values
    reachable: Values = field(default_factory=lambda: np.zeros(0))
    lists: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    catalogue: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    impressions: ImpressionQuality | None = None
    rounds: int = 1000
    seed: int = 7

    def interval(self, values: Values) -> Interval:
        return bootstrap(values, rounds=self.rounds, seed=self.seed)

    def difference(self, baseline: str, metric: str = MAIN_METRIC) -> Interval:
        """Funnel minus baseline on the same targets."""
        return self.interval(self.systems[FUNNEL][metric] - self.systems[baseline][metric])

    def latency(self, percentile: float) -> float:
        """Milliseconds from context to ranked jobs, in process."""
        return float(np.percentile(self.milliseconds, percentile)) if len(self.milliseconds) else float("nan")

    def metrics(self) -> dict[str, float]:
        """Means for the manifest and MLflow: of the funnel, its stages, its lists and its probabilities."""
        means = {name: _mean(values) for name, values in self.systems[FUNNEL].items()}
        means |= {f"stage_{name}": _mean(values) for name, values in self.stages.items()}
        means |= {f"{name}_{MAIN_METRIC}": _mean(t[MAIN_METRIC]) for name, t in self.systems.items() if name != FUNNEL}
        means |= {"reachable": _mean(self.reachable)} | dict(self.catalogue.get(FUNNEL, {}))
        if self.impressions is not None:
            means |= self.impressions.metrics()
        return {name: value for name, value in means.items() if np.isfinite(value)} | {"targets": len(self.targets)}

    def to_dict(self) -> dict[str, object]:
        """The report as JSON values."""
        return {
            "targets": len(self.targets),
            "systems": {
                system: {metric: _json(self.interval(values)) for metric, values in table.items()}
                for system, table in self.systems.items()
            },
            "differences": {name: _json(self.difference(name)) for name in self.systems if name != FUNNEL},
            "stages": {name: _json(self.interval(values)) for name, values in self.stages.items()},
            "slices": {name: _json(self.interval(values)) for name, values in self.slices.items()},
            "reachable": _json(self.interval(self.reachable)),
            "catalogue": {system: _finite(table) for system, table in self.catalogue.items()},
            "impressions": None if self.impressions is None else self.impressions.to_dict(),
        }


@dataclass(frozen=True, kw_only=True)
class _Day:
    """What is known of all jobs at a midnight: feature-view columns, and how popular each is."""

    columns: Columns
    popularity: Popularity


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What one target got: by system the ranks of its relevant jobs and its list; stage by stage; its slices."""

    ranks: Mapping[str, Array]
    shown: Mapping[str, Shown]
    stages: Mapping[str, float]
    reachable: float
    slices: tuple[str, ...]
    item_slices: Mapping[str, npt.NDArray[np.bool_]]
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Puts one set of targets to any number of releases: what a challenger and a champion are compared on.

    `impressions`: what was shown, and what came of it, as `impression_contexts` were known then.
    """

    targets: tuple[Target, ...]
    contexts: tuple[CandidateContext, ...]
    store: FeatureStore
    impressions: tuple[ImpressionRequest, ...] = ()
    impression_contexts: tuple[CandidateContext, ...] = ()
    rounds: int = 1000
    seed: int = 7
    clock: Callable[[], float] = field(default=time.perf_counter)

    @classmethod
    def prepare(
        cls,
        targets: Sequence[Target],
        store: FeatureStore,
        *,
        impressions: Sequence[ImpressionRequest] = (),
        rounds: int = 1000,
        seed: int = 7,
    ) -> Judge:
        """Reads every candidate as known strictly before the instant of the target, and of what they were shown."""
        contexts = read_contexts(store, instants(targets), "ranker_full")
        shown = read_contexts(store, [(one.candidate_id, one.at) for one in impressions], "ranker_full")
        return cls(
            targets=tuple(targets),
            contexts=tuple(contexts),
            store=store,
            impressions=tuple(impressions),
            impression_contexts=tuple(shown),
            rounds=rounds,
            seed=seed,
        )

    def evaluate(
        self,
        funnel: Funnel,
        *,
        baselines: Sequence[str] | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Evaluation:
        """The funnel's and the baselines' values on every target. Default: `fair_baselines` of the fine ranker."""
        baselines = fair_baselines(funnel.fine.columns) if baselines is None else baselines
        days = self._days(funnel.catalogue)
        answers: list[_Answer] = []
        for done, answer in enumerate(self._answers(funnel, baselines, days), start=1):
            answers.append(answer)
            progress(done, len(self.targets))
        gains = [np.array(target.labels, np.float64) for target in self.targets]
        systems = (FUNNEL, *baselines)
        shown = {system: [answer.shown[system] for answer in answers] for system in systems}
        ids = funnel.catalogue.job_ids
        return Evaluation(
            targets=self.targets,
            systems={system: rank_values([answer.ranks[system] for answer in answers], gains) for system in systems},
            stages=_by_stage(answers),
            slices=by_slice(answers, gains),
            milliseconds=np.array([answer.milliseconds for answer in answers], np.float64),
            reachable=np.array([answer.reachable for answer in answers], np.float64),
            lists={name: tuple(tuple(ids[row] for row in one.rows) for one in some) for name, some in shown.items()},
            catalogue={name: catalogue_metrics(some, funnel.pairs.vectors) for name, some in shown.items()},
            impressions=judge_impressions(self.asked_impressions(funnel, days)),
            rounds=self.rounds,
            seed=self.seed,
        )

    def _answers(self, funnel: Funnel, baselines: Sequence[str], days: Mapping[datetime, _Day]) -> Iterator[_Answer]:
        for target, context in zip(self.targets, self.contexts, strict=True):
            day = days[midnight_before(target.at)]
            yield self._answer(_with_job_features(funnel, day.columns), target, context, day, baselines)

    def asked_impressions(
        self, funnel: Funnel, days: Mapping[datetime, _Day] | None = None
    ) -> Iterator[tuple[Funnel, ImpressionRequest, CandidateContext]]:
        """Each request whose impressions are judged, its candidate, and the funnel as of that day."""
        days = self._days(funnel.catalogue) if days is None else days
        for request, context in zip(self.impressions, self.impression_contexts, strict=True):
            yield _with_job_features(funnel, days[midnight_before(request.at)].columns), request, context

    def _answer(
        self, funnel: Funnel, target: Target, context: CandidateContext, day: _Day, baselines: Sequence[str]
    ) -> _Answer:
        catalogue = funnel.catalogue
        prepared = funnel.prepare(context)
        begun = self.clock()
        retrieved = funnel.retrieve(prepared, at=target.at)
        kept = funnel.cut(prepared, retrieved.rows, at=target.at)
        ranked = funnel.rank(prepared, kept, at=target.at)
        took = (self.clock() - begun) * 1e3
        found = _rows(catalogue, target.job_ids)
        question = Question(pairs=funnel.pairs, prepared=prepared, at=target.at, job_columns=day.columns)
        at_us = target.at.timestamp() * 1e6
        live = catalogue.live(question.rows, at_us)
        allowed = live.copy()
        allowed[catalogue.rows_of(context.history)] = False
        scores = {FUNNEL: np.full(len(catalogue), -np.inf)} | {name: BASELINES[name](question) for name in baselines}
        scores[FUNNEL][ranked.rows] = ranked.scores
        scores = {name: np.where(allowed, values, -np.inf) for name, values in scores.items()}
        return _Answer(
            ranks={name: _ranks(values, found, NOISE.get(name, 0.0)) for name, values in scores.items()},
            shown={name: _shown(values, found, target, day, NOISE.get(name, 0.0)) for name, values in scores.items()},
            stages={
                f"recall@{funnel.recall_limit}": float(np.isin(found, retrieved.rows).mean()),
                f"coarse_recall@{funnel.coarse_limit}": float(np.isin(found, kept).mean()),
            },
            reachable=float(np.mean((found >= 0) & live[found])),
            slices=candidate_slices(context, len(prepared.history)),
            item_slices=job_slices(catalogue, found, day.columns, at_us=at_us),
            milliseconds=took,
        )

    def _days(self, catalogue: Catalogue) -> dict[datetime, _Day]:
        """Of each midnight that a target, or something shown, asks about."""
        rows = np.arange(len(catalogue), dtype=np.int32)
        asked = [target.at for target in self.targets] + [request.at for request in self.impressions]
        days = {}
        for day in sorted({midnight_before(at) for at in asked}):
            columns = job_columns_at(self.store, catalogue, rows, [day] * len(rows), "ranker_full")
            days[day] = _Day(columns=columns, popularity=_popularity(catalogue, columns, day))
        return days


def rank_values(ranks: Sequence[Array], gains: Sequence[Values]) -> dict[str, Values]:
    """Every metric of one system: one value a target, from the ranks and gains of what is relevant to it."""
    return {
        name: np.array([metric(r, g) for r, g in zip(ranks, gains, strict=True)], np.float64)
        for name, metric in METRICS.items()
    }


def _with_job_features(funnel: Funnel, columns: Columns) -> Funnel:
    """The same stages reading a past day's job features."""
    past = copy.copy(funnel)
    past.job_features = SnapshotJobFeatures(columns)
    return past


def _rows(catalogue: Catalogue, job_ids: Sequence[str]) -> npt.NDArray[np.int32]:
    """Rows of jobs, -1 for one that the catalogue does not hold."""
    rows = [catalogue.row_of(job_id) for job_id in job_ids]
    return np.array([-1 if row is None else row for row in rows], np.int32)


def _ranks(scores: Array, rows: npt.NDArray[np.int32], noise: float) -> Array:
    """Ranks of the relevant rows; a job the catalogue does not hold is missed."""
    ranks = np.full(len(rows), np.inf)
    ranks[rows >= 0] = ranks_of(scores, rows[rows >= 0], tolerance=noise)
    return ranks


def _shown(scores: Array, found: npt.NDArray[np.int32], target: Target, day: _Day, noise: float) -> Shown:
    """The list that such scores make."""
    rows = best_rows(scores, LISTED, tolerance=noise)
    applied = found[np.array(target.labels) >= APPLIED]
    return Shown(rows=rows, relevant=np.isin(rows, found), applied=np.isin(rows, applied), popularity=day.popularity)


def _popularity(catalogue: Catalogue, columns: Columns, day: datetime) -> Popularity:
    """Engagements in the 30 days before; live are jobs that were at some time of the day."""
    counts = columns.get("job_engagements_30d", np.full(len(catalogue), np.nan, np.float32))
    begun, ended = day.timestamp() * 1e6, (day + timedelta(days=1)).timestamp() * 1e6
    live = ~(catalogue.posted >= ended) & ~(catalogue.expires <= begun)
    return Popularity(counts=np.nan_to_num(counts.astype(np.float64), nan=0.0), live=live)


def _by_stage(answers: Sequence[_Answer]) -> dict[str, Values]:
    names = answers[0].stages if answers else {}
    return {name: np.array([answer.stages[name] for answer in answers], np.float64) for name in names}


class Sliced(Protocol):
    """An answer with the slices it belongs to, and those that some of its relevant items do."""

    @property
    def ranks(self) -> Mapping[str, Array]: ...
    @property
    def slices(self) -> tuple[str, ...]: ...
    @property
    def item_slices(self) -> Mapping[str, npt.NDArray[np.bool_]]: ...


def by_slice(answers: Sequence[Sliced], gains: Sequence[Values]) -> dict[str, Values]:
    """Main-metric values of each reported slice."""
    names = reported([(*answer.slices, *answer.item_slices) for answer in answers])
    return {
        name: np.array([_slice_value(a, g, name) for a, g in zip(answers, gains, strict=True)], np.float64)
        for name in names
    }


def _slice_value(answer: Sliced, gains: Values, name: str) -> float:
    ranks = answer.ranks[FUNNEL]
    if name in answer.slices:
        return METRICS[MAIN_METRIC](ranks, gains)
    mask = answer.item_slices.get(name)
    return float("nan") if mask is None else METRICS[MAIN_METRIC](ranks[mask], gains[mask])


def _json(interval: Interval) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in interval.to_dict().items()}


def _mean(values: Values) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _finite(table: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in table.items()}
