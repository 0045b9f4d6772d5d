"""Row quantisation: the golden figures, and what must hold of any matrix."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.kernels.quantization import LEVELS, dequantize, quantize, quantize_rows, round_half_away

_ROW = st.lists(st.floats(-1e6, 1e6, width=32, allow_subnormal=False), min_size=5, max_size=5)
_MATRIX = st.lists(_ROW, min_size=1, max_size=6).map(lambda rows: torch.tensor(rows, dtype=torch.float32))


def test_golden_codes_round_halves_away_from_zero() -> None:
    x = torch.tensor([0.45, -1.23, 2.99, 0.02], dtype=torch.float64)
    codes = quantize(x, torch.tensor(0.1, dtype=torch.float64))
    assert codes.tolist() == [5, -12, 30, 0]
    assert (codes.double() * 0.1).tolist() == pytest.approx([0.5, -1.2, 3.0, 0.0])


def test_rounding_is_right_at_halves_and_just_below_them() -> None:
    below = float(torch.nextafter(torch.tensor(0.5), torch.tensor(0.0)))
    x = torch.tensor([0.5, -0.5, 1.5, 2.5, -2.5, below, -below, 8388609.0])
    assert round_half_away(x).tolist() == [1, -1, 2, 3, -3, 0, 0, 8388609.0]


@settings(max_examples=60, deadline=None)
@given(_MATRIX)
def test_no_element_moves_by_more_than_half_a_step(x: torch.Tensor) -> None:
    rows = quantize_rows(x)
    steps = rows.scales.double()[:, None]
    moved = (dequantize(rows).double() - x.double()).abs()
    assert bool((moved <= steps * 0.5 + x.double().abs() * 1e-6).all())


@settings(max_examples=60, deadline=None)
@given(_MATRIX)
def test_negating_a_matrix_negates_its_codes(x: torch.Tensor) -> None:
    assert torch.equal(quantize_rows(-x).codes, -quantize_rows(x).codes)


@settings(max_examples=60, deadline=None)
@given(_MATRIX, st.integers(-6, 6))
def test_scaling_by_a_power_of_two_scales_only_the_scales(x: torch.Tensor, power: int) -> None:
    plain, scaled = quantize_rows(x), quantize_rows(x * 2.0**power)
    normal = plain.scales > 1e-30
    assert torch.equal(plain.codes[normal], scaled.codes[normal])
    assert torch.equal(plain.scales[normal] * 2.0**power, scaled.scales[normal])


def test_the_largest_element_of_a_row_has_the_largest_code() -> None:
    rows = quantize_rows(torch.randn(50, 384, generator=torch.Generator().manual_seed(0)))
    assert rows.codes.dtype == torch.int8
    assert rows.codes.abs().amax(dim=1).tolist() == [LEVELS] * 50


def test_unit_vectors_keep_their_direction() -> None:
    x = torch.nn.functional.normalize(torch.randn(200, 384, generator=torch.Generator().manual_seed(1)))
    back = torch.nn.functional.normalize(dequantize(quantize_rows(x)))
    assert float((x * back).sum(dim=1).min()) > 0.9998


def test_rows_of_zeros_and_empty_matrices_stay_what_they_are() -> None:
    rows = quantize_rows(torch.zeros(2, 3))
    assert dequantize(rows).tolist() == [[0.0] * 3] * 2
    assert rows.scales.tolist() == [0.0, 0.0]
    assert quantize_rows(torch.zeros(0, 3)).codes.shape == (0, 3)
    assert quantize_rows(torch.zeros(2, 0)).codes.shape == (2, 0)


@pytest.mark.parametrize(
    "x",
    [torch.tensor([[float("nan")]]), torch.tensor([[float("inf")]]), torch.tensor([1.0]), torch.tensor([[1]])],
    ids=["nan", "infinite", "vector", "integers"],
)
def test_what_cannot_be_quantised_is_refused(x: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="allowed"):
        quantize_rows(x)
