"""The operators of a forward pass, called at once, or noted down to be called again and again on the same tensors.

A decode step of a small model is a few hundred operators of some tens of microseconds; checking their arguments
anew each time takes as long as computing. On a CPU with the compiled operators a pass is therefore noted once for each
number of tokens, and replayed: the same idea as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from rolecall.kernels.attention import softmax_scale
from rolecall.kernels.gates import swiglu, swiglu_into
from rolecall.kernels.paged_attention import Workspace, attention_into, paged_attention
from rolecall.kernels.paged_cache import PagedCache
from rolecall.kernels.rms_norm import add_rms_norm, norm_into, rms_norm
from rolecall.kernels.rope_cache import rope_and_cache, rope_into
from rolecall.kernels.weight_formats import TiledWeight
from rolecall.kernels.weight_only import linear_into
from rolecall.serving.llm.linear import Linear
from rolecall.serving.llm.tensor_parallel import Ranks


@dataclass(frozen=True, kw_only=True)
class Step:
    """What one forward pass computes, on the model's device.

    `tokens`, `positions`, `slots` (page * S + place in it): int64 [T]. `tables` int32 [B, pages] and `lengths` int32
    [B]: the sequences' pages and keys, this step's included. `starts`: int32 [B + 1], where each sequence's tokens
    begin, None where every sequence has one. `longest`: the most tokens of one. `rows`: int64 [R], the tokens whose
    logits are wanted, None for all.
    """

    tokens: Tensor
    positions: Tensor
    slots: Tensor
    tables: Tensor
    lengths: Tensor
    starts: Tensor | None = None
    longest: int = 1
    rows: Tensor | None = None


class Operators(Protocol):
    """What a layer is made of. Every method writes `out`; `add_norm` writes the sum over `h` as well."""

    def norm(self, h: Tensor, weight: Tensor, eps: float, out: Tensor) -> None: ...
    def add_norm(self, x: Tensor, h: Tensor, weight: Tensor, eps: float, out: Tensor) -> None: ...
    def linear(self, layer: Linear, x: Tensor, out: Tensor) -> None: ...
    def turn(self, qkv: QKV, angles: tuple[Tensor, Tensor], step: Step, cache: PagedCache) -> None: ...
    def attend(self, q: Tensor, step: Step, cache: PagedCache, out: Tensor) -> None: ...
    def gate(self, gate: Tensor, up: Tensor, out: Tensor) -> None: ...
    def add_over(self, ranks: Ranks, x: Tensor) -> None: ...


@dataclass(frozen=True, kw_only=True)
class QKV:
    """One projection's queries [T, H, D], keys and values [T, G, D]: views of one tensor."""

    q: Tensor
    k: Tensor
    v: Tensor


@dataclass(frozen=True, kw_only=True)
class Eager:
    """Through the operators' public functions, on any device; `backend`: forced on all of them."""

    backend: str | None = None
    workspace: Workspace | None = None

    def norm(self, h: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        rms_norm(h, weight, eps=eps, out=out, backend=self.backend)

    def add_norm(self, x: Tensor, h: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        add_rms_norm(x, h, weight, eps=eps, out=out, residual_out=h, backend=self.backend)

    def linear(self, layer: Linear, x: Tensor, out: Tensor) -> None:
        layer(x, out, backend=self.backend)

    def turn(self, qkv: QKV, angles: tuple[Tensor, Tensor], step: Step, cache: PagedCache) -> None:
        rope_and_cache(qkv.q, qkv.k, qkv.v, step.positions, *angles, step.slots, cache, out=qkv.q, backend=self.backend)

    def attend(self, q: Tensor, step: Step, cache: PagedCache, out: Tensor) -> None:
        paged_attention(
            q,
            cache,
            step.tables,
            step.lengths,
            q_starts=step.starts,
            longest=step.longest,
            out=out,
            workspace=self.workspace,
            backend=self.backend,
        )

    def gate(self, gate: Tensor, up: Tensor, out: Tensor) -> None:
        swiglu(gate, up, out=out, backend=self.backend)

    def add_over(self, ranks: Ranks, x: Tensor) -> None:
        ranks.sum(x)


@dataclass(kw_only=True)
class Recorded:
    """Notes calls of the compiled operators down; `replay` makes them. Float32 on the CPU, one query a sequence."""

    threads: int
    calls: list[Callable[[], object]] = field(default_factory=list[Callable[[], object]])

    def replay(self) -> None:
        """Every call, in order, on the tensors it was noted with."""
        for call in self.calls:
            call()

    def norm(self, h: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        self.calls.append(partial(norm_into, h, None, weight, eps, out, None, self.threads))

    def add_norm(self, x: Tensor, h: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        self.calls.append(partial(norm_into, x, h, weight, eps, out, h, self.threads))

    def linear(self, layer: Linear, x: Tensor, out: Tensor) -> None:
        for weight, y in layer.pieces(out):
            if isinstance(weight, TiledWeight):
                self.calls.append(partial(linear_into, x, weight, y, fast=layer.mode == "fast", threads=self.threads))
            else:
                self.calls.append(partial(torch.mm, x, weight.t(), out=y))
        if layer.bias is not None:
            self.calls.append(partial(out.add_, layer.bias))

    def turn(self, qkv: QKV, angles: tuple[Tensor, Tensor], step: Step, cache: PagedCache) -> None:
        tensors = (qkv.q, qkv.k, qkv.v, step.positions, *angles, step.slots, cache)
        self.calls.append(partial(rope_into, *tensors, interleaved=False, out=qkv.q, threads=self.threads))

    def attend(self, q: Tensor, step: Step, cache: PagedCache, out: Tensor) -> None:
        tensors = (q, cache, step.tables, step.lengths)
        scale, threads = softmax_scale(q, None), self.threads
        self.calls.append(
            partial(attention_into, *tensors, q_starts=None, longest=1, window=0, scale=scale, out=out, threads=threads)
        )

    def gate(self, gate: Tensor, up: Tensor, out: Tensor) -> None:
        self.calls.append(partial(swiglu_into, gate, up, out, self.threads))

    def add_over(self, ranks: Ranks, x: Tensor) -> None:
        if ranks.size > 1:
            self.calls.append(partial(ranks.sum, x))
