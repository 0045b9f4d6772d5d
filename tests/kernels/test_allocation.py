"""With `out` given, an operator of a decode step allocates nothing around its kernel.

Kernels themselves are passed over (Triton's launch is replaced, the compiled C++ keeps its own memory), so operators
are held to it on a machine without a GPU. An allocation is a tensor that no argument of the operation that made it
shares memory with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rolecall.kernels.cpp import build
from rolecall.kernels.dispatch import INTERPRETED
from rolecall.kernels.fp8_gemm import fp8_gemm, fp8_linear, quantize_rows_fp8
from rolecall.kernels.gates import geglu, swiglu
from rolecall.kernels.int8_gemm import int8_gemm
from rolecall.kernels.layer_norm import layer_norm
from rolecall.kernels.mixture_of_logits import CrossGate, Side, mixture_of_logits
from rolecall.kernels.paged_attention import paged_attention, workspace_for
from rolecall.kernels.paged_cache import empty_cache
from rolecall.kernels.penalties import add_bias, apply_penalties
from rolecall.kernels.quantization import QuantizedRows, quantize_rows
from rolecall.kernels.rms_norm import add_rms_norm, rms_norm, rms_norm_quantized
from rolecall.kernels.rope import rope, rope_pair, rope_tables
from rolecall.kernels.rope_cache import rope_and_cache
from rolecall.kernels.sampling import sample, sampling_probabilities
from rolecall.kernels.softmax import log_softmax, softmax
from rolecall.kernels.speculative import Accepted, speculative_accept
from rolecall.kernels.weight_formats import quantize_weight, tile_weight
from rolecall.kernels.weight_only import linear_into, weight_only_linear

interpreted = pytest.mark.skipif(not INTERPRETED, reason="needs TRITON_INTERPRET=1")
compiled = pytest.mark.skipif(not build.available(), reason="needs a C++ compiler")

B, H, G, D, N = 3, 4, 2, 16, 64


class Allocations(TorchDispatchMode):
    """Names of the operations that made new memory."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        known = {places(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
        new = [leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor) and places(leaf) not in known]
        self.made += [str(func)] * len(new)
        return result


def places(x: Tensor) -> int:
    return x.untyped_storage()._cdata


