"""Drawing the next token from logits: temperature, min-p, top-k, top-p, greedy; and the distribution drawn from.

    z = (x - max x) / T
    kept     z >= log(min_p)                            min-p (arXiv:2407.01082)
             and z >= the k-th largest z                top-k
             and z >= t, the largest threshold whose kept tokens hold p of the mass of those kept so far
                                                        top-p (Holtzman et al., arXiv:1904.09751)
    p_i      = exp(z_i) / sum exp(z), over the kept
    token    = argmax z_i - log e_i, over the kept      e_i exponential noise: the Gumbel-max draw from p

Shapes: logits_BV; every parameter [B]; tokens_B int64. T <= 0 is greedy: the largest logit, of several the lowest id.
All of top-k's and top-p's ties are kept, so that no choice rests on the order of ids. Off: top_k <= 0 or >= V,
top_p >= 1, min_p <= 0; top_p <= 0 keeps the largest alone. -inf and NaN are never drawn, +inf counts as the largest
finite number; where nothing can be drawn the token is -1 and the probabilities are 0. Dtypes: float16, bfloat16,
float32 (float64 through torch); z and sums float32, top-p's sums on the CPU float64.

The noise is a function of (seed, position, token id), see `noise`, so a request draws the same token in any batch; on
another device the same but for the rounding of z. A row is worked on by itself: its bits do not depend on the batch.

Neither path sorts the vocabulary. Torch finds top-k's and top-p's thresholds in a histogram of z, and sorts
only the bin they fall into. The kernel, one program a row, finds both by the digits of the threshold's bit
pattern, two bits a pass: |z| orders as its bits do. Bytes: the row, once for every pass, from cache after the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from rolecall.kernels import noise
from rolecall.kernels.configurations import Configuration, blocks, configuration
from rolecall.kernels.cpp import build
from rolecall.kernels.dispatch import (
    INTERPRETED,
    Pointer,
    Scalar,
    choose,
    compiling,
    constexpr,
    jit,
    register,
    tl,
    triton,
)
from rolecall.kernels.noise import exponentials, row_keys
from rolecall.kernels.rows import FLOATS, accumulating, output

NO_TOKEN = -1
_BINS, _REACH = 2048, 32.0  # of the histogram; nats below the maximum, beyond which all share the last bin
_BRIEF = 1 << 18  # logits: below, about 50 microseconds, Python's lock is kept
_SORTED_AT_ONCE = 2048  # tokens; sorting so few costs less than a histogram


# --- reference, a row at a time ---


def scaled(x_V: Tensor, temperature: float) -> Tensor | None:
    """z [V], its maximum 0; None where there is no finite logit."""
    wide = accumulating(x_V).nan_to_num(
        nan=-math.inf, posinf=torch.finfo(accumulating(x_V).dtype).max, neginf=-math.inf
    )
    peak = wide.max() if len(wide) else wide.new_tensor(-math.inf)
    return None if peak == -math.inf else wide.sub_(peak).div_(temperature)


def kept(z_V: Tensor, top_k: int, top_p: float, min_p: float) -> Tensor | None:
    """The ids that may be drawn, rising; None for all of them."""
    floor = min(0.0, math.log(min_p)) if min_p > 0 else -math.inf
    if 0 < top_k < len(z_V):
        floor = max(floor, float(threshold(z_V, None, z_V.new_tensor(top_k, dtype=torch.float64))))
    ids = None
    if floor > -math.inf:
        ids = (z_V >= floor).nonzero()[:, 0]
        z_V = z_V[ids]
    if top_p < 1:
        mass_V = z_V.exp().double()
        inside = (z_V >= threshold(z_V, mass_V, max(0.0, top_p) * mass_V.sum())).nonzero()[:, 0]
        ids = inside if ids is None else ids[inside]
    return ids


def threshold(z_V: Tensor, mass_V: Tensor | None, target: Tensor) -> Tensor:
    """The largest t for which the tokens with z >= t reach `target`, in mass or, without `mass_V`, in number."""
    if len(z_V) <= _SORTED_AT_ONCE:
        return _where_reached(z_V, mass_V, target)
    reach = max(1e-30, min(_REACH, -float(z_V.min())))
    bins_V = (z_V * (-_BINS / reach)).clamp_(max=_BINS - 1).to(torch.int32)
    reached = torch.bincount(bins_V, weights=mass_V, minlength=_BINS).cumsum(0).double()
    last = int(torch.searchsorted(reached, torch.minimum(target, reached[-1])))
    inside = (bins_V == last).nonzero()[:, 0]
    return _where_reached(
        z_V[inside],
        None if mass_V is None else mass_V[inside],
        target - reached[last - 1] if last else target,
    )


def _where_reached(z_N: Tensor, mass_N: Tensor | None, target: Tensor) -> Tensor:
    if mass_N is None:
        return z_N.topk(int(target)).values[-1]
    falling, order = z_N.sort(descending=True)
    reached = mass_N[order].cumsum(0)
    return falling[torch.searchsorted(reached, torch.minimum(target, reached[-1]))]


def token_of(
    x_V: Tensor, temperature: float, top_k: int, top_p: float, min_p: float, seed: int, position: int
) -> int | Tensor:
    """The token drawn from one row."""
    if temperature <= 0:
        return _greedy(x_V)
    z_V = scaled(x_V, temperature)
    if z_V is None:
        return NO_TOKEN
    ids = kept(z_V, top_k, top_p, min_p)
    if ids is not None:
        z_V = z_V[ids]
    which = torch.arange(len(z_V), dtype=torch.int32, device=z_V.device) if ids is None else ids.int()
    score = z_V - noise.exponential(seed, position, which).log_()
    return score.argmax() if ids is None else ids[score.argmax()]


def probabilities_of(x_V: Tensor, temperature: float, top_k: int, top_p: float, min_p: float, out_V: Tensor) -> None:
    """The distribution of `token_of`, written to `out_V`; greedy: all on one token."""
    out_V.zero_()
    if temperature <= 0:
        token = int(_greedy(x_V))
        out_V[token : token + 1] = 1.0
        return
    z_V = scaled(x_V, temperature)
    if z_V is None:
        return
    ids = kept(z_V, top_k, top_p, min_p)
    mass = (z_V if ids is None else z_V[ids]).exp()
    mass /= mass.sum()
    if ids is None:
        out_V.copy_(mass)
    else:
        out_V[ids] = mass.to(out_V.dtype)


def _greedy(x_V: Tensor) -> int | Tensor:
    if x_V.numel() == 0:
        return NO_TOKEN
    finite = x_V.nan_to_num(nan=-math.inf, posinf=torch.finfo(x_V.dtype).max, neginf=-math.inf)
    best = finite.argmax()
    return NO_TOKEN if finite[best] == -math.inf else best


# --- kernel ---


@jit
def _kernel(
    x_ptr: Pointer,
    out_ptr: Pointer,
    temperature_ptr: Pointer,
    top_k_ptr: Pointer,
    top_p_ptr: Pointer,
    min_p_ptr: Pointer,
    seed_ptr: Pointer,
    position_ptr: Pointer,
    V: Scalar,
    x_stride: Scalar,
    out_stride: Scalar,
    TOP_K: constexpr,
    TOP_P: constexpr,
    MIN_P: constexpr,
    DRAW: constexpr,
    STEPS: constexpr,
    BLOCK: constexpr,
) -> None:
    row = tl.program_id(0)
    x_ptr += row.to(tl.int64) * x_stride
    out_ptr += row.to(tl.int64) * out_stride
    peak = tl.full([], float("-inf"), tl.float32)
    first = tl.full([], -1, tl.int32)
    for step in tl.range(0, STEPS):
        columns = step * BLOCK + tl.arange(0, BLOCK)
        x = _finite(tl.load(x_ptr + columns, mask=columns < V, other=float("-inf")).to(tl.float32))
        peak, first = _better(peak, first, x, columns)
    temperature = tl.load(temperature_ptr + row).to(tl.float32)
    if (temperature <= 0.0) | (first < 0):
        if DRAW:
            tl.store(out_ptr, first.to(tl.int64))
        else:
            for step in tl.range(0, STEPS):
                columns = step * BLOCK + tl.arange(0, BLOCK)
                tl.store(out_ptr + columns, tl.where(columns == first, 1.0, 0.0), mask=columns < V)
    else:
        limit = tl.full([], 0x7F7FFFFF, tl.uint32)  # |z| as bits: anything finite
        if MIN_P:
            least = tl.load(min_p_ptr + row).to(tl.float32)
            if least > 0.0:
                limit = tl.maximum(-tl.log(least), 0.0).to(tl.uint32, bitcast=True)
        if TOP_K:
            k = tl.load(top_k_ptr + row)
            if (k > 0) & (k < V):
                limit = _cut(x_ptr, V, peak, temperature, limit, k.to(tl.float32), False, STEPS, BLOCK)
        total = tl.full([], 0.0, tl.float32)
        if TOP_P or not DRAW:
            total = _mass(x_ptr, V, peak, temperature, limit, STEPS, BLOCK)
        if TOP_P:
            p = tl.load(top_p_ptr + row).to(tl.float32)
            if p < 1.0:
                limit = _cut(x_ptr, V, peak, temperature, limit, p * total, True, STEPS, BLOCK)
                if not DRAW:
                    total = _mass(x_ptr, V, peak, temperature, limit, STEPS, BLOCK)
        if DRAW:
            key_0, key_1 = row_keys(tl.load(seed_ptr + row), tl.load(position_ptr + row), 0)
            best = tl.full([], float("-inf"), tl.float32)
            token = tl.full([], -1, tl.int32)
            for step in tl.range(0, STEPS):
                columns = step * BLOCK + tl.arange(0, BLOCK)
                z, bits = _scaled(x_ptr, columns, V, peak, temperature)
                score = z - tl.log(exponentials(key_0, key_1, columns))
                best, token = _better(best, token, tl.where(bits <= limit, score, float("-inf")), columns)
            tl.store(out_ptr, token.to(tl.int64))
        else:
            for step in tl.range(0, STEPS):
                columns = step * BLOCK + tl.arange(0, BLOCK)
                z, bits = _scaled(x_ptr, columns, V, peak, temperature)
                tl.store(out_ptr + columns, tl.where(bits <= limit, tl.exp(z) / total, 0.0), mask=columns < V)


@jit
def _finite(x: Scalar) -> Scalar:
    """NaN as -inf, +inf as the largest number."""
    return tl.minimum(tl.where(x == x, x, float("-inf")), 3.4028234663852886e38)


@jit
def _better(best: Scalar, where: Scalar, score: Scalar, columns: Scalar) -> tuple[Scalar, Scalar]:
    """The larger of `best` and the block's largest score, of several the first, never -inf."""
    highest = tl.max(score, axis=0)
    place = tl.min(tl.where(score == highest, columns, 0x7FFFFFFF), axis=0)
    return tl.maximum(best, highest), tl.where(highest > best, place, where)


