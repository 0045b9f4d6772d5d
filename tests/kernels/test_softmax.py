"""Softmax and log-softmax: exactness, what a mask means, the gradient, invariance, compilation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rolecall.kernels.softmax import (
    SOFTMAX,
    SOFTMAX_BACKWARD,
    log_softmax,
    reference,
    reference_backward,
    softmax,
    softmax_backward,
)

from .oracle import BACKENDS, DEVICE, DTYPES, assert_as_exact_as_torch, needs_triton, random

OPERATORS: dict[bool, Callable[..., Tensor]] = {False: softmax, True: log_softmax}
TORCHS: dict[bool, Callable[..., Tensor]] = {False: torch.softmax, True: torch.log_softmax}
LOG = pytest.mark.parametrize("log", [False, True], ids=["softmax", "log_softmax"])
BACKEND = pytest.mark.parametrize("backend", BACKENDS)


@BACKEND
@LOG
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (3, 17), (2, 3, 48), (1, 1025), (1, 40_000)])
def test_it_is_as_exact_as_torch(shape: tuple[int, ...], dtype: torch.dtype, log: bool, backend: str) -> None:
    x = random(*shape, dtype=dtype, scale=4.0)
    exact = reference(x.double(), log=log)
    assert_as_exact_as_torch(OPERATORS[log](x, backend=backend), exact, TORCHS[log](x, dim=-1))


@BACKEND
@LOG
@settings(max_examples=20, deadline=None)
@given(rows=st.integers(0, 5), width=st.integers(0, 40), scale=st.floats(0.1, 3.0), seed=st.integers(0, 99))
def test_any_small_shape_and_mask(log: bool, backend: str, rows: int, width: int, scale: float, seed: int) -> None:
    x, mask = random(rows, width, seed=seed), random(rows, width, seed=seed + 1) > 0
    exact = reference(x.double(), mask, scale=scale, log=log)
    assert_as_exact_as_torch(
        OPERATORS[log](x, mask, scale=scale, backend=backend), exact, reference(x, mask, scale=scale, log=log)
    )


@BACKEND
@pytest.mark.parametrize("width", [9, 20_000])
def test_rows_sum_to_one_and_a_shift_changes_nothing(width: int, backend: str) -> None:
    x = random(2, width)
    y = softmax(x, backend=backend)
    assert y.double().sum(dim=1).tolist() == pytest.approx([1.0, 1.0], abs=1e-5)
    assert torch.allclose(softmax(x + 64.0, backend=backend), y, rtol=1e-4, atol=0)


@BACKEND
@LOG
@pytest.mark.parametrize("width", [6, 20_000])
def test_a_row_with_nothing_kept_is_empty_whatever_it_holds(width: int, log: bool, backend: str) -> None:
    nothing = -float("inf") if log else 0.0
    x = torch.full((3, width), float("nan"), device=DEVICE)
    x[1] = -float("inf")
    x[2] = 1.0
    mask = torch.tensor([[False], [True], [True]], device=DEVICE)
    y = OPERATORS[log](x, mask, backend=backend)
    assert bool((y[:2] == nothing).all())
    assert bool(y[2].isfinite().all())


@BACKEND
@LOG
def test_a_nan_that_is_kept_spoils_its_row_and_one_that_is_masked_does_not(log: bool, backend: str) -> None:
    x = random(2, 8)
    x[:, 3] = float("nan")
    mask = torch.ones(2, 8, dtype=torch.bool, device=DEVICE)
    mask[0, 3] = False
    y = OPERATORS[log](x, mask, backend=backend)
    kept = torch.cat([y[0, :3], y[0, 4:]])
    alone = OPERATORS[log](torch.cat([x[0, :3], x[0, 4:]])[None], backend="torch")[0]
    assert torch.allclose(kept, alone, rtol=1e-5)
    assert bool(y[1].isnan().all())


@BACKEND
@LOG
def test_the_largest_finite_values_do_not_overflow(log: bool, backend: str) -> None:
    x = torch.tensor([[3e38, 3e38, -3e38, 0.0]], device=DEVICE)
    y = OPERATORS[log](x, backend=backend)
    assert torch.allclose(y.exp() if log else y, torch.tensor([[0.5, 0.5, 0.0, 0.0]], device=DEVICE))


@BACKEND
@LOG
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 17), (0, 4), (2, 0), (1, 20_000)])
def test_the_backward_formula_is_as_exact_as_in_torch(
    shape: tuple[int, ...], dtype: torch.dtype, log: bool, backend: str
) -> None:
    y, dy = reference(random(*shape, dtype=dtype), log=log), random(*shape, dtype=dtype, seed=1)
    exact = reference_backward(y.double(), dy.double(), log=log)
    plain = (dy - y.exp() * dy.sum(-1, keepdim=True)) if log else y * (dy - (y * dy).sum(-1, keepdim=True))
    assert_as_exact_as_torch(softmax_backward(y, dy, log=log, backend=backend), exact, plain)


def test_the_gradient_of_log_softmax_is_what_the_books_say() -> None:
    x, dy = random(2, 5).double(), random(2, 5, seed=1).double()
    y = log_softmax(x)
    expected = dy - torch.softmax(x, dim=-1) * dy.sum(dim=-1, keepdim=True)
    assert torch.allclose(softmax_backward(y, dy, log=True), expected, rtol=1e-12)


def test_the_cross_entropy_of_a_known_distribution() -> None:
    y = log_softmax(torch.tensor([0.1, 0.8, 0.1], dtype=torch.float64).log())
    assert -float(y[1]) == pytest.approx(0.22314355, abs=1e-8)


@BACKEND
@LOG
def test_autograd_agrees_with_float64_and_gives_masked_elements_nothing(log: bool, backend: str) -> None:
    x, dy = random(4, 9), random(4, 9, seed=1)
    mask = random(4, 9, seed=2) > -0.5
    mask[3] = False
    gradients = []
    for values, chosen in ((x.clone(), backend), (x.double(), "torch")):
        leaf = values.requires_grad_()
        y = OPERATORS[log](leaf, mask, scale=0.7, backend=chosen)
        torch.where(mask, y, 0.0).backward(dy.to(y.dtype))
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert torch.allclose(gradients[0].double(), gradients[1], atol=1e-6)
    assert float(gradients[0][~mask].abs().max()) == 0.0


@LOG
def test_the_torch_path_passes_a_numerical_gradient_check(log: bool) -> None:
    assert torch.autograd.gradcheck(OPERATORS[log], (random(2, 4).double().requires_grad_(),))


@BACKEND
@LOG
def test_a_row_alone_has_the_bits_it_has_in_a_batch_and_two_runs_agree(log: bool, backend: str) -> None:
    x = random(64, 100, dtype=torch.bfloat16)
    together = OPERATORS[log](x, backend=backend)
    assert torch.equal(together, OPERATORS[log](x, backend=backend))
    for row in (0, 31, 63):
        assert torch.equal(OPERATORS[log](x[row : row + 1], backend=backend)[0], together[row])


@BACKEND
def test_slices_broadcast_masks_and_writing_in_place(backend: str) -> None:
    wide = random(4, 40)
    mask = random(24, seed=1) > 0
    expected = softmax(wide[:, 8:32].contiguous(), mask.expand(4, 24).contiguous(), backend=backend)
    assert torch.equal(softmax(wide[:, 8:32], mask, backend=backend), expected)
    assert softmax(wide[:, 8:32], mask, out=wide[:, 8:32], backend=backend).data_ptr() == wide[:, 8:].data_ptr()
    assert torch.equal(wide[:, 8:32], expected)


@needs_triton
def test_the_operators_are_registered_and_compile_with_their_gradient() -> None:
    x = random(2, 6)
    torch.library.opcheck(SOFTMAX, (x, x > 0, 1.0, True, torch.empty_like(x)))
    torch.library.opcheck(SOFTMAX_BACKWARD, (x, x, 1.0, False, torch.empty_like(x)))

    def loss(t: Tensor) -> Tensor:
        return (log_softmax(t, backend="triton") * softmax(t, backend="triton")).sum()

    gradients = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaf = x.clone().requires_grad_()
        function(leaf).backward()
        assert leaf.grad is not None
        gradients.append(leaf.grad)
    assert torch.allclose(*gradients, rtol=1e-6)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="bool"):
        softmax(random(2, 4), random(2, 4))
    with pytest.raises(ValueError, match="two alike"):
        softmax_backward(random(2, 4), random(2, 3))
