"""From logged slates and a target policy to weighted rows: one row a filled slot, ready for any estimator.

Shapes: m visits, K slots, n filled slots. Propensities are conditional on the slots above (see the package).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from rolecall.platform.errors import InputError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Reach = Literal["slate", "cascade", "slot"]


@dataclass(frozen=True, kw_only=True)
class Logged:
    """What was shown, as numbers. `propensity`, `reward` float64[m, K]: NaN beyond the end of a shorter slate;
    `cluster` int64[m]: who came, whose visits are not independent of each other.

    Raises InputError for a propensity outside (0, 1] or a slate with a hole.
    """

    propensity: Floats
    reward: Floats
    cluster: Ints

    def __post_init__(self) -> None:
        if self.propensity.ndim != 2 or self.propensity.shape != self.reward.shape:
            raise InputError(
                f"propensities {self.propensity.shape}, rewards {self.reward.shape}", "both [visits, slots]"
            )
        if self.cluster.shape != (len(self.propensity),):
            raise InputError(f"{self.cluster.shape} clusters of {len(self.propensity)} visits", "one a visit")
        known = self.propensity[self.filled]
        if ((known <= 0) | (known > 1)).any():
            raise InputError("a logged propensity outside (0, 1]", "the probability with which the job was shown")
        if (self.filled[:, 1:] & ~self.filled[:, :-1]).any():
            raise InputError("a slate with an empty slot above a filled one", "slots filled from the first on")
        if np.isnan(self.reward[self.filled]).any():
            raise InputError("a filled slot without a reward", "a number, 0 where nothing happened")

    @property
    def filled(self) -> npt.NDArray[np.bool_]:
        """Which slots hold a job [m, K]."""
        return ~np.isnan(self.propensity)

    def first(self, slots: int) -> Logged:
        """The same visits with their first slots only."""
        return Logged(propensity=self.propensity[:, :slots], reward=self.reward[:, :slots], cluster=self.cluster)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Weighted rows: E[sum of weight x reward over the rows of a visit] is the target's value of that visit.

    Rows, n each: `visit` and `slot` they belong to, `reward`, `weight`, `unit` (reward per unit of what `due` counts).
    Visits, m each: `cluster`; `due` float64[m, slots]: what weight x unit sums to over a visit's rows of a slot, on
    average, if the log supports the target. With a reward model also `predicted` [n], its reward of each row, and
    `value` [m], its value of the target. Lowest logged propensity `lowest`; share of slots logged with 1, `certain`.
    """

    visit: Ints
    slot: Ints
    reward: Floats
    weight: Floats
    unit: Floats
    cluster: Ints
    due: Floats
    lowest: float
    certain: float
    predicted: Floats | None = None
    value: Floats | None = None

    @property
    def visits(self) -> int:
        return len(self.cluster)

    def by_visit(self, row_values: Floats) -> Floats:
        """Sums of one number a row, by visit and slot: float64[m, slots]."""
        slots = self.due.shape[1]
        cells = np.bincount(self.visit * slots + self.slot, row_values, self.visits * slots)
        return np.asarray(cells.reshape(self.visits, slots), np.float64)


