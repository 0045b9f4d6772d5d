"""Random numbers that are a function of (seed, position, stream, token id), the same bits in torch and in Triton.

    word    w = mix(mix(id ^ k0) + k1) mod 2^31          k0, k1: of the seed's 64 bits, the position, the stream
    uniform u = min((w + 1/2) / 2^31, 1 - 2^-24)         exponential  e = -log(1 - u)

A generator by counter (Salmon et al., SC 2011) has no state: a token's number does not depend on the batch, on the
order of the work or on the device. `mix` is MurmurHash3's 32-bit finaliser (Appleby, public domain), a bijection, two
rounds of it per number and one per word of the key: no 64-bit products, which CPUs without AVX-512 do one at a time.
It is not for secrets. For small u the exponential keeps its relative precision, so that an improbable
token has its right chance: the least e is 2^-32, the largest 16.6. Streams keep apart the draws of one position.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rolecall.kernels.dispatch import Scalar, constexpr, jit, tl

SAMPLING, ACCEPTANCE = 0, 1  # streams

_MASK = 0xFFFFFFFF
_FIRST, _SECOND = 0x85EBCA6B, 0xC2B2AE35
_STARTS = (0x243F6A88, 0x13198A2E)  # digits of pi
_SCALE = 2.0**-31
_LARGEST = 1.0 - 2.0**-24
_LOW_31 = 0x7FFFFFFF


# --- torch ---


def keys(seed: int, position: int, stream: int) -> tuple[int, int]:
    """(k0, k1), 32 bits each. Seed: 64 bits, of either sign; position and stream: 32."""
    words = (seed & _MASK, (seed >> 32) & _MASK, position & _MASK, stream & _MASK)
    first, second = _STARTS
    for word in words:
        first, second = _mixed_int(first ^ word), _mixed_int(second ^ word)
    return first, second


def exponential(seed: int, position: int, ids_V: Tensor, *, stream: int = SAMPLING) -> Tensor:
    """float32 [V], exponential with mean 1, one for each of the int32 token ids."""
    return _uniform(words(seed, position, ids_V, stream=stream)).neg_().log1p_().neg_()


def uniform(seed: int, position: int, *, stream: int) -> float:
    """The number of token 0, 0 < u < 1: for a draw that no token has."""
    first, second = keys(seed, position, stream)
    word = _mixed_int((_mixed_int(first) + second) & _MASK) & _LOW_31
    return float(_uniform(torch.tensor([word], dtype=torch.int32)))


def words(seed: int, position: int, ids_V: Tensor, *, stream: int = SAMPLING) -> Tensor:
    """int32 [V], 31 random bits each."""
    first, second = keys(seed, position, stream)
    mixed = _mixed_(ids_V ^ _signed(first)).add_(_signed(second))
    return _mixed_(mixed).bitwise_and_(_LOW_31)


def _uniform(words_V: Tensor) -> Tensor:
    return words_V.float().add_(0.5).mul_(_SCALE).clamp_(max=_LARGEST)


def _mixed_(h: Tensor) -> Tensor:
    """MurmurHash3's finaliser on int32 in place: products wrap, and shifts are made logical by a mask."""
    h.bitwise_xor_((h >> 16).bitwise_and_(0xFFFF)).mul_(_signed(_FIRST))
    h.bitwise_xor_((h >> 13).bitwise_and_(0x7FFFF)).mul_(_signed(_SECOND))
    return h.bitwise_xor_((h >> 16).bitwise_and_(0xFFFF))


def _mixed_int(h: int) -> int:
    h = (h ^ (h >> 16)) * _FIRST & _MASK
    h = (h ^ (h >> 13)) * _SECOND & _MASK
    return h ^ (h >> 16)


def _signed(word: int) -> int:
    return word - (1 << 32) if word >> 31 else word


# --- Triton ---


@jit
def row_keys(seed: Scalar, position: Scalar, STREAM: constexpr) -> tuple[Scalar, Scalar]:
    """`keys`; seed and position are int64 numbers."""
    first, second = position.to(tl.uint32) * 0 + 0x243F6A88, position.to(tl.uint32) * 0 + 0x13198A2E
    low, high, place = seed.to(tl.uint32), (seed >> 32).to(tl.uint32), position.to(tl.uint32)
    first, second = _mixed(first ^ low), _mixed(second ^ low)
    first, second = _mixed(first ^ high), _mixed(second ^ high)
    first, second = _mixed(first ^ place), _mixed(second ^ place)
    return _mixed(first ^ STREAM), _mixed(second ^ STREAM)


@jit
def exponentials(first: Scalar, second: Scalar, ids: Scalar) -> Scalar:
    """`exponential` of a block of ids under the keys of a row."""
    u = uniforms(first, second, ids)
    series = u * (1.0 + u * (0.5 + u * (0.3333333333333333 + u * 0.25)))
    return tl.where(u < 0.0078125, series, -tl.log(1.0 - u))


@jit
def uniforms(first: Scalar, second: Scalar, ids: Scalar) -> Scalar:
    """The uniform number of each id."""
    word = _mixed(_mixed(ids.to(tl.uint32) ^ first) + second) & 0x7FFFFFFF
    return tl.minimum((word.to(tl.int32).to(tl.float32) + 0.5) * 4.656612873077393e-10, 0.9999999403953552)


@jit
def _mixed(h: Scalar) -> Scalar:
    h = (h ^ (h >> 16)) * 0x85EBCA6B
    h = (h ^ (h >> 13)) * 0xC2B2AE35
    return h ^ (h >> 16)
