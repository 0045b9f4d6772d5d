"""How much an operator must move and compute, in closed form, whichever code does it.

Bytes are those of the operator's own inputs and outputs, each read or written once: a kernel that keeps intermediate
results in registers moves no more, and none can move less. Operations are counted by the unit that does them, two for a
multiplication and its addition; in pointwise arithmetic each step of an element is one `fp32` operation, an exponential
included. With a device's measured rates (`roofline`) that bounds the operator's time from below.

Williams, Waterman and Patterson, "Roofline", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch

from rolecall.kernels.paged_cache import QUANTIZED
from rolecall.kernels.weight_formats import GROUP, TILE_ROWS, Format, header_bytes

Access: TypeAlias = Literal["read", "copy", "gather", "stride"]
Arithmetic: TypeAlias = Literal["fp32", "fp16", "bf16", "fp8", "int8"]
ACCESSES: tuple[Access, ...] = ("read", "copy", "gather", "stride")
ARITHMETIC: MappingProxyType[torch.dtype, Arithmetic] = MappingProxyType(
    {
        torch.float32: "fp32",
        torch.float16: "fp16",
        torch.bfloat16: "bf16",
        torch.float8_e4m3fn: "fp8",
        torch.int8: "int8",
    }
)
_FLOAT = 4
_INDEX = 4
_NONE: MappingProxyType[Arithmetic, int] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Work:
    """Bytes and operations of one call. `access`: how most of the bytes are reached.

    `read`: one after another, next to nothing written; `copy`: the same, read and written; `gather`: rows of a few
    hundred bytes anywhere in memory; `stride`: the first part of each of many rows.
    """

    bytes_read: int
    bytes_written: int
    operations: Mapping[Arithmetic, int] = field(default_factory=lambda: _NONE)
    access: Access = "copy"

    @property
    def bytes(self) -> int:
        """Read and written."""
        return self.bytes_read + self.bytes_written

    @property
    def intensity(self) -> float:
        """Operations a byte; 0 where nothing is moved."""
        return sum(self.operations.values()) / self.bytes if self.bytes else 0.0

    def __add__(self, other: Work) -> Work:
        """Both, one after the other, reached as the larger of them is."""
        operations = dict(self.operations)
        for kind, count in other.operations.items():
            operations[kind] = operations.get(kind, 0) + count
        return Work(
            bytes_read=self.bytes_read + other.bytes_read,
            bytes_written=self.bytes_written + other.bytes_written,
            operations=operations,
            access=max((self, other), key=lambda work: work.bytes).access,
        )


# --- rows ---


def pointwise(
    rows: int,
    width: int,
    dtype: torch.dtype,
    *,
    reads: int = 1,
    writes: int = 1,
    vectors: int = 0,
    steps: int = 1,
) -> Work:
    """`reads` tensors [rows, width] and `vectors` of [width] read, `writes` written, `steps` operations an element."""
    size = dtype.itemsize
    return Work(
        bytes_read=(reads * rows + vectors) * width * size,
        bytes_written=writes * rows * width * size,
        operations={"fp32": steps * rows * width},
    )


def rms_norm(rows: int, width: int, dtype: torch.dtype) -> Work:
    """`rms_norm` with a weight of x's dtype."""
    return pointwise(rows, width, dtype, vectors=1, steps=4)


def add_rms_norm(rows: int, width: int, dtype: torch.dtype) -> Work:
    """`add_rms_norm`: x and the residual read, the normalised sum and the sum written."""
    return pointwise(rows, width, dtype, reads=2, writes=2, vectors=1, steps=5)


def rms_norm_quantized(rows: int, width: int, dtype: torch.dtype) -> Work:
    """`rms_norm_quantized`: int8 codes and a float32 scale a row written."""
    read = pointwise(rows, width, dtype, writes=0, vectors=1, steps=7)
    return read + Work(bytes_read=0, bytes_written=rows * (width + _FLOAT))


def layer_norm(rows: int, width: int, dtype: torch.dtype) -> Work:
    """`layer_norm` with weight and bias of x's dtype."""
    return pointwise(rows, width, dtype, vectors=2, steps=7)


def gate(rows: int, width: int, dtype: torch.dtype) -> Work:
    """`swiglu`, `geglu`."""
    return pointwise(rows, width, dtype, reads=2, steps=5)


def bias_relu(rows: int, width: int, dtype: torch.dtype) -> Work:
    """`bias_relu`."""
    return pointwise(rows, width, dtype, vectors=1, steps=2)


def softmax(rows: int, width: int, dtype: torch.dtype) -> Work:
    """`softmax` and `log_softmax` without a mask."""
    return pointwise(rows, width, dtype, steps=6)


def softmax_backward(rows: int, width: int, dtype: torch.dtype) -> Work:
    """`softmax_backward`: the result and its gradient read."""
    return pointwise(rows, width, dtype, reads=2, steps=5)


