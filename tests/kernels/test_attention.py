"""Attention: exactness in every form, what unseen keys mean, invariance, compilation."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rolecall.kernels.attention import ATTENTION, attention, reference, visible

from .oracle import DEVICE, DTYPES, LOOPING_BACKENDS, assert_as_exact_as_torch, needs_loops, random

BACKEND = pytest.mark.parametrize("backend", LOOPING_BACKENDS)


def qkv(
    n: int, m: int, heads: int, groups: int, width: int, *, dtype: torch.dtype = torch.float32, batch: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        random(batch, n, heads, width, dtype=dtype),
        random(batch, m, groups, width, dtype=dtype, seed=1),
        random(batch, m, groups, width, dtype=dtype, seed=2),
    )


def plain(q: Tensor, k: Tensor, v: Tensor, causal: bool, window: int | None, scale: float | None = None) -> Tensor:
    """The textbook expression, all in q's dtype, of one sequence."""
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1).transpose(0, 1), v.repeat_interleave(group, 1).transpose(0, 1)
    scores = q.transpose(0, 1) @ k.transpose(1, 2) * (scale or 1 / math.sqrt(q.shape[-1]))
    seen = visible(q.shape[0], k.shape[1], causal=causal, window=window, device=q.device)
    weights = torch.softmax(scores.masked_fill(~seen, -math.inf), -1).nan_to_num(0.0)
    return (weights @ v).transpose(0, 1)


FORMS = [
    # queries, keys, heads, key heads, width, causal, window
    (1, 1, 1, 1, 1, False, None),
    (5, 19, 2, 1, 8, False, None),
    (19, 19, 3, 3, 20, True, None),
    (7, 40, 4, 2, 16, True, None),
    (21, 37, 2, 2, 16, True, 5),
    (20, 3, 1, 1, 16, True, None),  # the first queries see nothing
    (33, 33, 1, 1, 64, True, 17),
]


@BACKEND
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_it_is_as_exact_as_torch(
    form: tuple[int, int, int, int, int, bool, int | None], dtype: torch.dtype, backend: str
) -> None:
    *sizes, causal, window = form
    q, k, v = qkv(*sizes, dtype=dtype)
    exact = reference(q[0].double(), k[0].double(), v[0].double(), causal=causal, window=window)
    ours = attention(q, k, v, causal=causal, window=window, backend=backend)[0]
    assert_as_exact_as_torch(ours, exact, plain(q[0], k[0], v[0], causal, window))


@BACKEND
@settings(max_examples=8, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), min_size=0, max_size=3), causal=st.booleans()
)
def test_packed_sequences_are_attended_apart(backend: str, lengths: list[tuple[int, int]], causal: bool) -> None:
    starts = [torch.tensor([0, *(pair[i] for pair in lengths)], device=DEVICE).cumsum(0).int() for i in (0, 1)]
    q, k, v = (t[0] for t in qkv(int(starts[0][-1]), int(starts[1][-1]), 2, 1, 8))
    ours = attention(q, k, v, causal=causal, q_starts=starts[0], k_starts=starts[1], backend=backend)
    places = list(zip(*(s.tolist() for s in starts), strict=True))
    for (q0, k0), (q1, k1) in pairwise(places):
        exact = reference(q[q0:q1].double(), k[k0:k1].double(), v[k0:k1].double(), causal=causal)
        assert torch.allclose(ours[q0:q1].double(), exact, atol=1e-5)


@BACKEND
def test_the_golden_output_of_online_softmax(backend: str) -> None:
    scores, values = torch.tensor([1.0, 3, 0, 2]), torch.tensor([[1.0, 0], [0, 2], [-1, 1], [3, 1]])
    q = torch.tensor([1.0, 0.0], device=DEVICE).view(1, 1, 1, 2)
    k = torch.stack((scores, torch.zeros(4)), dim=1).to(DEVICE).view(1, 4, 1, 2)
    o = attention(q, k, values.to(DEVICE).view(1, 4, 1, 2), scale=1.0, backend=backend)
    assert o.flatten().tolist() == pytest.approx([0.76573417, 1.55676994], abs=1e-6)