@pytest.fixture
def no_launch(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Kernels that were launched, none of which ran."""
    from triton.runtime.jit import KernelInterface

    launched: list[object] = []
    monkeypatch.setattr(KernelInterface, "__getitem__", lambda kernel, grid: lambda *_, **__: launched.append(kernel))
    return launched


def on_gpu() -> dict[str, Callable[[], object]]:
    """One call of each operator, with everything it writes made beforehand."""
    x, y, h, w = torch.zeros(B, N), torch.zeros(B, N), torch.zeros(B, N), torch.ones(N)
    codes = QuantizedRows(codes=torch.zeros(B, N, dtype=torch.int8), scales=torch.zeros(B))
    q, k, o, ko = (torch.zeros(B, heads, D) for heads in (H, G, H, G))
    tables, positions, slots = rope_tables(8, D), torch.arange(B), torch.arange(B)
    cache = empty_cache(pages=4, page_size=16, heads=G, width=D, dtype=torch.float32)
    pages, lengths = torch.zeros(B, 4, dtype=torch.int32), torch.ones(B, dtype=torch.int32)
    space = workspace_for(q, cache, pages)
    square, rows = quantize_rows(torch.ones(N, N)), quantize_rows(torch.ones(B, N))
    fp8, fp8_rows = quantize_rows_fp8(torch.ones(N, N)), quantize_rows_fp8(torch.ones(B, N))
    tiles = tile_weight(quantize_weight(torch.ones(N, N), "int4_group"))
    ids, one, p = torch.zeros(B, dtype=torch.int64), torch.ones(B), torch.ones(B, 3, N)
    shape = {"temperature_B": one, "top_k_B": ids, "top_p_B": one, "min_p_B": one}
    counters = {"seeds_B": ids, "positions_B": ids}
    off = {"repetition_B": one, "presence_B": one, "frequency_B": one}
    drawn, drafts = Accepted(counts=ids.clone(), tokens=ids.clone()), torch.zeros(B, 2, dtype=torch.int64)
    side = Side(components=torch.ones(B, 2, D), gates=torch.ones(B, 4))
    cross = CrossGate(w1=torch.ones(8, 4), b1=torch.ones(8), w2=torch.ones(4, 8), b2=torch.ones(4))
    scores = torch.zeros(B, B)
    return {
        "sample": lambda: sample(x, **shape, **counters, out=drawn.tokens, backend="triton"),
        "sampling_probabilities": lambda: sampling_probabilities(x, **shape, out=y, backend="triton"),
        "penalties": lambda: apply_penalties(x, ids, ids, ids, **off, backend="triton"),
        "bias": lambda: add_bias(x, ids, ids, one, backend="triton"),
        "speculative_accept": lambda: speculative_accept(
            p, p[:, :2], drafts, **counters, lengths_B=ids, out=drawn, backend="triton"
        ),
        "mixture_of_logits": lambda: mixture_of_logits(side, side, cross, out=scores, backend="triton"),
        "rms_norm": lambda: rms_norm(x, w, out=y, backend="triton"),
        "add_rms_norm": lambda: add_rms_norm(x, h, w, out=y, residual_out=h, backend="triton"),
        "rms_norm_quantized": lambda: rms_norm_quantized(x, w, out=codes, backend="triton"),
        "layer_norm": lambda: layer_norm(x, w, w, out=y, backend="triton"),
        "swiglu": lambda: swiglu(x, h, out=y, backend="triton"),
        "geglu": lambda: geglu(x, h, out=y, backend="triton"),
        "softmax": lambda: softmax(x, out=y, backend="triton"),
        "log_softmax": lambda: log_softmax(x, out=y, backend="triton"),
        "rope": lambda: rope(q, positions, *tables, out=o, backend="triton"),
        "rope_pair": lambda: rope_pair(q, k, positions, *tables, out=(o, ko), backend="triton"),
        "rope_and_cache": lambda: rope_and_cache(q, k, k, positions, *tables, slots, cache, out=o, backend="triton"),
        "paged_attention": lambda: paged_attention(q, cache, pages, lengths, out=o, workspace=space, backend="triton"),
        "weight_only_linear": lambda: weight_only_linear(x, tiles, out=y, backend="triton"),
        "int8_gemm": lambda: int8_gemm(rows, square, out=y, backend="triton"),
        "fp8_gemm": lambda: fp8_gemm(fp8_rows, fp8, out=y, backend="triton"),
        "fp8_linear": lambda: fp8_linear(x, fp8, out=y, backend="triton"),
    }


@interpreted
@pytest.mark.parametrize("name", on_gpu())
def test_an_operator_with_out_allocates_nothing_around_its_kernel(name: str, no_launch: list[object]) -> None:
    call = on_gpu()[name]
    with torch.inference_mode(), Allocations() as allocations:
        call()
    assert no_launch
    assert allocations.made == []


@compiled
@pytest.mark.parametrize("mode", ["exact", "fast"])
def test_products_on_the_cpu_with_out_allocate_nothing(mode: Any) -> None:
    x, y = torch.ones(B, N), torch.empty(B, N)
    tiles, square = tile_weight(quantize_weight(torch.ones(N, N), "int8_channel")), quantize_rows(torch.ones(N, N))
    rows = quantize_rows(x)
    with torch.inference_mode(), Allocations() as allocations:
        weight_only_linear(x, tiles, mode=mode, out=y)
        linear_into(x, tiles, y, fast=mode == "fast", threads=1)
        int8_gemm(rows, square, out=y)
    assert allocations.made == []


def test_what_is_counted_is_new_memory_and_no_view() -> None:
    x = torch.ones(4, 4)
    with Allocations() as allocations:
        x[1:].view(-1).add_(1)
    assert allocations.made == []
    with Allocations() as allocations:
        torch.empty(3)
        x + 1
    assert len(allocations.made) == 2
