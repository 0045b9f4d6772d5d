"""Intervals cover, tests hold their level, corrections are the published ones, powers come true."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from rolecall.pipelines.evaluation.statistics import (
    always_valid,
    arm_differences,
    benjamini_hochberg,
    bootstrap,
    bootstrap_columns,
    clusters_of,
    confidence_sequence,
    design_effect,
    detectable_effect,
    holm,
    percentile_ratio,
    power_of,
    required_days,
    required_targets,
    sign_flip,
    sign_flip_columns,
)
from rolecall.platform.errors import InputError

P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=30)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


def clustered(random: np.random.Generator, clusters: int, shared: float = 0.8) -> tuple[np.ndarray, np.ndarray]:
    """Values of one to five targets a cluster that have most of their noise in common, mean 0."""
    sizes = random.integers(1, 6, clusters)
    groups = np.repeat(np.arange(clusters), sizes)
    noise = random.exponential(1, clusters)[groups] - 1
    return shared * noise + (1 - shared) * random.normal(0, 1, len(groups)), groups


def test_the_interval_holds_the_mean_shrinks_with_targets_and_is_the_same_again(random: np.random.Generator) -> None:
    few, many = random.random(30), random.random(3000)
    narrow, wide = (bootstrap(values, rounds=500, seed=1) for values in (many, few))
    assert narrow.low < narrow.mean < narrow.high
    assert narrow.high - narrow.low < wide.high - wide.low
    assert bootstrap(many, rounds=500, seed=1) == narrow


def test_nan_values_are_left_out_and_none_left_is_nan() -> None:
    assert bootstrap(np.array([1.0, np.nan, 3.0]), rounds=100, seed=0).mean == 2
    assert bootstrap(np.array([np.nan]), rounds=100, seed=0).count == 0
    assert sign_flip(np.array([np.nan]), rounds=100, seed=0) == 1


def test_the_interval_is_scipys_percentile_bootstrap(random: np.random.Generator) -> None:
    values = random.exponential(1, 200)
    ours = bootstrap(values, rounds=20_000, seed=1, level=0.9)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile", rng=random
    ).confidence_interval
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.01)


def test_clusters_of_one_target_each_change_nothing(random: np.random.Generator) -> None:
    values = random.normal(0, 1, 50)
    each = np.arange(50)[::-1]
    assert bootstrap(values, rounds=300, seed=2, groups=each) == bootstrap(values, rounds=300, seed=2)
    assert sign_flip(values, rounds=300, seed=2, groups=each) == sign_flip(values, rounds=300, seed=2)


def test_many_columns_are_the_same_as_one_at_a_time(random: np.random.Generator) -> None:
    columns, groups = random.normal(0.1, 1, (60, 3)), np.arange(60) % 20
    columns[:20:7, 1] = np.nan
    alone = [bootstrap(column, rounds=200, seed=5, groups=groups) for column in columns.T]
    together = bootstrap_columns(columns, 200, 5, groups)
    for one, other in zip(alone, together, strict=True):
        assert list(one.to_dict().values()) == pytest.approx(list(other.to_dict().values()), rel=1e-5)
    flips = sign_flip_columns(columns, 200, 5, groups)
    assert [sign_flip(column, rounds=200, seed=5, groups=groups) for column in columns.T] == list(flips)


def test_95_percent_intervals_cover_where_targets_of_a_candidate_go_together(random: np.random.Generator) -> None:
    """The interval that forgets the clusters shows why they are drawn whole."""
    drawn = [clustered(random, 120) for _ in range(400)]
    covers = {
        by: np.mean([(i := bootstrap(v, rounds=400, seed=n, groups=g if by else None)).low <= 0 <= i.high
                     for n, (v, g) in enumerate(drawn)])
        for by in (True, False)
    }  # fmt: skip
    assert 0.91 <= covers[True] <= 0.98
    assert covers[False] < 0.85


def test_the_sign_flip_test_holds_its_level_by_cluster(random: np.random.Generator) -> None:
    p_values = []
    for n in range(400):
        values, groups = clustered(random, 80)
        p_values.append(sign_flip(values, rounds=500, seed=n, groups=groups))
    assert 0.02 <= np.mean(np.array(p_values) <= 0.05) <= 0.09


def test_sign_flips_are_scipys_permutation_test_and_near_the_t_test(random: np.random.Generator) -> None:
    few = random.normal(0.5, 1, 12)
    exact = stats.permutation_test(
        (few,), np.sum, permutation_type="samples", alternative="greater", n_resamples=np.inf
    ).pvalue
    assert sign_flip(few, rounds=40_000, seed=1) == pytest.approx(exact, rel=0.25)
    many = random.normal(0.05, 1, 1000)
    assert sign_flip(many, rounds=40_000, seed=1) == pytest.approx(
        stats.ttest_1samp(many, 0, alternative="greater").pvalue, rel=0.25
    )


def test_identical_systems_are_never_told_apart() -> None:
    assert sign_flip(np.zeros(500), rounds=1000, seed=1) == 1


def test_clusters_are_numbered_by_first_appearance() -> None:
    assert clusters_of(["b", "a", "b", "c"]).tolist() == [0, 1, 0, 2]
    assert clusters_of([]).tolist() == []


@given(P_VALUES)
@settings(deadline=None)
def test_benjamini_hochberg_is_scipys(p_values: list[float]) -> None:
    assert benjamini_hochberg(p_values) == pytest.approx(stats.false_discovery_control(p_values, method="bh"))


@given(P_VALUES, st.floats(0.001, 0.999))
@settings(deadline=None)
def test_holm_rejects_what_the_step_down_procedure_rejects(p_values: list[float], level: float) -> None:
    rejected, order = set(), np.argsort(p_values, kind="stable")
    for step, at in enumerate(order):
        if p_values[at] * (len(p_values) - step) > level:
            break
        rejected.add(int(at))
    adjusted = holm(p_values)
    assert set(np.flatnonzero(adjusted <= level).tolist()) == rejected
    assert (benjamini_hochberg(p_values) <= adjusted + 1e-12).all()


@pytest.mark.parametrize("wrong", [[1.1], [-0.1], [float("nan")], [[0.5]]])
def test_what_is_no_row_of_p_values_is_refused(wrong: list[float]) -> None:
    with pytest.raises(InputError):
        holm(wrong)


def test_holm_keeps_any_false_rejection_at_its_level(random: np.random.Generator) -> None:
    tests = random.random((4000, 12))
    family = np.mean([(holm(row) <= 0.05).any() for row in tests])
    assert 0.035 <= family <= 0.065
    assert np.mean((tests <= 0.05).any(axis=1)) > 0.4


@pytest.mark.parametrize("kind", ["yes or no", "skewed"])
def test_whoever_looks_after_every_value_is_misled_in_at_most_5_of_100(kind: str, random: np.random.Generator) -> None:
    """From 200 values on; a 95% interval that is looked at as often misleads many times more."""
    missed, fixed = 0, 0
    for _ in range(400):
        values = (
            (random.random(3000) < 0.2).astype(np.float64) if kind == "yes or no" else random.exponential(0.2, 3000)
        )
        low, high = confidence_sequence(values, best_at=1000)
        missed += bool(((low > 0.2) | (high < 0.2))[200:].any())
        count = np.arange(1, 3001)
        mean = np.cumsum(values) / count
        width = 1.96 * np.sqrt(np.maximum(np.cumsum(values**2) / count - mean**2, 0) / count)
        fixed += bool((np.abs(mean - 0.2) > width)[200:].any())
    assert missed / 400 <= 0.05
    assert fixed / 400 > 0.15


def test_the_confidence_sequence_is_robbins_mixture_and_narrowest_where_asked(random: np.random.Generator) -> None:
    """Its width solves the mixture's equation: the normal mixture martingale reaches 1/alpha exactly at the edge."""
    values, alpha = random.normal(0, 1, 2000), 0.05
    low, high = confidence_sequence(values, best_at=500)
    count, rho2 = 2000, (-2 * np.log(alpha) + np.log(1 - 2 * np.log(alpha))) / 500
    edge = count * (high[-1] - low[-1]) / 2 / values.std()
    martingale = np.exp(rho2 * edge**2 / (2 * (1 + count * rho2))) / np.sqrt(1 + count * rho2)
    assert martingale == pytest.approx(1 / alpha)
    widths = [np.diff(confidence_sequence(values, best_at=at), axis=0)[0, 499] for at in (50, 500, 5000)]
    assert min(widths) == widths[1]


