"""RMS normalisation: exactness, the fused forms, strides, extremes, invariance, compilation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rolecall.kernels.quantization import QuantizedRows, dequantize
from rolecall.kernels.rms_norm import (
    ADD_RMS_NORM,
    RMS_NORM,
    RMS_NORM_QUANTIZED,
    add_rms_norm,
    reference,
    rms_norm,
    rms_norm_quantized,
)

from .oracle import BACKENDS, DTYPES, assert_as_exact_as_torch, needs_triton, random


def plain(x: Tensor, weight: Tensor | None, eps: float = 1e-6) -> Tensor:
    return torch.nn.functional.rms_norm(x, x.shape[-1:], weight, eps)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (2, 3, 48), (5, 576), (1, 1025), (1, 20_000)])
def test_it_is_as_exact_as_torch(shape: tuple[int, ...], dtype: torch.dtype, backend: str) -> None:
    x, weight = random(*shape, dtype=dtype), random(shape[-1], dtype=dtype, seed=1)
    exact = reference(x.double(), weight.double())
    assert_as_exact_as_torch(rms_norm(x, weight, backend=backend), exact, plain(x, weight))


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(0, 5), width=st.integers(0, 70), weighted=st.booleans())
def test_any_small_shape_is_normalised(backend: str, rows: int, width: int, weighted: bool) -> None:
    x, weight = random(rows, width), random(width, seed=1) if weighted else None
    exact = reference(x.double(), None if weight is None else weight.double())
    assert_as_exact_as_torch(rms_norm(x, weight, backend=backend), exact, plain(x, weight))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_of_any_size_comes_out_with_a_mean_square_of_one(backend: str) -> None:
    x = random(4, 33) * torch.tensor([1e-6, 1.0, 1e4, 1e15], device=random(1).device)[:, None]
    y = rms_norm(x, eps=0.0, backend=backend)
    assert y.square().mean(dim=1).tolist() == pytest.approx([1.0] * 4, rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_zeros_stay_zeros_and_a_nan_stays_in_its_row(backend: str) -> None:
    x = torch.stack([torch.zeros(9), torch.ones(9), torch.ones(9)]).to(random(1).device)
    x[2, 3] = float("nan")
    y = rms_norm(x, backend=backend)
    assert y[0].tolist() == [0.0] * 9
    assert y[1].tolist() == pytest.approx([1.0] * 9, rel=1e-5)
    assert bool(y[2].isnan().all())


@pytest.mark.parametrize("backend", BACKENDS)
def test_slices_of_a_wider_buffer_are_read_and_written_in_place(backend: str) -> None:
    wide, target, weight = random(4, 40), torch.zeros(4, 50).to(random(1).device), random(24, seed=1)
    y = rms_norm(wide[:, 8:32], weight, out=target[:, 5:29], backend=backend)
    assert y.data_ptr() == target[:, 5:].data_ptr()
    assert torch.equal(y, rms_norm(wide[:, 8:32].contiguous(), weight, backend=backend))
    assert float(target[:, :5].abs().sum() + target[:, 29:].abs().sum()) == 0.0
    assert torch.equal(rms_norm(wide.t(), backend=backend), rms_norm(wide.t().contiguous(), backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("dtype", "width"), [(torch.float16, 48), (torch.float32, 20_000)])
def test_adding_the_residual_first_equals_the_two_steps_bit_for_bit(
    dtype: torch.dtype, width: int, backend: str
) -> None:
    x, residual, weight = random(3, width, dtype=dtype), random(3, width, dtype=dtype, seed=1), random(width, seed=2)
    y, h = add_rms_norm(x, residual, weight, backend=backend)
    assert torch.equal(h, x + residual)
    assert torch.equal(y, rms_norm(h, weight, backend=backend))
    in_place = (x.clone(), residual.clone())
    add_rms_norm(*in_place, weight, out=in_place[0], residual_out=in_place[1], backend=backend)
    assert torch.equal(in_place[0], y)
    assert torch.equal(in_place[1], h)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [7, 48, 20_000])
def test_quantised_rows_are_within_half_a_step_of_the_exact_ones(width: int, backend: str) -> None:
    x, weight = random(3, width), random(width, seed=1)
    x[1] = 0
    rows = rms_norm_quantized(x, weight, backend=backend)
    exact = reference(x.double(), weight.double())
    assert rows.scales.tolist() == pytest.approx((exact.abs().amax(dim=1) / 127).tolist(), rel=1e-6)
    assert bool(((dequantize(rows) - exact).abs() <= rows.scales[:, None] * 0.5001 + 1e-7).all())
    assert rows.codes[1].abs().sum() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_alone_has_the_bits_it_has_in_a_batch_and_two_runs_agree(backend: str) -> None:
    x, weight = random(64, 576, dtype=torch.bfloat16), random(576, seed=1)
    together = rms_norm(x, weight, backend=backend)
    assert torch.equal(together, rms_norm(x, weight, backend=backend))
    quantized = rms_norm_quantized(x, weight, backend=backend)
    for row in (0, 31, 63):
        assert torch.equal(rms_norm(x[row : row + 1], weight, backend=backend)[0], together[row])
        alone = rms_norm_quantized(x[row : row + 1], weight, backend=backend)
        assert torch.equal(alone.codes[0], quantized.codes[row])
        assert alone.scales[0] == quantized.scales[row]


def test_the_torch_path_is_differentiable() -> None:
    x = random(2, 5).double().requires_grad_()
    weight = random(5, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: rms_norm(a, b), (x, weight))


@needs_triton
def test_the_operators_are_registered_and_compile_into_a_full_graph() -> None:
    x, residual, weight = random(3, 16), random(3, 16, seed=1), random(16, seed=2)
    outs = [torch.empty_like(x) for _ in range(2)]
    torch.library.opcheck(RMS_NORM, (x, weight, 1e-6, outs[0]))
    torch.library.opcheck(ADD_RMS_NORM, (x, residual, weight, 1e-6, *outs))
    codes, scales = torch.empty_like(x, dtype=torch.int8), torch.empty_like(x[:, 0])
    torch.library.opcheck(RMS_NORM_QUANTIZED, (x, weight, 1e-6, codes, scales))

    def block(x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y, h = add_rms_norm(rms_norm(x, weight, backend="triton"), residual, weight, backend="triton")
        rows = rms_norm_quantized(y, weight, backend="triton")
        return y, h, rows.codes

    for ours, theirs in zip(
        torch.compile(block, fullgraph=True, backend="aot_eager")(x, residual), block(x, residual), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_what_does_not_fit_is_refused() -> None:
    x = random(2, 4)
    with pytest.raises(ValueError, match="floating-point"):
        rms_norm(torch.zeros(2, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"allowed: \[4\]"):
        rms_norm(x, random(3))
    with pytest.raises(ValueError, match="strides"):
        rms_norm(x, random(8)[::2])
    with pytest.raises(ValueError, match="as x"):
        add_rms_norm(x, random(2, 3))
    with pytest.raises(ValueError, match="got out"):
        rms_norm(x, out=torch.empty(2, 4, dtype=torch.float16))
    with pytest.raises(ValueError, match="flatten"):
        rms_norm_quantized(random(2, 2, 4))
    with pytest.raises(ValueError, match="got out"):
        rms_norm_quantized(x, out=QuantizedRows(codes=torch.empty(2, 4), scales=torch.empty(2)))
