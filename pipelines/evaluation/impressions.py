"""How good a release's probabilities are: what it would have said of logged impressions, and what became of them.

An impression is a job that was shown to a candidate; it came true where they applied. The probability is asked for as
of the request, from the fine ranker that serves.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from rolecall.features.context import CandidateContext
from rolecall.pipelines.evaluation.calibration import CLOSE, Calibration, calibration
from rolecall.pipelines.evaluation.metrics import auc
from rolecall.pipelines.examples import APPLY_LABEL
from rolecall.pipelines.requests import choose, collect_requests
from rolecall.serving.funnel import Funnel

Array = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class ImpressionRequest:
    """Distinct jobs that were shown to a candidate together, and which of them they applied to under that request."""

    candidate_id: str
    at: datetime
    job_ids: tuple[str, ...]
    applied: tuple[bool, ...]


@dataclass(frozen=True, kw_only=True)
class ImpressionQuality:
    """Of `count` impressions, a share of `base_rate` of which came true; NaN where all or none did.

    `auc`: probability that one that came true was given more than one that did not. `grouped_auc`: the same within a
    candidate, averaged by their impressions over candidates with both (Zhou et al. 2018): what the order of a list
    depends on. `normalized_entropy`: mean log loss over that of the base rate (He et al. 2014): below 1 is better
    than the base rate.
    """

    auc: float
    grouped_auc: float
    normalized_entropy: float
    base_rate: float
    count: int
    calibration: Calibration

    def metrics(self) -> dict[str, float]:
        """Figures for the manifest and MLflow, by name; NaN where not known."""
        return {
            "auc": self.auc,
            "grouped_auc": self.grouped_auc,
            "normalized_entropy": self.normalized_entropy,
            "calibration_slope": self.calibration.slope,
            "calibration_intercept": self.calibration.intercept,
            "ece": self.calibration.ece,
            "constant_ece": self.calibration.constant_ece,
            "impressions": self.count,
        }

    def to_dict(self) -> dict[str, object]:
        """JSON values; what is not known is None."""
        names = ("auc", "grouped_auc", "normalized_entropy", "base_rate")
        told: dict[str, object] = {
            name: value if np.isfinite(value) else None for name in names for value in [float(getattr(self, name))]
        }
        return told | {"count": self.count, "calibration": self.calibration.to_dict()}


def collect_impressions(
    events: pl.DataFrame, *, start: datetime, end: datetime, limit: int = 500, seed: int = 7
) -> tuple[ImpressionRequest, ...]:
    """At most `limit` requests of [start, end) with what was applied to before `end`, chosen by hash, in order of name.
    None where the log holds no impressions."""
    shown = collect_requests(events, start=start, end=end).filter(pl.col("shown"))
    kept = choose(shown["request"].unique().to_list(), limit=limit, seed=seed)
    rows = shown.filter(pl.col("request").is_in(sorted(kept))).sort("request", "job_id")
    grouped = rows.group_by("request", "candidate_id", "at", maintain_order=True).agg(
        "job_id", (pl.col("label") == APPLY_LABEL).alias("applied")
    )
    return tuple(
        ImpressionRequest(candidate_id=who, at=at, job_ids=tuple(jobs), applied=tuple(applied))
        for _, who, at, jobs, applied in grouped.iter_rows()
    )


def judge_impressions(
    asked: Iterable[tuple[Funnel, ImpressionRequest, CandidateContext]],
) -> ImpressionQuality | None:
    """What the funnels, each as of its request, give to the impressions. None where no release holds any of them."""
    told = [(request.candidate_id, *probabilities(funnel, request, context)) for funnel, request, context in asked]
    _, groups = np.unique([who for who, given, _ in told for _ in given], return_inverse=True)
    if not len(groups):
        return None
    predicted, applied = (np.concatenate([one[place] for one in told]) for place in (1, 2))
    return impression_quality(predicted, applied, groups)


def probabilities(funnel: Funnel, request: ImpressionRequest, context: CandidateContext) -> tuple[Array, Flags]:
    """What the funnel gives to each job of a request that its release holds, float64[k], and which were applied to."""
    told = dict(zip(request.job_ids, request.applied, strict=True))
    rows = funnel.catalogue.rows_of(request.job_ids)
    if not len(rows):
        return np.zeros(0), np.zeros(0, np.bool_)
    ranked = funnel.rank(funnel.prepare(context), rows, at=request.at)
    applied = [told[job_id] for job_id in funnel.catalogue.ids_of(ranked.rows)]
    return ranked.probabilities.astype(np.float64), np.array(applied, np.bool_)


def impression_quality(predicted: Array, outcomes: Flags, groups: npt.NDArray[np.integer]) -> ImpressionQuality:
    """Of probabilities float64[n], what came true bool[n], and whose impressions they are int[n]; n at least 1."""
    return ImpressionQuality(
        auc=auc(predicted, outcomes),
        grouped_auc=grouped_auc(predicted, outcomes, groups),
        normalized_entropy=normalized_entropy(predicted, outcomes),
        base_rate=float(outcomes.mean()),
        count=len(outcomes),
        calibration=calibration(predicted, outcomes, groups=groups),
    )


def grouped_auc(predicted: Array, outcomes: Flags, groups: npt.NDArray[np.integer]) -> float:
    """AUC within each group that has both outcomes, averaged by the groups' sizes; NaN where none has."""
    order = np.argsort(groups, kind="stable")
    ends = np.flatnonzero(np.diff(groups[order])) + 1
    parts: Sequence[npt.NDArray[np.int64]] = np.split(order, ends)
    values = np.array([auc(predicted[part], outcomes[part]) for part in parts])
    sizes = np.array([len(part) for part in parts], np.float64)
    known = ~np.isnan(values)
    return float(values[known] @ sizes[known] / sizes[known].sum()) if known.any() else float("nan")


def normalized_entropy(predicted: Array, outcomes: Flags) -> float:
    """Mean log loss over the entropy of the base rate (He et al. 2014); NaN where all or none came true."""
    base = float(outcomes.mean()) if len(outcomes) else 0.0
    if not 0 < base < 1:
        return float("nan")
    kept = np.clip(predicted, CLOSE, 1 - CLOSE)
    loss = -np.mean(np.where(outcomes, np.log(kept), np.log1p(-kept)))
    return float(loss / -(base * np.log(base) + (1 - base) * np.log1p(-base)))
