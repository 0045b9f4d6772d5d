"""Which drafted tokens stand, and the token after them, so that the output is distributed as the target's.

    accept d_i         while u_i q_i(d_i) < p_i(d_i)                        that is, with probability min(1, p / q)
    at the first refusal, i    token ~ max(0, p_i - q_i) / sum max(0, p_i - q_i)
    with all n accepted        token ~ p_n

Leviathan et al., arXiv:2211.17192, Chen et al., arXiv:2302.01318: q(x) min(1, p / q) + P(refusal) residual(x) = p(x).
Shapes: p target_BSV with S = K + 1, q draft_BKV, draft_tokens_BK int64, lengths_B: the row's n <= K; what lies beyond
is not looked at. Dtypes: p and q float32 (float64 through torch), as `sampling_probabilities` makes them.
Where rounding leaves no residual the token is drawn from p_i; where p has no mass either it is -1.

u_i and the token's noise are functions of the seed and of the position, positions_B + i, in streams of their own
(see `noise`); with n = 0 the token is that of `sample`, but for the rounding of p. The drafts must have been drawn with
other seeds. Bytes: 2 numbers a draft, then two rows of V once.

A draft without a distribution (looked up in the prompt: q is 1 at d) needs none of this. `match` takes the tokens that
`sample` draws from the target at every position: d_i stands while it is the token drawn, which happens with probability
p_i(d_i), and else the token drawn takes its place, which is the residual's distribution. The output is then, bit for
bit, what it is without drafts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rolecall.kernels import noise
from rolecall.kernels.configurations import Configuration, blocks, configuration, power_of_two
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
from rolecall.kernels.noise import ACCEPTANCE, exponentials, row_keys, uniforms

NO_TOKEN = -1


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """`counts`: int64 [B], drafts that stand. `tokens`: int64 [B], the token that follows them."""

    counts: Tensor
    tokens: Tensor


# --- reference ---


def residual(p_V: Tensor, q_V: Tensor) -> Tensor:
    """What a refused draft is replaced from, not normalised; p itself where nothing is left."""
    left_V = (p_V - q_V).clamp_(min=0.0)
    return left_V if bool(left_V.any()) else p_V


def draw(mass_V: Tensor, seed: int, position: int) -> int | Tensor:
    """A token by the mass [V], which need not sum to 1: the largest m_i / e_i."""
    ids = mass_V.nonzero()[:, 0]
    if len(ids) == 0:
        return NO_TOKEN
    return ids[(mass_V[ids] / noise.exponential(seed, position, ids.int())).argmax()]


def _through_torch(
    target: Tensor,
    draft: Tensor,
    draft_tokens: Tensor,
    lengths: Tensor,
    seeds: Tensor,
    positions: Tensor,
    counts: Tensor,
    tokens: Tensor,
) -> None:
    K = draft_tokens.shape[1]
    p_BK = target[:, :K].gather(2, draft_tokens[:, :, None])[:, :, 0].tolist()
    q_BK = draft.gather(2, draft_tokens[:, :, None])[:, :, 0].tolist()
    rows = zip(lengths.tolist(), seeds.tolist(), positions.tolist(), strict=True)
    for row, (length, seed, first) in enumerate(rows):
        n = 0
        while n < length and noise.uniform(seed, first + n, stream=ACCEPTANCE) * q_BK[row][n] < p_BK[row][n]:
            n += 1
        mass_V = residual(target[row, n], draft[row, n]) if n < length else target[row, n]
        counts[row] = n
        tokens[row] = draw(mass_V, seed, first + n)


# --- kernel ---


@jit
def _kernel(
    p_ptr: Pointer,
    q_ptr: Pointer,
    draft_ptr: Pointer,
    length_ptr: Pointer,
    seed_ptr: Pointer,
    position_ptr: Pointer,
    count_ptr: Pointer,
    token_ptr: Pointer,
    V: Scalar,
    p_row: Scalar,
    p_step: Scalar,
    q_row: Scalar,
    q_step: Scalar,
    draft_row: Scalar,
    DRAFTS: constexpr,
    STEPS: constexpr,
    BLOCK: constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    p_ptr += row * p_row
    q_ptr += row * q_row
    length = tl.load(length_ptr + row)
    seed, position = tl.load(seed_ptr + row), tl.load(position_ptr + row)
    i = tl.arange(0, DRAFTS).to(tl.int64)
    drafted = i < length
    d = tl.load(draft_ptr + row * draft_row + i, mask=drafted, other=0)
    p = tl.load(p_ptr + i * p_step + d, mask=drafted, other=0.0)
    q = tl.load(q_ptr + i * q_step + d, mask=drafted, other=0.0)
    first, second = row_keys(seed, position + i, 1)
    stands = drafted & (uniforms(first, second, i * 0) * q < p)
    n = tl.min(tl.where(stands, DRAFTS, i), axis=0)  # the first that does not
    n = tl.minimum(n, length)
    first, second = row_keys(seed, position + n, 0)
    p_ptr += n * p_step
    q_ptr += tl.where(n < length, n, 0) * q_step
    token = _draw(p_ptr, q_ptr, n < length, first, second, V, STEPS, BLOCK)
    if (token < 0) & (n < length):
        token = _draw(p_ptr, q_ptr, length < 0, first, second, V, STEPS, BLOCK)
    tl.store(count_ptr + row, n)
    tl.store(token_ptr + row, token.to(tl.int64))


@jit
def _draw(
    p_ptr: Pointer,
    q_ptr: Pointer,
    refused: Scalar,
    first: Scalar,
    second: Scalar,
    V: Scalar,
    STEPS: constexpr,
    BLOCK: constexpr,
) -> Scalar:
    """The token by the mass of p, less q's if a draft was refused; -1 where there is none."""
    best = tl.full([], 0.0, tl.float32)
    token = tl.full([], -1, tl.int32)
    for step in tl.range(0, STEPS):
        ids = step * BLOCK + tl.arange(0, BLOCK)
        mass = tl.load(p_ptr + ids, mask=ids < V, other=0.0)
        mass -= tl.load(q_ptr + ids, mask=(ids < V) & refused, other=0.0)
        score = tl.maximum(mass, 0.0) / exponentials(first, second, ids)
        highest = tl.max(score, axis=0)
        place = tl.min(tl.where(score == highest, ids, 0x7FFFFFFF), axis=0)
        token = tl.where(highest > best, place, token)
        best = tl.maximum(best, highest)
    return token


