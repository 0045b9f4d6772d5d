"""Rotary position embedding of queries and keys.

    y_a = x_a cos - x_b sin,   y_b = x_b cos + x_a sin,   angle = position * theta^(-2i/R)

for the pairs (a, b) = (i, i + R/2), "half-split" as in Llama's and NeoX's checkpoints, or (2i, 2i + 1), "interleaved"
as in the paper and in GGUF files; i < R/2. R <= D is the rotary width, elements from R on are left as they are.
Shapes: x_THD (tokens, heads, head width), positions_T, cos and sin [P, R/2] for positions below P. Dtypes: x float16,
bfloat16, float32 (float64 through torch); tables float32; positions int32 or int64; arithmetic in float32. Su et al.,
arXiv:2104.09864. Bytes: 2 tensors; a token's cosines and sines are read once for all its heads, queries and keys.
A token alone has the bits it has in any batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rolecall.kernels.configurations import Configuration, blocks, configuration, power_of_two
from rolecall.kernels.dispatch import Pointer, Scalar, choose, compiling, constexpr, jit, register, tl
from rolecall.kernels.rows import FLOATS, output, written


def rope_tables(
    positions: int, width: int, *, theta: float = 10_000.0, device: torch.device | str | None = None
) -> tuple[Tensor, Tensor]:
    """(cos, sin), each float32 [positions, width / 2], of angles computed in float64. `width` is R, even."""
    if width <= 0 or width % 2:
        raise ValueError(f"got rotary width {width}; allowed: a positive even number")
    frequencies = theta ** (-torch.arange(0, width, 2, dtype=torch.float64, device=device) / width)
    angles = torch.arange(positions, dtype=torch.float64, device=device)[:, None] * frequencies
    return angles.cos().float(), angles.sin().float()


def reference(x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool = False) -> Tensor:
    """y in x's dtype."""
    half = cos.shape[1]
    wide = x.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    c, s = cos.to(wide.dtype)[positions.long(), None], sin.to(wide.dtype)[positions.long(), None]
    rotary, rest = wide[..., : 2 * half], wide[..., 2 * half :]
    if interleaved:
        a, b = rotary[..., 0::2], rotary[..., 1::2]
        turned = torch.stack((a * c - b * s, b * c + a * s), dim=-1).flatten(-2)
    else:
        a, b = rotary[..., :half], rotary[..., half:]
        turned = torch.cat((a * c - b * s, b * c + a * s), dim=-1)
    return torch.cat((turned, rest), dim=-1).to(x.dtype)


@jit
def rotate(
    x_ptr: Pointer,
    y_ptr: Pointer,
    heads: Scalar,
    x_stride: Scalar,
    y_stride: Scalar,
    cos: Scalar,
    sin: Scalar,
    HALF: constexpr,
    WIDTH: constexpr,
    INTERLEAVED: constexpr,
    IN_PLACE: constexpr,
    HEADS: constexpr,
    PAIRS: constexpr,
    REST: constexpr,
) -> None:
    """Turn all heads of one token, HEADS at a time; `cos` and `sin` are blocks of PAIRS, at least HALF."""
    pairs = tl.arange(0, PAIRS)
    first = pairs * 2 if INTERLEAVED else pairs
    second = pairs * 2 + 1 if INTERLEAVED else pairs + HALF
    head = tl.arange(0, HEADS)
    start = 0
    while start < heads:
        inside = (start + head < heads)[:, None] & (pairs < HALF)[None, :]
        x_head = x_ptr + (start + head)[:, None] * x_stride
        y_head = y_ptr + (start + head)[:, None] * y_stride
        a = tl.load(x_head + first[None, :], mask=inside, other=0.0).to(tl.float32)
        b = tl.load(x_head + second[None, :], mask=inside, other=0.0).to(tl.float32)
        y_a = a * cos[None, :] - b * sin[None, :]
        y_b = b * cos[None, :] + a * sin[None, :]
        tl.store(y_head + first[None, :], y_a.to(y_ptr.dtype.element_ty), mask=inside)
        tl.store(y_head + second[None, :], y_b.to(y_ptr.dtype.element_ty), mask=inside)
        if (2 * HALF < WIDTH) and not IN_PLACE:
            rest = 2 * HALF + tl.arange(0, REST)
            left = (start + head < heads)[:, None] & (rest < WIDTH)[None, :]
            kept = tl.load(x_head + rest[None, :], mask=left, other=0.0)
            tl.store(y_head + rest[None, :], kept, mask=left)
        start += HEADS


