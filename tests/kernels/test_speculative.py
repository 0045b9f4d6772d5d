"""Speculative acceptance: whatever the drafts, the output is distributed as the target's, exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rolecall.kernels.sampling import sample
from rolecall.kernels.speculative import (
    SPECULATIVE_ACCEPT,
    SPECULATIVE_ACCEPT_TORCH,
    match,
    residual,
    speculative_accept,
)

from .oracle import BACKENDS, DEVICE, needs_triton, random

BACKEND = pytest.mark.parametrize("backend", BACKENDS)


def distributions(*shape: int, seed: int = 0, kept: float = 0.7, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random distributions, some of their probabilities 0."""
    mask = torch.rand(*shape, generator=torch.Generator().manual_seed(seed + 1000)).to(DEVICE) < kept
    mask[..., -1] = True
    return torch.softmax(random(*shape, seed=seed, dtype=dtype, scale=1.5).masked_fill(~mask, -torch.inf), dim=-1)


def case(batch: int, drafts: int, vocabulary: int, seed: int = 0) -> dict[str, Any]:
    """Arguments; drafts are drawn from their distributions by a generator of their own."""
    target = distributions(batch, drafts + 1, vocabulary, seed=seed)
    draft = torch.softmax(target[:, :drafts].log() * 0.7 + random(batch, drafts, vocabulary, seed=seed), dim=-1)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.multinomial(draft.cpu().flatten(0, 1), 1, generator=generator) if batch * drafts else draft.long()
    return {
        "target_BSV": target,
        "draft_BKV": draft,
        "draft_tokens_BK": tokens.reshape(batch, drafts).to(DEVICE),
        "seeds_B": torch.arange(batch, device=DEVICE) - 5,
        "positions_B": torch.arange(batch, device=DEVICE) % 3,
        "lengths_B": torch.arange(batch, device=DEVICE) % (drafts + 1),
    }


def chi_square(seen: Tensor, p: Tensor) -> float:
    expected = seen.sum() * p.double()
    possible = expected > 0
    assert bool((seen[~possible] == 0).all())
    return float(((seen.double() - expected)[possible] ** 2 / expected[possible]).sum())


@settings(max_examples=60, deadline=None)
@given(vocabulary=st.integers(1, 6), kept=st.floats(0.1, 1.0), seed=st.integers(0, 999))
def test_accepting_or_replacing_has_the_targets_probabilities_by_enumeration(
    vocabulary: int, kept: float, seed: int
) -> None:
    p = distributions(vocabulary, seed=seed, kept=kept, dtype=torch.float64)
    q = distributions(vocabulary, seed=seed + 1, kept=kept, dtype=torch.float64)
    accepted = torch.minimum(p, q)  # q min(1, p / q)
    left = residual(p.clone(), q)
    output = accepted + (1 - accepted.sum()) * left / left.sum()
    assert torch.allclose(output, p, atol=1e-12)
    drafted = int(q.argmax())
    certain = torch.zeros_like(q).index_fill_(0, torch.tensor([drafted], device=DEVICE), 1.0)
    left = residual(p.clone(), certain)
    assert float(left[drafted]) == 0 or vocabulary == 1 or float(p[drafted]) == 1
    replaced = torch.where(certain > 0, p, (1 - p[drafted]) * left / left.sum())
    assert torch.allclose(replaced, p, atol=1e-12)


@pytest.mark.parametrize("closeness", [0.0, 0.8])
def test_many_seeds_give_the_targets_distribution_at_every_position(closeness: float) -> None:
    draws, vocabulary = 4000, 5
    p = distributions(3, vocabulary, seed=1)
    q = closeness * p[:2] + (1 - closeness) * distributions(2, vocabulary, seed=2)
    generator = torch.Generator().manual_seed(0)
    drafts = torch.stack([torch.multinomial(row.cpu(), draws, True, generator=generator) for row in q], dim=1)
    seeds = torch.arange(draws, device=DEVICE)
    got = speculative_accept(
        p.expand(draws, 3, vocabulary), q.expand(draws, 2, vocabulary), drafts.to(DEVICE), seeds_B=seeds,
        positions_B=torch.zeros_like(seeds),
    )  # fmt: skip
    for place in range(3):  # among the runs that came so far: position by position the target's
        here = got.counts >= place
        stands = (got.counts > place)[here]
        token = got.tokens[here]
        if place < 2:
            token = torch.where(stands, drafts.to(DEVICE)[here, place], token)
        assert chi_square(torch.bincount(token, minlength=vocabulary), p[place]) < 23.5  # 1 in 10,000
    both = torch.minimum(p[:2], q).sum(1)
    share = float((got.counts >= 1).double().mean())
    assert share == pytest.approx(float(both[0]), abs=4 * 0.5 / draws**0.5)


def test_looked_up_drafts_change_no_token() -> None:
    rows, vocabulary = 200, 6
    logits = random(3, vocabulary).expand(rows, 3, vocabulary)
    seeds = torch.arange(rows, device=DEVICE)
    tokens = sample(
        logits.reshape(-1, vocabulary),
        seeds_B=seeds.repeat_interleave(3),
        positions_B=torch.arange(3, device=DEVICE).repeat(rows),
        temperature_B=torch.ones(3 * rows, device=DEVICE),
    ).reshape(rows, 3)
    drafts = torch.full((rows, 2), int(logits[0, 0].argmax()), device=DEVICE)
    got = match(tokens, drafts)
    for row in range(rows):
        count = int(got.counts[row])
        emitted = [*drafts[row, :count].tolist(), int(got.tokens[row])]
        assert emitted == tokens[row, : count + 1].tolist()
        assert count == 2 or int(drafts[row, count]) != emitted[-1]
    assert set(got.counts.tolist()) == {0, 1, 2}
    capped = match(tokens, drafts, lengths_B=seeds % 3)
    assert torch.equal(capped.counts, torch.minimum(got.counts, seeds % 3))


