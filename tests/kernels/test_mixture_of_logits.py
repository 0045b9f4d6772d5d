"""Mixture-of-Logits: the formula, its bound, its gradient, and that no tensor of query x item x pair is ever made."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from rolecall.kernels import mixture_of_logits as operator
from rolecall.kernels.mixture_of_logits import (
    MIXTURE_OF_LOGITS,
    CrossGate,
    Side,
    chunks,
    mixture_of_logits,
    mixture_topk,
    reference,
)
from rolecall.kernels.mixture_of_logits_module import MixtureOfLogits, MixtureSizes

from .oracle import BACKENDS, DEVICE, DTYPES, assert_as_exact_as_torch, needs_triton, random

BACKEND = pytest.mark.parametrize("backend", BACKENDS)


def unit(*shape: int, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.nn.functional.normalize(random(*shape, seed=seed).double(), dim=-1).to(dtype)


def case(
    batch: int, count: int, parts: tuple[int, int] = (2, 3), width: int = 5, hidden: int = 7, *,
    dtype: torch.dtype = torch.float32, seed: int = 0,
) -> tuple[Side, Side, CrossGate]:  # fmt: skip
    pairs = parts[0] * parts[1]
    weights = [random(*shape, dtype=dtype, seed=seed + i, scale=0.3)
               for i, shape in enumerate([(hidden, pairs), (hidden,), (pairs, hidden), (pairs,)])]  # fmt: skip
    queries = Side(
        components=unit(batch, parts[0], width, dtype=dtype, seed=seed + 4),
        gates=random(batch, pairs, dtype=dtype, seed=seed + 5),
    )
    items = Side(
        components=unit(count, parts[1], width, dtype=dtype, seed=seed + 6),
        gates=random(count, pairs, dtype=dtype, seed=seed + 7),
    )
    return queries, items, CrossGate(w1=weights[0], b1=weights[1], w2=weights[2], b2=weights[3])


def tensors(queries: Side, items: Side, cross: CrossGate) -> tuple[Tensor, ...]:
    return queries.components, queries.gates, items.components, items.gates, *cross.tensors


def of_tensors(f: Tensor, u: Tensor, g: Tensor, v: Tensor, *cross: Tensor) -> tuple[Side, Side, CrossGate]:
    w1, b1, w2, b2 = cross
    return Side(components=f, gates=u), Side(components=g, gates=v), CrossGate(w1=w1, b1=b1, w2=w2, b2=b2)


def wider(queries: Side, items: Side, cross: CrossGate) -> tuple[Side, Side, CrossGate]:
    return of_tensors(*(each.double() for each in tensors(queries, items, cross)))


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def by_hand(queries: Side, items: Side, cross: CrossGate, tau: float) -> list[list[float]]:
    """The definition, in loops over Python's numbers."""
    f, u, g, v, w1, b1, w2, b2 = (each.tolist() for each in tensors(queries, items, cross))
    scores = []
    for parts, mine in zip(f, u, strict=True):
        row = []
        for its_parts, its in zip(g, v, strict=True):
            l = [sum(x * y for x, y in zip(a, b, strict=True)) / tau for a in parts for b in its_parts]  # noqa: E741
            h = [silu(sum(w * x for w, x in zip(ws, l, strict=True)) + b) for ws, b in zip(w1, b1, strict=True)]
            a = [mine[p] * its[p] + sum(w * x for w, x in zip(w2[p], h, strict=True)) + b2[p] for p in range(len(l))]
            raised = [math.exp(silu(x)) for x in a]
            row.append(sum(r * x for r, x in zip(raised, l, strict=True)) / sum(raised))
        scores.append(row)
    return scores


def test_the_score_is_that_of_the_definition() -> None:
    sides = wider(*case(2, 3))
    expected = torch.tensor(by_hand(*sides, tau=0.05), dtype=torch.float64, device=DEVICE)
    assert torch.allclose(mixture_of_logits(*sides), expected, rtol=1e-12)
    assert torch.allclose(reference(*sides, tau=0.05), expected, rtol=1e-12)


@BACKEND
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("batch", "count", "parts", "width", "hidden"),
    [(1, 1, (1, 1), 1, 1), (3, 17, (2, 3), 5, 7), (2, 33, (8, 4), 32, 16), (0, 4, (2, 2), 4, 4), (2, 0, (2, 2), 4, 4)],
)
def test_it_is_as_exact_as_torch(
    backend: str, dtype: torch.dtype, batch: int, count: int, parts: tuple[int, int], width: int, hidden: int
) -> None:
    sides = case(batch, count, parts, width, hidden, dtype=dtype)
    exact = reference(*wider(*sides), tau=0.1)
    torchs = operator._mixed(0.1, *tensors(*sides))[0] if batch * count else exact
    ours = mixture_of_logits(*sides, tau=0.1, backend=backend)
    assert ours.dtype == torch.float32
    assert_as_exact_as_torch(
        ours, exact, torchs.float(), ulps=4.0 * torch.finfo(dtype).eps / torch.finfo(ours.dtype).eps
    )


