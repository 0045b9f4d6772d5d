"""Evaluation of a release's own funnel on what happened after everything it learned from.

Every target is answered by the stage objects that serve, from recall to the fine ranker, out of the whole
catalogue; the candidate's history is masked. Job features are those of the midnight before, as serving has them.
"""

from __future__ import annotations

import copy
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Catalogue
from rolecall.features.context import CandidateContext
from rolecall.features.store import FeatureStore
from rolecall.pipelines.evaluation.baselines import BASELINES, Columns, Question, fair_baselines
from rolecall.pipelines.evaluation.metrics import METRICS, Array, Interval, bootstrap, ranks_of
from rolecall.pipelines.evaluation.people_targets import PeopleTarget
from rolecall.pipelines.evaluation.targets import Target, instants
from rolecall.pipelines.training_set import job_columns_at, read_contexts
from rolecall.serving.funnel import Funnel, SnapshotJobFeatures

FUNNEL = "funnel"
MAIN_METRIC = "ndcg@10"
_LARGEST = 5
"""Values of a slice that are reported: the most frequent ones."""

Values = npt.NDArray[np.float64]
"""One number a target; NaN where it does not apply."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Per-target values of every system, and what follows from them. Equal releases give equal `to_dict`.

    `systems`: system to metric to values; `stages`: recall of each stage; `slices`: "slice=value" to values of the
    main metric; `milliseconds`: what the funnel took for each target (not in `to_dict`: it differs every time).
    """

    targets: tuple[Target, ...] | tuple[PeopleTarget, ...]
    systems: Mapping[str, Mapping[str, Values]]
    stages: Mapping[str, Values]
    slices: Mapping[str, Values]
    milliseconds: Values
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
        """Means for the manifest and MLflow."""
        means = {f"{name}": self.interval(v).mean for name, v in self.systems[FUNNEL].items()}
        means |= {f"stage_{name}": self.interval(v).mean for name, v in self.stages.items()}
        for name in self.systems:
            if name != FUNNEL:
                means[f"{name}_{MAIN_METRIC}"] = self.interval(self.systems[name][MAIN_METRIC]).mean
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
        }


