"""A batch in, logits out: the paged cache of all layers, and the tensors that a step's integers become.

One sequence's logits do not depend on what else is in the batch, nor on how its tokens are cut into chunks, bit for
bit, wherever the operators are batch-invariant (on a CPU: quantised weights). A decode step is kept for each number of
sequences, as calls of compiled operators on a CPU, as a CUDA graph on a GPU, there filled up to the next captured size
with tokens that are not kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from rolecall.kernels.paged_attention import workspace_for
from rolecall.kernels.paged_cache import PagedCache
from rolecall.serving.llm.batch import Batch, Chunk
from rolecall.serving.llm.llama import Buffers
from rolecall.serving.llm.loading import LoadedModel
from rolecall.serving.llm.operators import Eager, Recorded, Step

GRAPH_SIZES = (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256)


class ModelRunner:
    """The model and its cache of `blocks` blocks of `block_size` tokens.

    `cache_dtype`: of keys and values; the activations' own unless given. `graphs`: whether decode steps are captured.
    """

    def __init__(
        self,
        model: LoadedModel,
        *,
        blocks: int,
        block_size: int = 16,
        cache_dtype: torch.dtype | None = None,
        graphs: bool = True,
    ) -> None:
        llama = self._llama = model.weights
        self.model, self.blocks, self.block_size = model, blocks, block_size
        shape = (len(llama.layers), 2, blocks, block_size, llama.kv_heads, llama.config.head_width)
        self._entries = torch.empty(shape, dtype=cache_dtype or llama.dtype, device=llama.device)
        self.caches = tuple(PagedCache(keys=both[0], values=both[1]) for both in self._entries)
        self._kept: dict[tuple[int, int, int | None], _Graph | _Recording] = {}
        self._sizes: Sequence[int] | None = None  # of decode steps that are kept and run again
        if graphs and llama.device.type == "cuda":
            self._sizes = GRAPH_SIZES
        elif graphs and llama.recordable and self._entries.dtype == torch.float32:
            self._sizes = range(1, 65)

    @property
    def cache_bytes(self) -> int:
        """Bytes of the cache."""
        return self._entries.numel() * self._entries.element_size()

    @torch.inference_mode()
    def run(self, batch: Batch) -> Tensor:
        """float32 [R, vocabulary], a rank's share of it: a row for each wanted position, chunk by chunk. Positions are
        not checked."""
        for source, target in batch.copies:
            self._entries[:, :, target] = self._entries[:, :, source]
        if not batch.tokens:
            return torch.empty(0, self._llama.head.rows)
        step = self.step(batch)
        hidden = self._hidden(step, batch.layers)
        if not batch.rows:
            return torch.empty(0, self._llama.head.rows)
        return self._llama.logits(hidden if step.rows is None else hidden[step.rows])

    def close(self) -> None:
        """Nothing is held outside this process."""

    def step(self, batch: Batch) -> Step:
        """The tensors of a batch."""
        chunks, device = batch.chunks, self._llama.device
        tokens = [token for chunk in chunks for token in chunk.tokens]
        positions = [position for chunk in chunks for position in range(chunk.start, chunk.end)]
        starts = [0, *accumulate(len(chunk.tokens) for chunk in chunks)]
        rows = [start + offset for start, chunk in zip(starts, chunks, strict=False) for offset in chunk.wants_logits]
        single = len(tokens) == len(chunks)
        longest = max(len(chunk.tokens) for chunk in chunks)
        integers = torch.tensor([tokens, positions, [s for c in chunks for s in self._slots(c)]], device=device)
        return Step(
            tokens=integers[0],
            positions=integers[1],
            slots=integers[2],
            tables=self._tables(chunks),
            lengths=torch.tensor([chunk.end for chunk in chunks], dtype=torch.int32, device=device),
            starts=None if single else torch.tensor(starts, dtype=torch.int32, device=device),
            longest=longest,
            rows=None if len(rows) == len(tokens) else torch.tensor(rows, device=device),
        )

    def _slots(self, chunk: Chunk) -> list[int]:
        size, table = self.block_size, chunk.block_table
        return [table[p // size] * size + p % size for p in range(chunk.start, chunk.end)]

    def _tables(self, chunks: tuple[Chunk, ...]) -> Tensor:
        """int32 [B, pages of the longest]."""
        pages = [-(-chunk.end // self.block_size) for chunk in chunks]
        widest = max(pages)
        rows = [
            [*chunk.block_table[:count], *[0] * (widest - count)] for chunk, count in zip(chunks, pages, strict=True)
        ]
        return torch.tensor(rows, dtype=torch.int32, device=self._llama.device)

    def _hidden(self, step: Step, layers: int | None) -> Tensor:
        count, sequences = len(step.tokens), len(step.lengths)
        if self._sizes is None:
            return self._once(step, layers, Eager(backend=self._llama.backend))
        if self._llama.device.type == "cuda":
            if step.starts is not None or count > self._sizes[-1]:
                return self._once(step, layers, Eager(backend=self._llama.backend))
            count = sequences = next(size for size in self._sizes if size >= count)
        elif count not in self._sizes or sequences not in (1, count):
            return self._once(step, layers, Recorded(threads=torch.get_num_threads()))
        key = count, sequences, layers
        if key not in self._kept:
            self._kept[key] = (_Graph if self._llama.device.type == "cuda" else _Recording)(self, *key)
        return self._kept[key].run(step)[: len(step.tokens)]

    def _once(self, step: Step, layers: int | None, operators: Eager | Recorded) -> Tensor:
        buffers = Buffers(self._llama, len(step.tokens))
        hidden = self._llama.forward(step, self.caches, buffers, operators, layers=layers)
        if isinstance(operators, Recorded):
            operators.replay()
        return hidden


class _Kept:
    """A step of `tokens` tokens on tensors of its own, of as many sequences, or of one.

    A decode step of fewer is filled up with tokens whose slot is negative. Tables are as wide as the cache has blocks,
    at most as the context needs, so that one serves every step of its size.
    """

    def __init__(self, runner: ModelRunner, tokens: int, sequences: int, layers: int | None) -> None:
        self.llama, device = runner.model.weights, runner.model.weights.device
        self._layers = layers
        pages = min(runner.blocks, -(-self.llama.config.context // runner.block_size))
        chunk = sequences != tokens
        self.step = Step(
            tokens=torch.zeros(tokens, dtype=torch.int64, device=device),
            positions=torch.zeros(tokens, dtype=torch.int64, device=device),
            slots=torch.full((tokens,), -1, dtype=torch.int64, device=device),
            tables=torch.zeros(sequences, pages, dtype=torch.int32, device=device),
            lengths=torch.zeros(sequences, dtype=torch.int32, device=device),
            starts=torch.tensor([0, tokens], dtype=torch.int32, device=device) if chunk else None,
            longest=tokens if chunk else 1,
        )
        self.buffers = Buffers(self.llama, tokens)

    def filled(self, step: Step) -> None:
        """Take the tensors of `step` over."""
        count, s = len(step.tokens), self.step
        if count < len(s.tokens):
            s.slots.fill_(-1)
            s.lengths.fill_(0)
        for ours, theirs in (
            (s.tokens, step.tokens),
            (s.positions, step.positions),
            (s.slots, step.slots),
            (s.lengths, step.lengths),
        ):
            ours[: len(theirs)].copy_(theirs)
        s.tables[: len(step.tables), : step.tables.shape[1]].copy_(step.tables)


class _Recording(_Kept):
    """The step as calls of compiled operators."""

    def __init__(self, runner: ModelRunner, tokens: int, sequences: int, layers: int | None) -> None:
        super().__init__(runner, tokens, sequences, layers)
        self._calls = Recorded(threads=torch.get_num_threads())
        self._hidden = self.llama.forward(self.step, runner.caches, self.buffers, self._calls, layers=layers)

    def run(self, step: Step) -> Tensor:
        self.filled(step)
        self._calls.replay()
        return self._hidden


class _Graph(_Kept):
    """The step as a captured CUDA graph. Every integer baked into a launch is of the tensors made here.

    Written without a GPU at hand: it has not run yet.
    """

    def __init__(self, runner: ModelRunner, tokens: int, sequences: int, layers: int | None) -> None:
        super().__init__(runner, tokens, sequences, layers)
        workspace = workspace_for(self.buffers.heads.q, runner.caches[0], self.step.tables)
        operators = Eager(backend=self.llama.backend, workspace=workspace)
        cuda: Any = torch.cuda  # untyped
        stream = cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # compiles the kernels; every slot is negative, so nothing is written
            self._pass(runner, operators)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._hidden = self._pass(runner, operators)

    def _pass(self, runner: ModelRunner, operators: Eager) -> Tensor:
        return self.llama.forward(self.step, runner.caches, self.buffers, operators, layers=self._layers)

    def run(self, step: Step) -> Tensor:
        self.filled(step)
        self._graph.replay()
        return self._hidden
