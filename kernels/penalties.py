"""What a request's own tokens and wishes do to its logits, in place: penalties and logit bias.

    repetition r   x > 0: x / r, else x r     for every token of the prompt or the output     (arXiv:1909.05858)
    presence a     x - a                      for every token of the output
    frequency f    x - f count                count: how often it is in the output
    bias b         x + b

in this order. Tokens are entries (row, token), each pair at most once in a call: rows_E, tokens_E int64; counts_E
int32, how often the token is in the output, 0 where it is in the prompt only; bias_E float32. Parameters: float32 [B];
1, 0 and 0 are off. Dtypes of logits_BV: float16, bfloat16, float32 (float64 through torch), computed in float32. -inf
stays.
Entries do not meet, so the result depends on neither their order nor the batch. Bytes: some 30 an entry; the rest of
the logits is not touched.
"""

from __future__ import annotations

import torch
from torch import Tensor

from rolecall.kernels.configurations import Configuration, blocks, configuration
from rolecall.kernels.dispatch import Pointer, Scalar, choose, compiling, constexpr, jit, register, tl, triton
from rolecall.kernels.rows import FLOATS, accumulating


def reference(
    logits_BV: Tensor,
    rows_E: Tensor,
    tokens_E: Tensor,
    counts_E: Tensor,
    repetition_B: Tensor,
    presence_B: Tensor,
    frequency_B: Tensor,
) -> None:
    """Penalties, written to `logits_BV`."""
    x_E = accumulating(logits_BV[rows_E, tokens_E])
    repetition_E = repetition_B[rows_E]
    x_E = torch.where(x_E > 0, x_E / repetition_E, x_E * repetition_E)
    x_E = x_E - presence_B[rows_E] * (counts_E > 0) - frequency_B[rows_E] * counts_E
    logits_BV[rows_E, tokens_E] = x_E.to(logits_BV.dtype)


def reference_bias(logits_BV: Tensor, rows_E: Tensor, tokens_E: Tensor, bias_E: Tensor) -> None:
    """Bias, written to `logits_BV`."""
    logits_BV[rows_E, tokens_E] = (accumulating(logits_BV[rows_E, tokens_E]) + bias_E).to(logits_BV.dtype)


@jit
def _kernel(
    x_ptr: Pointer,
    rows_ptr: Pointer,
    tokens_ptr: Pointer,
    values_ptr: Pointer,
    repetition_ptr: Pointer,
    presence_ptr: Pointer,
    frequency_ptr: Pointer,
    E: Scalar,
    x_stride: Scalar,
    BIAS: constexpr,
    BLOCK: constexpr,
) -> None:
    entry = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = entry < E
    row = tl.load(rows_ptr + entry, mask=inside, other=0)
    place = x_ptr + row * x_stride + tl.load(tokens_ptr + entry, mask=inside, other=0)
    x = tl.load(place, mask=inside, other=0.0).to(tl.float32)
    value = tl.load(values_ptr + entry, mask=inside, other=0).to(tl.float32)
    if BIAS:
        x += value
    else:
        repetition = tl.load(repetition_ptr + row, mask=inside, other=1.0).to(tl.float32)
        x = tl.where(x > 0.0, tl.div_rn(x, repetition), x * repetition)
        x -= tl.where(value > 0.0, tl.load(presence_ptr + row, mask=inside, other=0.0).to(tl.float32), 0.0)
        x -= tl.load(frequency_ptr + row, mask=inside, other=0.0).to(tl.float32) * value
    tl.store(place, x.to(x_ptr.dtype.element_ty), mask=inside)


def _launch(
    logits: Tensor,
    rows: Tensor,
    tokens: Tensor,
    values: Tensor,
    repetition: Tensor | None,
    presence: Tensor | None,
    frequency: Tensor | None,
) -> None:
    """`values`: counts, or the bias where there are no penalties."""
    E = len(rows)
    if E == 0:
        return
    chosen = configuration("penalties", "entries", logits, Configuration(blocks=blocks(BLOCK=128), warps=4))
    _kernel[(triton.cdiv(E, chosen.blocks["BLOCK"]),)](
        logits,
        rows,
        tokens,
        values,
        *(values if each is None else each for each in (repetition, presence, frequency)),
        E,
        logits.stride(0),
        BIAS=repetition is None,
        **chosen.launch,
    )


PENALTIES = register("penalties", _launch, writes=("logits",))


def apply_penalties(
    logits_BV: Tensor,
    rows_E: Tensor,
    tokens_E: Tensor,
    counts_E: Tensor,
    *,
    repetition_B: Tensor,
    presence_B: Tensor,
    frequency_B: Tensor,
    backend: str | None = None,
) -> Tensor:
    """`logits_BV`, changed. Row and token numbers are not checked. Raises ValueError for what does not fit."""
    for each in (repetition_B, presence_B, frequency_B):
        if each.shape != logits_BV.shape[:1] or each.device != logits_BV.device:
            raise ValueError(
                f"got a penalty {tuple(each.shape)} on {each.device}; allowed: [{len(logits_BV)}] on {logits_BV.device}"
            )
    if _chosen("penalties", logits_BV, rows_E, tokens_E, counts_E, backend) == "torch":
        reference(logits_BV, rows_E, tokens_E, counts_E, repetition_B, presence_B, frequency_B)
    else:
        arguments = (logits_BV, rows_E, tokens_E, counts_E, repetition_B, presence_B, frequency_B)
        (PENALTIES if compiling() else _launch)(*arguments)
    return logits_BV


def add_bias(
    logits_BV: Tensor, rows_E: Tensor, tokens_E: Tensor, bias_E: Tensor, *, backend: str | None = None
) -> Tensor:
    """`logits_BV`, changed. Row and token numbers are not checked. Raises ValueError for what does not fit."""
    if _chosen("logit_bias", logits_BV, rows_E, tokens_E, bias_E, backend) == "torch":
        reference_bias(logits_BV, rows_E, tokens_E, bias_E)
    else:
        (PENALTIES if compiling() else _launch)(logits_BV, rows_E, tokens_E, bias_E, None, None, None)
    return logits_BV


def _chosen(op: str, logits: Tensor, rows: Tensor, tokens: Tensor, values: Tensor, backend: str | None) -> str:
    if logits.ndim != 2 or not logits.is_floating_point() or (logits.stride(1) != 1 and logits.shape[1] > 1):
        raise ValueError(
            f"got logits {tuple(logits.shape)} {logits.dtype}, strides {logits.stride()}; "
            "allowed: floating-point [B, V], rows without gaps"
        )
    if rows.dtype != torch.int64 or tokens.dtype != torch.int64:
        raise ValueError(f"got rows {rows.dtype}, tokens {tokens.dtype}; allowed: int64")
    if not rows.shape == tokens.shape == values.shape == (rows.numel(),):
        raise ValueError(
            f"got rows {tuple(rows.shape)}, tokens {tuple(tokens.shape)}, values {tuple(values.shape)}; "
            "allowed: all [E], one entry each"
        )
    with torch.no_grad():
        return choose(op, logits, backend, triton_takes=logits.dtype in FLOATS)
