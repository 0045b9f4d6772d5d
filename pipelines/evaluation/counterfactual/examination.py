"""How likely each position is looked at: the curve that carries a reward from where a job stood to where it would.

A power law of one exponent, `position ** -power`, as eye tracking and click logs show (Joachims et al. 2017). A log
that explores tells the exponent: each slot gives an unbiased estimate of the same sum (`weights.ordered`), and only the
right curve makes the slots agree. What a position adds to the wish to click (trust) is absorbed where it falls the same
way; what is left of it biases `ordered`, and nothing else here.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar

from rolecall.pipelines.evaluation.counterfactual.weights import Logged
from rolecall.platform.errors import InputError

Floats = npt.NDArray[np.float64]
_STEEPEST = 3.0


def power_law(positions: int, power: float) -> Floats:
    """Examination of the positions from 1 on, relative to the first."""
    return np.asarray(np.arange(1, positions + 1, dtype=np.float64) ** -power)


def examination_from(logged: Logged, importance: Floats | None = None) -> Floats:
    """The power law under which the slots agree best, for as many positions as were logged (GMM, one parameter).

    Clicks tell it sooner than applications. `importance` [m, K]: any weight of the visitor and the job alone, large
    where jobs are drawn often (what the target exposes, what a ranker expects), to keep rare draws from dominating;
    default 1. Visits with a shorter slate are left out. Raises InputError where there are fewer than two slots.
    """
    whole = logged.filled.all(axis=1)
    if logged.propensity.shape[1] < 2 or whole.sum() < 2:
        raise InputError("slates of fewer than two slots", "visits with at least two logged slots")
    propensity, reward = logged.propensity[whole], logged.reward[whole]
    gain = reward if importance is None else reward * importance[whole]
    spread = _estimates(gain, propensity, 0.5).var(axis=0)
    trust = 1.0 / np.maximum(spread, 1e-12 + spread.max() * 1e-9)

    def disagreement(power: float) -> float:
        means = _estimates(gain, propensity, power).mean(axis=0)
        middle = float((trust * means).sum() / trust.sum())
        return float((trust * (means / middle - 1) ** 2).sum()) if middle else 0.0

    found = minimize_scalar(disagreement, bounds=(0.0, _STEEPEST), method="bounded")
    return power_law(propensity.shape[1], float(found.x))


def _estimates(gain: Floats, propensity: Floats, power: float) -> Floats:
    """Des Raj's estimate of the whole sum by each visit's each slot, float64[m, K]."""
    appeal = gain / power_law(gain.shape[1], power)
    above = np.cumsum(appeal, axis=1) - appeal
    return np.asarray(above + appeal / propensity, np.float64)
