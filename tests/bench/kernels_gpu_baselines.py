"""What `kernels_gpu` compares with: for each operator, other ways to the same result, by name.

A baseline takes the inputs of a case and gives the call to be timed; what it needs once (a plan, a copy of the cache
without pages) it makes before. ImportError and `AbsentError` say that it cannot run here.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rolecall.kernels import mixture_of_logits, rope
from rolecall.kernels.case_heads import Heads, Pages, Turned
from rolecall.kernels.case_mixture import Mixture
from rolecall.kernels.case_products import Codes, Items, Weighted
from rolecall.kernels.case_rows import Rows

Call = Callable[[], Any]
OUTSIDE = ("liger", "flashinfer")  # not torch's


class AbsentError(Exception):
    """This baseline cannot run on this device."""


def compiled(function: Callable[..., Any], device: torch.device) -> Callable[..., Any]:
    """`torch.compile`d; on a CPU, where only the calls are tried, by a compiler that does nothing."""
    return torch.compile(
        function, fullgraph=True, dynamic=False, backend="inductor" if device.type == "cuda" else "eager"
    )


# --- rows ---


def rms_norm(i: Rows) -> Tensor:
    return F.rms_norm(i.x, i.weight.shape, i.weight, 1e-6)


def add_rms_norm(i: Rows) -> tuple[Tensor, Tensor]:
    h = i.x + i.other
    return F.rms_norm(h, i.weight.shape, i.weight, 1e-6), h


def layer_norm(i: Rows) -> Tensor:
    return F.layer_norm(i.x, i.weight.shape, i.weight, i.bias, 1e-5)


def swiglu(i: Rows) -> Tensor:
    return F.silu(i.x) * i.other


def softmax(i: Rows) -> Tensor:
    return torch.softmax(i.x, dim=-1)


def log_softmax(i: Rows) -> Tensor:
    return torch.log_softmax(i.x, dim=-1)


def liger_rms_norm(i: Rows) -> Call:
    apply = importlib.import_module("liger_kernel.ops.rms_norm").LigerRMSNormFunction.apply
    return lambda: apply(i.x, i.weight, 1e-6, 0.0, "llama", False)


def liger_add_rms_norm(i: Rows) -> Call:
    apply = importlib.import_module("liger_kernel.ops.fused_add_rms_norm").LigerFusedAddRMSNormFunction.apply
    return lambda: apply(i.x, i.other, i.weight, 1e-6, 0.0, "llama", False)


def liger_layer_norm(i: Rows) -> Call:
    apply = importlib.import_module("liger_kernel.ops.layer_norm").LigerLayerNormFunction.apply
    return lambda: apply(i.x, i.weight, i.bias, 1e-5)


def liger_swiglu(i: Rows) -> Call:
    apply = importlib.import_module("liger_kernel.ops.swiglu").LigerSiLUMulFunction.apply
    return lambda: apply(i.x, i.other)


def liger_softmax(i: Rows) -> Call:
    apply = importlib.import_module("liger_kernel.ops.softmax").LigerSoftmaxFunction.apply
    return lambda: apply(i.x)


def flashinfer_rms_norm(i: Rows) -> Call:
    module = importlib.import_module("flashinfer.norm")
    return lambda: module.rmsnorm(i.x, i.weight, 1e-6, out=i.out)


def flashinfer_add_rms_norm(i: Rows) -> Call:
    """In place, so it has its own x and residual, which change from call to call."""
    module = importlib.import_module("flashinfer.norm")
    x, residual = i.x.clone(), i.other.clone()

    def call() -> tuple[Tensor, Tensor]:
        module.fused_add_rmsnorm(x, residual, i.weight, 1e-6)
        return x, residual

    return call


def flashinfer_swiglu(i: Rows) -> Call:
    module = importlib.import_module("flashinfer.activation")
    both = torch.cat([i.x, i.other], dim=1)
    return lambda: module.silu_and_mul(both, out=i.out)


# --- heads ---


def rope_and_cache(i: Turned) -> Tensor:
    """Both turned, then keys and values written to their slots by index."""
    q, k = (rope.reference(x, i.positions, i.cos, i.sin) for x in (i.q, i.k))
    i.cache.keys.flatten(0, 1).index_copy_(0, i.slots, k)
    i.cache.values.flatten(0, 1).index_copy_(0, i.slots, i.v)
    return q


def _attend(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=q.shape[1] != k.shape[1])


def _through(backend: SDPBackend | None, q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> Call:
    """Heads first; `backend` None leaves the choice to torch."""
    if backend is None:
        return lambda: _attend(q, k, v, causal=causal).transpose(1, 2)
    if not q.is_cuda:
        raise AbsentError(f"{backend.name} needs a GPU")

    def call() -> Tensor:
        with sdpa_kernel(backend):
            return _attend(q, k, v, causal=causal).transpose(1, 2)

    return call


def sdpa(backend: SDPBackend | None) -> Callable[[Heads], Call]:
    return lambda i: _through(backend, i.q.transpose(1, 2), i.k.transpose(1, 2), i.v.transpose(1, 2), causal=True)


def decoding_sdpa(backend: SDPBackend | None) -> Callable[[Pages], Call]:
    """Over keys and values that lie side by side, which torch is given for nothing: it knows no pages."""

    def prepare(i: Pages) -> Call:
        both = [i.cache.gather(table, i.length, i.q.dtype) for table in i.tables]
        k, v = (torch.stack(part).transpose(1, 2).contiguous() for part in zip(*both, strict=True))
        return _through(backend, i.q[:, :, None], k, v, causal=False)

    return prepare


def flashinfer_decode(i: Pages) -> Call:
    module = importlib.import_module("flashinfer")
    B, pages = i.tables.shape
    H, D = i.q.shape[1:]
    size, G = i.cache.page_size, i.cache.keys.shape[2]
    space = torch.empty(128 * 2**20, dtype=torch.uint8, device=i.q.device)
    wrapper = module.BatchDecodeWithPagedKVCacheWrapper(space, "NHD")
    starts = torch.arange(B + 1, dtype=torch.int32, device=i.q.device) * pages
    last = torch.full((B,), (i.length - 1) % size + 1, dtype=torch.int32, device=i.q.device)
    wrapper.plan(
        starts, i.tables.flatten(), last, H, G, D, size, q_data_type=i.q.dtype, kv_data_type=i.cache.keys.dtype
    )
    return lambda: wrapper.run(i.q, (i.cache.keys, i.cache.values), out=i.out)


# --- products ---


def int_mm(i: Codes) -> Call:
    """cuBLASLt's product alone, int32, without the scales that ours applies; the comparison is of time, not result."""
    b = i.b.codes.t()
    return lambda: torch._int_mm(i.a.codes, b)


