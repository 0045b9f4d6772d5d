"""A step under way: the model computes it while the engine reads the last one's text and schedules the next."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from torch import Tensor

from rolecall.serving.llm.batch import Batch
from rolecall.serving.llm.draft import Draft
from rolecall.serving.llm.sequence import Sequence, State


@dataclass(frozen=True, kw_only=True)
class Computed:
    """A batch with all its guesses, its logits, and the seconds that took."""

    batch: Batch
    logits: Tensor
    seconds: float


@dataclass(kw_only=True)
class Flight:
    """`batch` as it was scheduled. `result` waits. `booked`: the scheduler was told of it, tokens to follow."""

    batch: Batch
    result: Callable[[], Computed]
    booked: bool = False

    @property
    def sampling(self) -> list[Sequence]:
        """Those that this step draws for."""
        return [each for chunk in self.batch.chunks if chunk.samples for each in (chunk.sequence, *chunk.siblings)]


class Launcher:
    """Has a batch completed by the draft and run: on a thread of its own if `overlap`, else when waited for."""

    def __init__(self, run: Callable[[Batch], Tensor], draft: Draft | None, *, overlap: bool) -> None:
        self._run, self._draft = run, draft
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="rolecall-llm-model") if overlap else None

    def launch(self, batch: Batch) -> Flight:
        """Begin a step; the one before has been waited for."""
        if self._thread is None:
            return Flight(batch=batch, result=partial(self._compute, batch))
        return Flight(batch=batch, result=self._thread.submit(self._compute, batch).result)

    def _compute(self, batch: Batch) -> Computed:
        started = time.perf_counter()
        batch = batch if self._draft is None else self._draft.complete(batch)
        logits = self._run(batch)
        return Computed(batch=batch, logits=logits, seconds=time.perf_counter() - started)


def settled(batch: Batch) -> Batch:
    """A batch scheduled while the step before it ran: with the tokens known now, and without what they ended."""
    going = [chunk for chunk in batch.chunks if chunk.sequence.state is State.RUNNING]
    return Batch(chunks=tuple(replace(c, tokens=tuple(c.sequence.tokens[c.start : c.end])) for c in going))
