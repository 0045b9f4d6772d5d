"""Gated activations: SwiGLU and GEGLU.

    swiglu: y = g * sigmoid(g) * u          geglu: y = g * Phi(g) * u

with Phi the normal distribution function, (1 + erf(g / sqrt 2)) / 2, or its approximation
(1 + tanh(sqrt(2/pi) (g + .044715 g^3))) / 2. Shapes: g_MN, u_MN, y_MN; the two halves of one [M, 2N] projection are
read in place. Dtypes: float16, bfloat16, float32 (float64 through torch); arithmetic in float32. Shazeer,
arXiv:2002.05202. Bytes: 3 tensors. A row alone has the bits it has in any batch (through torch on a CPU, where N is a
multiple of 32: its SiLU rounds otherwise at the end of a buffer).
"""

from __future__ import annotations

import torch
from torch import Tensor

from rolecall.kernels.configurations import Configuration, blocks, configuration
from rolecall.kernels.cpp import build
from rolecall.kernels.cpp.recording import Recording
from rolecall.kernels.dispatch import Pointer, Scalar, choose, compiling, constexpr, jit, register, tl, triton
from rolecall.kernels.rows import FLOATS, accumulating, check_float, output, rows_of, written, written_rows

ACTIVATIONS = ("silu", "gelu", "gelu_tanh")
DEFAULT = Configuration(blocks=blocks(BLOCK=1024), warps=4)


def reference(gate: Tensor, up: Tensor, *, activation: str = "silu") -> Tensor:
    """y in gate's dtype; `activation` is one of `ACTIVATIONS`."""
    wide = accumulating(gate)
    if activation == "silu":
        active = torch.nn.functional.silu(wide)
    else:
        active = torch.nn.functional.gelu(wide, approximate="tanh" if activation == "gelu_tanh" else "none")
    return (active * accumulating(up)).to(gate.dtype)


@jit
def _kernel(
    g_ptr: Pointer,
    u_ptr: Pointer,
    y_ptr: Pointer,
    N: Scalar,
    g_stride: Scalar,
    u_stride: Scalar,
    y_stride: Scalar,
    ACTIVATION: constexpr,
    BLOCK: constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = columns < N
    g = tl.load(g_ptr + row * g_stride + columns, mask=inside, other=0.0).to(tl.float32)
    u = tl.load(u_ptr + row * u_stride + columns, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "silu":
        share = tl.sigmoid(g)
    elif ACTIVATION == "gelu":
        share = 0.5 * (1.0 + tl.erf(g * 0.7071067811865476))
    else:  # (1 + tanh z) / 2 = sigmoid(2z)
        share = tl.sigmoid(1.5957691216057308 * (g + 0.044715 * g * g * g))
    tl.store(y_ptr + row * y_stride + columns, (g * share * u).to(y_ptr.dtype.element_ty), mask=inside)


def _launch(gate: Tensor, up: Tensor, activation: str, out: Tensor) -> None:
    g_MN, u_MN, y_MN = rows_of(gate), rows_of(up), written_rows(out)
    if g_MN.is_contiguous() and u_MN.is_contiguous() and y_MN.is_contiguous():
        g_MN, u_MN, y_MN = g_MN.view(1, -1), u_MN.view(1, -1), y_MN.view(1, -1)
    M, N = g_MN.shape
    if M == 0 or N == 0:
        return
    chosen = configuration("gates", str(N), gate, DEFAULT)
    _kernel[(M, triton.cdiv(N, chosen.blocks["BLOCK"]))](
        g_MN,
        u_MN,
        y_MN,
        N,
        g_MN.stride(0),
        u_MN.stride(0),
        y_MN.stride(0),
        ACTIVATION=activation,
        **chosen.launch,
    )


_BRIEF = 1 << 17  # elements: below, about 100 microseconds, Python's lock is kept


def swiglu_into(g_MN: Tensor, u_MN: Tensor, y_MN: Tensor, threads: int, recording: Recording | None = None) -> None:
    """The compiled operator and nothing else, made or noted in `recording`: for a loop that has checked its shapes.

    Float32 matrices on the CPU with unit column stride; only where `build.available()`.
    """
    M, N = g_MN.shape
    (recording or build.functions(brief=M * N <= _BRIEF)).swiglu(
        *(g_MN.data_ptr(), g_MN.stride(0), u_MN.data_ptr(), u_MN.stride(0), y_MN.data_ptr(), y_MN.stride(0)),
        *(M, N, threads),
    )


GATE = register("gate", _launch)


def swiglu(gate: Tensor, up: Tensor, *, out: Tensor | None = None, backend: str | None = None) -> Tensor:
    """silu(gate) * up, [..., N], in `out` if given (`gate` or `up` itself is allowed).

    Raises ValueError for shapes, dtypes or a backend that do not fit.
    """
    return _gated(gate, up, "silu", out, backend)


def geglu(
    gate: Tensor,
    up: Tensor,
    *,
    approximate: str = "none",
    out: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """gelu(gate) * up, as `swiglu`. `approximate`: "none" for the error function, "tanh" for its approximation."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"got approximate {approximate!r}; allowed: 'none', 'tanh'")
    return _gated(gate, up, "gelu" if approximate == "none" else "gelu_tanh", out, backend)


def _gated(gate: Tensor, up: Tensor, activation: str, out: Tensor | None, backend: str | None) -> Tensor:
    check_float(gate)
    if gate.shape != up.shape or gate.dtype != up.dtype:
        raise ValueError(
            f"got gate {tuple(gate.shape)} {gate.dtype} and up {tuple(up.shape)} {up.dtype}; allowed: two alike"
        )
    fits = activation == "silu" and gate.dtype == torch.float32 and not compiling()
    cpp = build.available if fits else None
    chosen = choose("gate", gate, backend, cpp=cpp, triton_takes=gate.dtype in FLOATS, weights=(up,))
    if chosen == "torch":
        return written(reference(gate, up, activation=activation), out)
    y = output(gate, out)
    if chosen == "cpp":
        swiglu_into(rows_of(gate), rows_of(up), written_rows(y), torch.get_num_threads())
        return y
    (GATE if compiling() else _launch)(gate, up, activation, y)
    return y
