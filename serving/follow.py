"""Following the champion: a new release is loaded whole, then swapped in; requests under way end on the old one.

slot = ReleaseSlot()
follower = Follower(champion=registry.reconcile, load=load, slot=slot, interval_s=2.0)
follower.step()                 # once, before the process takes requests
follower.start()                # then on a thread
with slot.lease() as release:   # one request: the release cannot be closed inside
    ...
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from rolecall.platform.errors import RoleCallError, UnavailableError

_LOG = logging.getLogger("rolecall.serving.follow")
LONGEST_WAIT_S = 300.0


class Closable(Protocol):
    """A loaded release: holds an open index until closed."""

    def close(self) -> None: ...


R = TypeVar("R", bound=Closable)


@dataclass(kw_only=True, eq=False)
class _Held(Generic[R]):
    release_id: str
    release: R
    leases: int = 0


class ReleaseSlot(Generic[R]):
    """The release being served. Swapping is one assignment; the old one is closed when its last lease ends."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._current: _Held[R] | None = None
        self._leaving: list[_Held[R]] = []
        self._previous_id: str | None = None

    @property
    def release_id(self) -> str | None:
        """Id of the release that new requests get."""
        current = self._current
        return None if current is None else current.release_id

    @property
    def previous_id(self) -> str | None:
        """Id of the release served before, in this process."""
        return self._previous_id

    @property
    def open_releases(self) -> int:
        """How many releases are held open: 1, and 2 while requests end on the old one."""
        return len(self._leaving) + (self._current is not None)

    @contextmanager
    def lease(self) -> Iterator[R]:
        """The current release for the length of one request. Raises UnavailableError where there is none."""
        with self._lock:
            held = self._current
            if held is None:
                raise UnavailableError("no release is loaded", "a promoted release", "rolecall run daily")
            held.leases += 1
        try:
            yield held.release
        finally:
            self._end(held)

    def swap(self, release_id: str, release: R) -> None:
        """Serve this release from now on."""
        with self._lock:
            old, self._current = self._current, _Held(release_id=release_id, release=release)
            if old is not None:
                self._previous_id = old.release_id
                self._leaving.append(old)
        self._close_idle()

    def close(self) -> None:
        """Serve nothing from now on; open releases close as their leases end."""
        with self._lock:
            old, self._current = self._current, None
            if old is not None:
                self._leaving.append(old)
        self._close_idle()

    def _end(self, held: _Held[R]) -> None:
        with self._lock:
            held.leases -= 1
        if held in self._leaving:
            self._close_idle()

    def _close_idle(self) -> None:
        with self._lock:
            idle = [held for held in self._leaving if held.leases == 0]
            self._leaving = [held for held in self._leaving if held.leases]
        for held in idle:
            held.release.close()


class Follower(Generic[R]):
    """Keeps a slot on the champion. A champion that cannot be loaded is tried again, ever more rarely, while the
    release before it goes on serving. `wanted`: the champion last heard of; `problem`: why it is not served."""

    def __init__(
        self,
        *,
        champion: Callable[[], str | None],
        load: Callable[[str], R],
        slot: ReleaseSlot[R],
        interval_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._champion = champion
        self._load = load
        self._slot = slot
        self._interval_s = interval_s
        self._clock = clock
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._failed_id: str | None = None
        self._failures = 0
        self._retry_at = 0.0
        self.problem: str | None = "not looked for a champion yet"
        self.wanted: str | None = None

    def step(self) -> bool:
        """Look once for the champion and serve it. True where the release changed. Raises nothing: what went wrong
        is in `problem` until a later step succeeds."""
        try:
            return self._follow(self._champion())
        except Exception as error:  # noqa: BLE001 - the edge of a thread: the old release serves on, readiness tells
            self.problem = str(error) if isinstance(error, RoleCallError) else f"{type(error).__name__}: {error}"
            _LOG.warning("following the champion failed: %s", self.problem, exc_info=error)
            return False

    def start(self) -> None:
        """Step at every interval on a thread, until `close`."""
        self._thread = threading.Thread(target=self._run, name="rolecall-follow", daemon=True)
        self._thread.start()

    def alive(self) -> bool:
        """Whether the thread runs (or was never started)."""
        return self._thread is None or self._thread.is_alive()

    def close(self) -> None:
        """Stop following; a release being loaded is still finished."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.step()

    def _follow(self, wanted: str | None) -> bool:
        self.wanted = wanted
        if wanted is None:
            self.problem = "no release is promoted: rolecall run daily"
            return False
        if wanted == self._slot.release_id:
            self.problem = None
            return False
        if wanted == self._failed_id and self._clock() < self._retry_at:
            return False
        try:
            release = self._load(wanted)
        except Exception:
            self._postpone(wanted)
            raise
        self._slot.swap(wanted, release)
        self.problem, self._failed_id, self._failures = None, None, 0
        return True

    def _postpone(self, wanted: str) -> None:
        self._failures = self._failures + 1 if wanted == self._failed_id else 1
        self._failed_id = wanted
        self._retry_at = self._clock() + min(LONGEST_WAIT_S, self._interval_s * 2.0**self._failures)