@jit
def angles(
    cos_ptr: Pointer,
    sin_ptr: Pointer,
    position: Scalar,
    cos_stride: Scalar,
    sin_stride: Scalar,
    HALF: constexpr,
    PAIRS: constexpr,
) -> Scalar:
    """The cosines and sines of one position."""
    pairs = tl.arange(0, PAIRS)
    cos = tl.load(cos_ptr + position.to(tl.int64) * cos_stride + pairs, mask=pairs < HALF, other=1.0)
    sin = tl.load(sin_ptr + position.to(tl.int64) * sin_stride + pairs, mask=pairs < HALF, other=0.0)
    return cos.to(tl.float32), sin.to(tl.float32)


@jit
def _kernel(
    q_ptr: Pointer,
    k_ptr: Pointer,
    q_out_ptr: Pointer,
    k_out_ptr: Pointer,
    positions_ptr: Pointer,
    cos_ptr: Pointer,
    sin_ptr: Pointer,
    q_heads: Scalar,
    k_heads: Scalar,
    q_token: Scalar,
    q_head: Scalar,
    k_token: Scalar,
    k_head: Scalar,
    q_out_token: Scalar,
    q_out_head: Scalar,
    k_out_token: Scalar,
    k_out_head: Scalar,
    cos_stride: Scalar,
    sin_stride: Scalar,
    KEYS: constexpr,
    HALF: constexpr,
    WIDTH: constexpr,
    INTERLEAVED: constexpr,
    Q_IN_PLACE: constexpr,
    K_IN_PLACE: constexpr,
    PAIRS: constexpr,
    REST: constexpr,
    HEADS: constexpr,
) -> None:
    token = tl.program_id(0).to(tl.int64)
    position = tl.load(positions_ptr + token)
    cos, sin = angles(cos_ptr, sin_ptr, position, cos_stride, sin_stride, HALF, PAIRS)
    q, q_out = q_ptr + token * q_token, q_out_ptr + token * q_out_token
    rotate(q, q_out, q_heads, q_head, q_out_head, cos, sin, HALF, WIDTH, INTERLEAVED, Q_IN_PLACE, HEADS, PAIRS, REST)
    if KEYS:
        k, k_out = k_ptr + token * k_token, k_out_ptr + token * k_out_token
        rotate(
            k, k_out, k_heads, k_head, k_out_head, cos, sin, HALF, WIDTH, INTERLEAVED, K_IN_PLACE, HEADS, PAIRS, REST
        )


