"""Penalties and bias: their formulas entry by entry, everything else untouched."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rolecall.kernels.penalties import PENALTIES, add_bias, apply_penalties

from .oracle import BACKENDS, DEVICE, DTYPES, assert_as_exact_as_torch, needs_triton, random

BACKEND = pytest.mark.parametrize("backend", BACKENDS)


def entries(batch: int, vocabulary: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Some (row, token) pairs, each once, in no order, with counts from 0."""
    generator = torch.Generator().manual_seed(seed)
    places = torch.randperm(batch * vocabulary, generator=generator)[: batch * vocabulary // 3]
    counts = torch.randint(0, 4, (len(places),), generator=generator, dtype=torch.int32)
    return (places // max(1, vocabulary)).to(DEVICE), (places % max(1, vocabulary)).to(DEVICE), counts.to(DEVICE)


def by_hand(
    x: Tensor, rows: Tensor, tokens: Tensor, counts: Tensor, repetition: Tensor, presence: Tensor, frequency: Tensor
) -> Tensor:
    y = x.double().clone()
    for row, token, count in zip(rows.tolist(), tokens.tolist(), counts.tolist(), strict=True):
        value, r = float(y[row, token]), float(repetition[row])
        value = value / r if value > 0 else value * r
        y[row, token] = value - float(presence[row]) * (count > 0) - float(frequency[row]) * count
    return y


@BACKEND
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=15, deadline=None)
@given(batch=st.integers(0, 4), vocabulary=st.integers(0, 37), seed=st.integers(0, 99))
def test_each_entry_is_penalised_by_the_formula(
    backend: str, dtype: torch.dtype, batch: int, vocabulary: int, seed: int
) -> None:
    x = random(batch, vocabulary, dtype=dtype, seed=seed, scale=3.0)
    rows, tokens, counts = entries(batch, vocabulary, seed)
    penalties = [random(batch, seed=seed + i).abs() + 0.5 for i in range(3)]
    exact = by_hand(x, rows, tokens, counts, *penalties)
    repetition, presence, frequency = penalties
    ours = apply_penalties(
        x.clone(), rows, tokens, counts, repetition_B=repetition, presence_B=presence, frequency_B=frequency,
        backend=backend,
    )  # fmt: skip
    assert_as_exact_as_torch(ours, exact, exact.to(dtype))
    biased = add_bias(x.clone(), rows, tokens, counts.float() - 1.5, backend=backend)
    exact = x.double().index_put((rows, tokens), counts.double() - 1.5, accumulate=True)
    assert_as_exact_as_torch(biased, exact, exact.to(dtype))


@BACKEND
def test_penalties_that_are_off_change_no_bit_and_what_is_forbidden_stays_so(backend: str) -> None:
    x = random(3, 30)
    x[1, ::2] = -torch.inf
    rows, tokens, counts = entries(3, 30, 1)
    one, zero = torch.ones(3, device=DEVICE), torch.zeros(3, device=DEVICE)
    same = apply_penalties(
        x.clone(), rows, tokens, counts, repetition_B=one, presence_B=zero, frequency_B=zero, backend=backend
    )
    assert torch.equal(same, x)
    heavy = apply_penalties(
        x.clone(), rows, tokens, counts, repetition_B=one * 2, presence_B=one, frequency_B=-one, backend=backend
    )
    assert torch.equal(heavy == -torch.inf, x == -torch.inf)


@BACKEND
def test_a_row_alone_has_the_bits_it_has_in_a_batch(backend: str) -> None:
    x = random(64, 30)
    rows, tokens, counts = entries(64, 30, 2)
    repetition, presence, frequency = (random(64, seed=i).abs() + 0.1 for i in range(3))
    together = apply_penalties(
        x.clone(), rows, tokens, counts, repetition_B=repetition, presence_B=presence, frequency_B=frequency,
        backend=backend,
    )  # fmt: skip
    for row in (0, 31, 63):
        mine = rows == row
        alone = apply_penalties(
            x[row : row + 1].clone(), rows[mine] * 0, tokens[mine], counts[mine], repetition_B=repetition[row, None],
            presence_B=presence[row, None], frequency_B=frequency[row, None], backend=backend,
        )  # fmt: skip
        assert torch.equal(alone[0], together[row])


@needs_triton
def test_the_operator_is_registered_and_compiles() -> None:
    x = random(2, 9)
    rows, tokens, counts = entries(2, 9, 3)
    one = torch.ones(2, device=DEVICE)
    torch.library.opcheck(PENALTIES, (x.clone(), rows, tokens, counts, one, one, one))

    def step(t: Tensor) -> Tensor:
        return apply_penalties(
            t.clone(), rows, tokens, counts, repetition_B=one, presence_B=one, frequency_B=one, backend="triton"
        )

    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(x), step(x))


def test_what_does_not_fit_is_refused() -> None:
    x, index, one = random(2, 4), torch.zeros(1, dtype=torch.int64, device=DEVICE), torch.ones(2, device=DEVICE)
    with pytest.raises(ValueError, match="int64"):
        add_bias(x, index.int(), index, index.float())
    with pytest.raises(ValueError, match="one entry each"):
        add_bias(x, index, index, torch.ones(2, device=DEVICE))
    with pytest.raises(ValueError, match="without gaps"):
        add_bias(x.t(), index, index, index.float())
    with pytest.raises(ValueError, match="penalty"):
        apply_penalties(x, index, index, index.int(), repetition_B=one[:1], presence_B=one, frequency_B=one)
