"""Cases of the products: int8 matrices, weights in 8 and 4 bits, int8 top-k."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rolecall.kernels import intensity
from rolecall.kernels.case import Case, Numbers, Scale, Sizes, working_dtype
from rolecall.kernels.fp8_gemm import Fp8Rows, fp8_gemm, quantize_rows_fp8
from rolecall.kernels.int8_gemm import int8_gemm
from rolecall.kernels.int8_topk import Best, int8_topk
from rolecall.kernels.quantization import QuantizedRows
from rolecall.kernels.weight_formats import Format, TiledWeight, dequantize_weight, quantize_weight, tile_weight
from rolecall.kernels.weight_only import weight_only_linear

GEMMS: Sizes = {
    "tiny": ((17, 16, 40),),
    "cpu": ((128, 1536, 576),),
    "gpu": ((8192, 8192, 8192), (4096, 14_336, 4096)),
}  # M, N, K
GEMVS: Sizes = {
    "tiny": ((1, 40, 70),),
    "cpu": ((1, 49_152, 576),),
    "gpu": ((1, 14_336, 4096), (1, 4096, 4096)),
}  # M, N, K
TOPKS: Sizes = {"tiny": ((2, 300, 16, 5),), "cpu": ((1, 1_000_000, 64, 10_000),), "gpu": ((1, 10_000_000, 64, 1000),)}
PREFIXES: Sizes = {"tiny": ((2, 300, 16, 5),), "cpu": ((1, 200_000, 384, 1000),), "gpu": ((1, 10_000_000, 384, 1000),)}
OVERSAMPLE = 4
FORMATS: dict[str, Format] = {"int8_gemv": "int8_channel", "int4_gemv": "int4_group"}


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Two matrices in 8 bits and their product."""

    a: QuantizedRows | Fp8Rows
    b: QuantizedRows | Fp8Rows
    out: Tensor


@dataclass(frozen=True, kw_only=True)
class Weighted:
    """x [M, K], a weight [N, K] in tiles and the same weight dequantised, and the product."""

    x: Tensor
    weight: TiledWeight
    plain: Tensor
    out: Tensor


@dataclass(frozen=True, kw_only=True)
class Items:
    """Queries and the items they look among; `prefix`: columns scored first, None for all."""

    queries: QuantizedRows
    items: QuantizedRows
    k: int
    prefix: int | None
    out: Best


OPS = ("int8_gemm", "fp8_gemm", "int8_gemv", "int4_gemv", "topk", "topk_prefix")


def cases(op: str, scale: Scale, device: torch.device) -> list[Case]:
    """The cases of one of `OPS`."""
    if op in ("int8_gemm", "fp8_gemm"):
        return [_gemm(op, sizes, device) for sizes in GEMMS[scale]]
    if op in FORMATS:
        return [_gemv(op, sizes, device) for sizes in GEMVS[scale]]
    if op == "topk":
        return [_topk(op, sizes, None, device) for sizes in TOPKS[scale]]
    return [_topk(op, sizes, 4 if scale == "tiny" else 64, device) for sizes in PREFIXES[scale]]


def _gemm(op: str, sizes: tuple[int, ...], device: torch.device) -> Case:
    M, N, K = sizes
    out = working_dtype(device)

    def rows(numbers: Numbers, count: int) -> QuantizedRows | Fp8Rows:
        if op == "fp8_gemm":
            return quantize_rows_fp8(numbers.normal(count, K))
        return QuantizedRows(codes=numbers.codes(count, K), scales=numbers.scales(count) / K)

    def inputs(seed: int) -> Codes:
        a, b = (rows(Numbers(seed=seed + i, device=device), count) for i, count in enumerate((M, N)))
        return Codes(a=a, b=b, out=torch.empty(M, N, dtype=out, device=device))

    def run(i: Codes, backend: str | None) -> Tensor:
        if isinstance(i.a, Fp8Rows) and isinstance(i.b, Fp8Rows):
            return fp8_gemm(i.a, i.b, out=i.out, backend=backend)
        if isinstance(i.a, QuantizedRows) and isinstance(i.b, QuantizedRows):
            return int8_gemm(i.a, i.b, out=i.out, backend=backend)
        raise TypeError("got one matrix in int8 and one in fp8; allowed: two alike")

    return Case(
        op=op,
        shape=f"{M} x {N} x {K}",
        work=intensity.quantized_gemm(M, N, K, out=out, codes=torch.int8 if op == "int8_gemm" else torch.float8_e4m3fn),
        inputs=inputs,
        run=run,
    )


def _gemv(op: str, sizes: tuple[int, ...], device: torch.device) -> Case:
    M, N, K = sizes
    dtype = working_dtype(device)

    def inputs(seed: int) -> Weighted:
        weight = quantize_weight(Numbers(seed=seed, device=device).normal(N, K) / K**0.5, FORMATS[op])
        x = Numbers(seed=seed + 1, device=device).normal(M, K, dtype=dtype)
        return Weighted(
            x=x,
            weight=tile_weight(weight),
            plain=dequantize_weight(weight).to(dtype),
            out=torch.empty(M, N, dtype=dtype, device=device),
        )

    return Case(
        op=op,
        shape=f"{N} x {K}, {M} row",
        work=intensity.weight_only_linear(M, N, K, FORMATS[op], dtype),
        inputs=inputs,
        run=lambda i, backend: weight_only_linear(i.x, i.weight, out=i.out, backend=backend),
    )


def _topk(op: str, sizes: tuple[int, ...], prefix: int | None, device: torch.device) -> Case:
    B, N, D, k = sizes

    def inputs(seed: int) -> Items:
        numbers = Numbers(seed=seed, device=device)
        queries = Numbers(seed=seed + 1, device=device)
        return Items(
            queries=QuantizedRows(codes=queries.codes(B, D), scales=queries.scales(B)),
            items=QuantizedRows(codes=numbers.codes(N, D), scales=numbers.scales(N)),
            k=k,
            prefix=prefix,
            out=Best(scores=torch.empty(B, k, device=device), rows=torch.empty(B, k, dtype=torch.int64, device=device)),
        )

    return Case(
        op=op,
        shape=f"best {k} of {N:,} x {D}" + (f", {prefix} first" if prefix else ""),
        work=intensity.int8_topk(B, N, D, k, prefix=prefix, oversample=OVERSAMPLE),
        inputs=inputs,
        run=lambda i, backend: int8_topk(
            i.queries, i.items, i.k, prefix=i.prefix, oversample=OVERSAMPLE, backend=backend, out=i.out
        ),
    )