def quantize_rows(rows: int, width: int, dtype: torch.dtype) -> Work:
    """`quantize_rows`: int8 codes and a float32 scale a row written."""
    read = pointwise(rows, width, dtype, writes=0, steps=4)
    return read + Work(bytes_read=0, bytes_written=rows * (width + _FLOAT))


# --- rotary embedding ---


def rope(tokens: int, heads: int, width: int, dtype: torch.dtype) -> Work:
    """`rope` of whole heads: int64 positions, and the cosines and sines of each token's position."""
    size = tokens * heads * width * dtype.itemsize
    return Work(
        bytes_read=size + tokens * (8 + width * _FLOAT),
        bytes_written=size,
        operations={"fp32": 3 * tokens * heads * width},
    )


def rope_pair(tokens: int, heads: int, groups: int, width: int, dtype: torch.dtype) -> Work:
    """`rope_pair`: queries of `heads` and keys of `groups` heads turned by the same angles."""
    return rope(tokens, heads + groups, width, dtype)


def rope_cache(
    tokens: int, heads: int, groups: int, width: int, dtype: torch.dtype, cache: torch.dtype | None = None
) -> Work:
    """`rope_and_cache`: queries turned, keys turned and stored, values stored, in a cache of `cache` (q's dtype)."""
    cache = cache or dtype
    turned = rope(tokens, heads, width, dtype)
    entries = tokens * groups * width
    scales = 2 * tokens * groups * _FLOAT if cache in QUANTIZED else 0
    return turned + Work(
        bytes_read=2 * entries * dtype.itemsize + 8 * tokens,
        bytes_written=2 * entries * cache.itemsize + scales,
        operations={"fp32": 3 * entries},
    )


# --- attention ---


def visible_pairs(queries: int, keys: int, *, causal: bool = False, window: int | None = None) -> int:
    """Pairs of a query and a key it sees; query i of n sees keys up to i + m - n, the last `window` of them."""
    if not causal:
        return queries * keys
    blind = max(0, queries - keys)  # the first queries of more than there are keys see nothing
    most = keys if window is None else min(window, keys)
    first = keys - queries + 1 + blind  # keys before the first that sees any, itself counted
    growing = max(0, min(queries - blind, most - first + 1))
    return growing * first + growing * (growing - 1) // 2 + (queries - blind - growing) * most


def attention(
    sequences: int,
    queries: int,
    keys: int,
    heads: int,
    groups: int,
    width: int,
    dtype: torch.dtype,
    *,
    causal: bool = False,
    window: int | None = None,
) -> Work:
    """`attention` of sequences of equal length: 4 D operations for each visible pair and query head."""
    pairs = sequences * visible_pairs(queries, keys, causal=causal, window=window)
    size = sequences * width * dtype.itemsize
    return Work(
        bytes_read=size * (queries * heads + 2 * keys * groups),
        bytes_written=size * queries * heads,
        operations={ARITHMETIC[dtype]: 4 * pairs * heads * width},
    )


