"""Rotary embedding of a step's queries and keys and the write of its keys and values to the paged cache, in one.

Shapes: q_THD, k_TGD, v_TGD, positions_T, cos and sin [P, R/2] as in `rope`; slots_T int64, page * S + slot of each
token in the cache, negative for a token that is not kept (padding of a captured graph). Dtypes: q, k, v float16,
bfloat16, float32 alike; cache entries of any type of `paged_cache`, quantised from float32 after the rotation, with a
scale for each token and head. Bytes: q read and written, k and v read and their entries written once; unfused, keys
make the way twice more. A token alone has the bits it has in any batch. Two tokens of a launch may not share a slot.
"""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from rolecall.kernels import rope
from rolecall.kernels.configurations import configuration, power_of_two
from rolecall.kernels.cpp import build
from rolecall.kernels.cpp.recording import Recording
from rolecall.kernels.dispatch import Pointer, Scalar, choose, compiling, constexpr, jit, register, tl
from rolecall.kernels.paged_cache import QUANTIZED, PagedCache
from rolecall.kernels.quantization import quantize
from rolecall.kernels.rms_norm import int8_code
from rolecall.kernels.rope import angles, check_rotary, rotate
from rolecall.kernels.rows import FLOATS, output


def reference(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    slots: Tensor,
    cache: PagedCache,
    *,
    interleaved: bool = False,
) -> Tensor:
    """The turned queries, in q's dtype; keys and values are written to `cache`."""
    wide = torch.float64 if k.dtype == torch.float64 else torch.float32
    keep = slots >= 0
    pages, places = slots[keep] // cache.page_size, slots[keep] % cache.page_size
    turned = rope.reference(k.to(wide), positions, cos, sin, interleaved=interleaved)
    for x, entries, scales in ((turned, cache.keys, cache.key_scales), (v, cache.values, cache.value_scales)):
        codes, steps = quantize_entries(x[keep], entries.dtype)
        bits = torch.uint8 if entries.element_size() == 1 else entries.dtype  # float8 cannot be written by index
        entries.view(bits)[pages, places] = codes.view(bits)
        if scales is not None and steps is not None:
            scales[pages, places] = steps
    return rope.reference(q, positions, cos, sin, interleaved=interleaved)


