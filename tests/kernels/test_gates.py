"""SwiGLU, GEGLU and bias + ReLU: exactness over the whole range, halves of one projection, compilation."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from rolecall.kernels.bias_relu import BIAS_RELU, bias_relu
from rolecall.kernels.bias_relu import reference as bias_relu_reference
from rolecall.kernels.gates import GATE, geglu, reference, swiglu

from .oracle import BACKENDS, DEVICE, DTYPES, assert_as_exact_as_torch, needs_triton, random

GATES: dict[str, Callable[..., Tensor]] = {
    "silu": swiglu,
    "gelu": geglu,
    "gelu_tanh": lambda gate, up, **more: geglu(gate, up, approximate="tanh", **more),
}


def plain(gate: Tensor, up: Tensor, activation: str) -> Tensor:
    if activation == "silu":
        return torch.nn.functional.silu(gate) * up
    return torch.nn.functional.gelu(gate, approximate="tanh" if activation == "gelu_tanh" else "none") * up


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("activation", GATES)
@pytest.mark.parametrize("shape", [(1, 1), (0, 5), (3, 0), (3, 17), (2, 3, 48), (2, 1537)])
def test_gates_are_as_exact_as_torch(shape: tuple[int, ...], activation: str, dtype: torch.dtype, backend: str) -> None:
    gate, up = random(*shape, dtype=dtype, scale=3.0), random(*shape, dtype=dtype, seed=1)
    exact = reference(gate.double(), up.double(), activation=activation)
    ours = GATES[activation](gate, up, backend=backend)
    assert_as_exact_as_torch(ours, exact, plain(gate, up, activation))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", GATES)
def test_gates_are_finite_and_right_at_the_ends_of_the_range(activation: str, backend: str) -> None:
    gate = torch.tensor([[-1e38, -1e4, -30.0, -0.0, 0.0, 1e-40, 30.0, 1e4, 1e38]], device=DEVICE)
    y = GATES[activation](gate, torch.ones_like(gate), backend=backend)
    assert y[0, :2].tolist() == [0.0, 0.0]
    assert y[0, 3:5].tolist() == [0.0, 0.0]
    assert torch.equal(y[0, 6:], gate[0, 6:])


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_halves_of_one_projection_are_read_in_place_and_the_gate_may_be_overwritten(backend: str) -> None:
    both = random(4, 80)
    gate, up = both[:, :40], both[:, 40:]
    apart = swiglu(gate.contiguous(), up.contiguous(), backend=backend)
    assert torch.allclose(swiglu(gate, up, out=gate, backend=backend), apart, rtol=1e-6, atol=0)
    assert torch.equal(both[:, :40], gate)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_alone_has_the_bits_it_has_in_a_batch(backend: str) -> None:
    gate, up = random(64, 96, dtype=torch.float16), random(64, 96, dtype=torch.float16, seed=1)
    together = swiglu(gate, up, backend=backend)
    for row in (0, 31, 63):
        assert torch.equal(swiglu(gate[row : row + 1], up[row : row + 1], backend=backend)[0], together[row])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (0, 5), (3, 0), (3, 17), (2, 3, 48)])
def test_bias_and_relu_are_as_exact_as_torch(shape: tuple[int, ...], dtype: torch.dtype, backend: str) -> None:
    x, bias = random(*shape, dtype=dtype), random(shape[-1], dtype=dtype, seed=1)
    exact = bias_relu_reference(x.double(), bias.double())
    assert_as_exact_as_torch(bias_relu(x, bias, backend=backend), exact, (x + bias).relu())


@pytest.mark.parametrize("backend", BACKENDS)
def test_relu_keeps_a_nan_and_cuts_infinity_on_one_side_only(backend: str) -> None:
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), -1.0, 2.0]], device=DEVICE)
    y = bias_relu(x, torch.zeros(5, device=DEVICE), out=x, backend=backend)
    assert bool(y[0, 0].isnan())
    assert y[0, 1:].tolist() == [float("inf"), 0.0, 0.0, 2.0]
    assert y is x


def test_the_torch_paths_are_differentiable() -> None:
    gate, up = (random(2, 3, seed=seed).double().requires_grad_() for seed in (0, 1))
    for gated in GATES.values():
        assert torch.autograd.gradcheck(gated, (gate, up))
    assert torch.autograd.gradcheck(bias_relu, (gate, up[0].detach().requires_grad_()))


@needs_triton
def test_the_operators_are_registered_and_compile_into_a_full_graph() -> None:
    gate, up = random(2, 5), random(2, 5, seed=1)
    torch.library.opcheck(GATE, (gate, up, "gelu", torch.empty_like(gate)))
    torch.library.opcheck(BIAS_RELU, (gate, up[0].clone(), torch.empty_like(gate)))

    def block(gate: Tensor, up: Tensor) -> Tensor:
        return bias_relu(geglu(swiglu(gate, up, backend="triton"), up, backend="triton"), up[0], backend="triton")

    compiled = torch.compile(block, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(gate, up), block(gate, up))


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="two alike"):
        swiglu(random(2, 4), random(2, 3))
    with pytest.raises(ValueError, match="'none', 'tanh'"):
        geglu(random(2, 4), random(2, 4), approximate="erf")
    with pytest.raises(ValueError, match="got bias"):
        bias_relu(random(2, 4), random(3))
