"""The measured roofline, the limit it sets, and every operator's place under it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rolecall.kernels import cases, measured, roofline, stopwatch
from rolecall.kernels.case import Scale
from rolecall.kernels.cpp import build
from rolecall.kernels.intensity import ACCESSES, Access, Work
from rolecall.kernels.roofline import Roofline

CPU = torch.device("cpu")
ROOF = Roofline(
    device="imagined",
    bandwidth={"read": 4e9, "copy": 2e9, "gather": 1e9, "stride": 5e8},
    peak={"fp32": 1e10, "int8": 4e10},
)


def test_every_rate_is_measured_and_positive() -> None:
    roof = roofline.measure(CPU, size=2**16, edge=32, turns=2)
    assert set(roof.bandwidth) == set(ACCESSES)
    assert {"fp32", "bf16"} <= set(roof.peak)
    assert ("int8" in roof.peak) == build.available()
    assert all(0 < rate < math.inf for rate in (*roof.bandwidth.values(), *roof.peak.values()))
    assert roof.bandwidth["read"] >= roof.bandwidth["copy"]
    assert "cores" in roof.device


@given(
    read=st.integers(0, 10**9),
    written=st.integers(0, 10**9),
    fp32=st.integers(0, 10**11),
    int8=st.integers(0, 10**11),
    access=st.sampled_from(ACCESSES),
)
def test_the_limit_is_the_slowest_of_bytes_and_operations(
    read: int, written: int, fp32: int, int8: int, access: Access
) -> None:
    work = Work(bytes_read=read, bytes_written=written, operations={"fp32": fp32, "int8": int8}, access=access)
    limit = ROOF.limit(work)
    times = {access: (read + written) / ROOF.bandwidth[access], "fp32": fp32 / 1e10, "int8": int8 / 4e10}
    assert limit.seconds == max(times.values())
    assert times[limit.rate] == limit.seconds


def test_arithmetic_that_was_not_measured_limits_nothing() -> None:
    limit = ROOF.limit(Work(bytes_read=8, bytes_written=0, operations={"fp8": 10**15}, access="read"))
    assert (limit.seconds, limit.rate) == (2e-9, "read")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", ["cuda", "cuda:3", "meta"])
def test_a_device_that_is_not_there_is_refused_with_those_that_are(name: str) -> None:
    with pytest.raises(ValueError, match=f"got device {name}; allowed here: cpu"):
        roofline.measure(torch.device(name))


def test_every_operator_is_measured_once_a_shape_and_judged_by_the_limit() -> None:
    found = list(measured.measure(CPU, ROOF, scale="tiny", turns=1))
    assert [one.op for one in found] == list(cases.OPERATORS)
    for one in found:
        assert one.seconds > 0
        assert one.percent == pytest.approx(100 * one.limit / one.seconds)
        assert one.achieved / one.possible == pytest.approx(one.percent / 100)
        assert one.unit == ("GB/s" if one.bound in ACCESSES else "Gop/s")


@pytest.mark.parametrize("op", cases.OPERATORS)
@pytest.mark.parametrize("scale", ["tiny", "cpu", "gpu"])
def test_every_operator_has_work_to_do_at_every_scale(op: str, scale: Scale) -> None:
    made = cases.cases(op, scale, CPU)
    assert made
    assert all(case.op == op and case.work.bytes_read > 0 and case.work.bytes_written > 0 for case in made)
    assert len({case.shape for case in made}) == len(made)


def test_an_unknown_operator_is_refused() -> None:
    with pytest.raises(ValueError, match="allowed: rms_norm"):
        cases.cases("sort", "tiny", CPU)


def test_a_case_has_the_same_inputs_for_a_seed_and_others_for_another() -> None:
    (case,) = cases.cases("rms_norm", "tiny", CPU)
    first, again, other = (case.inputs(seed).x for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@given(moved=st.integers(0, 10**9))
def test_a_walk_does_not_fit_the_cache(moved: int) -> None:
    copies = stopwatch.copies(moved, CPU)
    most = stopwatch.MOST_COPIES["cpu"]
    assert 1 <= copies <= most
    assert copies == most or copies * moved >= stopwatch.CACHES * stopwatch.largest_cache(CPU)


def test_arms_take_turns_after_one_walk_each() -> None:
    order: list[str] = []
    arms = {
        name: stopwatch.arm_of([lambda name=name: order.append(name)] * 2, CPU)  # type: ignore[misc]
        for name in ("a", "b")
    }
    stopwatch.take_turns(arms, CPU, 3)
    assert order == ["a", "a", "b", "b"] * 1 + ["a", "a", "b", "b"] * 4
    assert all(len(arm.seconds) == 3 and not arm.captured for arm in arms.values())
    assert stopwatch.ratio([2.0, 9.0, 4.0], [1.0, 1.0, 1.0]) == 4.0


def test_results_are_close_or_not() -> None:
    ones = torch.ones(4)
    assert measured.close(ones, (ones * 1.005, None), tolerance=0.01)
    assert not measured.close(ones, ones * 1.02, tolerance=0.01)
    assert not measured.close(ones, ones[:3], tolerance=0.01)
    assert not measured.close(ones * torch.nan, ones, tolerance=0.01)
