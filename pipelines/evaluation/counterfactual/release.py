"""What a release would have shown to the logged visits, and what its ranker expects of it.

The objects that serve are asked, with the candidate as known at the instant. A release without exploration shows one
slate; one that explores is drawn from under several request ids, and estimates are linear in what it shows, so any
number of draws leaves `ordered` unbiased.

A release may only be judged on visits later than everything it was trained on: its own log would flatter its model.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt

from rolecall.features.context import CandidateContext
from rolecall.pipelines.evaluation.counterfactual.slates import LoggedSlates
from rolecall.platform.errors import InputError
from rolecall.serving.funnel import Funnel, FunnelRequest, JobFeatures, SnapshotJobFeatures

Floats = npt.NDArray[np.float64]
FeaturesAt = Callable[[datetime], JobFeatures]
"""Feature-view columns of the release's whole catalogue as of an instant."""


@dataclass(frozen=True, kw_only=True)
class TargetSlates:
    """For each logged visit the slates drawn from the target, every draw as likely: job ids, best slot first."""

    draws: tuple[tuple[tuple[str, ...], ...], ...]

    @property
    def longest(self) -> int:
        """Slots of the longest slate."""
        return max((len(slate) for draws in self.draws for slate in draws), default=0)


@dataclass(frozen=True, kw_only=True)
class Exposure:
    """`of_logged` float64[m, K]: examination the target gives each logged job; `due` [m]: what its slate is examined
    in all. Both as `ordered` takes them."""

    of_logged: Floats
    due: Floats


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """`appeal` float64[m, K] of each logged job, `value` [m] of the target's slate: a reward model for `ordered`."""

    appeal: Floats
    value: Floats


def release_slates(
    funnel: Funnel,
    slates: LoggedSlates,
    contexts: Sequence[CandidateContext],
    *,
    slots: int | None = None,
    draws: int = 1,
    features: FeaturesAt | None = None,
) -> TargetSlates:
    """The funnel's answers to the logged visits, as long as the logged slates or `slots` long.

    `contexts`: candidates as known at each visit (`read_contexts(store, slates.asked, ..)`); `features`: job features
    of that instant; default: those the funnel holds.
    """
    shown = []
    for number, context in enumerate(contexts):
        asked, at = _as_of(funnel, slates.at[number], features), slates.at[number]
        limit = slots or len(slates.job_ids[number])
        drawn = []
        for draw in range(draws):
            request_id = f"{slates.request_ids[number]} draw {draw}"
            reply = asked.recommend(FunnelRequest(context=context, at=at, request_id=request_id, limit=limit))
            drawn.append(tuple(item.job_id for item in reply.items))
        shown.append(tuple(drawn))
    return TargetSlates(draws=tuple(shown))


def exposure_of(slates: LoggedSlates, target: TargetSlates, examination: Floats) -> Exposure:
    """Examination by the target, averaged over its draws. `examination`: of positions from 1, at least as many as the
    longest slate of either. Raises InputError where it is shorter."""
    width = slates.logged.propensity.shape[1]
    if len(examination) < max(width, target.longest):
        raise InputError(f"examination of {len(examination)} positions", f"of {max(width, target.longest)}")
    of_logged, due = np.zeros((len(slates), width)), np.zeros(len(slates))
    for number, (logged, draws) in enumerate(zip(slates.job_ids, target.draws, strict=True)):
        place = {job: slot for slot, job in enumerate(logged)}
        for slate in draws:
            due[number] += float(examination[: len(slate)].sum()) / len(draws)
            for slot, job in enumerate(slate):
                if job in place:
                    of_logged[number, place[job]] += examination[slot] / len(draws)
    return Exposure(of_logged=of_logged, due=due)


def agreement(slates: LoggedSlates, target: TargetSlates) -> Floats:
    """For a target without exploration, its probability of each logged job given those above: 1 where its own slate has
    the same job there (float64[m, K], for `sequential`). After the first difference the weight is zero anyway."""
    if any(len(draws) != 1 for draws in target.draws):
        raise InputError("several draws of a target", "one slate, of a release without exploration")
    out = np.zeros(slates.logged.propensity.shape)
    for number, (logged, (slate,)) in enumerate(zip(slates.job_ids, target.draws, strict=True)):
        out[number, : len(logged)] = [
            float(slot < len(slate) and slate[slot] == job) for slot, job in enumerate(logged)
        ]
    return out


def predictions(
    funnel: Funnel,
    slates: LoggedSlates,
    target: TargetSlates,
    contexts: Sequence[CandidateContext],
    examination: Floats,
    *,
    features: FeaturesAt | None = None,
) -> Predictions:
    """The funnel's fine ranker as a reward model: its calibrated probability, which is of a job shown anywhere in a
    slate, over the mean examination of the logged slots. Any model keeps `dr` unbiased; a job unknown to the
    catalogue is given 0."""
    width = slates.logged.propensity.shape[1]
    scale = 1.0 / float(examination[:width].mean())
    appeal, value = np.zeros((len(slates), width)), np.zeros(len(slates))
    for number, (logged, draws) in enumerate(zip(slates.job_ids, target.draws, strict=True)):
        asked = _as_of(funnel, slates.at[number], features)
        named = {*logged, *(job for slate in draws for job in slate)}
        chance = _probabilities(asked, contexts[number], sorted(named), slates.at[number])
        appeal[number, : len(logged)] = [scale * chance.get(job, 0.0) for job in logged]
        values = [sum(examination[k] * chance.get(job, 0.0) for k, job in enumerate(slate)) for slate in draws]
        value[number] = scale * float(np.mean(values))
    return Predictions(appeal=appeal, value=value)


def _probabilities(funnel: Funnel, context: CandidateContext, job_ids: Sequence[str], at: datetime) -> dict[str, float]:
    known = {job: row for job in job_ids if (row := funnel.catalogue.row_of(job)) is not None}
    if not known:
        return {}
    ranked = funnel.rank(funnel.prepare(context), np.array(list(known.values()), np.int32), at=at)
    by_row = dict(zip(ranked.rows.tolist(), ranked.probabilities.tolist(), strict=True))
    return {job: float(by_row[row]) for job, row in known.items()}


def _as_of(funnel: Funnel, at: datetime, features: FeaturesAt | None) -> Funnel:
    """The same stages reading job features of a past instant."""
    if features is None:
        return funnel
    past = copy.copy(funnel)
    past.job_features = SnapshotJobFeatures(features(at))
    return past