@dataclass(frozen=True, kw_only=True)
class _Answer:
    """What one target got: ranks of its relevant jobs by system, and stage by stage."""

    ranks: Mapping[str, Array]
    stages: Mapping[str, float]
    slices: tuple[str, ...]
    job_slices: Mapping[str, npt.NDArray[np.bool_]]
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class Judge:
    """Puts one set of targets to any number of releases: what a challenger and a champion are compared on."""

    targets: tuple[Target, ...]
    contexts: tuple[CandidateContext, ...]
    store: FeatureStore
    rounds: int = 1000
    seed: int = 7
    clock: Callable[[], float] = field(default=time.perf_counter)

    @classmethod
    def prepare(cls, targets: Sequence[Target], store: FeatureStore, *, rounds: int = 1000, seed: int = 7) -> Judge:
        """Reads every target's candidate as known strictly before its instant."""
        contexts = read_contexts(store, instants(targets), "ranker_full")
        return cls(targets=tuple(targets), contexts=tuple(contexts), store=store, rounds=rounds, seed=seed)

    def evaluate(
        self,
        funnel: Funnel,
        *,
        baselines: Sequence[str] | None = None,
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> Evaluation:
        """The funnel's and the baselines' values on every target. Default: `fair_baselines` of the fine ranker."""
        baselines = fair_baselines(funnel.fine.columns) if baselines is None else baselines
        answers: list[_Answer] = []
        for done, answer in enumerate(self._answers(funnel, baselines), start=1):
            answers.append(answer)
            progress(done, len(self.targets))
        gains = [np.array(target.labels, np.float64) for target in self.targets]
        systems = {
            system: rank_values([answer.ranks[system] for answer in answers], gains) for system in (FUNNEL, *baselines)
        }
        return Evaluation(
            targets=self.targets,
            systems=systems,
            stages=_by_stage(answers),
            slices=_by_slice(answers, gains),
            milliseconds=np.array([answer.milliseconds for answer in answers], np.float64),
            rounds=self.rounds,
            seed=self.seed,
        )

    def _answers(self, funnel: Funnel, baselines: Sequence[str]) -> Iterator[_Answer]:
        days = self._day_columns(funnel.catalogue)
        for target, context in zip(self.targets, self.contexts, strict=True):
            columns = days[_midnight(target.at)]
            yield self._answer(_with_job_features(funnel, columns), target, context, columns, baselines)

    def _answer(
        self, funnel: Funnel, target: Target, context: CandidateContext, columns: Columns, baselines: Sequence[str]
    ) -> _Answer:
        catalogue = funnel.catalogue
        prepared = funnel.prepare(context)
        begun = self.clock()
        retrieved = funnel.retrieve(prepared, at=target.at)
        kept = funnel.cut(prepared, retrieved.rows, at=target.at)
        ranked = funnel.rank(prepared, kept, at=target.at)
        took = (self.clock() - begun) * 1e3
        scores = np.full(len(catalogue), -np.inf)
        scores[ranked.rows] = ranked.scores
        rows = [catalogue.row_of(job_id) for job_id in target.job_ids]
        hidden = catalogue.rows_of(context.history)
        ranks = {FUNNEL: _ranks(scores, rows, hidden)}
        question = Question(pairs=funnel.pairs, prepared=prepared, at=target.at, job_columns=columns)
        dead = ~catalogue.live(question.rows, target.at.timestamp() * 1e6)
        for name in baselines:
            ranks[name] = _ranks(np.where(dead, -np.inf, BASELINES[name](question)), rows, hidden)
        found = np.array([row if row is not None else -1 for row in rows], np.int32)
        return _Answer(
            ranks=ranks,
            stages={
                f"recall@{funnel.recall_limit}": float(np.isin(found, retrieved.rows).mean()),
                f"coarse_recall@{funnel.coarse_limit}": float(np.isin(found, kept).mean()),
            },
            slices=_candidate_slices(context, len(prepared.history)),
            job_slices=_job_slices(catalogue, found, columns),
            milliseconds=took,
        )

    def _day_columns(self, catalogue: Catalogue) -> dict[datetime, Columns]:
        """Feature-view columns of all jobs as of each midnight that a target asks about."""
        rows = np.arange(len(catalogue), dtype=np.int32)
        days = sorted({_midnight(target.at) for target in self.targets})
        read = {day: job_columns_at(self.store, catalogue, rows, [day] * len(rows), "ranker_full") for day in days}
        return dict(read)


def rank_values(ranks: Sequence[Array], gains: Sequence[Values]) -> dict[str, Values]:
    """Every metric of one system: one value a target, from the ranks and gains of what is relevant to it."""
    return {
        name: np.array([metric(r, g) for r, g in zip(ranks, gains, strict=True)], np.float64)
        for name, metric in METRICS.items()
    }


def _midnight(at: datetime) -> datetime:
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def _with_job_features(funnel: Funnel, columns: Columns) -> Funnel:
    """The same stages reading a past day's job features."""
    past = copy.copy(funnel)
    past.job_features = SnapshotJobFeatures(columns)
    return past


def _ranks(scores: Values, rows: Sequence[int | None], hidden: npt.NDArray[np.int32]) -> Array:
    """Ranks of the relevant rows with the history masked; a job the catalogue does not hold is missed."""
    scores = scores.copy()
    scores[hidden] = -np.inf
    known = np.array([row for row in rows if row is not None], np.int64)
    ranks = np.full(len(rows), np.inf)
    ranks[[place for place, row in enumerate(rows) if row is not None]] = ranks_of(scores, known)
    return ranks


def _candidate_slices(context: CandidateContext, history: int) -> tuple[str, ...]:
    length = "none" if not history else "1-4" if history < 5 else "5+"
    return (f"history={length}", f"place={context.country or context.region or 'unknown'}")


def _job_slices(
    catalogue: Catalogue, rows: npt.NDArray[np.int32], columns: Columns
) -> dict[str, npt.NDArray[np.bool_]]:
    """Slices of relevant jobs: those nobody had engaged with, and each top category."""
    seen = columns.get("job_engagements_30d", np.full(len(catalogue), np.nan, np.float32))
    cold = ~(np.nan_to_num(seen[rows]) > 0) & (rows >= 0)
    slices = {"job=cold": cold, "job=warm": ~cold & (rows >= 0)}
    for code in {int(code) for code in catalogue.category_root.codes[rows[rows >= 0]]} - {-1}:
        slices[f"category={catalogue.category_root.names[code]}"] = (catalogue.category_root.codes[rows] == code) & (
            rows >= 0
        )
    return slices


def _by_stage(answers: Sequence[_Answer]) -> dict[str, Values]:
    names = answers[0].stages if answers else {}
    return {name: np.array([answer.stages[name] for answer in answers], np.float64) for name in names}


def _by_slice(answers: Sequence[_Answer], gains: Sequence[Values]) -> dict[str, Values]:
    """Main-metric values of each reported slice: the most frequent values of each."""
    counts: Counter[str] = Counter()
    for answer in answers:
        counts.update(answer.slices)
        counts.update(name for name, mask in answer.job_slices.items() if mask.any())
    reported: dict[str, list[str]] = {}
    for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        reported.setdefault(name.partition("=")[0], []).append(name)
    names = sorted(name for kind in reported.values() for name in kind[:_LARGEST])
    return {
        name: np.array([_slice_value(a, g, name) for a, g in zip(answers, gains, strict=True)], np.float64)
        for name in names
    }


def _slice_value(answer: _Answer, gains: Values, name: str) -> float:
    ranks = answer.ranks[FUNNEL]
    if name in answer.slices:
        return METRICS[MAIN_METRIC](ranks, gains)
    mask = answer.job_slices.get(name)
    return float("nan") if mask is None or not mask.any() else METRICS[MAIN_METRIC](ranks[mask], gains[mask])


def _json(interval: Interval) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in interval.to_dict().items()}