@jit
def _scaled(x_ptr: Pointer, columns: Scalar, V: Scalar, peak: Scalar, temperature: Scalar) -> tuple[Scalar, Scalar]:
    """z, and the bits of |z|, which fall as z rises."""
    x = _finite(tl.load(x_ptr + columns, mask=columns < V, other=float("-inf")).to(tl.float32))
    z = tl.where(x == float("-inf"), x, tl.div_rn(x - peak, temperature))
    return z, tl.abs(z).to(tl.uint32, bitcast=True)


@jit
def _mass(
    x_ptr: Pointer,
    V: Scalar,
    peak: Scalar,
    temperature: Scalar,
    limit: Scalar,
    STEPS: constexpr,
    BLOCK: constexpr,
) -> Scalar:
    total = tl.full([], 0.0, tl.float32)
    for step in tl.range(0, STEPS):
        z, bits = _scaled(x_ptr, step * BLOCK + tl.arange(0, BLOCK), V, peak, temperature)
        total += tl.sum(tl.where(bits <= limit, tl.exp(z), 0.0), axis=0)
    return total


@jit
def _cut(
    x_ptr: Pointer,
    V: Scalar,
    peak: Scalar,
    temperature: Scalar,
    limit: Scalar,
    target: Scalar,
    MASS: constexpr,
    STEPS: constexpr,
    BLOCK: constexpr,
) -> Scalar:
    """The least bits b, `limit` at most, for which the tokens with bits <= b reach `target`, in number or in mass.

    Equally the largest b with less than the target strictly below it, which is found digit by digit.
    """
    cut = tl.full([], 0, tl.uint32)
    for digit in tl.range(0, 16):
        unit = (tl.full([], 1, tl.uint32) << (30 - 2 * digit)).to(tl.uint32)
        one = tl.full([], 0.0, tl.float32)
        two = tl.full([], 0.0, tl.float32)
        three = tl.full([], 0.0, tl.float32)
        for step in tl.range(0, STEPS):
            columns = step * BLOCK + tl.arange(0, BLOCK)
            x = tl.load(x_ptr + columns, mask=columns < V, other=float("-inf")).to(tl.float32)
            x = tl.minimum(tl.where(x == x, x, float("-inf")), 3.4028234663852886e38)  # `_scaled`, written out
            z = tl.where(x == float("-inf"), x, tl.div_rn(x - peak, temperature))
            bits = tl.abs(z).to(tl.uint32, bitcast=True)
            weight = tl.where(bits <= limit, tl.exp(z) if MASS else 1.0, 0.0)
            one += tl.sum(tl.where(bits < cut + unit, weight, 0.0), axis=0)
            two += tl.sum(tl.where(bits < cut + 2 * unit, weight, 0.0), axis=0)
            three += tl.sum(tl.where(bits < cut + 3 * unit, weight, 0.0), axis=0)
        cut += tl.where(one < target, unit, 0) + tl.where(two < target, unit, 0) + tl.where(three < target, unit, 0)
    return tl.minimum(cut, limit)