def sequential(
    logged: Logged,
    target: Floats,
    *,
    reach: Reach = "cascade",
    predicted: Floats | None = None,
    expected: Floats | None = None,
) -> Sample:
    """Weights from the target's probabilities of the logged jobs, `target` float64[m, K].

    `reach` says what the reward of a slot may depend on, and so which probabilities these are:

    - `cascade` (reward interaction, McInerney et al. 2020, eq. 8) and `slate` (any interaction): the target's
      probability of the logged job, given that the logged jobs stand above it. One slot is the contextual bandit.
    - `slot` (independent, Li et al. 2018): `target` and `logged.propensity` are both *marginal*: of this job at this
      position, whatever stands above it.

    A reward model makes it doubly robust: `predicted` [m, K], its reward of each logged slot, and `expected` [m, K],
    what it expects of the slot when the target draws it, the slots above being as logged (for `slot`: of the
    target's own slot). With `slate` no model is taken.
    """
    filled = logged.filled
    if target.shape != filled.shape or not ((target[filled] >= 0) & (target[filled] <= 1 + 1e-9)).all():
        raise InputError(f"target probabilities {target.shape} or outside [0, 1]", f"[0, 1], {filled.shape}")
    if (predicted is None) != (expected is None) or (reach == "slate" and predicted is not None):
        raise InputError("half a reward model, or one with reach slate", "both predicted and expected, or none")
    ratio = np.where(filled, target / np.where(filled, logged.propensity, 1.0), 1.0)
    reached = np.cumprod(ratio, axis=1)
    weight = {"slot": ratio, "cascade": reached, "slate": np.broadcast_to(reached[:, -1:], ratio.shape)}[reach]
    visit, slot = np.nonzero(filled)
    value = None
    if expected is not None:
        before = np.ones_like(ratio)
        if reach == "cascade":
            before[:, 1:] = reached[:, :-1]
        value = np.where(filled, before * expected, 0.0).sum(axis=1)
    return Sample(
        visit=visit,
        slot=slot,
        reward=logged.reward[filled],
        weight=weight[filled],
        unit=np.ones(len(visit)),
        cluster=logged.cluster,
        due=filled.astype(np.float64),
        predicted=None if predicted is None else predicted[filled],
        value=value,
        **_exploration(logged),
    )


def ordered(
    logged: Logged,
    exposure: Floats,
    examination: Floats,
    *,
    due: Floats | None = None,
    appeal: Floats | None = None,
    value: Floats | None = None,
) -> Sample:
    """Weights of the position-based model: reward = examination of the position x appeal of the job to the visitor.

    `exposure` float64[m, K]: examination that the target gives each *logged* job, 0 where it does not show it.
    `examination` float64[K] of the logged positions, its first 1. `due` [m]: what the target's slate is examined in
    all; default: as much as the logged one. With an unbiased draw of the target's slate in place of its probabilities
    the estimate stays unbiased, since it is linear in `exposure`.

    After k slots have been drawn without replacement, y(a_1) + .. + y(a_{k-1}) + y(a_k) / p_k is unbiased for the sum
    of y over all jobs (Des Raj 1956, "Some estimators in sampling with varying probabilities without replacement"),
    here with y(j) = appeal(j) x exposure(j), and appeal estimated by reward / examination. The K estimates are
    averaged in proportion to the examination of their slot: a position that is looked at more says more.

    A reward model makes it doubly robust: `appeal` [m, K], what it says of each logged job once examined, and `value`
    [m], what it says the target's slate brings.
    """
    filled = logged.filled
    if exposure.shape != filled.shape or examination.shape != (filled.shape[1],) or not (examination > 0).all():
        raise InputError(f"exposure {exposure.shape}, examination {examination.shape}", "[visits, slots], [slots] > 0")
    if (appeal is None) != (value is None):
        raise InputError("half a reward model", "both appeal and value, or none")
    share = np.where(filled, examination, 0.0)
    share = share / np.maximum(share.sum(axis=1, keepdims=True), 1e-300)
    later = np.flip(np.cumsum(np.flip(share, axis=1), axis=1), axis=1) - share
    counted = share / np.where(filled, logged.propensity, 1.0) + later
    weight = counted * exposure / examination
    visit, slot = np.nonzero(filled)
    return Sample(
        visit=visit,
        slot=np.zeros(len(visit), np.int64),
        reward=logged.reward[filled],
        weight=weight[filled],
        unit=examination[slot],
        cluster=logged.cluster,
        due=np.where(filled, examination, 0.0).sum(axis=1, keepdims=True) if due is None else due[:, None],
        predicted=None if appeal is None else (appeal * examination)[filled],
        value=value,
        **_exploration(logged),
    )


def _exploration(logged: Logged) -> dict[str, float]:
    known = logged.propensity[logged.filled]
    if not len(known):
        raise InputError("no logged slot", "visits with impressions and propensities", "check the window")
    return {"lowest": float(known.min()), "certain": float((known >= 1).mean())}
