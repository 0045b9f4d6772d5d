"""What the weights promise: unbiased over every slate that could have been drawn, summed up exactly."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.pipelines.evaluation.counterfactual import Logged, Sample, dr, ips, ordered, sequential
from rolecall.platform.errors import InputError

JOBS, SLOTS = 5, 3
CURVE = np.array([1.0, 0.6, 0.45])
Slate = tuple[int, ...]


def chances(score: np.ndarray, slate: Slate) -> np.ndarray:
    """Conditional probability of each slot's job: drawn by exp(score) among those not above it."""
    weight = np.exp(score)
    return np.array([weight[job] / (weight.sum() - weight[list(slate[:k])].sum()) for k, job in enumerate(slate)])


def slates() -> Iterator[Slate]:
    yield from itertools.permutations(range(JOBS), SLOTS)


def logged(score: np.ndarray, slate: Slate, reward: np.ndarray) -> Logged:
    return Logged(propensity=chances(score, slate)[None], reward=reward[None], cluster=np.zeros(1, np.int64))


def mean_over_slates(
    score: np.ndarray, sample_of: Callable[[Slate], Sample], estimate: Callable[[Sample], float]
) -> float:
    return sum(chances(score, slate).prod() * estimate(sample_of(slate)) for slate in slates())


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=10)
def test_ordered_weights_are_unbiased_over_all_slates_with_and_without_a_model(seed: int) -> None:
    random = np.random.default_rng(seed)
    score, appeal, model = random.normal(size=JOBS), random.random(JOBS), random.random(JOBS)
    shown = tuple(random.permutation(JOBS)[:SLOTS].tolist())
    exposure = np.zeros(JOBS)
    exposure[list(shown)] = CURVE
    truth = float((exposure * appeal).sum())

    def sample_of(slate: Slate) -> Sample:
        rows = list(slate)
        return ordered(
            logged(score, slate, CURVE * appeal[rows]),
            exposure[rows][None],
            CURVE,
            appeal=model[rows][None],
            value=np.array([(exposure * model).sum()]),
        )

    assert mean_over_slates(score, sample_of, lambda s: ips(s).mean) == pytest.approx(truth)
    assert mean_over_slates(score, sample_of, lambda s: dr(s).mean) == pytest.approx(truth)
    due = mean_over_slates(score, sample_of, lambda s: float((s.weight * s.unit).sum()))
    assert due == pytest.approx(float(exposure.sum()))


@given(st.integers(0, 10_000))
@settings(deadline=None, max_examples=10)
def test_cascade_weights_are_unbiased_where_a_reward_depends_on_the_slots_above(seed: int) -> None:
    random = np.random.default_rng(seed)
    score, other, model = random.normal(size=JOBS), random.normal(size=JOBS), random.random((SLOTS, JOBS))
    fatigue = random.random(JOBS)

    def rewards(slate: Slate) -> np.ndarray:
        """Less of everything below a tiring job."""
        return np.array([(1 + job) * fatigue[list(slate[:k])].prod() for k, job in enumerate(slate)])

    def sample_of(slate: Slate) -> Sample:
        weight = np.exp(other)
        left = [weight * ~np.isin(np.arange(JOBS), slate[:k]) for k in range(SLOTS)]
        expected = [float((w * model[k]).sum() / w.sum()) for k, w in enumerate(left)]
        return sequential(
            logged(score, slate, rewards(slate)),
            chances(other, slate)[None],
            predicted=model[np.arange(SLOTS), list(slate)][None],
            expected=np.array(expected)[None],
        )

    truth = sum(chances(other, slate).prod() * rewards(slate).sum() for slate in slates())
    assert mean_over_slates(score, sample_of, lambda s: ips(s).mean) == pytest.approx(truth)
    assert mean_over_slates(score, sample_of, lambda s: dr(s).mean) == pytest.approx(truth)


def test_slate_weights_are_unbiased_where_a_reward_depends_on_the_whole_slate() -> None:
    random = np.random.default_rng(3)
    score, other = random.normal(size=JOBS), random.normal(size=JOBS)

    def rewards(slate: Slate) -> np.ndarray:
        return np.full(SLOTS, float(sum(slate)) * (1 + slate[-1]))

    def sample_of(slate: Slate) -> Sample:
        return sequential(logged(score, slate, rewards(slate)), chances(other, slate)[None], reach="slate")

    truth = sum(chances(other, slate).prod() * rewards(slate).sum() for slate in slates())
    assert mean_over_slates(score, sample_of, lambda s: ips(s).mean) == pytest.approx(truth)


def test_slot_weights_want_marginal_probabilities() -> None:
    """Unbiased with those of a job at a position whatever stands above, where rewards depend on no other job."""
    random = np.random.default_rng(4)
    score, other, reward = random.normal(size=JOBS), random.normal(size=JOBS), random.random((SLOTS, JOBS))
    marginal = {name: np.zeros((SLOTS, JOBS)) for name in ("logging", "target")}
    for slate in slates():
        marginal["logging"][np.arange(SLOTS), slate] += chances(score, slate).prod()
        marginal["target"][np.arange(SLOTS), slate] += chances(other, slate).prod()

    def sample_of(slate: Slate) -> Sample:
        here = (np.arange(SLOTS), list(slate))
        log = Logged(
            propensity=marginal["logging"][here][None], reward=reward[here][None], cluster=np.zeros(1, np.int64)
        )
        return sequential(log, marginal["target"][here][None], reach="slot")

    truth = float((marginal["target"] * reward).sum())
    assert mean_over_slates(score, sample_of, lambda s: ips(s).mean) == pytest.approx(truth)


def test_shorter_slates_end_where_they_end() -> None:
    padded = Logged(
        propensity=np.array([[0.5, np.nan], [0.5, 0.25]]),
        reward=np.array([[1.0, np.nan], [0.0, 1.0]]),
        cluster=np.arange(2),
    )
    sample = sequential(padded, np.array([[0.5, np.nan], [0.5, 0.25]]))
    assert (len(sample.reward), ips(sample).mean) == (3, 1.0)
    assert padded.first(1).propensity.shape == (2, 1)


@pytest.mark.parametrize(
    ("propensity", "reward", "message"),
    [
        ([[0.0]], [[1.0]], "outside"),
        ([[1.5]], [[1.0]], "outside"),
        ([[np.nan, 0.5]], [[np.nan, 1.0]], "empty slot above"),
        ([[0.5]], [[np.nan]], "without a reward"),
        ([[0.5]], [[1.0, 1.0]], "both"),
    ],
)
def test_a_log_that_means_nothing_is_refused(
    propensity: list[list[float]], reward: list[list[float]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        Logged(propensity=np.array(propensity), reward=np.array(reward), cluster=np.zeros(1, np.int64))


def test_target_probabilities_and_models_are_checked() -> None:
    log = Logged(propensity=np.array([[0.5]]), reward=np.array([[1.0]]), cluster=np.zeros(1, np.int64))
    with pytest.raises(InputError, match="target probabilities"):
        sequential(log, np.array([[1.5]]))
    with pytest.raises(InputError, match="half a reward model"):
        sequential(log, np.array([[0.5]]), predicted=np.array([[0.5]]))
    with pytest.raises(InputError, match="half a reward model"):
        ordered(log, np.array([[1.0]]), np.ones(1), appeal=np.array([[0.5]]))
    nothing = np.full((1, 1), np.nan)
    empty = Logged(propensity=nothing, reward=nothing, cluster=np.zeros(1, np.int64))
    with pytest.raises(InputError, match="no logged slot"):
        sequential(empty, nothing)
