"""Sampling: the distribution it stands for, that it is drawn from, and that a draw depends on nothing else."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from rolecall.kernels.cpp import build
from rolecall.kernels.sampling import SAMPLE, SAMPLE_TORCH, sample, sampling_probabilities

from .oracle import BACKENDS, DEVICE, DTYPES, assert_as_exact_as_torch, needs_triton, random

BACKEND = pytest.mark.parametrize("backend", BACKENDS)
COMPILED = ["cpp"] if build.available() and DEVICE == "cpu" else []
ANY_BACKEND = pytest.mark.parametrize("backend", [*BACKENDS, *COMPILED])  # of float32


def by_hand(x: list[float], temperature: float, top_k: int, top_p: float, min_p: float) -> list[float]:
    """The definition, in Python's numbers."""
    if temperature <= 0:
        return [float(i == x.index(max(x))) for i in range(len(x))]
    peak = max(x)
    z = [(value - peak) / temperature for value in x]
    kept = [value for value in z if min_p <= 0 or value >= min(0.0, math.log(min_p))]
    if 0 < top_k < len(x):
        floor = sorted(z)[-top_k]
        kept = [value for value in kept if value >= floor]
    if top_p < 1:
        total, floor, reached = sum(map(math.exp, kept)), 0.0, 0.0
        for value in sorted(kept, reverse=True):
            if reached < top_p * total:
                floor, reached = value, reached + math.exp(value)
        kept = [value for value in kept if value >= floor]
    total, floor = sum(map(math.exp, kept)), min(kept)
    return [math.exp(value) / total if value >= floor else 0.0 for value in z]


def parameters(batch: int, seed: int = 0, **given: Any) -> dict[str, Any]:
    """A mixture of settings, each off in some rows."""
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(4, batch, generator=generator)
    mixed = {
        "temperature_B": torch.where(drawn[0] < 0.2, 0.0, drawn[0] * 2),
        "top_k_B": (drawn[1] * 40).long(),
        "top_p_B": (drawn[2] * 1.3).clamp(max=1.0),
        "min_p_B": (drawn[3] - 0.7).clamp(min=0.0),
    }
    return {name: given.get(name, value).to(DEVICE) for name, value in mixed.items()}


def counters(batch: int, first: int = 0) -> dict[str, Any]:
    """A seed and a position for each row."""
    seeds = torch.arange(first, first + batch, device=DEVICE)
    return {"seeds_B": seeds * 0x9E3779B97F4A7C1 - 2**62, "positions_B": seeds % 7}


@BACKEND
@pytest.mark.parametrize("dtype", DTYPES)
@settings(max_examples=6, deadline=None)
@given(
    width=st.integers(1, 70),
    temperature=st.sampled_from([0.0, 0.3, 1.0, 7.0]),
    top_k=st.integers(-1, 80),
    top_p=st.sampled_from([0.0, 0.313, 0.907, 1.0]),
    min_p=st.sampled_from([0.0, 0.0507, 1.0]),
    seed=st.integers(0, 99),
)
def test_the_distribution_is_that_of_the_definition(
    backend: str, dtype: torch.dtype, width: int, temperature: float, top_k: int, top_p: float, min_p: float, seed: int
) -> None:
    x = random(1, width, dtype=dtype, seed=seed, scale=2.0)  # the narrow types have ties
    exact = torch.tensor([by_hand(x[0].double().tolist(), temperature, top_k, top_p, min_p)], dtype=torch.float64)
    options: dict[str, Any] = {
        "top_k_B": torch.tensor([top_k]),
        "top_p_B": torch.tensor([top_p]),
        "min_p_B": torch.tensor([min_p]),
    }
    p = sampling_probabilities(
        x, temperature_B=torch.tensor([temperature], device=DEVICE),
        **{name: value.to(DEVICE) for name, value in options.items()}, backend=backend,
    )  # fmt: skip
    assert torch.equal(p.cpu() > 0, exact > 0)
    assert_as_exact_as_torch(p.cpu(), exact, exact.float(), ulps=64)


