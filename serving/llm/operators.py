"""The operators of a forward pass, called at once, or noted down to be called again and again on the same tensors.

A decode step of a small model is a few hundred operators of some tens of microseconds; checking their arguments
anew each time, or only crossing from Python to each, takes as long as computing. On a CPU with the compiled operators a
pass is therefore noted down and made in one call, and kept where its shape comes again: the same idea as a CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from rolecall.kernels.attention import softmax_scale
from rolecall.kernels.cpp.recording import Recording
from rolecall.kernels.gates import swiglu, swiglu_into
from rolecall.kernels.paged_attention import Workspace, attention_into, paged_attention
from rolecall.kernels.paged_cache import PagedCache
from rolecall.kernels.rms_norm import add_rms_norm, norm_into, rms_norm
from rolecall.kernels.rope_cache import rope_and_cache, rope_into
from rolecall.kernels.weight_formats import TiledWeight
from rolecall.kernels.weight_only import linear_into
from rolecall.kernels.weight_rows import weight_rows_into
from rolecall.serving.llm.linear import Embedding, Linear
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

    def embed(self, embedding: Embedding, tokens: Tensor, out: Tensor) -> None: ...
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

    def embed(self, embedding: Embedding, tokens: Tensor, out: Tensor) -> None:
        embedding(tokens, out, backend=None if self.backend == "triton" else self.backend)

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
    """Notes calls of the compiled operators down; `replay` makes them. Float32 on the CPU."""

    threads: int
    calls: list[Recording | Callable[[], object]] = field(default_factory=list[Recording | Callable[[], object]])

    def replay(self) -> None:
        """Every call, in order, on the tensors it was noted with."""
        for call in self.calls:
            if isinstance(call, Recording):
                call.replay()
            else:
                call()

    def embed(self, embedding: Embedding, tokens: Tensor, out: Tensor) -> None:
        if isinstance(embedding.weight, TiledWeight) and embedding.ranks.size == 1:
            weight_rows_into(embedding.weight, tokens, out, self._recording())
        else:
            self.calls.append(partial(embedding, tokens, out))

    def norm(self, h: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        norm_into(h, None, weight, eps, out, None, self.threads, self._recording())

    def add_norm(self, x: Tensor, h: Tensor, weight: Tensor, eps: float, out: Tensor) -> None:
        norm_into(x, h, weight, eps, out, h, self.threads, self._recording())

    def linear(self, layer: Linear, x: Tensor, out: Tensor) -> None:
        for weight, y in layer.pieces(out):
            if isinstance(weight, TiledWeight):
                fast = layer.mode == "fast"
                linear_into(x, weight, y, fast=fast, threads=self.threads, recording=self._recording())
            else:
                self.calls.append(partial(torch.mm, x, weight.t(), out=y))
        if layer.bias is not None:
            self.calls.append(partial(out.add_, layer.bias))

    def turn(self, qkv: QKV, angles: tuple[Tensor, Tensor], step: Step, cache: PagedCache) -> None:
        tensors = (qkv.q, qkv.k, qkv.v, step.positions, *angles, step.slots, cache)
        rope_into(*tensors, interleaved=False, out=qkv.q, threads=self.threads, recording=self._recording())

    def attend(self, q: Tensor, step: Step, cache: PagedCache, out: Tensor) -> None:
        attention_into(
            q,
            cache,
            step.tables,
            step.lengths,
            q_starts=step.starts,
            longest=step.longest,
            window=0,
            scale=softmax_scale(q, None),
            out=out,
            threads=self.threads,
            recording=self._recording(),
        )

    def gate(self, gate: Tensor, up: Tensor, out: Tensor) -> None:
        swiglu_into(gate, up, out, self.threads, self._recording())

    def add_over(self, ranks: Ranks, x: Tensor) -> None:
        if ranks.size > 1:
            self.calls.append(partial(ranks.sum, x))

    def _recording(self) -> Recording:
        """Where the next operator is noted down."""
        last = self.calls[-1] if self.calls else None
        if isinstance(last, Recording):
            return last
        self.calls.append(made := Recording())
        return made
