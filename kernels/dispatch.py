"""Which implementation of an operator runs: its Triton kernel, its compiled C++, or plain torch.

Every operator's public function takes `backend` and asks `choose`. Left to itself (None or "auto") a CUDA
tensor goes to Triton; a CPU tensor goes to the operator's C++ where it has one and it can be built, else to
torch. A name forces the choice. Triton runs on CPU tensors only in its interpreter (`TRITON_INTERPRET=1` before
this module is imported), which is how its kernels are tested without a GPU, and only when asked for by name.

The module also stands between the kernels and `triton`, which a CPU installation need not have: `jit`, `tl` and
the annotations below exist either way, so that a kernel's file always imports.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import torch
from torch import Tensor

Backend: TypeAlias = Literal["auto", "triton", "cpp", "torch"]
Chosen: TypeAlias = Literal["triton", "cpp", "torch"]

HAS_TRITON = importlib.util.find_spec("triton") is not None
INTERPRETED = HAS_TRITON and os.environ.get("TRITON_INTERPRET", "0") == "1"

triton: Any = importlib.import_module("triton") if HAS_TRITON else None
tl: Any = importlib.import_module("triton.language") if HAS_TRITON else None

# What a kernel's parameters are: a tensor's first element; a number or a block of them; a number known when compiled.
# Triton looks the names up and takes classes of its own only.
if TYPE_CHECKING:
    Pointer: TypeAlias = Any
    Scalar: TypeAlias = Any
    constexpr: TypeAlias = Any
else:
    Pointer = Scalar = tl.tensor if HAS_TRITON else object
    constexpr = tl.constexpr if HAS_TRITON else object


def jit(kernel: Callable[..., Any]) -> Any:
    """`triton.jit`; without Triton the function as it is, which nothing then launches."""
    return triton.jit(kernel) if HAS_TRITON else kernel


def choose(
    op: str,
    x: Tensor,
    backend: str | None = None,
    *,
    cpp: Callable[[], bool] | None = None,
    triton_takes: bool = True,
    weights: Sequence[Tensor | None] = (),
) -> Chosen:
    """The implementation of `op` that runs on `x`.

    `cpp`: whether the operator's C++ can run here (it may build it, so it is called only if that matters); None
    for an operator without one. `triton_takes`: whether the Triton kernel takes arguments like these. Kernels and
    C++ compute no gradients: where `x` or one of `weights` needs one, only torch is possible.
    Raises ValueError for an unknown backend, and for one that cannot run here, naming those that can.
    """
    if needs_gradient(x, *weights):
        cpp, triton_takes = None, False
    if backend is None or backend == "auto":
        if x.is_cuda and HAS_TRITON and triton_takes:
            return "triton"
        return "cpp" if cpp is not None and not x.is_cuda and cpp() else "torch"
    if backend == "torch":
        return "torch"
    if backend == "triton" and triton_takes and HAS_TRITON and (x.is_cuda or INTERPRETED):
        return "triton"
    if backend == "cpp" and cpp is not None and not x.is_cuda and cpp():
        return "cpp"
    raise ValueError(_refusal(op, x, backend, possible(x, cpp=cpp, triton_takes=triton_takes)))


def possible(x: Tensor, *, cpp: Callable[[], bool] | None = None, triton_takes: bool = True) -> list[Chosen]:
    """The implementations that can run on `x` here."""
    names: list[Chosen] = []
    if triton_takes and HAS_TRITON and (x.is_cuda or INTERPRETED):
        names.append("triton")
    if cpp is not None and not x.is_cuda and cpp():
        names.append("cpp")
    return [*names, "torch"]


def needs_gradient(*tensors: Tensor | None) -> bool:
    """Whether autograd would record an operation on these tensors."""
    return torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)


def register(name: str, launch: Callable[..., None], *, writes: Sequence[str] = ("out",)) -> Any:
    """Register `launch` as `torch.ops.rolecall.<name>`, so that `torch.compile(fullgraph=True)` can call it.

    `launch` returns nothing and writes the tensors named in `writes`; its annotations are the operator's schema, and
    with nothing returned there is no shape for a compiler to be told. The compiler passes over
    its body. A call through the registration costs 20-30 microseconds more than a plain one, so public functions
    use it only while compiling (`torch.compiler.is_compiling()`).
    """
    operator = torch.library.custom_op(f"rolecall::{name}", launch, mutates_args=tuple(writes))
    operator.register_fake(_writes_in_place)
    return operator


def compiling() -> bool:
    """Whether `torch.compile` is tracing the caller."""
    return torch.compiler.is_compiling()


def _writes_in_place(*_: object, **__: object) -> None:
    """The shapes of what is returned: nothing is."""


def _refusal(op: str, x: Tensor, backend: str, names: Sequence[str]) -> str:
    where = f"{x.device.type} tensors of {x.dtype}" + (" that need a gradient" if needs_gradient(x) else "")
    return f"got backend {backend!r} for {op}; possible here for {where}: {', '.join(names)}; or None to choose"
