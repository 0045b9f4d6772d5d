"""The estimators: what the Open Bandit Pipeline says, and the properties that make them what they are."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.pipelines.evaluation.counterfactual import (
    Estimate,
    Logged,
    Sample,
    dr,
    ips,
    sequential,
    sndr,
    snips,
    switch_dr,
)
from rolecall.platform.errors import InputError

REFERENCE = Path(__file__).with_name("obp_reference.json")


@pytest.fixture(scope="module")
def obp() -> dict[str, Any]:
    """A small log and what obp 0.4.1 answers, written by `tests/bench/ope_oracle.py --inputs`."""
    told: dict[str, Any] = json.loads(REFERENCE.read_text())
    return told | {"inputs": {name: np.array(values) for name, values in told["inputs"].items()}}


def one_slot(log: dict[str, Any]) -> Sample:
    rows = np.arange(len(log["action"]))
    return sequential(
        Logged(propensity=log["action_logging"][:, None], reward=log["reward"][:, None], cluster=rows),
        log["action_target"][:, None],
        predicted=log["model"][rows, log["action"]][:, None],
        expected=(log["target"] * log["model"]).sum(axis=1, keepdims=True),
    )


def test_every_estimator_of_single_actions_is_obps(obp: dict[str, Any]) -> None:
    sample, limit, expected = one_slot(obp["inputs"]), obp["limit"], obp["answers"]
    ours = {
        "ips": ips(sample),
        "ips_clipped": ips(sample, limit=limit),
        "snips": snips(sample),
        "dr": dr(sample),
        "sndr": sndr(sample),
        "switch_dr": switch_dr(sample, limit=limit),
    }
    assert {name: estimate.mean for name, estimate in ours.items()} == pytest.approx(
        {name: expected[name] for name in ours}, rel=1e-9
    )
    assert len({round(expected[name], 9) for name in ours}) == len(ours)


@pytest.mark.parametrize("reach", ["slate", "slot", "cascade"])
def test_every_weight_of_slates_is_obps(obp: dict[str, Any], reach: Any) -> None:
    log = obp["inputs"]
    rows = np.arange(len(log["slate_reward"]))
    slates = Logged(propensity=log["slate_logging"], reward=log["slate_reward"], cluster=rows)
    assert ips(sequential(slates, log["slate_target"], reach=reach)).mean == pytest.approx(
        obp["answers"][reach], rel=1e-9
    )


def drawn(seed: int, *, visits: int = 60, slots: int = 3) -> Sample:
    random = np.random.default_rng(seed)
    logged = Logged(
        propensity=random.uniform(0.1, 1, (visits, slots)),
        reward=(random.random((visits, slots)) < 0.3).astype(np.float64),
        cluster=random.integers(0, 25, visits),
    )
    model = random.random((2, visits, slots))
    return sequential(logged, random.uniform(0, 1, (visits, slots)), predicted=model[0], expected=model[1])


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_contributions_have_the_estimate_as_their_mean_and_the_interval_holds_it(seed: int) -> None:
    sample = drawn(seed)
    for estimate in (ips(sample), snips(sample), dr(sample), sndr(sample), switch_dr(sample)):
        assert estimate.contributions.mean() == pytest.approx(estimate.mean)
        assert estimate.interval.low <= estimate.mean <= estimate.interval.high
        assert estimate.interval.count == len(set(sample.cluster.tolist()))


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=25)
def test_limits_meet_their_ends(seed: int) -> None:
    """No limit is plain dr; a limit of zero is the model alone; clipping never raises an estimate."""
    sample = drawn(seed)
    assert sample.value is not None
    assert switch_dr(sample, limit=np.inf).mean == pytest.approx(dr(sample).mean)
    assert switch_dr(sample, limit=-1.0).mean == pytest.approx(sample.value.mean())
    assert ips(sample, limit=1.0).mean <= ips(sample).mean


def test_a_policy_judged_on_its_own_log_is_worth_what_the_log_brought() -> None:
    random = np.random.default_rng(1)
    logged = Logged(propensity=random.uniform(0.1, 1, (50, 4)), reward=random.random((50, 4)), cluster=np.arange(50))
    brought = logged.reward.sum(axis=1).mean()
    for reach in ("slate", "cascade", "slot"):
        sample = sequential(logged, logged.propensity, reach=reach)  # type: ignore[arg-type]
        assert ips(sample).mean == pytest.approx(brought)
        assert snips(sample).mean == pytest.approx(brought)


def test_a_constant_added_to_the_reward_is_added_by_snips_but_not_by_ips() -> None:
    random = np.random.default_rng(2)
    propensity, target = random.uniform(0.1, 1, (40, 1)), random.uniform(0, 1, (40, 1))
    reward, cluster = random.random((40, 1)), np.arange(40)
    plain, raised = (
        sequential(Logged(propensity=propensity, reward=reward + more, cluster=cluster), target) for more in (0.0, 5.0)
    )
    assert snips(raised).mean == pytest.approx(snips(plain).mean + 5)
    assert ips(raised).mean != pytest.approx(ips(plain).mean + 5, rel=1e-3)


def test_a_right_model_leaves_dr_no_variance_from_the_weights() -> None:
    random = np.random.default_rng(3)
    propensity, target = random.uniform(0.01, 1, (200, 1)), random.uniform(0, 1, (200, 1))
    known = np.full((200, 1), 0.4)
    logged = Logged(propensity=propensity, reward=known, cluster=np.arange(200))
    sample = sequential(logged, target, predicted=known, expected=known)
    assert dr(sample).interval.high - dr(sample).interval.low == pytest.approx(0, abs=1e-12)
    assert ips(sample).interval.high - ips(sample).interval.low > 0.05


def test_two_targets_on_one_log_are_compared_visit_by_visit() -> None:
    sample, other = drawn(4), drawn(4)
    estimate: Estimate = ips(sample)
    nothing = estimate.less(ips(other))
    assert (nothing.mean, nothing.low, nothing.high) == (0, 0, 0)
    with pytest.raises(InputError, match="different visits"):
        estimate.less(ips(drawn(5)))


def test_a_doubly_robust_estimator_asks_for_its_model() -> None:
    logged = Logged(propensity=np.ones((3, 1)), reward=np.ones((3, 1)), cluster=np.arange(3))
    with pytest.raises(InputError, match="reward model"):
        dr(sequential(logged, np.ones((3, 1))))
