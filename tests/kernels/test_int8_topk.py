"""The k best int8 items: exactly those of all scores, in their order, whatever the items' order, ties and masks."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.kernels.cpp import build
from rolecall.kernels.dispatch import INTERPRETED
from rolecall.kernels.int8_topk import Best, int8_topk
from rolecall.kernels.quantization import QuantizedRows, quantize_rows

from .oracle import needs_loops

BACKENDS = ["torch"] + (["cpp"] if build.available() else [])
ALL_BACKENDS = [*BACKENDS, *([pytest.param("triton", marks=needs_loops)] if INTERPRETED else [])]
compiled = pytest.mark.skipif(not build.available(), reason="needs a C++ compiler")


def draw(count: int, width: int, batch: int = 1, seed: int = 0) -> tuple[torch.Tensor, QuantizedRows]:
    generator = torch.Generator().manual_seed(seed)
    items = quantize_rows(torch.randn(count, width, generator=generator))
    return torch.randn(batch, width, generator=generator), items


def expected(
    queries: torch.Tensor, items: QuantizedRows, k: int, allowed: torch.Tensor | None = None
) -> list[list[tuple[float, int]]]:
    """By the definition, in Python's integers: (score, row) falling, ties by row."""
    rows = quantize_rows(queries)
    sums = rows.codes.long() @ items.codes.long().t()
    scores = sums.float() * items.scales
    out = []
    for b in range(len(queries)):
        mask = torch.ones(len(items.codes), dtype=torch.bool) if allowed is None else allowed
        mask = mask[b] if mask.ndim == 2 else mask
        order = sorted((-float(scores[b, n]), n) for n in range(len(items.codes)) if mask[n])[:k]
        out.append([(float(rows.scales[b] * scores[b, n]), n) for _, n in order])
    return out


def pairs(best: Best) -> list[list[tuple[float, int]]]:
    return [
        [(score, row) for score, row in zip(scores, rows, strict=True) if row >= 0]
        for scores, rows in zip(best.scores.tolist(), best.rows.tolist(), strict=True)
    ]