@settings(max_examples=40, deadline=None)
@given(parts=st.tuples(st.integers(1, 4), st.integers(1, 4)), tau=st.floats(0.02, 1.0), seed=st.integers(0, 999))
def test_no_score_exceeds_the_best_pair(parts: tuple[int, int], tau: float, seed: int) -> None:
    queries, items, cross = wider(*case(3, 4, parts, seed=seed))
    scores = mixture_of_logits(queries, items, cross, tau=tau)
    dots = torch.einsum("bqd,nxd->bnqx", queries.components, items.components).flatten(2) / tau
    assert bool((scores <= dots.amax(2) + 1e-9).all())
    assert bool((scores >= dots.amin(2) - 1e-9).all())
    if parts == (1, 1):
        assert torch.allclose(scores, dots[..., 0])


@pytest.mark.parametrize("most", [1, 40, 10_000])
def test_the_gradient_is_that_of_the_formula_in_chunks_of_any_size(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "CHUNK_ELEMENTS", most)
    leaves = [each.requires_grad_() for each in tensors(*wider(*case(3, 4)))]
    torch.autograd.gradcheck(lambda *each: mixture_of_logits(*of_tensors(*each), tau=0.3), leaves, fast_mode=most != 40)


class Largest(TorchDispatchMode):
    """The most elements of any tensor an operation made."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for each in result if isinstance(result, tuple) else (result,):
            if isinstance(each, Tensor):
                self.elements = max(self.elements, each.numel())
        return result


def test_nothing_as_large_as_all_pairs_is_made_forward_or_backward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operator, "CHUNK_ELEMENTS", 4096)
    monkeypatch.setattr(operator, "_DEVICE_ELEMENTS", 4096)
    sides = case(40, 300, (4, 4), 8, 8)
    leaves = [each.requires_grad_() for each in tensors(*sides)]
    with Largest() as seen:
        mixture_of_logits(*of_tensors(*leaves)).sum().backward()
    assert seen.elements == 40 * 300  # the scores; all pairs would be 16 times as many
    assert leaves[0].grad is not None
    with Largest() as seen, torch.no_grad():
        mixture_topk(*sides, 5)
    assert seen.elements <= 40 * 300 + 40 * 5


@settings(max_examples=50, deadline=None)
@given(b=st.integers(0, 9), n=st.integers(0, 30), width=st.integers(1, 9), most=st.integers(0, 200))
def test_chunks_cover_every_pair_once_and_keep_their_size(b: int, n: int, width: int, most: int) -> None:
    times = torch.zeros(b, n)
    for rows, columns in chunks(b, n, width, most):
        times[rows, columns] += 1
        assert times[rows, columns].numel() * width <= max(most, width)
    assert bool((times == 1).all())


@BACKEND
def test_slices_are_read_and_the_result_written_where_it_is_told(backend: str) -> None:
    queries, items, cross = case(3, 20)
    expected = mixture_of_logits(queries.rows(1, 3), items.rows(4, 20), cross, backend=backend)
    strided = Side(components=torch.cat([items.components] * 2, dim=2)[..., 5:], gates=items.gates)
    out = torch.full((2, 30), 7.0, device=DEVICE)
    given = mixture_of_logits(queries.rows(1, 3), strided.rows(4, 20), cross, out=out[:, 2:18], backend=backend)
    assert given.data_ptr() == out[:, 2:].data_ptr()
    assert torch.equal(given, expected)
    assert bool((out[:, 18:] == 7).all())
    assert torch.equal(mixture_of_logits(queries.rows(1, 3), items.rows(4, 20), cross, backend=backend), expected)


@needs_triton
def test_in_the_kernel_a_query_alone_has_the_bits_it_has_in_a_batch() -> None:
    queries, items, cross = case(5, 20)
    together = mixture_of_logits(queries, items, cross, backend="triton")
    for row in (0, 3):
        alone = mixture_of_logits(queries.rows(row, row + 1), items, cross, backend="triton")
        assert torch.equal(alone[0], together[row])


@BACKEND
def test_extreme_gates_and_logits_stay_finite(backend: str) -> None:
    queries, items, cross = case(2, 3)
    loud = Side(components=queries.components, gates=queries.gates * 1e15)
    scores = mixture_of_logits(loud, items, cross, tau=1e-4, backend=backend)
    assert bool(scores.isfinite().all())
    assert float(scores.abs().max()) <= 1e4 * (1 + 1e-5)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 40), k=st.integers(0, 12), kind=st.sampled_from(["none", "one", "each"]))
def test_the_best_by_tiles_are_those_of_all_scores(count: int, k: int, kind: str) -> None:
    queries, items, cross = case(3, count, seed=count)
    items = Side(components=items.components[torch.arange(count) // 2], gates=items.gates[torch.arange(count) // 2])
    mask = random(3, count, seed=k) > 0
    allowed = {"none": None, "one": mask[0], "each": mask}[kind]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(operator, "_TILE_ITEMS", 7)
        best = mixture_topk(queries, items, cross, k, allowed=allowed, backend="torch")
        scores = torch.cat(
            [mixture_of_logits(queries, items.rows(i, i + 7), cross) for i in range(0, count, 7)]
            or [queries.gates.new_empty(3, 0)],
            dim=1,
        )
    for b in range(3):
        kept = range(count) if allowed is None else allowed.expand(3, count)[b].nonzero()[:, 0].tolist()
        expected = sorted((-float(scores[b, n]), n) for n in kept)[:k]
        assert [row for row in best.rows[b].tolist() if row >= 0] == [n for _, n in expected]
        assert best.scores[b].tolist() == [-s for s, _ in expected] + [-math.inf] * (k - len(expected))


@needs_triton
def test_the_operator_is_registered_and_compiles_with_its_gradient() -> None:
    sides = case(2, 5)
    out = torch.empty(2, 5, device=DEVICE)
    torch.library.opcheck(MIXTURE_OF_LOGITS, (0.05, *tensors(*sides), out))

    def scores(*each: Tensor) -> Tensor:
        return mixture_of_logits(*of_tensors(*each), backend="triton")

    compiled = torch.compile(scores, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*tensors(*sides)), scores(*tensors(*sides)))

    def loss(*each: Tensor) -> Tensor:
        return mixture_of_logits(*of_tensors(*each)).square().sum()

    gradients = []
    for function in (loss, torch.compile(loss, fullgraph=True, backend="aot_eager")):
        leaves = [each.clone().requires_grad_() for each in tensors(*sides)]
        function(*leaves).backward()
        gradients.append([each.grad for each in leaves])
    for mine, theirs in zip(*gradients, strict=True):
        assert mine is not None
        assert theirs is not None
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-5)


def test_sides_kept_from_before_give_the_scores_of_the_embeddings() -> None:
    torch.manual_seed(0)
    model = MixtureOfLogits(MixtureSizes(query=6, item=5, query_parts=2, item_parts=3, width=4, hidden=8)).to(DEVICE)
    q, x = random(4, 6), random(30, 5, seed=1)
    model.eval()
    with torch.no_grad():
        kept = model.item_side(x)
        assert kept.components.norm(dim=-1).flatten().tolist() == pytest.approx([1.0] * 90, abs=1e-5)
        scores = model.score(model.query_side(q), kept)
        assert torch.equal(scores, model(q, x))
        best = model.topk(model.query_side(q), kept, 7)
    assert torch.equal(best.rows[:, 0], scores.argmax(dim=1))


def test_it_learns_what_a_single_dot_product_cannot() -> None:
    torch.manual_seed(0)
    q, x = torch.eye(12, device=DEVICE), torch.eye(12, device=DEVICE)
    wanted = (torch.arange(12, device=DEVICE) * 5 + 3) % 12
    sizes = MixtureSizes(query=12, item=12, query_parts=2, item_parts=2, width=2, hidden=16, query_hidden=32,
                         query_dropout=0.0, item_dropout=0.0)  # fmt: skip
    model = MixtureOfLogits(sizes).to(DEVICE)
    adam = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        adam.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(q, x), wanted)
        loss.backward()
        adam.step()
    assert float((model(q, x).argmax(dim=1) == wanted).double().mean()) > 0.9


def test_what_does_not_fit_is_refused() -> None:
    queries, items, cross = case(2, 4)
    with pytest.raises(ValueError, match="item gates"):
        mixture_of_logits(queries, Side(components=items.components, gates=items.gates[:, 1:]), cross)
    with pytest.raises(ValueError, match="tau"):
        mixture_of_logits(queries, items, cross, tau=0.0)
    with pytest.raises(ValueError, match="one float dtype"):
        mixture_of_logits(queries, Side(components=items.components, gates=items.gates.double()), cross)
    with pytest.raises(ValueError, match="allowed"):
        mixture_topk(queries, items, cross, 3, allowed=torch.ones(5, dtype=torch.bool, device=DEVICE))
    with pytest.raises(ValueError, match="1 or more"):
        MixtureSizes(query=0, item=1)