def paged_attention(
    lengths: Sequence[int],
    heads: int,
    groups: int,
    width: int,
    dtype: torch.dtype,
    *,
    cache: torch.dtype | None = None,
    page_size: int = 16,
    queries: int = 1,
) -> Work:
    """`paged_attention` of `queries` a sequence, its keys and values read from pages once for all heads of a group."""
    cache = cache or dtype
    keys = sum(lengths)
    entry = 2 * groups * (width * cache.itemsize + (_FLOAT if cache in QUANTIZED else 0))
    tables = sum(-(-length // page_size) for length in lengths) * _INDEX + len(lengths) * _INDEX
    chunk = len(lengths) * queries * heads * width * dtype.itemsize
    starts = (len(lengths) + 1) * _INDEX if queries > 1 else 0
    pairs = sum(visible_pairs(queries, length, causal=True) for length in lengths)
    return Work(
        bytes_read=chunk + keys * entry + tables + starts,
        bytes_written=chunk,
        operations={ARITHMETIC[dtype]: 4 * pairs * heads * width},
        access="read",
    )


# --- products ---


def quantized_gemm(
    m: int, n: int, k: int, *, out: torch.dtype = torch.float32, codes: torch.dtype = torch.int8
) -> Work:
    """`int8_gemm`, `fp8_gemm`: codes [m, k] and [n, k] with a float32 scale a row."""
    return Work(
        bytes_read=(m + n) * (k * codes.itemsize + _FLOAT),
        bytes_written=m * n * out.itemsize,
        operations={ARITHMETIC[codes]: 2 * m * n * k},
    )


def weight_bytes(n: int, k: int, format: Format) -> int:
    """Bytes of a `TiledWeight`."""
    per_word = 4 if format.startswith("int8") else 8
    body = -(-k // GROUP) * GROUP // per_word * TILE_ROWS * 4
    return -(-n // TILE_ROWS) * (header_bytes(format, k) + body)


def weight_only_linear(
    m: int, n: int, k: int, format: Format, dtype: torch.dtype = torch.float32, *, fast: bool = False
) -> Work:
    """`weight_only_linear`; in fast mode the products are of integers."""
    return Work(
        bytes_read=weight_bytes(n, k, format) + m * k * dtype.itemsize,
        bytes_written=m * n * dtype.itemsize,
        operations={"int8" if fast else "fp32": 2 * m * n * k},
        access="read",
    )


def int8_topk(
    queries: int,
    items: int,
    width: int,
    k: int,
    *,
    masks: int = 0,
    prefix: int | None = None,
    oversample: int = 4,
) -> Work:
    """`int8_topk` for queries in codes: every code and scale read once. `masks`: rows of `allowed`, 0 for none.

    With `prefix`, that many columns of each item and then the whole of `oversample` k items a query.
    """
    scanned = width if prefix is None else prefix
    rescored = 0 if prefix is None else queries * min(k * oversample, items)
    return Work(
        bytes_read=items * (scanned + _FLOAT + masks) + (rescored + queries) * (width + _FLOAT),
        bytes_written=queries * k * (_FLOAT + 8),
        operations={"int8": 2 * (queries * items * scanned + rescored * width)},
        access="read" if scanned == width else "stride",
    )


# --- sampling ---


def sample(rows: int, vocabulary: int, dtype: torch.dtype) -> Work:
    """`sample` by temperature alone: every row of logits once; each filter passes over it again, from cache."""
    return Work(
        bytes_read=rows * (vocabulary * dtype.itemsize + _FLOAT + 2 * 8),
        bytes_written=rows * 8,
        operations={"fp32": 8 * rows * vocabulary},
        access="read",
    )


def penalties(rows: int, entries: int, dtype: torch.dtype) -> Work:
    """`apply_penalties` to `entries` tokens of `rows` rows, numbered and counted by int64."""
    return Work(
        bytes_read=entries * (3 * 8 + dtype.itemsize) + 3 * rows * _FLOAT,
        bytes_written=entries * dtype.itemsize,
        operations={"fp32": 4 * entries},
        access="gather",
    )


def speculative_accept(rows: int, drafts: int, vocabulary: int) -> Work:
    """`speculative_accept` where every draft is looked at: probabilities in float32, all else in int64."""
    return Work(
        bytes_read=rows * ((2 * drafts + 1) * vocabulary * _FLOAT + (drafts + 3) * 8),
        bytes_written=rows * (drafts + 2) * 8,
        operations={"fp32": 4 * rows * drafts * vocabulary},
        access="read",
    )


# --- Mixture-of-Logits ---


def mixture_of_logits(
    queries: int, items: int, pair: tuple[int, int], width: int, dtype: torch.dtype, *, hidden: int = 128
) -> Work:
    """Scores [queries, items] from components `pair` = (of a query, of an item), each `width` wide, all cached.

    Per pair of a query and an item: the components' products, the gate's two layers with `hidden` units between, and a
    softmax-weighted sum; 8 and 6 steps stand for a unit's and a logit's pointwise arithmetic.
    """
    P = pair[0] * pair[1]
    cached = queries * (pair[0] * width + P) + items * (pair[1] * width + P)
    gate_weights = 2 * P * hidden + hidden + P
    pairs = queries * items
    products = pairs * (2 * P * width + 4 * P * hidden)
    operations: dict[Arithmetic, int] = {"fp32": pairs * (8 * hidden + 6 * P)}
    operations[ARITHMETIC[dtype]] = operations.get(ARITHMETIC[dtype], 0) + products
    return Work(
        bytes_read=(cached + gate_weights) * dtype.itemsize, bytes_written=pairs * _FLOAT, operations=operations
    )


# Name of a registered operator (`torch.ops.rolecall.<name>`) -> its formula.
FORMULAS: MappingProxyType[str, Callable[..., Work]] = MappingProxyType[str, Callable[..., Any]](
    {
        "rms_norm": rms_norm,
        "add_rms_norm": add_rms_norm,
        "rms_norm_quantized": rms_norm_quantized,
        "layer_norm": layer_norm,
        "gate": gate,
        "bias_relu": bias_relu,
        "softmax": softmax,
        "softmax_backward": softmax_backward,
        "rope": rope,
        "rope_pair": rope_pair,
        "rope_cache": rope_cache,
        "attention": attention,
        "paged_attention": paged_attention,
        "int8_gemm": quantized_gemm,
        "fp8_gemm": quantized_gemm,
        "weight_only_linear": weight_only_linear,
        "int8_topk": int8_topk,
        "sample": sample,
        "sample_torch": sample,
        "penalties": penalties,
        "speculative_accept": speculative_accept,
        "speculative_accept_torch": speculative_accept,
        "mixture_of_logits": mixture_of_logits,
    }
)