# --- launch ---


def _launch(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor | None,
    top_p: Tensor | None,
    min_p: Tensor | None,
    seeds: Tensor | None,
    positions: Tensor | None,
    out: Tensor,
) -> None:
    """Tokens [B] into `out` where there are seeds, else probabilities [B, V]."""
    B, V = logits.shape
    if B == 0:
        return
    default = Configuration(blocks=blocks(BLOCK=64 if INTERPRETED else 8192), warps=8 if INTERPRETED else 16)
    chosen = configuration("sample", str(V), logits, default)
    _kernel[(B,)](
        logits,
        out,
        *(temperature if each is None else each for each in (temperature, top_k, top_p, min_p, seeds, positions)),
        V,
        logits.stride(0),
        out.stride(0),
        TOP_K=top_k is not None,
        TOP_P=top_p is not None,
        MIN_P=min_p is not None,
        DRAW=seeds is not None,
        STEPS=max(1, triton.cdiv(V, chosen.blocks["BLOCK"])),
        **chosen.launch,
    )


def _through_torch(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor | None,
    top_p: Tensor | None,
    min_p: Tensor | None,
    seeds: Tensor | None,
    positions: Tensor | None,
    out: Tensor,
) -> None:
    B = len(logits)
    columns = ((temperature, 1.0), (top_k, 0), (top_p, 1.0), (min_p, 0.0), (seeds, 0), (positions, 0))
    rows = zip(*([off] * B if each is None else each.tolist() for each, off in columns), strict=True)
    for row, (heat, k, p, least, seed, position) in enumerate(rows):
        if seeds is None:
            probabilities_of(logits[row], heat, k, p, least, out[row])
        else:
            out[row] = token_of(logits[row], heat, k, p, least, seed, position)