@pytest.mark.parametrize("backend", BACKENDS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_they_are_the_best_by_score_then_row(backend: str, data: st.DataObject) -> None:
    count, width, batch = data.draw(st.integers(0, 90)), data.draw(st.integers(1, 150)), data.draw(st.integers(0, 3))
    k = data.draw(st.integers(0, 100))
    queries, items = draw(count, width, batch, seed=count)
    codes = items.codes.clamp(-1, 1) if data.draw(st.booleans()) else items.codes
    scales = torch.ones(count) if data.draw(st.booleans()) else items.scales
    items = QuantizedRows(codes=codes, scales=scales)
    kind = data.draw(st.sampled_from(["none", "one", "each"]))
    mask = torch.rand(batch, count, generator=torch.Generator().manual_seed(k)) < 0.5
    allowed = {"none": None, "one": mask[0] if batch else None, "each": mask}[kind]
    best = int8_topk(queries, items, k, allowed=allowed, backend=backend)
    assert best.rows.shape == best.scores.shape == (batch, k)
    assert pairs(best) == expected(queries, items, k, allowed)


@compiled
@pytest.mark.parametrize("order", ["drawn", "rising", "falling", "blocks"])
@pytest.mark.parametrize("threads", [1, 3])
def test_many_items_in_any_order_give_what_all_scores_give(order: str, threads: int) -> None:
    queries, items = draw(50_000, 64, 2)
    if order == "blocks":  # every 64th block of 16 rows scores high: the sample promises what does not hold
        lift = (torch.arange(50_000) // 16 % 64 == 0).float() * 5 + 0.1
        items = QuantizedRows(codes=items.codes, scales=items.scales * lift)
    elif order != "drawn":
        scores = items.codes.double() @ quantize_rows(queries).codes[0].double() * items.scales
        ranks = scores.argsort(descending=order == "falling")
        items = QuantizedRows(codes=items.codes[ranks], scales=items.scales[ranks])
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for k in (1, 100, 20_000):
            ours, right = int8_topk(queries, items, k), int8_topk(queries, items, k, backend="torch")
            assert torch.equal(ours.rows, right.rows)
            assert torch.equal(ours.scores, right.scores)
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_where_all_scores_are_equal_the_first_rows_come_first(backend: str) -> None:
    _, items = draw(5000, 64)
    best = int8_topk(torch.zeros(1, 64), items, 7, backend=backend)
    assert best.rows.tolist() == [list(range(7))]
    assert best.scores.tolist() == [[0.0] * 7]


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_a_mask_without_items_leaves_nothing(backend: str) -> None:
    queries, items = draw(100, 64)
    best = int8_topk(queries, items, 3, allowed=torch.zeros(100, dtype=torch.bool), backend=backend)
    assert best.rows.tolist() == [[-1, -1, -1]]
    assert best.scores.tolist() == [[-torch.inf] * 3]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_query_alone_gives_what_it_gives_in_a_batch(backend: str) -> None:
    queries, items = draw(3000, 64, 64)
    whole = int8_topk(queries, items, 50, backend=backend)
    for b in (0, 31, 63):
        alone = int8_topk(queries[b : b + 1], items, 50, backend=backend)
        assert torch.equal(alone.rows[0], whole.rows[b])
        assert torch.equal(alone.scores[0], whole.scores[b])


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_a_prefix_is_scored_first_and_its_best_are_scored_again(backend: str) -> None:
    queries, items = draw(400, 96, 2)
    k, prefix = 10, 32
    head = QuantizedRows(codes=items.codes[:, :prefix].contiguous(), scales=items.scales)
    first = expected(queries[:, :prefix], head, 4 * k)
    kept = torch.zeros(2, 400, dtype=torch.bool)
    for b, found in enumerate(first):
        kept[b, [row for _, row in found]] = True
    best = int8_topk(queries, items, k, prefix=prefix, backend=backend)
    assert pairs(best) == expected(queries, items, k, kept)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_a_prefix_with_enough_candidates_or_of_all_columns_changes_nothing(backend: str) -> None:
    queries, items = draw(300, 96, 2)
    right = pairs(int8_topk(queries, items, 20, backend=backend))
    assert pairs(int8_topk(queries, items, 20, prefix=8, oversample=15, backend=backend)) == right
    assert pairs(int8_topk(queries, items, 20, prefix=96, oversample=1, backend=backend)) == right


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_scales_of_the_prefix_replace_those_of_the_items_in_the_first_stage(backend: str) -> None:
    queries, items = draw(300, 96)
    scales = torch.zeros(300)
    scales[:40] = -1.0
    scales[40:60] = 1e6
    best = int8_topk(queries.abs(), QuantizedRows(codes=items.codes.abs(), scales=items.scales), 5, prefix=8,
                     prefix_scales=scales, oversample=4, backend=backend)  # fmt: skip
    assert set(best.rows[0].tolist()) <= set(range(40, 60))


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_rows_with_gaps_between_them_are_read_as_they_lie(backend: str) -> None:
    queries, items = draw(100, 64)
    wide = torch.full((100, 200), 99, dtype=torch.int8)
    wide[:, 3:67] = items.codes
    strided = QuantizedRows(codes=wide[:, 3:67], scales=items.scales)
    assert pairs(int8_topk(queries, strided, 9, backend=backend)) == pairs(int8_topk(queries, items, 9))


@needs_loops
@pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")
@pytest.mark.parametrize(("count", "width", "batch", "k"), [(300, 40, 2, 3), (600, 70, 17, 20), (9, 33, 1, 12)])
@pytest.mark.parametrize("masks", ["none", "one", "each"])
def test_the_triton_kernels_give_the_best_by_score_then_row(
    count: int, width: int, batch: int, k: int, masks: str
) -> None:
    queries, items = draw(count, width, batch)
    items = QuantizedRows(codes=items.codes.clamp(-1, 1), scales=torch.ones(count))  # many ties
    mask = torch.rand(batch, count, generator=torch.Generator().manual_seed(k)) < 0.5
    allowed = {"none": None, "one": mask[0], "each": mask}[masks]
    best = int8_topk(queries, items, k, allowed=allowed, backend="triton")
    assert pairs(best) == expected(queries, items, k, allowed)


@needs_loops
@pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")
@pytest.mark.parametrize("falling", [False, True])
def test_the_triton_kernels_find_the_best_where_they_lie_side_by_side(falling: bool) -> None:
    queries, items = draw(700, 32)
    scores = items.codes.double() @ quantize_rows(queries).codes[0].double() * items.scales
    order = scores.argsort(descending=falling)
    items = QuantizedRows(codes=items.codes[order], scales=items.scales[order])
    ours, right = int8_topk(queries, items, 5, backend="triton"), int8_topk(queries, items, 5, backend="torch")
    assert torch.equal(ours.rows, right.rows)
    assert torch.equal(ours.scores, right.scores)


@pytest.mark.parametrize("backend", ALL_BACKENDS)
def test_queries_already_quantised_and_a_given_out_change_nothing(backend: str) -> None:
    queries, items = draw(100, 64, 2)
    right = int8_topk(queries, items, 9)
    out = Best(scores=torch.full((2, 9), 5.0), rows=torch.full((2, 9), 5))
    assert int8_topk(quantize_rows(queries), items, 9, backend=backend, out=out) is out
    assert torch.equal(out.rows, right.rows)
    assert torch.equal(out.scores, right.scores)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_prefix_of_a_third_finds_nine_in_ten_where_the_first_columns_carry_the_most(backend: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = 0.97 ** torch.arange(96)  # as in vectors trained to be cut short
    items = quantize_rows(torch.randn(5000, 96, generator=generator) * weight)
    queries = torch.randn(8, 96, generator=generator) * weight
    right = int8_topk(queries, items, 20, backend=backend).rows
    found = int8_topk(queries, items, 20, prefix=32, oversample=4, backend=backend).rows
    recall = sum(len(set(a) & set(b)) for a, b in zip(found.tolist(), right.tolist(), strict=True)) / right.numel()
    assert recall >= 0.9


def test_a_compiled_graph_holds_the_operator_and_its_registration_keeps_its_promises() -> None:
    queries, items = draw(50, 32, 2)

    def search(queries: torch.Tensor) -> torch.Tensor:
        return int8_topk(queries, items, 4).rows + 1

    assert torch.equal(torch.compile(search, fullgraph=True, backend="aot_eager")(queries), search(queries))
    best = (torch.empty(2, 4), torch.empty(2, 4, dtype=torch.int64))
    arguments = (queries, None, items.codes, items.scales, None, 16, None, 3, None, *best)
    torch.library.opcheck(torch.ops.rolecall.int8_topk.default, arguments)


def test_what_does_not_fit_is_refused() -> None:
    queries, items = draw(10, 8)
    with pytest.raises(ValueError, match="allowed"):
        int8_topk(queries, items, 2, out=Best(scores=torch.empty(1, 3), rows=torch.empty(1, 3, dtype=torch.int64)))
    with pytest.raises(ValueError, match="allowed"):
        int8_topk(QuantizedRows(codes=queries, scales=torch.ones(1)), items, 1)
    with pytest.raises(ValueError, match="allowed"):
        int8_topk(queries[:, :7], items, 1)
    with pytest.raises(ValueError, match="allowed"):
        int8_topk(queries, items, -1)
    with pytest.raises(ValueError, match="allowed"):
        int8_topk(queries, items, 1, allowed=torch.ones(9, dtype=torch.bool))
    with pytest.raises(ValueError, match="allowed"):
        int8_topk(queries, QuantizedRows(codes=items.codes.int(), scales=items.scales), 1)
    with pytest.raises(ValueError, match="allowed"):
        int8_topk(queries, items, 1, prefix=9)
    with pytest.raises(ValueError, match="allowed"):
        int8_topk(queries, items, 1, prefix=4, prefix_scales=torch.ones(3))
