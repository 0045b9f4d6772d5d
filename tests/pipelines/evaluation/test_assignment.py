"""The sample-ratio check: quiet where arms fit, loud where units were lost or moved."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chisquare

from rolecall.pipelines.evaluation.assignment import ALARM, check_exposures, sample_ratio
from rolecall.platform.errors import InputError
from rolecall.serving.assignment import ArmShare, Experiment, assign

TEST = Experiment(
    name="new ranker", arms=(ArmShare(name="control", share=0.5), ArmShare(name="treated", share=0.5)), traffic=0.5
)
THREE = Experiment(name="three", arms=tuple(ArmShare(name=n, share=s) for n, s in (("a", 0.5), ("b", 0.3), ("c", 0.2))))
UNITS = [f"cand-{n:06d}" for n in range(8000)]


def exposures() -> list[tuple[str, str]]:
    arms = [(unit, assign(TEST, unit)) for unit in UNITS]
    return [(unit, arm) for unit, arm in arms if arm is not None]


def test_what_assignment_gives_is_ok() -> None:
    told = check_exposures(TEST, exposures() * 2)
    assert told.ok
    assert (sum(told.counts.values()), told.strangers) == (len(exposures()), 0)


def test_statistic_and_p_value_are_scipys() -> None:
    told = sample_ratio(THREE, {"a": 480, "b": 330, "c": 190})
    expected = chisquare([480, 330, 190], [500, 300, 200])
    assert (told.chi_squared, told.p_value) == pytest.approx((expected.statistic, expected.pvalue))
    assert told.expected == pytest.approx({"a": 500, "b": 300, "c": 200})


def test_units_lost_in_one_arm_void_the_test() -> None:
    kept = [(unit, arm) for n, (unit, arm) in enumerate(exposures()) if arm == "control" or n % 8]
    told = check_exposures(TEST, kept)
    assert not told.ok
    assert told.p_value < ALARM
    assert "mismatch" in told.verdict


def test_units_in_an_arm_that_is_not_theirs_void_the_test_however_even_the_counts() -> None:
    shown = exposures()
    shown[0] = (shown[0][0], "treated" if shown[0][1] == "control" else "control")
    outsider = next(unit for unit in UNITS if assign(TEST, unit) is None)
    told = check_exposures(TEST, [*shown, (outsider, "control")])
    assert (told.ok, told.strangers) == (False, 2)
    assert told.p_value > ALARM


def test_right_assignments_are_called_void_as_rarely_as_promised() -> None:
    random = np.random.default_rng(3)
    counts = random.binomial(1000, 0.5, 4000)
    called = [not sample_ratio(TEST, {"control": int(n), "treated": 1000 - int(n)}).ok for n in counts]
    assert np.mean(called) < 5 * ALARM


def test_few_units_say_it_is_too_early() -> None:
    for counts in ({}, {"control": 3, "treated": 4}):
        told = sample_ratio(TEST, counts)
        assert (told.ok, told.verdict.partition(":")[0]) == (False, "too early")


def test_arms_that_do_not_exist_are_refused() -> None:
    with pytest.raises(InputError, match="units of control, treated"):
        sample_ratio(TEST, {"control": 5, "another": 5})