@needs_triton
@pytest.mark.parametrize(("batch", "drafts", "vocabulary"), [(9, 3, 7), (3, 1, 100), (2, 0, 5), (0, 2, 5)])
def test_both_implementations_agree(batch: int, drafts: int, vocabulary: int) -> None:
    arguments = case(batch, drafts, vocabulary)
    by_torch, by_triton = (speculative_accept(**arguments, backend=name) for name in ("torch", "triton"))
    assert torch.equal(by_torch.counts, by_triton.counts)
    assert torch.equal(by_torch.tokens, by_triton.tokens)


@BACKEND
def test_a_row_alone_gives_what_it_gives_in_a_batch_of_64(backend: str) -> None:
    arguments = case(64, 2, 20)
    together = speculative_accept(**arguments, backend=backend)
    assert len(together.counts.unique()) == 3
    for row in (2, 32, 62):
        alone = speculative_accept(**{k: v[row : row + 1] for k, v in arguments.items()}, backend=backend)
        assert alone.counts[0] == together.counts[row]
        assert alone.tokens[0] == together.tokens[row]


@BACKEND
def test_equal_distributions_are_always_accepted_and_disjoint_ones_never(backend: str) -> None:
    arguments = case(4, 2, 9) | {"lengths_B": torch.full((4,), 2, device=DEVICE)}
    same: dict[str, Any] = arguments | {"draft_BKV": arguments["target_BSV"][:, :2]}
    same["draft_tokens_BK"] = same["draft_BKV"].argmax(dim=2)
    assert speculative_accept(**same, backend=backend).counts.tolist() == [2] * 4
    p, q = torch.zeros(4, 3, 9, device=DEVICE), torch.zeros(4, 2, 9, device=DEVICE)
    p[..., 4], q[..., 5] = 1.0, 1.0
    apart: dict[str, Any] = arguments | {
        "target_BSV": p,
        "draft_BKV": q,
        "draft_tokens_BK": torch.full((4, 2), 5, device=DEVICE),
    }
    got = speculative_accept(**apart, backend=backend)
    assert got.counts.tolist() == [0] * 4
    assert got.tokens.tolist() == [4] * 4


@BACKEND
def test_without_drafts_the_token_is_that_of_sampling(backend: str) -> None:
    logits, seeds = random(8, 50), torch.arange(8, device=DEVICE)
    one = torch.ones(8, device=DEVICE)
    drawn = sample(logits, temperature_B=one, seeds_B=seeds, positions_B=seeds, backend=backend)
    p = torch.softmax(logits, dim=1)[:, None]
    none = torch.empty(8, 0, dtype=torch.int64, device=DEVICE)
    got = speculative_accept(p, p[:, :0], none, seeds_B=seeds, positions_B=seeds, backend=backend)
    assert torch.equal(got.tokens, drawn)


@BACKEND
def test_where_there_is_no_mass_there_is_no_token(backend: str) -> None:
    arguments = case(2, 1, 6)
    nothing: dict[str, Any] = arguments | {"target_BSV": torch.zeros_like(arguments["target_BSV"])}
    got = speculative_accept(**nothing, backend=backend)
    assert got.counts.tolist() == [0, 0]
    assert got.tokens.tolist() == [-1, -1]


@BACKEND
def test_it_compiles_and_writes_where_it_is_told(backend: str) -> None:
    arguments = case(3, 2, 9)
    wide = torch.cat([arguments["target_BSV"], arguments["target_BSV"]], dim=2)
    arguments["target_BSV"] = wide[..., 9:]  # a slice

    def step(target: Tensor) -> tuple[Tensor, Tensor]:
        given: dict[str, Any] = arguments | {"target_BSV": target}
        got = speculative_accept(**given, backend=backend)
        return got.counts, got.tokens

    eager = step(arguments["target_BSV"])
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")(arguments["target_BSV"])
    assert all(torch.equal(a, b) for a, b in zip(eager, compiled, strict=True))
    out = speculative_accept(**arguments, backend=backend)
    assert speculative_accept(**arguments, out=out, backend=backend) is out
    assert torch.equal(out.tokens, eager[1])
    operator = SPECULATIVE_ACCEPT if backend == "triton" else SPECULATIVE_ACCEPT_TORCH
    names = ("target_BSV", "draft_BKV", "draft_tokens_BK", "lengths_B", "seeds_B", "positions_B")
    torch.library.opcheck(operator, (*(arguments[name] for name in names), out.counts, out.tokens))


def test_what_does_not_fit_is_refused() -> None:
    arguments = case(2, 2, 5)
    with pytest.raises(ValueError, match=r"\[B, K \+ 1, V\]"):
        speculative_accept(**(arguments | {"target_BSV": arguments["target_BSV"][:, :2]}))
    with pytest.raises(ValueError, match="both float32"):
        speculative_accept(**(arguments | {"draft_BKV": arguments["draft_BKV"].half()}))
    with pytest.raises(ValueError, match="int64"):
        speculative_accept(**(arguments | {"seeds_B": arguments["seeds_B"].int()}))
    with pytest.raises(ValueError, match="one more"):
        match(arguments["draft_tokens_BK"], arguments["draft_tokens_BK"])