def default_configuration(heads: int, width: int) -> Configuration:
    """About 2,048 elements of a token at a time, so that a warp's lanes hold whole 16-byte loads."""
    block = min(power_of_two(heads), max(1, 2048 // power_of_two(width)))
    return Configuration(blocks=blocks(HEADS=block), warps=max(1, min(4, block * width // 256)))


def _launch(
    q: Tensor,
    k: Tensor | None,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool,
    q_out: Tensor,
    k_out: Tensor | None,
) -> None:
    T, H, D = q.shape
    if T == 0 or D == 0:
        return
    keys, keys_out = (q, q_out) if k is None or k_out is None else (k, k_out)
    half = cos.shape[1]
    chosen = configuration("rope", f"{H}x{D}", q, default_configuration(H, D))
    _kernel[(T,)](
        q,
        keys,
        q_out,
        keys_out,
        positions,
        cos,
        sin,
        H,
        keys.shape[1],
        *(q.stride(0), q.stride(1), keys.stride(0), keys.stride(1)),
        *(q_out.stride(0), q_out.stride(1), keys_out.stride(0), keys_out.stride(1)),
        *(cos.stride(0), sin.stride(0)),
        KEYS=k is not None,
        HALF=half,
        WIDTH=D,
        INTERLEAVED=interleaved,
        Q_IN_PLACE=q.data_ptr() == q_out.data_ptr(),
        K_IN_PLACE=keys.data_ptr() == keys_out.data_ptr(),
        PAIRS=power_of_two(half),
        REST=power_of_two(max(D - 2 * half, 1)),
        **chosen.launch,
    )


def _one(q: Tensor, positions: Tensor, cos: Tensor, sin: Tensor, interleaved: bool, out: Tensor) -> None:
    _launch(q, None, positions, cos, sin, interleaved, out, None)


def _two(
    q: Tensor,
    k: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    interleaved: bool,
    out: Tensor,
    k_out: Tensor,
) -> None:
    _launch(q, k, positions, cos, sin, interleaved, out, k_out)


ROPE = register("rope", _one)
ROPE_PAIR = register("rope_pair", _two, writes=("out", "k_out"))


def rope(
    x: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    interleaved: bool = False,
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """x [T, H, D] turned by its tokens' positions, in `out` if given (x itself is allowed).

    Positions are not compared with the tables' length on a GPU; one beyond it reads beyond the table. Raises ValueError
    for shapes, dtypes or a backend that do not fit.
    """
    check_rotary(x, positions, cos, sin)
    if choose("rope", x, backend, triton_takes=x.dtype in FLOATS and x.stride(2) == 1) == "torch":
        return written(reference(x, positions, cos, sin, interleaved=interleaved), out)
    y = _output(x, out)
    (ROPE if compiling() else _one)(x, positions, cos, sin, interleaved, y)
    return y


def rope_pair(
    q: Tensor,
    k: Tensor,
    positions: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    interleaved: bool = False,
    out: tuple[Tensor, Tensor] | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """`rope` of queries [T, H, D] and keys [T, G, D] in one launch; `out` may be (q, k)."""
    check_rotary(q, positions, cos, sin)
    check_rotary(k, positions, cos, sin)
    takes = q.dtype in FLOATS and q.stride(2) == 1 and k.stride(2) == 1
    q_out, k_out = (None, None) if out is None else out
    if choose("rope_pair", q, backend, triton_takes=takes, weights=(k,)) == "torch":
        turned = [reference(x, positions, cos, sin, interleaved=interleaved) for x in (q, k)]
        return written(turned[0], q_out), written(turned[1], k_out)
    q_out, k_out = _output(q, q_out), _output(k, k_out)
    (ROPE_PAIR if compiling() else _two)(q, k, positions, cos, sin, interleaved, q_out, k_out)
    return q_out, k_out


def check_rotary(x: Tensor, positions: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Raise ValueError unless x is [T, H, D], positions [T], and the tables two [P, R/2] with R <= D."""
    if x.ndim != 3 or not x.is_floating_point():
        raise ValueError(f"got x {tuple(x.shape)} {x.dtype}; allowed: floating-point [tokens, heads, width]")
    if positions.shape != x.shape[:1] or positions.dtype not in (torch.int32, torch.int64):
        raise ValueError(
            f"got positions {tuple(positions.shape)} {positions.dtype}; allowed: int32 or int64 [{x.shape[0]}]"
        )
    if cos.ndim != 2 or cos.shape != sin.shape or not 0 < 2 * cos.shape[1] <= x.shape[2]:
        raise ValueError(
            f"got tables {tuple(cos.shape)} and {tuple(sin.shape)} for heads {x.shape[2]} wide; "
            "allowed: two [positions, R / 2] with R at most that"
        )


def _output(x: Tensor, out: Tensor | None) -> Tensor:
    y = output(x, out)
    if y.stride(2) != 1:
        raise ValueError(f"got out with strides {y.stride()}; allowed: heads whose elements lie side by side")
    return y
