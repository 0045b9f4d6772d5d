"""The planner's predictions: bytes to the byte, time within reason, proposals within their budget."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.kernels import planner
from rolecall.kernels.case_mixture import MixtureSizes, mixture
from rolecall.kernels.intensity import ACCESSES
from rolecall.kernels.planner import Budget, Costs
from rolecall.kernels.roofline import Roofline

CPU = torch.device("cpu")
ROOF = Roofline(device="imagined", bandwidth=dict.fromkeys(ACCESSES, 1e10), peak={"fp32": 1e11})
COSTS = Costs(fixed=1e-4, byte=2e-10, product=3e-11, step=1e-10, dtype=torch.float32, roofline=ROOF)
SIZES = st.builds(
    MixtureSizes,
    dimension=st.integers(1, 40),
    query_components=st.integers(1, 4),
    item_components=st.integers(1, 4),
    width=st.integers(1, 20),
    batch=st.integers(1, 3),
    hidden=st.integers(1, 9),
)


@given(sizes=SIZES, items=st.integers(1, 50))
def test_memory_is_what_the_tensors_hold(sizes: MixtureSizes, items: int) -> None:
    assert planner.memory_of(sizes, items, torch.float32) == mixture(sizes, items, torch.float32, CPU).bytes


@given(
    costs=st.tuples(*[st.floats(0, 10)] * 4),
    amounts=st.lists(st.tuples(*[st.floats(0.5, 100)] * 4), min_size=8, max_size=12, unique=True),
)
def test_costs_explain_times_that_they_made(costs: tuple[float, ...], amounts: list[tuple[float, ...]]) -> None:
    seconds = [sum(c * a for c, a in zip(costs, row, strict=True)) + 1e-3 * row[0] for row in amounts]
    found = planner.fit(amounts, seconds)
    assert all(cost >= 0 for cost in found)
    for row, expected in zip(amounts, seconds, strict=True):
        told = sum(c * a for c, a in zip(found, row, strict=True))
        assert told == pytest.approx(expected, rel=1e-3)


@given(
    items=st.integers(1, 1_000_000),
    memory=st.integers(10**4, 10**10),
    seconds=st.floats(1e-4, 10),
)
@settings(max_examples=20)
def test_proposals_fit_the_budget_and_the_best_comes_first(items: int, memory: int, seconds: float) -> None:
    budget = Budget(items=items, memory=memory, seconds=seconds)
    found = planner.propose(budget, COSTS, count=4)
    for one in found:
        assert one.bytes <= memory
        assert one.seconds <= seconds
        assert one.bytes == planner.memory_of(one.sizes, items, COSTS.dtype)
        assert one.seconds == COSTS.seconds(one.sizes, items)
        assert one.seconds >= ROOF.limit(planner.work_of(one.sizes, items, COSTS.dtype)).seconds
    richness = [one.sizes.pairs * one.sizes.width for one in found]
    assert richness == sorted(richness, reverse=True)


def test_a_larger_budget_never_gets_a_poorer_mixture() -> None:
    small = planner.propose(Budget(items=10_000, memory=10**8, seconds=0.02), COSTS)
    large = planner.propose(Budget(items=10_000, memory=10**9, seconds=0.2), COSTS)
    assert large[0].sizes.pairs * large[0].sizes.width > small[0].sizes.pairs * small[0].sizes.width


def test_nothing_is_proposed_where_nothing_fits() -> None:
    assert planner.propose(Budget(items=10**9, memory=10**6, seconds=1.0), COSTS) == []


def test_a_calibration_predicts_runs_it_has_not_seen() -> None:
    """A structure, not a stopwatch: finite, rising with the work, and of the magnitude of a run."""
    costs = planner.calibrate(CPU, ROOF, torch.float32, items=256, turns=1, probes=planner.PROBES[:5])
    less = MixtureSizes(dimension=64, query_components=4, item_components=2, width=32, batch=1)
    more = MixtureSizes(dimension=64, query_components=8, item_components=8, width=64, batch=4)
    predicted = costs.seconds(more, 1024)
    assert 0 < costs.seconds(less, 64) < predicted < math.inf
    assert planner.run_seconds(more, 1024, torch.float32, CPU, turns=1) > 0