def scaled_int_mm(i: Codes) -> Tensor:
    sums = torch._int_mm(i.a.codes, i.b.codes.t())
    return (sums * (i.a.scales[:, None] * i.b.scales)).to(i.out.dtype)


def linear(i: Weighted) -> Tensor:
    return F.linear(i.x, i.plain)


def dequantized_linear(i: Weighted) -> Call:
    """int8 codes widened in the product, which a compiler can fuse."""
    scale = i.plain.abs().amax(dim=1, keepdim=True) / 127
    codes = (i.plain / scale).round().to(torch.int8)
    function = compiled(lambda x: F.linear(x, codes.to(x.dtype) * scale), i.x.device)
    return lambda: function(i.x)


def topk(i: Items) -> Call:
    """Rows made float beforehand, then a product and `torch.topk`."""
    kind = torch.float16 if i.items.codes.is_cuda else torch.float32
    rows = (i.items.codes.float() * i.items.scales[:, None]).to(kind)
    queries = (i.queries.codes.float() * i.queries.scales[:, None]).to(kind).t()
    return lambda: torch.topk((rows @ queries).t(), i.k).values


def mixture(i: Mixture) -> Tensor:
    """By way of the tensor of every query's, item's and pair's logits, a batch row at a time so that it fits."""
    rows = [
        mixture_of_logits.reference(i.queries.rows(b, b + 1), i.items, i.cross, tau=0.05) for b in range(len(i.out))
    ]
    return torch.cat(rows)


def _eager(function: Callable[[Any], Any]) -> Callable[[Any], Call]:
    return lambda i: functools.partial(function, i)


def _compiled(function: Callable[[Any], Any]) -> Callable[[Any], Call]:
    def prepare(i: Any) -> Call:
        device = next(value.device for value in vars(i).values() if isinstance(value, Tensor))
        return functools.partial(_compiled_once(function, device.type), i)

    return prepare


@functools.cache
def _compiled_once(function: Callable[[Any], Any], device: str) -> Callable[[Any], Any]:
    return compiled(function, torch.device(device))


def torchs(function: Callable[[Any], Any]) -> dict[str, Callable[[Any], Call]]:
    """torch, and torch compiled."""
    return {"torch": _eager(function), "compile": _compiled(function)}


_SDPA = {"sdpa": None, "cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}

BASELINES: dict[str, dict[str, Callable[[Any], Call]]] = {
    "rms_norm": {**torchs(rms_norm), "liger": liger_rms_norm, "flashinfer": flashinfer_rms_norm},
    "add_rms_norm": {**torchs(add_rms_norm), "liger": liger_add_rms_norm, "flashinfer": flashinfer_add_rms_norm},
    "layer_norm": {**torchs(layer_norm), "liger": liger_layer_norm},
    "swiglu": {**torchs(swiglu), "liger": liger_swiglu, "flashinfer": flashinfer_swiglu},
    "softmax": {**torchs(softmax), "liger": liger_softmax},
    "log_softmax": torchs(log_softmax),
    "rope": torchs(rope_and_cache),
    "attention": {name: sdpa(backend) for name, backend in _SDPA.items()},
    "paged_decode": {
        **{name: decoding_sdpa(backend) for name, backend in _SDPA.items()},
        "flashinfer": flashinfer_decode,
    },
    "int8_gemm": {"int_mm": int_mm, **torchs(scaled_int_mm)},
    "int8_gemv": {**torchs(linear), "compiled_int8": dequantized_linear},
    "int4_gemv": torchs(linear),
    "topk": {"torch": topk},
    "mol": {"torch": _eager(mixture)},
}
# Compared in time only: what these give is not the operator's result.
UNLIKE = {("int8_gemm", "int_mm"), ("add_rms_norm", "flashinfer")}