@pytest.mark.parametrize("vocabulary", [5003, pytest.param(49_152, marks=pytest.mark.slow)])
@pytest.mark.parametrize("spread", [1e-3, 1.0, 3.0, 30.0])
def test_thresholds_found_by_histogram_are_those_of_a_sorted_row(vocabulary: int, spread: float) -> None:
    x = random(1, vocabulary, scale=spread, dtype=torch.float64).round(decimals=4)
    for top_k, top_p in ((7, 0.9), (2500, 1.0), (0, 0.001), (0, 0.4567), (0, 0.9991), (4900, 0.77)):
        k, share = torch.tensor([top_k]).to(DEVICE), torch.tensor([top_p], dtype=torch.float64).to(DEVICE)
        p = sampling_probabilities(x, temperature_B=torch.ones(1, device=DEVICE), top_k_B=k, top_p_B=share)
        exact = torch.tensor([by_hand(x[0].tolist(), 1.0, top_k, top_p, 0.0)], dtype=torch.float64)
        assert torch.equal(p.cpu() > 0, exact > 0)
        assert torch.allclose(p.cpu(), exact, rtol=1e-9, atol=0)


@pytest.mark.slow
def test_tokens_come_with_their_probabilities() -> None:
    draws = 10_000
    x = random(1, 7).expand(draws, 7).contiguous()
    kept = {
        "top_k_B": torch.full((draws,), 5, device=DEVICE),
        "temperature_B": torch.full((draws,), 0.8, device=DEVICE),
    }
    tokens = sample(x, **kept, **counters(draws))
    p = sampling_probabilities(x[:1], top_k_B=kept["top_k_B"][:1], temperature_B=kept["temperature_B"][:1])[0].double()
    seen = torch.bincount(tokens, minlength=7).double()
    possible = p > 0
    assert bool((seen[~possible] == 0).all())
    chi_square = ((seen - draws * p)[possible] ** 2 / (draws * p)[possible]).sum()
    assert float(chi_square) < 23.5  # 4 degrees of freedom: one in 10,000


@pytest.mark.slow
@pytest.mark.parametrize("along", ["seeds", "positions", "seeds above 32 bits"])
def test_draws_of_one_request_do_not_depend_on_each_other(along: str) -> None:
    draws = 8_000
    numbers = torch.arange(draws, device=DEVICE)
    seeds, positions = {
        "seeds": (numbers, numbers * 0),
        "positions": (numbers * 0 + 11, numbers),
        "seeds above 32 bits": (numbers << 32, numbers * 0),
    }[along]
    x = torch.zeros(draws, 4, device=DEVICE)
    tokens = sample(x, temperature_B=torch.ones(draws, device=DEVICE), seeds_B=seeds, positions_B=positions)
    pairs = torch.bincount(tokens[:-1] * 4 + tokens[1:], minlength=16).double()
    expected = (draws - 1) / 16
    assert float(((pairs - expected) ** 2 / expected).sum()) < 44.3  # 15 degrees of freedom: one in 10,000


@needs_triton
def test_both_implementations_draw_the_same_tokens() -> None:
    x, options = random(6, 150, scale=2.0), parameters(6)
    by_triton = sample(x, **options, **counters(6), backend="triton")
    assert torch.equal(by_triton, sample(x, **options, **counters(6), backend="torch"))
    assert len(by_triton.unique()) > 3


@ANY_BACKEND
def test_a_row_alone_draws_and_weighs_as_it_does_in_a_batch_of_64(backend: str) -> None:
    rows = (0, 31, 63)
    others = torch.ones(64, device=DEVICE)
    others[list(rows)] = 0.0
    x, options, counted = random(64, 77), parameters(64, temperature_B=1.0 - others), counters(64)
    tokens = sample(x, **options, **counted, backend=backend)
    weights = sampling_probabilities(x, **options, backend=backend)
    for row in rows:
        mine = {name: value[row : row + 1] for name, value in options.items()}
        its = {name: value[row : row + 1] for name, value in counted.items()}
        assert torch.equal(sample(x[row : row + 1], **mine, **its, backend=backend), tokens[row : row + 1])
        assert torch.equal(sampling_probabilities(x[row : row + 1], **mine, backend=backend)[0], weights[row])