def _compiled(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor | None,
    top_p: Tensor | None,
    min_p: Tensor | None,
    seeds: Tensor | None,
    positions: Tensor | None,
    out: Tensor,
) -> None:
    """Greedy rows in C++, the others as through torch."""
    warm = (temperature > 0).nonzero()[:, 0]
    if seeds is None or len(warm) == len(logits):
        _through_torch(logits, temperature, top_k, top_p, min_p, seeds, positions, out)
        return
    tokens = out if out.is_contiguous() else torch.empty_like(out, memory_format=torch.contiguous_format)
    B, V = logits.shape
    library = build.functions(brief=B * V <= _BRIEF)
    library.greedy(logits.data_ptr(), logits.stride(0), tokens.data_ptr(), B, V, torch.get_num_threads())
    if len(warm):
        wanted = (top_k, top_p, min_p, seeds, positions)
        k, p, least, seed, at = (None if each is None else each[warm] for each in wanted)
        drawn = torch.empty(len(warm), dtype=tokens.dtype)
        _through_torch(logits[warm], temperature[warm], k, p, least, seed, at, drawn)
        tokens[warm] = drawn
    if tokens is not out:
        out.copy_(tokens)


SAMPLE = register("sample", _launch)
SAMPLE_TORCH = register("sample_torch", _through_torch)


