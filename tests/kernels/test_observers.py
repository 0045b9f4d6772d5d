"""Ranges for quantisers: what each observer spans, and that zero keeps a code."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.kernels.observers import Entropy, MinMax, Observer, Percentile, divergence, quantiser
from rolecall.kernels.quantization import affine, scales_of, symmetric

_VALUES = st.lists(st.floats(-1e4, 1e4, width=32), min_size=1, max_size=60).map(torch.tensor)
_BITS = st.integers(2, 8)


def normal(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def test_golden_fake_quantisation_and_the_mode_that_gives_another_code() -> None:
    x = torch.tensor([0.45, -1.23, 2.99, 0.02], dtype=torch.float64)
    away, even = symmetric(12.7), symmetric(12.7, rounding="half_even")
    assert away.scale == pytest.approx(0.1)
    assert away.fake(x).tolist() == pytest.approx([0.5, -1.2, 3.0, 0.0])
    halves = torch.tensor([0.5, 1.5, 2.5, -0.5, -2.5])
    unit, unit_even = symmetric(127.0), symmetric(127.0, rounding="half_even")
    assert unit.codes(halves).tolist() == [1, 2, 3, -1, -3]
    assert unit_even.codes(halves).tolist() == [0, 2, 2, 0, -2]
    assert even.codes(x)[1:].tolist() == [-12, 30, 0]


@settings(max_examples=80, deadline=None)
@given(_VALUES, _BITS, st.booleans())
def test_no_value_in_the_range_moves_by_more_than_half_a_step_and_zero_stays_zero(
    x: torch.Tensor, bits: int, is_symmetric: bool
) -> None:
    observer = MinMax()
    observer.observe(x)
    how = quantiser(observer, bits=bits, is_symmetric=is_symmetric)
    slack = 1e-5 * float(x.abs().max())
    step = how.scale * (
        0.5 if is_symmetric else 1.0
    )  # a zero point is rounded too, which may clamp an end by half a step
    assert float((how.values(how.codes(x)) - x).abs().max()) <= step + slack
    assert how.values(how.codes(torch.zeros(1))).item() == 0.0
    assert int(how.codes(x).min()) >= how.low
    assert int(how.codes(x).max()) <= how.high
    assert how.high - how.low == 2**bits - (2 if is_symmetric else 1)


@pytest.mark.parametrize("observer", [MinMax(), Percentile(1.0)], ids=["extremes", "all"])
def test_all_of_the_values_are_spanned(observer: Observer) -> None:
    for part in (torch.tensor([0.5, -0.25]), torch.tensor([[-3.0], [8.0]]), torch.zeros(0)):
        observer.observe(part)
    low, high = observer.range()
    assert low <= -3
    assert low >= -3.02
    assert 8 <= high <= 8.02


@pytest.mark.parametrize("kept", [0.9, 0.99, 0.999])
def test_a_percentile_leaves_out_what_it_says_at_either_end(kept: float) -> None:
    x = normal(200_000)
    observer = Percentile(kept)
    for part in x.split(7_000):
        observer.observe(part)
    low, high = observer.range()
    outside = float(((x < low) | (x > high)).float().mean())
    assert 0.8 * (1 - kept) <= outside <= 1 - kept


def test_entropy_clips_a_few_outliers_and_keeps_a_range_without_any() -> None:
    plain, spiked = Entropy(), Entropy()
    plain.observe(torch.linspace(-1, 1, 100_001))
    spiked.observe(torch.cat([normal(100_000), torch.tensor([60.0, -60.0])]))
    assert plain.range()[1] == pytest.approx(1.0, rel=0.02)
    assert 2.5 < spiked.range()[1] < 12


def test_divergence_is_zero_only_where_merging_loses_nothing() -> None:
    flat = torch.ones(64, dtype=torch.float64)
    uneven = torch.arange(1, 65, dtype=torch.float64)
    assert divergence(flat, 64, 16) == pytest.approx(0, abs=1e-6)
    assert divergence(uneven, 64, 16) > 1e-4
    assert divergence(uneven, 64, 64) == pytest.approx(0, abs=1e-6)
    assert divergence(uneven, 64, 8) > divergence(uneven, 64, 32)


@pytest.mark.parametrize("make", [Percentile, Entropy])
def test_a_stream_in_parts_gives_the_range_of_the_whole_once_the_limit_is_known(make: type) -> None:
    x = normal(20_000).clamp(-4, 4)
    x[0] = 4.0
    whole, parts = make(), make()
    whole.observe(x)
    for part in x.split(999):
        parts.observe(part)
    assert parts.range() == whole.range()


@pytest.mark.parametrize("make", [MinMax, Percentile, Entropy])
def test_nothing_observed_and_values_that_are_not_finite_are_refused(make: type) -> None:
    observer = make()
    with pytest.raises(ValueError, match="observe first"):
        observer.range()
    with pytest.raises(ValueError, match="not finite"):
        observer.observe(torch.tensor([1.0, float("nan")]))
    observer.observe(torch.zeros(3))
    assert quantiser(observer).codes(torch.zeros(2)).tolist() == [0, 0]


def test_scales_by_tensor_channel_and_group_have_the_peaks_of_their_parts() -> None:
    x = torch.tensor([[1.0, -4.0, 2.0, 0.5], [0.0, 0.0, 8.0, 1.0]])
    assert scales_of(x, "tensor", levels=1).tolist() == [[8.0]]
    assert scales_of(x, "channel", levels=1).tolist() == [[4.0], [8.0]]
    assert scales_of(x, "group", group=3, levels=1).tolist() == [[4.0, 4.0, 4.0, 0.5], [8.0, 8.0, 8.0, 1.0]]


def test_the_gradient_of_fake_quantisation_passes_where_nothing_was_clamped() -> None:
    x = torch.tensor([0.3, -0.7, 5.0, -5.0], requires_grad=True)
    symmetric(1.0).fake(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 1.0, 0.0, 0.0]


def test_impossible_ranges_are_refused() -> None:
    for call in (lambda: symmetric(-1.0), lambda: symmetric(1.0, bits=1), lambda: affine(2.0, 1.0)):
        with pytest.raises(ValueError, match="allowed"):
            call()
    with pytest.raises(ValueError, match="allowed"):
        affine(0.0, float("inf"))
    with pytest.raises(ValueError, match="allowed"):
        Percentile(0.0)
    with pytest.raises(ValueError, match="allowed"):
        Entropy(0)