@ANY_BACKEND
def test_greedy_takes_the_lowest_of_the_largest(backend: str) -> None:
    x = torch.tensor([[1.0, 5.0, 5.0, 2.0], [torch.inf, 3.0, torch.inf, torch.nan]], device=DEVICE)
    zero = torch.zeros(2, device=DEVICE)
    assert sample(x, temperature_B=zero, **counters(2), backend=backend).tolist() == [1, 0]
    assert sampling_probabilities(x, temperature_B=zero, backend=backend).tolist() == [[0, 1, 0, 0], [1, 0, 0, 0]]


@ANY_BACKEND
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_where_nothing_can_be_drawn_there_is_no_token(temperature: float, backend: str) -> None:
    x = torch.full((2, 9), -torch.inf, device=DEVICE)
    x[1, 3] = torch.nan
    heat = torch.full((2,), temperature, device=DEVICE)
    assert sample(x, temperature_B=heat, **counters(2), backend=backend).tolist() == [-1, -1]
    assert not sampling_probabilities(x, temperature_B=heat, backend=backend).any()
    assert sample(x[:, :0], temperature_B=heat, **counters(2), backend=backend).tolist() == [-1, -1]


@BACKEND
@pytest.mark.parametrize("temperature", [1e-40, 1e-3, 1.0, 1e30])
def test_extreme_logits_and_temperatures_stay_finite_and_forbidden_tokens_forbidden(
    temperature: float, backend: str
) -> None:
    x = torch.tensor([[3e38, -3e38, 0.0, -torch.inf, torch.nan]] * 2, device=DEVICE)
    heat = torch.full((2,), temperature, device=DEVICE)
    p = sampling_probabilities(x, temperature_B=heat, top_p_B=heat * 0 + 0.99, backend=backend)
    assert bool(p.isfinite().all())
    assert p.sum(dim=1).tolist() == pytest.approx([1.0] * 2)
    tokens = sample(x, temperature_B=heat, top_k_B=torch.full((2,), 4, device=DEVICE), **counters(2), backend=backend)
    assert bool((tokens < 3).all())


@BACKEND
def test_it_reads_slices_and_writes_where_it_is_told(backend: str) -> None:
    wide, options = random(3, 60), parameters(3)
    tokens, weights = torch.empty(3, dtype=torch.int64, device=DEVICE), torch.full((3, 40), 7.0, device=DEVICE)
    assert sample(wide[:, 9:40], **options, **counters(3), out=tokens, backend=backend) is tokens
    assert torch.equal(tokens, sample(wide[:, 9:40].contiguous(), **options, **counters(3), backend=backend))
    sampling_probabilities(wide[:, 9:40], **options, out=weights[:, 2:33], backend=backend)
    assert torch.equal(weights[:, 2:33], sampling_probabilities(wide[:, 9:40], **options, backend=backend))
    assert bool((weights[:, 33:] == 7).all())
    assert sample(wide[:0], **parameters(0), **counters(0), backend=backend).shape == (0,)


@BACKEND
def test_it_compiles(backend: str) -> None:
    x, counted, heat = random(2, 20), counters(2), torch.tensor([0.0, 1.0], device=DEVICE)

    def step(logits: Tensor) -> Tensor:
        return sample(logits * 2, temperature_B=heat, **counted, backend=backend)

    assert torch.equal(torch.compile(step, fullgraph=True, backend="aot_eager")(x), step(x))
    operator = SAMPLE if backend == "triton" else SAMPLE_TORCH
    options = parameters(2, temperature_B=heat * 0).values()  # greedy rows, which the interpreter is quick with
    torch.library.opcheck(operator, (x, *options, *counted.values(), torch.empty(2, dtype=torch.int64, device=DEVICE)))


def test_what_does_not_fit_is_refused() -> None:
    x, options, counted = random(2, 4), parameters(2), counters(2)
    with pytest.raises(ValueError, match="int64"):
        sample(x, **options, seeds_B=counted["seeds_B"].int(), positions_B=counted["positions_B"])
    with pytest.raises(ValueError, match="without gaps"):
        sample(x.t(), **options, **counted)
    with pytest.raises(ValueError, match="parameter"):
        sample(x, **parameters(3), **counted)
    with pytest.raises(ValueError, match="top_k"):
        sample(x, **(options | {"top_k_B": options["top_p_B"]}), **counted)
    with pytest.raises(ValueError, match="allowed"):
        sample(x, **options, **counted, out=torch.empty(3, dtype=torch.int64, device=DEVICE))