# --- public ---


def sample(
    logits_BV: Tensor,
    *,
    temperature_B: Tensor,
    seeds_B: Tensor,
    positions_B: Tensor,
    top_k_B: Tensor | None = None,
    top_p_B: Tensor | None = None,
    min_p_B: Tensor | None = None,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Tokens int64 [B], in `out` if given; -1 for a row without a finite logit.

    `seeds_B`, `positions_B`: int64; a position is that of the token drawn, so that no two draws of a request share
    one. `top_k_B`: int32 or int64. `temperature_B`, `top_p_B`, `min_p_B`: floats. None: off for every row, which
    also saves its passes. Raises ValueError for shapes, dtypes or a backend that do not fit.
    """
    _check_integers(seeds_B, positions_B)
    chosen = _chosen("sample", logits_BV, temperature_B, top_k_B, top_p_B, min_p_B, (seeds_B, positions_B), backend)
    out = output(seeds_B, out)
    _function(chosen)(logits_BV, temperature_B, top_k_B, top_p_B, min_p_B, seeds_B, positions_B, out)
    return out


def sampling_probabilities(
    logits_BV: Tensor,
    *,
    temperature_B: Tensor,
    top_k_B: Tensor | None = None,
    top_p_B: Tensor | None = None,
    min_p_B: Tensor | None = None,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """The distribution `sample` draws from, float32 [B, V] (float64 for such logits), in `out` if given.

    Greedy rows have 1 at their token. Raises ValueError as `sample` does.
    """
    chosen = _chosen("sampling_probabilities", logits_BV, temperature_B, top_k_B, top_p_B, min_p_B, (), backend)
    out = output(logits_BV, out, dtype=torch.float64 if logits_BV.dtype == torch.float64 else torch.float32)
    if out.stride(1) != 1:
        raise ValueError(f"got out with strides {out.stride()}; allowed: rows without gaps")
    _function(chosen)(logits_BV, temperature_B, top_k_B, top_p_B, min_p_B, None, None, out)
    return out


def _function(chosen: str) -> Callable[..., None]:
    if chosen == "triton":
        return SAMPLE if compiling() else _launch
    if chosen == "cpp":
        return _compiled
    return SAMPLE_TORCH if compiling() else _through_torch


def _chosen(
    op: str,
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor | None,
    top_p: Tensor | None,
    min_p: Tensor | None,
    others: tuple[Tensor, ...],
    backend: str | None,
) -> str:
    if logits.ndim != 2 or not logits.is_floating_point() or (logits.stride(1) != 1 and logits.shape[1] > 1):
        raise ValueError(
            f"got logits {tuple(logits.shape)} {logits.dtype}, strides {logits.stride()}; "
            "allowed: floating-point [B, V], rows without gaps"
        )
    for each in (temperature, top_k, top_p, min_p, *others):
        if each is not None and (each.shape != logits.shape[:1] or each.device != logits.device):
            raise ValueError(
                f"got a parameter {tuple(each.shape)} on {each.device}; allowed: [{len(logits)}] on {logits.device}"
            )
    if top_k is not None and top_k.dtype not in (torch.int32, torch.int64):
        raise ValueError(f"got top_k of {top_k.dtype}; allowed: int32, int64")
    with torch.no_grad():  # a draw has no gradient
        cpp = build.available if logits.dtype == torch.float32 and not compiling() else None
        return choose(op, logits, backend, cpp=cpp, triton_takes=logits.dtype in FLOATS)


def _check_integers(*tensors: Tensor) -> None:
    for each in tensors:
        if each.dtype != torch.int64:
            raise ValueError(f"got seeds or positions of {each.dtype}; allowed: int64")
