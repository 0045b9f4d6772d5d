"""A lane: one thread for blocking work behind an event loop, with a bounded queue and a deadline.

The funnel computes for milliseconds at a time. On the event loop it would hold up health checks and
every other connection; on a pool its threads would fight for the same cores. One thread in turn is
the fastest order there is, and what waits can still be counted, refused and given up.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from rolecall.serving.problems import RETRY_AFTER_S, ApiError

T = TypeVar("T")


class Lane:
    """Runs one piece of work at a time, in order of arrival."""

    def __init__(
        self, name: str, *, most_inside: int, deadline_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self.most_inside = most_inside
        self.deadline_s = deadline_s
        self._clock = clock
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"rolecall-{name}")
        self._lock = threading.Lock()
        self._inside = 0
        self._started: float | None = None

    @property
    def inside(self) -> int:
        """Pieces of work waiting or running."""
        return self._inside

    def busy_s(self) -> float:
        """How long the piece of work that runs now has been running; 0 when none does."""
        started = self._started
        return 0.0 if started is None else self._clock() - started

    async def run(self, work: Callable[[], T]) -> T:
        """The work's result.

        Raises ApiError 503 (with Retry-After) when the lane is full, and 504 when the deadline passes: work
        that has not begun by then never begins, work that has begun ends unheard.
        """
        future = self._submit(work)
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.deadline_s)
        except TimeoutError:
            if future.cancelled() or not future.done():
                raise ApiError(504, f"no answer within {self.deadline_s:g} s") from None
            raise

    def close(self) -> None:
        """Refuse what waits, let the running work end."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _submit(self, work: Callable[[], T]) -> Future[T]:
        with self._lock:
            if self._inside >= self.most_inside:
                detail = f"{self._inside} requests are waiting already; the most is {self.most_inside}"
                raise ApiError(503, detail, retry_after_s=RETRY_AFTER_S)
            self._inside += 1
        future = self._executor.submit(self._timed, work)
        future.add_done_callback(self._leave)
        return future

    def _timed(self, work: Callable[[], T]) -> T:
        self._started = self._clock()
        try:
            return work()
        finally:
            self._started = None

    def _leave(self, _: Future[T]) -> None:
        with self._lock:
            self._inside -= 1