def quantize_entries(x: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """Entries [..., D] of a cache of `dtype` for x, and their scales [...], None unless they are codes."""
    if dtype not in QUANTIZED:
        return x.to(dtype), None
    x = x.float()
    scales = x.abs().amax(dim=-1) / QUANTIZED[dtype]
    if dtype == torch.int8:
        return quantize(x, scales[..., None]), scales
    return torch.where(scales[..., None] > 0, x / scales[..., None], 0.0).to(dtype), scales


@jit
def _entries(
    x_ptr: Pointer,
    y_ptr: Pointer,
    scale_ptr: Pointer,
    heads: Scalar,
    x_head: Scalar,
    y_head: Scalar,
    scale_head: Scalar,
    cos_ptr: Pointer,
    sin_ptr: Pointer,
    TURN: constexpr,
    LARGEST: constexpr,
    HALF: constexpr,
    D: constexpr,
    INTERLEAVED: constexpr,
    HEADS: constexpr,
    WIDTH: constexpr,
) -> None:
    """One token's heads, turned if they are keys, written as entries of the cache."""
    d = tl.arange(0, WIDTH)
    head = tl.arange(0, HEADS)
    turning, partner = d < 0, d
    cos, sin = tl.full([WIDTH], 1.0, tl.float32), tl.zeros([WIDTH], tl.float32)
    if TURN:
        turning = d < 2 * HALF
        if INTERLEAVED:
            upper = d % 2 == 1
            pair = d // 2
            partner = tl.where(upper, d - 1, d + 1)
        else:
            upper = d >= HALF
            pair = tl.where(upper, d - HALF, d)
            partner = tl.where(upper, d - HALF, d + HALF)
        cos = tl.load(cos_ptr + pair, mask=turning, other=1.0).to(tl.float32)
        sin = tl.load(sin_ptr + pair, mask=turning, other=0.0).to(tl.float32)
        sin = tl.where(upper, sin, -sin)
    start = 0
    while start < heads:
        inside = (start + head < heads)[:, None] & (d < D)[None, :]
        row = x_ptr + (start + head)[:, None] * x_head
        y = tl.load(row + d[None, :], mask=inside, other=0.0).to(tl.float32)
        if TURN:
            other = tl.load(row + partner[None, :], mask=inside & turning[None, :], other=0.0).to(tl.float32)
            y = y * cos[None, :] + other * sin[None, :]
        if LARGEST > 0:
            step = tl.max(tl.abs(y), axis=1)[:, None] / LARGEST
            if LARGEST == 127:
                y = int8_code(y, step)
            else:
                y = tl.where(step > 0, tl.div_rn(y, tl.where(step > 0, step, 1.0)), 0.0)
                y = tl.minimum(tl.maximum(y, -LARGEST), LARGEST)
            tl.store(scale_ptr + (start + head)[:, None] * scale_head, step, mask=(start + head < heads)[:, None])
        tl.store(y_ptr + (start + head)[:, None] * y_head + d[None, :], y.to(y_ptr.dtype.element_ty), mask=inside)
        start += HEADS


@jit
def _kernel(
    q_ptr: Pointer,
    k_ptr: Pointer,
    v_ptr: Pointer,
    out_ptr: Pointer,
    keys_ptr: Pointer,
    values_ptr: Pointer,
    key_scales_ptr: Pointer,
    value_scales_ptr: Pointer,
    positions_ptr: Pointer,
    slots_ptr: Pointer,
    cos_ptr: Pointer,
    sin_ptr: Pointer,
    q_heads: Scalar,
    k_heads: Scalar,
    q_token: Scalar,
    q_head: Scalar,
    k_token: Scalar,
    k_head: Scalar,
    v_token: Scalar,
    v_head: Scalar,
    out_token: Scalar,
    out_head: Scalar,
    keys_page: Scalar,
    keys_slot: Scalar,
    keys_head: Scalar,
    values_page: Scalar,
    values_slot: Scalar,
    values_head: Scalar,
    ks_page: Scalar,
    ks_slot: Scalar,
    ks_head: Scalar,
    vs_page: Scalar,
    vs_slot: Scalar,
    vs_head: Scalar,
    cos_stride: Scalar,
    sin_stride: Scalar,
    LARGEST: constexpr,
    HALF: constexpr,
    D: constexpr,
    INTERLEAVED: constexpr,
    IN_PLACE: constexpr,
    PAGE: constexpr,
    PAIRS: constexpr,
    REST: constexpr,
    WIDTH: constexpr,
    HEADS: constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(positions_ptr + token).to(tl.int64)
    slot = tl.load(slots_ptr + token)
    if slot >= 0:
        page, place = slot // PAGE, slot % PAGE
        cosines, sines = cos_ptr + position * cos_stride, sin_ptr + position * sin_stride
        keys = keys_ptr + page * keys_page + place * keys_slot
        key_scales = key_scales_ptr + page * ks_page + place * ks_slot
        _entries(
            k_ptr + token * k_token, keys, key_scales, k_heads, k_head, keys_head, ks_head, cosines, sines,
            True, LARGEST, HALF, D, INTERLEAVED, HEADS, WIDTH,
        )  # fmt: skip
        values = values_ptr + page * values_page + place * values_slot
        value_scales = value_scales_ptr + page * vs_page + place * vs_slot
        _entries(
            v_ptr + token * v_token, values, value_scales, k_heads, v_head, values_head, vs_head, cosines, sines,
            False, LARGEST, HALF, D, INTERLEAVED, HEADS, WIDTH,
        )  # fmt: skip
    cos, sin = angles(cos_ptr, sin_ptr, position, cos_stride, sin_stride, HALF, PAIRS)
    q, out = q_ptr + token * q_token, out_ptr + token * out_token
    rotate(q, out, q_heads, q_head, out_head, cos, sin, HALF, D, INTERLEAVED, IN_PLACE, HEADS, PAIRS, REST)


def _launch(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    slots: Tensor,
    interleaved: bool,
    out: Tensor,
    keys: Tensor,
    values: Tensor,
    key_scales: Tensor | None,
    value_scales: Tensor | None,
) -> None:
    T, H, D = q.shape
    if T == 0:
        return
    half = cos.shape[1]
    ks, vs = (keys[..., 0] if s is None else s for s in (key_scales, value_scales))
    chosen = configuration("rope_cache", f"{H}x{D}", q, rope.default_configuration(H, D))
    _kernel[(T,)](
        *(q, k, v, out, keys, values, ks, vs, positions, slots, cos, sin, H, k.shape[1]),
        *(*q.stride()[:2], *k.stride()[:2], *v.stride()[:2], *out.stride()[:2]),
        *(*keys.stride()[:3], *values.stride()[:3], *ks.stride()[:3], *vs.stride()[:3]),
        *(cos.stride(0), sin.stride(0)),
        LARGEST=QUANTIZED.get(keys.dtype, 0.0),
        HALF=half,
        D=D,
        INTERLEAVED=interleaved,
        IN_PLACE=q.data_ptr() == out.data_ptr(),
        PAGE=keys.shape[1],
        PAIRS=power_of_two(half),
        REST=power_of_two(max(D - 2 * half, 1)),
        WIDTH=power_of_two(D),
        **chosen.launch,
    )


_Strides = ctypes.c_int64 * 14
_BRIEF = 1 << 17  # elements: below, about 100 microseconds, Python's lock is kept


def rope_into(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    slots: Tensor,
    cache: PagedCache,
    *,
    interleaved: bool,
    out: Tensor,
    threads: int,
    recording: Recording | None = None,
) -> None:
    """The compiled operator and nothing else, made or noted in `recording`: for a loop that has checked its shapes.

    Float32 on the CPU, heads' elements side by side, tables contiguous, int64 positions and slots, a float32 cache;
    only where `build.available()`.
    """
    T, H, D = q.shape
    keys, values = cache.keys, cache.values
    strides = (s for x in (q, k, v, out) for s in x.stride()[:2])
    (recording or build.functions(brief=T * H * D <= _BRIEF)).rope_and_cache(
        *(x.data_ptr() for x in (q, k, v, out, keys, values, positions, slots, cos, sin)),
        _Strides(*strides, *keys.stride()[:3], *values.stride()[:3]),
        *(T, H, k.shape[1], D, cos.shape[1], keys.shape[1], interleaved, threads),
    )


ROPE_CACHE = register("rope_cache", _launch, writes=("out", "keys", "values", "key_scales", "value_scales"))


def rope_and_cache(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    slots: Tensor,
    cache: PagedCache,
    *,
    interleaved: bool = False,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Turned queries [T, H, D], in `out` if given (q itself is allowed); `cache` has the tokens' keys and values after.

    Positions and slots are not compared with the sizes of tables and cache on a GPU. Raises ValueError for what does
    not fit.
    """
    check_rotary(q, positions, cos, sin)
    check_rotary(k, positions, cos, sin)
    _check(q, k, v, slots, cache)
    positions, slots = positions.contiguous(), slots.contiguous()
    takes = q.dtype in FLOATS and all(t.stride(2) == 1 for t in (q, k, v))
    y = output(q, out)
    takes = takes and y.stride(2) == 1
    wide = all(t.dtype == torch.float32 for t in (q, cos, sin, cache.keys)) and positions.dtype == torch.int64
    plain = cos.is_contiguous() and sin.is_contiguous() and not compiling()
    cpp = build.available if takes and wide and plain else None
    chosen = choose("rope_cache", q, backend, cpp=cpp, triton_takes=takes, weights=(k, v))
    if chosen == "torch":
        return y.copy_(reference(q, k, v, positions, cos, sin, slots, cache, interleaved=interleaved))
    if chosen == "cpp":
        _check_places(positions, slots, cos, cache)
        threads = torch.get_num_threads()
        rope_into(q, k, v, positions, cos, sin, slots, cache, interleaved=interleaved, out=y, threads=threads)
        return y
    (ROPE_CACHE if compiling() else _launch)(
        q,
        k,
        v,
        positions,
        cos,
        sin,
        slots,
        interleaved,
        y,
        cache.keys,
        cache.values,
        cache.key_scales,
        cache.value_scales,
    )
    return y


def _check(q: Tensor, k: Tensor, v: Tensor, slots: Tensor, cache: PagedCache) -> None:
    alike = k.shape == v.shape and q.dtype == k.dtype == v.dtype
    if not alike or k.shape[1:] != cache.keys.shape[2:] or q.shape[2] != k.shape[2]:
        raise ValueError(
            f"got k {tuple(k.shape)} {k.dtype}, v {tuple(v.shape)} {v.dtype} for q {tuple(q.shape)} {q.dtype} and a "
            f"cache {tuple(cache.keys.shape)}; allowed: k and v alike, of q's dtype and the cache's heads and width"
        )
    if slots.shape != q.shape[:1] or slots.dtype != torch.int64:
        raise ValueError(f"got slots {tuple(slots.shape)} {slots.dtype}; allowed: int64 [{q.shape[0]}]")


def _check_places(positions: Tensor, slots: Tensor, cos: Tensor, cache: PagedCache) -> None:
    """Raise ValueError where memory beyond the tables or the cache would be touched."""
    room = cache.keys.shape[0] * cache.page_size
    for name, x, size in (("positions", positions, len(cos)), ("slots", slots.clamp(min=0), room)):
        if len(x) and not 0 <= int(x.min()) <= int(x.max()) < size:
            raise ValueError(f"got {name} {int(x.min())} to {int(x.max())}; allowed: below {size}, positions from 0")
