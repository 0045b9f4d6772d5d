"""Rotary embedding: exactness, what a rotation keeps, both pairings, partial widths, strides, compilation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rolecall.kernels.rope import ROPE, ROPE_PAIR, reference, rope, rope_pair, rope_tables

from .oracle import BACKENDS, DEVICE, DTYPES, assert_as_exact_as_torch, needs_triton, random

BACKEND = pytest.mark.parametrize("backend", BACKENDS)
PAIRING = pytest.mark.parametrize("interleaved", [False, True], ids=["half-split", "interleaved"])


def tables(width: int, positions: int = 64) -> tuple[Tensor, Tensor]:
    return rope_tables(positions, width, device=DEVICE)


def at(*positions: int) -> Tensor:
    return torch.tensor(positions, device=DEVICE)


def plain(x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, interleaved: bool) -> Tensor:
    """The expression of the field's model code, all in x's dtype; the whole width."""
    half = cos.shape[1]
    c, s = cos.to(x.dtype)[positions][:, None], sin.to(x.dtype)[positions][:, None]
    if interleaved:
        c, s = c.repeat_interleave(2, dim=-1), s.repeat_interleave(2, dim=-1)
        turned = torch.stack((-x[..., 1::2], x[..., 0::2]), dim=-1).flatten(-2)
    else:
        c, s = torch.cat((c, c), -1), torch.cat((s, s), -1)
        turned = torch.cat((-x[..., half:], x[..., :half]), -1)
    return x * c + turned * s


@BACKEND
@PAIRING
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1, 2), (3, 3, 8), (4, 9, 64), (2, 5, 96)])
def test_it_is_as_exact_as_torch(
    shape: tuple[int, int, int], dtype: torch.dtype, interleaved: bool, backend: str
) -> None:
    x, positions = random(*shape, dtype=dtype), torch.arange(shape[0], device=DEVICE) * 7
    cos, sin = tables(shape[2])
    exact = reference(x.double(), positions, cos, sin, interleaved=interleaved)
    ours = rope(x, positions, cos, sin, interleaved=interleaved, backend=backend)
    assert_as_exact_as_torch(ours, exact, plain(x, positions, cos, sin, interleaved))


@BACKEND
@PAIRING
@settings(max_examples=12, deadline=None)
@given(tokens=st.integers(0, 3), heads=st.integers(1, 5), half=st.integers(1, 9), rest=st.integers(0, 5))
def test_a_partial_width_leaves_the_rest_as_it_is(
    interleaved: bool, backend: str, tokens: int, heads: int, half: int, rest: int
) -> None:
    x, positions = random(tokens, heads, 2 * half + rest), torch.arange(tokens, device=DEVICE)
    cos, sin = tables(2 * half)
    y = rope(x, positions, cos, sin, interleaved=interleaved, backend=backend)
    exact = reference(x.double(), positions, cos, sin, interleaved=interleaved)
    assert torch.equal(y[..., 2 * half :], x[..., 2 * half :])
    assert torch.allclose(y.double(), exact, atol=1e-6)


@BACKEND
@PAIRING
def test_lengths_are_kept_and_products_depend_on_the_distance_alone(interleaved: bool, backend: str) -> None:
    q, k = random(1, 2, 32), random(1, 2, 32, seed=1)
    cos, sin = tables(32)
    products = []
    for query, key in ((5, 2), (33, 30)):
        turned_q, turned_k = (
            rope(x, at(place), cos, sin, interleaved=interleaved, backend=backend)
            for x, place in ((q, query), (k, key))
        )
        assert torch.allclose(turned_q.norm(dim=-1), q.norm(dim=-1), rtol=1e-6)
        products.append((turned_q * turned_k).sum(-1))
    assert torch.allclose(*products, rtol=1e-4, atol=1e-5)


@BACKEND
def test_the_pairings_are_one_rotation_of_elements_in_another_order(backend: str) -> None:
    x, positions = random(3, 2, 16), at(1, 20, 63)
    order = torch.arange(16, device=DEVICE).view(2, 8).t().reshape(-1)  # half-split to interleaved
    cos, sin = tables(16)
    split = rope(x, positions, cos, sin, backend=backend)
    woven = rope(x[..., order].contiguous(), positions, cos, sin, interleaved=True, backend=backend)
    assert torch.equal(split[..., order], woven)


@BACKEND
def test_position_zero_changes_nothing_and_angles_are_exact_far_out(backend: str) -> None:
    cos, sin = rope_tables(100_001, 4, device=DEVICE)
    x = torch.tensor([[[1.0, 0.0, 0.0, 0.0]]] * 2, device=DEVICE)
    y = rope(x, at(0, 100_000), cos, sin, backend=backend)
    assert torch.equal(y[0], x[0])
    exact = torch.tensor(100_000.0, dtype=torch.float64)
    assert y[1, 0, [0, 2]].tolist() == pytest.approx([float(exact.cos()), float(exact.sin())], abs=1e-7)


@BACKEND
@PAIRING
def test_queries_and_keys_of_one_projection_are_turned_in_place(interleaved: bool, backend: str) -> None:
    projection, positions = random(4, 8, 16), at(3, 1, 4, 1)
    cos, sin = tables(16)
    before = projection.clone()
    q, k = projection[:, :5], projection[:, 5:7]
    apart = [rope(x.contiguous(), positions, cos, sin, interleaved=interleaved, backend=backend) for x in (q, k)]
    rope_pair(q, k, positions, cos, sin, interleaved=interleaved, out=(q, k), backend=backend)
    assert torch.equal(projection[:, :5], apart[0])
    assert torch.equal(projection[:, 5:7], apart[1])
    assert torch.equal(projection[:, 7:], before[:, 7:])


@BACKEND
def test_a_token_alone_has_the_bits_it_has_in_a_batch(backend: str) -> None:
    x, positions = random(64, 3, 16, dtype=torch.bfloat16), torch.arange(64, device=DEVICE)
    cos, sin = tables(16)
    together = rope(x, positions, cos, sin, backend=backend)
    for token in (0, 31, 63):
        alone = rope(x[token : token + 1], positions[token : token + 1], cos, sin, backend=backend)
        assert torch.equal(alone[0], together[token])


@needs_triton
def test_the_operators_are_registered_and_compile_into_a_full_graph() -> None:
    q, k, positions = random(2, 3, 8), random(2, 1, 8, seed=1), at(1, 2)
    cos, sin = tables(8)
    torch.library.opcheck(ROPE, (q, positions, cos, sin, False, torch.empty_like(q)))
    outs = (torch.empty_like(q), torch.empty_like(k))
    torch.library.opcheck(ROPE_PAIR, (q, k, positions, cos, sin, True, *outs))

    def turned(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        return rope_pair(rope(q, positions, cos, sin, backend="triton"), k, positions, cos, sin, backend="triton")

    compiled = torch.compile(turned, fullgraph=True, backend="aot_eager")
    for ours, theirs in zip(compiled(q, k), turned(q, k), strict=True):
        assert torch.equal(ours, theirs)


def test_what_does_not_fit_is_refused() -> None:
    x, (cos, sin) = random(2, 3, 8), tables(8)
    with pytest.raises(ValueError, match="tokens, heads, width"):
        rope(x[0], at(0, 1, 2), cos, sin)
    with pytest.raises(ValueError, match="positions"):
        rope(x, at(0), cos, sin)
    with pytest.raises(ValueError, match="R at most"):
        rope(x, at(0, 1), *tables(10))
    with pytest.raises(ValueError, match="even"):
        rope_tables(4, 3)
