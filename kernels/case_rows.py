"""Cases of the operators that work on rows, x_MN: normalisation, gates, softmax, quantisation of rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rolecall.kernels import intensity
from rolecall.kernels.bias_relu import bias_relu
from rolecall.kernels.case import Case, Numbers, Scale, Sizes, working_dtype
from rolecall.kernels.gates import geglu, swiglu
from rolecall.kernels.intensity import Work
from rolecall.kernels.layer_norm import layer_norm
from rolecall.kernels.quantization import QuantizedRows, quantize_rows
from rolecall.kernels.rms_norm import add_rms_norm, rms_norm, rms_norm_quantized
from rolecall.kernels.softmax import log_softmax, softmax, softmax_backward

NORMS: Sizes = {"tiny": ((5, 48),), "cpu": ((2048, 576),), "gpu": ((16_384, 4096), (16_384, 8192))}
GATES: Sizes = {"tiny": ((5, 64),), "cpu": ((1024, 1536),), "gpu": ((8192, 14_336),)}
VOCABULARIES: Sizes = {"tiny": ((5, 70),), "cpu": ((64, 49_152),), "gpu": ((4096, 32_768), (2048, 128_256))}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What an operator on rows takes and writes; those it has no use for are there all the same."""

    x: Tensor
    other: Tensor
    weight: Tensor
    bias: Tensor
    out: Tensor
    other_out: Tensor
    codes: QuantizedRows


RUNS: dict[str, tuple[Sizes, Callable[..., Work], Callable[[Rows, str | None], Any]]] = {
    "rms_norm": (NORMS, intensity.rms_norm, lambda i, backend: rms_norm(i.x, i.weight, out=i.out, backend=backend)),
    "add_rms_norm": (
        NORMS,
        intensity.add_rms_norm,
        lambda i, backend: add_rms_norm(i.x, i.other, i.weight, out=i.out, residual_out=i.other_out, backend=backend),
    ),
    "rms_norm_quantized": (
        NORMS,
        intensity.rms_norm_quantized,
        lambda i, backend: rms_norm_quantized(i.x, i.weight, out=i.codes, backend=backend),
    ),
    "layer_norm": (
        NORMS,
        intensity.layer_norm,
        lambda i, backend: layer_norm(i.x, i.weight, i.bias, out=i.out, backend=backend),
    ),
    "quantize_rows": (NORMS, intensity.quantize_rows, lambda i, _: quantize_rows(i.x)),
    "swiglu": (GATES, intensity.gate, lambda i, backend: swiglu(i.x, i.other, out=i.out, backend=backend)),
    "geglu": (GATES, intensity.gate, lambda i, backend: geglu(i.x, i.other, out=i.out, backend=backend)),
    "bias_relu": (GATES, intensity.bias_relu, lambda i, backend: bias_relu(i.x, i.bias, out=i.out, backend=backend)),
    "softmax": (VOCABULARIES, intensity.softmax, lambda i, backend: softmax(i.x, out=i.out, backend=backend)),
    "log_softmax": (VOCABULARIES, intensity.softmax, lambda i, backend: log_softmax(i.x, out=i.out, backend=backend)),
    "softmax_backward": (
        VOCABULARIES,
        intensity.softmax_backward,
        lambda i, backend: softmax_backward(i.other_out, i.other, out=i.out, backend=backend),
    ),
}
_WAITING = ("quantize_rows",)  # asks whether all numbers are finite
_PAIRED = ("add_rms_norm", "swiglu", "geglu", "softmax_backward")


def cases(op: str, scale: Scale, device: torch.device) -> list[Case]:
    """The cases of one of `RUNS`."""
    shapes, formula, run = RUNS[op]
    dtype = working_dtype(device)
    return [
        Case(
            op=op,
            shape=f"{rows} x {width} {str(dtype).removeprefix('torch.')}",
            work=formula(rows, width, dtype),
            inputs=_inputs(op, rows, width, dtype, device),
            run=run,
            waits=op in _WAITING,
        )
        for rows, width in shapes[scale]
    ]


def _inputs(op: str, rows: int, width: int, dtype: torch.dtype, device: torch.device) -> Callable[[int], Rows]:
    def make(seed: int) -> Rows:
        x = Numbers(seed=seed, device=device).normal(rows, width, dtype=dtype)
        vectors = [Numbers(seed=seed + i, device=device).normal(width, dtype=dtype) for i in (1, 2)]
        other = Numbers(seed=seed + 3, device=device).normal(rows, width, dtype=dtype) if op in _PAIRED else x
        other_out = torch.empty_like(x) if op == "add_rms_norm" else x
        if op == "softmax_backward":
            other_out = torch.softmax(x.float(), dim=1).to(dtype)
        codes = QuantizedRows(
            codes=torch.empty(rows, width, dtype=torch.int8, device=device), scales=torch.empty(rows, device=device)
        )
        return Rows(
            x=x,
            other=other,
            weight=vectors[0],
            bias=vectors[1],
            out=torch.empty_like(x),
            other_out=other_out,
            codes=codes,
        )

    return make
