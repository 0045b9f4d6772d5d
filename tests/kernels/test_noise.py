"""The random numbers: the same bits wherever they are made, and as good as their use needs."""

from __future__ import annotations

import pytest
import torch

from rolecall.kernels import noise
from rolecall.kernels.dispatch import Pointer, Scalar, constexpr, jit, tl

from .oracle import DEVICE, needs_triton

SEEDS = (0, 1, -1, 2**63 - 1, -(2**63), 0x123456789ABCDEF)


def finalised(h: int) -> int:
    """MurmurHash3's finaliser as published."""
    h = (h ^ (h >> 16)) * 0x85EBCA6B % 2**32
    h = (h ^ (h >> 13)) * 0xC2B2AE35 % 2**32
    return h ^ (h >> 16)


@jit
def _numbers(out_ptr: Pointer, seed_ptr: Pointer, position: Scalar, EXPONENTIAL: constexpr) -> None:
    ids = tl.arange(0, 64)
    first, second = noise.row_keys(tl.load(seed_ptr), position.to(tl.int64), 1)
    numbers = noise.exponentials(first, second, ids) if EXPONENTIAL else noise.uniforms(first, second, ids)
    tl.store(out_ptr + ids, numbers)


@pytest.mark.parametrize("seed", SEEDS)
def test_words_are_the_formulas(seed: int) -> None:
    first, second = noise.keys(seed, 17, 1)
    expected = [finalised((finalised(i ^ first) + second) % 2**32) % 2**31 for i in range(50)]
    ids = torch.arange(50, dtype=torch.int32, device=DEVICE)
    assert noise.words(seed, 17, ids, stream=1).tolist() == expected
    assert noise.uniform(seed, 17, stream=1) == pytest.approx((expected[0] + 0.5) / 2**31, rel=1e-6)


@needs_triton
@pytest.mark.parametrize("seed", SEEDS)
def test_triton_makes_the_same(seed: int) -> None:
    ids = torch.arange(64, dtype=torch.int32, device=DEVICE)
    ours, where = torch.empty(64, device=DEVICE), torch.tensor([seed], device=DEVICE)
    _numbers[(1,)](ours, where, 12345, EXPONENTIAL=False)
    assert float(ours[0]) == noise.uniform(seed, 12345, stream=1)
    _numbers[(1,)](ours, where, 12345, EXPONENTIAL=True)
    assert torch.allclose(ours, noise.exponential(seed, 12345, ids, stream=1), rtol=1e-5, atol=0)


def test_a_million_exponentials_are_exponential_and_do_not_follow_one_another() -> None:
    ids = torch.arange(1_000_000, dtype=torch.int32, device=DEVICE)
    e = noise.exponential(3, 5, ids).double()
    assert bool((e > 0).all())
    u = -torch.expm1(-e)
    seen = torch.bincount((u * 1000).long(), minlength=1000).double()
    assert float(((seen - 1000) ** 2 / 1000).sum()) < 1175  # 999 degrees of freedom: one in 10,000
    for other in (
        u[1:],
        -torch.expm1(-noise.exponential(3, 6, ids).double())[1:],
        -torch.expm1(-noise.exponential(4, 5, ids).double())[1:],
    ):
        assert abs(float(((u[:-1] - 0.5) * (other - 0.5)).mean()) * 12) < 4e-3  # four deviations
    assert float((u < 1e-4).double().mean()) == pytest.approx(1e-4, rel=0.4)


def test_streams_and_positions_keep_draws_apart() -> None:
    ids = torch.arange(1000, dtype=torch.int32, device=DEVICE)
    drawn = [noise.words(7, position, ids, stream=stream) for position in range(5) for stream in range(2)]
    assert len(torch.stack(drawn).unique()) > 9990
