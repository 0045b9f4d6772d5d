"""The examination curve, found again in a log that explored."""

from __future__ import annotations

import numpy as np
import pytest

from rolecall.pipelines.evaluation.counterfactual import Logged, examination_from, power_law
from rolecall.pipelines.market.policy import draw_slots
from rolecall.platform.errors import InputError


def explored(power: float, *, visits: int = 6000, jobs: int = 12, slots: int = 6) -> tuple[Logged, np.ndarray]:
    """Clicks on slates drawn by scores that follow the appeal in part; and the scores' weight of each logged job."""
    random = np.random.default_rng(8)
    appeal = random.beta(1, 3, (visits, jobs))
    score = 2 * appeal + 0.5 * random.normal(size=appeal.shape)
    shown, propensity = draw_slots(score, np.ones(score.shape, bool), slots, random.gumbel(size=score.shape))
    chance = np.take_along_axis(appeal, shown, axis=1) * power_law(slots, power)
    clicks = (random.random(chance.shape) < chance).astype(np.float64)
    log = Logged(propensity=propensity, reward=clicks, cluster=np.arange(visits))
    return log, np.exp(np.take_along_axis(score, shown, axis=1))


@pytest.mark.parametrize("power", [0.0, 0.6, 1.2])
def test_the_exponent_is_found_again(power: float) -> None:
    log, weight = explored(power)
    for importance in (None, weight):
        found = -np.log(examination_from(log, importance)[-1]) / np.log(6)
        assert found == pytest.approx(power, abs=0.1)


def test_a_curve_starts_at_one_and_falls() -> None:
    curve = power_law(5, 0.6)
    assert curve[0] == 1
    assert (np.diff(curve) < 0).all()


def test_one_slot_tells_no_curve() -> None:
    log, _ = explored(0.6)
    with pytest.raises(InputError, match="two slots"):
        examination_from(log.first(1))