@BACKEND
def test_a_query_that_sees_no_key_gets_zeros(backend: str) -> None:
    q, k, v = qkv(5, 3, 1, 1, 8)
    o = attention(q, k, v, causal=True, backend=backend)
    assert o[0, :2].abs().max() == 0
    assert o[0, 2:].abs().min() > 0
    assert attention(q, k[:, :0], v[:, :0], backend=backend).abs().max() == 0


@BACKEND
def test_large_scores_do_not_overflow(backend: str) -> None:
    q, k, v = qkv(3, 20, 1, 1, 8)
    o = attention(q * 1e4, k * 1e4, v, backend=backend)
    nearest = (q[0, :, 0] @ k[0, :, 0].T).argmax(dim=1)
    assert torch.allclose(o[0, :, 0], v[0, nearest, 0])


@BACKEND
def test_values_alike_come_out_as_they_are_and_keys_may_be_shuffled(backend: str) -> None:
    q, k, v = qkv(4, 35, 2, 1, 16)
    same = attention(q, k, torch.ones_like(v), backend=backend)
    assert torch.allclose(same, torch.ones_like(same), atol=1e-6)
    order = torch.randperm(35, generator=torch.Generator().manual_seed(0)).to(DEVICE)
    shuffled = attention(q, k[:, order], v[:, order], backend=backend)
    assert torch.allclose(attention(q, k, v, backend=backend), shuffled, atol=1e-6)


@BACKEND
def test_one_projection_is_read_in_place_and_the_output_is_written_where_asked(backend: str) -> None:
    projection, target = random(2, 9, 6, 16), torch.zeros(2, 9, 8, 16, device=DEVICE)
    q, k, v = projection[:, :, :4], projection[:, :, 4:5], projection[:, :, 5:]
    attention(q, k, v, causal=True, out=target[:, :, 2:6], backend=backend)
    apart = attention(*(t.contiguous() for t in (q, k, v)), causal=True, backend=backend)
    assert torch.allclose(target[:, :, 2:6], apart, atol=1e-6)
    assert target[:, :, :2].abs().sum() + target[:, :, 6:].abs().sum() == 0


@BACKEND
def test_a_sequence_alone_has_the_bits_it_has_in_a_batch_and_two_runs_agree(backend: str) -> None:
    q, k, v = qkv(2, 18, 1, 1, 8, batch=8, dtype=torch.float16)
    together = attention(q, k, v, causal=True, backend=backend)
    assert torch.equal(together, attention(q, k, v, causal=True, backend=backend))
    for row in (0, 7):
        alone = attention(q[row : row + 1], k[row : row + 1], v[row : row + 1], causal=True, backend=backend)
        assert torch.equal(alone[0], together[row])


def test_the_torch_path_is_differentiable() -> None:
    q, k, v = (t.double().requires_grad_() for t in qkv(3, 4, 2, 1, 2))
    assert torch.autograd.gradcheck(lambda q, k, v: attention(q, k, v, causal=True), (q, k, v))


@needs_loops
def test_the_operator_is_registered_and_compiles_into_a_full_graph() -> None:
    q, k, v = qkv(2, 3, 1, 1, 8)
    torch.library.opcheck(ATTENTION, (q, k, v, None, None, 2, True, 0, 1.0, torch.empty_like(q)))
    compiled = torch.compile(
        lambda q, k, v: attention(q, k, v, backend="triton") + 1, fullgraph=True, backend="aot_eager"
    )
    assert torch.equal(compiled(q, k, v), attention(q, k, v, backend="triton") + 1)


def test_what_does_not_fit_is_refused() -> None:
    q, k, v = qkv(2, 3, 3, 2, 8)
    with pytest.raises(ValueError, match="divides"):
        attention(q, k, v)
    with pytest.raises(ValueError, match="without starts"):
        attention(q[0], k[0], v[0])
    q, k, v = qkv(2, 3, 2, 2, 8)
    with pytest.raises(ValueError, match="causal=True"):
        attention(q, k, v, window=4)
