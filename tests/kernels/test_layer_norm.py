"""Layer normalisation: exactness also beside a large mean, strides, invariance, compilation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.kernels.layer_norm import LAYER_NORM, layer_norm, reference

from .oracle import BACKENDS, DTYPES, assert_as_exact_as_torch, needs_triton, random


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (2, 3, 48), (3, 384), (1, 20_000)])
def test_it_is_as_exact_as_torch(shape: tuple[int, ...], dtype: torch.dtype, backend: str) -> None:
    width = shape[-1]
    x, weight, bias = (random(*shape, dtype=dtype), random(width, dtype=dtype, seed=1), random(width, dtype=dtype))
    exact = reference(x.double(), weight.double(), bias.double())
    torchs = torch.nn.functional.layer_norm(x, (width,), weight, bias)
    assert_as_exact_as_torch(layer_norm(x, weight, bias, backend=backend), exact, torchs)


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=15, deadline=None)
@given(rows=st.integers(0, 5), width=st.integers(0, 70), biased=st.booleans())
def test_any_small_shape_is_normalised(backend: str, rows: int, width: int, biased: bool) -> None:
    x, bias = random(rows, width), random(width, seed=1) if biased else None
    exact = reference(x.double(), None, None if bias is None else bias.double())
    torchs = torch.nn.functional.layer_norm(x, (width,), None, bias) if width else x
    assert_as_exact_as_torch(layer_norm(x, None, bias, backend=backend), exact, torchs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("width", [48, 20_000])
def test_a_large_mean_costs_no_more_digits_than_its_own_rounding(width: int, backend: str) -> None:
    x = random(2, width) + 1000
    exact = reference(x.double())
    assert_as_exact_as_torch(
        layer_norm(x, backend=backend), exact, torch.nn.functional.layer_norm(x, (width,)), ulps=1000.0
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_constant_row_becomes_the_bias(backend: str) -> None:
    bias = random(12)
    assert torch.equal(layer_norm(torch.full_like(bias, 3.0)[None], None, bias, backend=backend)[0], bias)


@pytest.mark.parametrize("backend", BACKENDS)
def test_slices_are_read_and_written_in_place(backend: str) -> None:
    wide, target = random(4, 40), random(4, 50, seed=1)
    before = target.clone()
    y = layer_norm(wide[:, 8:32], out=target[:, 5:29], backend=backend)
    assert torch.equal(y, layer_norm(wide[:, 8:32].contiguous(), backend=backend))
    assert torch.equal(target[:, :5], before[:, :5])
    assert torch.equal(target[:, 29:], before[:, 29:])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_alone_has_the_bits_it_has_in_a_batch_and_two_runs_agree(backend: str) -> None:
    x = random(64, 384, dtype=torch.bfloat16)
    together = layer_norm(x, backend=backend)
    assert torch.equal(together, layer_norm(x, backend=backend))
    for row in (0, 31, 63):
        assert torch.equal(layer_norm(x[row : row + 1], backend=backend)[0], together[row])


def test_the_torch_path_is_differentiable() -> None:
    x, weight = random(2, 5).double().requires_grad_(), random(5, seed=1).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: layer_norm(a, b, b), (x, weight))


@needs_triton
def test_the_operator_is_registered_and_compiles_into_a_full_graph() -> None:
    x, weight = random(3, 16), random(16, seed=1)
    torch.library.opcheck(LAYER_NORM, (x, weight, None, 1e-5, torch.empty_like(x)))
    compiled = torch.compile(lambda t: layer_norm(t, weight, backend="triton"), fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(x), layer_norm(x, weight, backend="triton"))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match=r"got bias \(3,\)"):
        layer_norm(random(2, 4), None, random(3))


@needs_triton
def test_an_output_whose_rows_are_not_contiguous_is_refused() -> None:
    with pytest.raises(ValueError, match="strides"):
        layer_norm(random(2, 4), out=random(4, 2).t(), backend="triton")