def test_arms_are_compared_without_bias_whatever_the_level_of_the_metric(random: np.random.Generator) -> None:
    treated = random.random(20_000) < 0.3
    values = 50 + random.normal(0, 1, 20_000) + 0.2 * treated
    found = always_valid(arm_differences(values, treated, share=0.3), best_at=20_000)
    assert found.low < 0.2 < found.high
    assert found.high - found.low < 0.5
    assert found.low > 0
    assert always_valid(np.array([])).count == 0


@pytest.mark.parametrize(("effect", "spread", "level", "power"), [(0.03, 0.6, 0.025, 0.8), (0.1, 0.5, 0.05, 0.9)])
def test_the_size_is_that_of_the_t_test(effect: float, spread: float, level: float, power: float) -> None:
    count = required_targets(effect, spread, level=level, power=power)
    critical = stats.t.isf(level, count - 1)
    reached = stats.nct.sf(critical, count - 1, effect / spread * np.sqrt(count))
    assert reached == pytest.approx(power, abs=0.01)
    assert power_of(effect, count, spread, level=level) == pytest.approx(power, abs=0.01)
    assert detectable_effect(count, spread, level=level, power=power) == pytest.approx(effect, rel=0.01)


def test_the_promised_power_comes_true_by_cluster(random: np.random.Generator) -> None:
    """Targets for a power of .8, taken in whole candidates, are seen in 8 of 10 nights."""
    values, groups = clustered(random, 20_000)
    design = design_effect(values, groups)
    assert design > 2
    count = required_targets(0.15, float(values.std()), power=0.8, design=design)
    seen = 0
    for night in range(300):
        values, groups = clustered(random, count)
        kept = slice(0, count)
        seen += sign_flip(values[kept] + 0.15, rounds=1000, seed=night, groups=groups[kept]) <= 0.025
    assert 0.72 <= seen / 300 <= 0.88


def test_smaller_effects_need_more_targets_and_more_days() -> None:
    needed = [required_targets(effect, 0.6) for effect in (0.1, 0.05, 0.01)]
    assert needed == sorted(needed)
    assert required_targets(0.05, 0.6, design=2.0) == pytest.approx(2 * required_targets(0.05, 0.6), rel=0.01)
    assert required_days(needed[-1], 500) > required_days(needed[0], 500)
    assert [required_days(n, 10) for n in (1, 10, 11)] == [1, 1, 2]
    with pytest.raises(InputError):
        required_targets(0.0, 0.6)
    with pytest.raises(InputError):
        required_days(10, 0)


def test_a_percentile_is_lower_for_sure_only_where_it_is(random: np.random.Generator) -> None:
    theirs = random.lognormal(3, 0.3, 800)
    same, faster = theirs * random.lognormal(0, 0.02, 800), theirs * 0.7
    asked = {"percentile": 99.0, "rounds": 300, "seed": 1}
    assert percentile_ratio(faster, theirs, **asked).high < 0.75
    near = percentile_ratio(same, theirs, **asked)
    assert near.low < 1.02
    assert near.high > 0.95
