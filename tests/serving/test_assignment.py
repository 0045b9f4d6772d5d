"""A/B assignment: the same for ever, uniform, and independent between experiments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, chisquare, kstest

from rolecall.platform.errors import InputError
from rolecall.serving.assignment import ArmShare, Experiment, assign, position

UNITS = [f"cand-{n:06d}" for n in range(20_000)]
NAMES = [f"ranker {n}" for n in range(12)]
STABLE = (1, 0, 1, 1, 1, 1, 1, 1)
STABLE_POSITION = 0.38184353794373804


def experiment(name: str = "ranker", *, shares: tuple[float, ...] = (0.5, 0.5), traffic: float = 1.0) -> Experiment:
    arms = tuple(ArmShare(name=f"arm {n}", share=share) for n, share in enumerate(shares))
    return Experiment(name=name, arms=arms, traffic=traffic)


def test_assignment_is_the_same_on_every_machine_and_in_every_release() -> None:
    """Written down: a change here would move people between the arms of running experiments."""
    assert [assign(experiment(), unit) for unit in UNITS[:8]] == [f"arm {n}" for n in STABLE]
    assert position("salt", "unit") == STABLE_POSITION


@given(st.text(), st.text())
@settings(deadline=None)
def test_positions_lie_in_zero_to_one(salt: str, unit: str) -> None:
    assert 0 <= position(salt, unit) < 1


def test_salt_and_unit_are_not_confused() -> None:
    assert position("ab", "c") != position("a", "bc")


def test_positions_are_uniform_under_every_salt() -> None:
    lowest = min(kstest([position(name, unit) for unit in UNITS], "uniform").pvalue for name in NAMES)
    assert lowest > 0.001


def test_arms_get_their_shares() -> None:
    for shares in ((0.5, 0.5), (0.9, 0.1), (0.2, 0.3, 0.5)):
        given_to = [assign(experiment(shares=shares), unit) for unit in UNITS]
        counts = [given_to.count(f"arm {n}") for n in range(len(shares))]
        assert chisquare(counts, np.array(shares) * len(UNITS)).pvalue > 0.001


def test_arms_of_different_experiments_are_independent() -> None:
    arms = {name: [assign(experiment(name), unit) for unit in UNITS] for name in NAMES}
    lowest = 1.0
    for one, other in itertools.combinations(NAMES, 2):
        table = [[0, 0], [0, 0]]
        for mine, theirs in zip(arms[one], arms[other], strict=True):
            table[mine == "arm 0"][theirs == "arm 0"] += 1
        lowest = min(lowest, chi2_contingency(table).pvalue)
    assert lowest > 0.0005


def test_taking_part_is_independent_of_the_arm() -> None:
    arms = [assign(experiment(traffic=0.3), unit) for unit in UNITS]
    taking = [arm for arm in arms if arm is not None]
    assert len(taking) / len(UNITS) == pytest.approx(0.3, abs=0.01)
    assert taking.count("arm 0") / len(taking) == pytest.approx(0.5, abs=0.02)


def test_more_traffic_moves_nobody_who_took_part() -> None:
    for unit in UNITS[:2000]:
        before = assign(experiment(traffic=0.2), unit)
        assert before is None or before == assign(experiment(traffic=0.7), unit) == assign(experiment(), unit)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shares": (0.5, 0.6)}, "shares"),
        ({"shares": (1.0, 0.0)}, "shares"),
        ({"shares": (1.0,)}, "two or more"),
        ({"traffic": 0.0}, "traffic"),
        ({"name": ""}, "without a name"),
    ],
)
def test_an_experiment_that_makes_no_sense_is_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        experiment(**wrong)  # type: ignore[arg-type]


def test_an_arm_is_named_once() -> None:
    with pytest.raises(InputError, match="each named once"):
        Experiment(name="x", arms=(ArmShare(name="a", share=0.5), ArmShare(name="a", share=0.5)))