# --- launch ---


def _launch(
    target: Tensor,
    draft: Tensor,
    draft_tokens: Tensor,
    lengths: Tensor,
    seeds: Tensor,
    positions: Tensor,
    counts: Tensor,
    tokens: Tensor,
) -> None:
    B, S, V = target.shape
    if B == 0:
        return
    default = Configuration(blocks=blocks(BLOCK=64 if INTERPRETED else 4096), warps=8)
    chosen = configuration("speculative_accept", str(V), target, default)
    _kernel[(B,)](
        target,
        draft,
        draft_tokens,
        lengths,
        seeds,
        positions,
        counts,
        tokens,
        V,
        *target.stride()[:2],
        *draft.stride()[:2],
        draft_tokens.stride(0),
        DRAFTS=power_of_two(S),
        STEPS=max(1, triton.cdiv(V, chosen.blocks["BLOCK"])),
        **chosen.launch,
    )


SPECULATIVE_ACCEPT = register("speculative_accept", _launch, writes=("counts", "tokens"))
SPECULATIVE_ACCEPT_TORCH = register("speculative_accept_torch", _through_torch, writes=("counts", "tokens"))


# --- public ---


def speculative_accept(
    target_BSV: Tensor,
    draft_BKV: Tensor,
    draft_tokens_BK: Tensor,
    *,
    seeds_B: Tensor,
    positions_B: Tensor,
    lengths_B: Tensor | None = None,
    out: Accepted | None = None,
    backend: str | None = None,
) -> Accepted:
    """Counts and tokens, in `out` if given.

    `positions_B`: that of each row's first draft; `lengths_B`: drafts of each row, all K unless given. All integers
    int64. Lengths and tokens are not checked. Raises ValueError for shapes, dtypes or a backend that do not fit.
    """
    B = len(target_BSV)
    lengths_B = torch.full_like(seeds_B, draft_tokens_BK.shape[-1]) if lengths_B is None else lengths_B
    _check(target_BSV, draft_BKV, draft_tokens_BK)
    _check_rows(B, lengths_B, seeds_B, positions_B)
    if out is None:
        out = Accepted(counts=torch.empty_like(seeds_B), tokens=torch.empty_like(seeds_B))
    _check_rows(B, out.counts, out.tokens)
    with torch.no_grad():
        chosen = choose("speculative_accept", target_BSV, backend, triton_takes=target_BSV.dtype == torch.float32)
    if chosen == "triton":
        function = SPECULATIVE_ACCEPT if compiling() else _launch
    else:
        function = SPECULATIVE_ACCEPT_TORCH if compiling() else _through_torch
    function(target_BSV, draft_BKV, draft_tokens_BK, lengths_B, seeds_B, positions_B, out.counts, out.tokens)
    return out


def match(tokens_BS: Tensor, draft_tokens_BK: Tensor, *, lengths_B: Tensor | None = None) -> Accepted:
    """What stands of drafts without a distribution: `tokens_BS` are drawn from the target at each of K + 1 positions.

    Raises ValueError for shapes that do not fit.
    """
    B, K = draft_tokens_BK.shape
    if tokens_BS.shape != (B, K + 1):
        raise ValueError(f"got tokens {tuple(tokens_BS.shape)}; allowed: [{B}, {K + 1}], one more than the drafts")
    stands_BK = tokens_BS[:, :K] == draft_tokens_BK
    if lengths_B is not None:
        _check_rows(B, lengths_B)
        stands_BK = stands_BK & (torch.arange(K, device=lengths_B.device) < lengths_B[:, None])
    counts = stands_BK.long().cumprod(1).sum(1)
    return Accepted(counts=counts, tokens=tokens_BS.gather(1, counts[:, None])[:, 0])


def _check(target: Tensor, draft: Tensor, draft_tokens: Tensor) -> None:
    B, S, V = target.shape if target.ndim == 3 else (0, 0, 0)
    if S == 0 or draft.shape != (B, S - 1, V) or draft_tokens.shape != (B, S - 1):
        raise ValueError(
            f"got target {tuple(target.shape)}, draft {tuple(draft.shape)}, tokens {tuple(draft_tokens.shape)}; "
            "allowed: [B, K + 1, V], [B, K, V] and [B, K]"
        )
    if target.dtype != draft.dtype or target.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"got target {target.dtype}, draft {draft.dtype}; allowed: both float32 or both float64")
    if draft_tokens.dtype != torch.int64 or any(t.stride(-1) != 1 and t.shape[-1] > 1 for t in (target, draft)):
        raise ValueError(
            f"got tokens {draft_tokens.dtype}, strides {target.stride()} and {draft.stride()}; "
            "allowed: int64, and rows without gaps"
        )


def _check_rows(B: int, *rows: Tensor) -> None:
    for each in rows:
        if each.shape != (B,) or each.dtype != torch.int64:
            raise ValueError(f"got {tuple(each.shape)} {each.dtype}; allowed: int64 [{B}]")
