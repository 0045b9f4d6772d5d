"""One process of several that share a model: its shard of the weights, its shard of the cache, its place in the group.

It knows no Ray. A rank is loaded on its own, then all meet: the first opens a store on a port that is free, the others
come to it, and torch.distributed finds its connections through it (gloo on CPUs, NCCL on GPUs).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from rolecall.kernels.weight_formats import Format
from rolecall.serving.llm.batch import Batch
from rolecall.serving.llm.loading import Compute, load_model
from rolecall.serving.llm.model_runner import ModelRunner
from rolecall.serving.llm.request import Request, SamplingParameters
from rolecall.serving.llm.sequence import Sequence
from rolecall.serving.llm.tensor_parallel import Ranks

_TCPStore: Any = cast(Any, dist).TCPStore  # untyped
_NOBODY = Sequence.of(
    Request(request_id="", number=0, prompt=(), parameters=SamplingParameters(), max_tokens=0, arrived=0.0), seed=0
)


@dataclass(frozen=True, kw_only=True)
class Shared:
    """What every rank is told. `path`, `compute`, `weight_format`, `adapter`, `dtype`: as `load_model` takes them.

    `device`: cpu or cuda, the GPU being the first that the process sees. `timeout_s`: how long ranks wait for each
    other within a step before they give up.
    """

    path: str
    size: int
    blocks: int
    block_size: int
    compute: Compute = "fast"
    weight_format: Format | None = None
    adapter: str | None = None
    device: str = "cpu"
    dtype: torch.dtype | None = None
    timeout_s: float = 120.0


class Rank:
    """Rank `rank`, from 0. `load`, then on the first `open_store`, on all `meet`; after that `run`."""

    def __init__(self, rank: int, shared: Shared) -> None:
        self._ranks, self._shared = Ranks(rank=rank, size=shared.size), shared
        self._timeout = timedelta(seconds=shared.timeout_s)
        self._store: Any = None

    def load(self) -> int:
        """Read this rank's weights and make its cache. Returns the bytes of both. Raises as `load_model`."""
        s = self._shared
        model = load_model(
            s.path,
            compute=s.compute,
            weight_format=s.weight_format,
            adapter=s.adapter,
            device=s.device,
            dtype=s.dtype,
            ranks=self._ranks,
        )
        self._runner = ModelRunner(model, blocks=s.blocks, block_size=s.block_size)
        return model.weights.weight_bytes + self._runner.cache_bytes

    def open_store(self, host: str) -> int:
        """Open the store where the others come to; `host`: this machine as they know it. Returns the port."""
        self._store = _TCPStore(host, 0, self._shared.size, is_master=True, wait_for_workers=False)
        return int(self._store.port)

    def meet(self, host: str, port: int) -> int:
        """Wait until all ranks are here and have added a number up. Returns the process id."""
        s, ranks = self._shared, self._ranks
        store = self._store or _TCPStore(host, port, s.size, is_master=False, timeout=self._timeout)
        backend = "nccl" if torch.device(s.device).type == "cuda" else "gloo"
        dist.init_process_group(backend, store=store, rank=ranks.rank, world_size=s.size, timeout=self._timeout)
        if int(ranks.sum(torch.ones(1, device=s.device))) != s.size:
            raise RuntimeError(f"ranks of {s.size} did not add up")
        return os.getpid()

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """A step: float32 [R, this rank's share of the vocabulary]."""
        return self._runner.run(batch).cpu().numpy()


def message(batch: Batch) -> Batch:
    """What a rank needs of a batch: integers, not whose they are."""
    return replace(batch, chunks=tuple(replace(chunk, sequence=_NOBODY, siblings=()) for chunk in batch.chunks))
