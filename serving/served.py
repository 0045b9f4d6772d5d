"""Keeping what a share of requests was answered from, beside the requests and not before them.

served = ServedSample(ServedLog(engine, forgotten), events, share=0.01)
begun = served.begin("r1", "c1")            # before the candidate is read
served.keep(begun, release, context, items, at=at)
served.close()                              # what is being written is still written
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from threading import BoundedSemaphore
from typing import Any, Protocol

import numpy as np

from rolecall.features.context import CandidateContext
from rolecall.features.served_values import candidate_values
from rolecall.platform.event_log import EventLog
from rolecall.platform.served_log import ServedLog, ServedRequest
from rolecall.serving.job_features import OnlineJobFeatures
from rolecall.serving.loader import LoadedRelease

_LOG = logging.getLogger("rolecall.serving.served")
_WAITING = 1_000
"""Rows that may wait to be written; of more, requests are passed over rather than held up."""


class Shown(Protocol):
    """A recommended job."""

    @property
    def job_id(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A request that is kept. `events`: the newest event in the log."""

    request_id: str
    candidate_id: str
    events: int


class ServedSample:
    """Chooses requests by a hash of their id and writes what they were answered from on a thread of its own."""

    def __init__(self, log: ServedLog, events: EventLog, *, share: float) -> None:
        self._log = log
        self._events = events
        self._share = share
        self._room = BoundedSemaphore(_WAITING)
        self._writer = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rolecall-served")

    def begin(self, request_id: str, candidate_id: str) -> Begun | None:
        """None where the request is not among those that are kept. What the log holds now is surely served."""
        if not _chosen(request_id, self._share):
            return None
        return Begun(request_id=request_id, candidate_id=candidate_id, events=self._events.last_sequence())

    def keep(
        self,
        begun: Begun,
        release: LoadedRelease,
        context: CandidateContext,
        shown: Sequence[Shown],
        *,
        at: datetime,
    ) -> None:
        """Write it soon. Nobody known, more waiting than there is room for, or anything wrong with it: it is passed
        over, and the answer goes out."""
        if not context.known or not self._room.acquire(blocking=False):
            return
        try:
            through, counted = _told(release)
            served = ServedRequest(
                request_id=begun.request_id,
                candidate_id=begun.candidate_id,
                at=at,
                release_id=release.manifest.id,
                events=begun.events,
                counted=counted,
                jobs_through=through,
                profile_us=context.profile_us or 0,
                candidate=candidate_values(context),
                jobs=_job_values(release, shown, at),
            )
            self._writer.submit(self._write, served)
        except Exception as error:  # noqa: BLE001 - a request that ends while the process closes is answered too
            self._room.release()
            _LOG.warning("what a request was answered from could not be kept: %s", error, exc_info=error)

    def close(self) -> None:
        """Wait for what is being written."""
        self._writer.shutdown()

    def _write(self, served: ServedRequest) -> None:
        try:
            self._log.append(served)
        except Exception as error:  # noqa: BLE001 - the edge of a thread: a sample that is lost is no answer lost
            _LOG.warning("what a request was answered from could not be kept: %s", error, exc_info=error)
        finally:
            self._room.release()


def _chosen(request_id: str, share: float) -> bool:
    drawn = int.from_bytes(hashlib.blake2b(request_id.encode(), digest_size=8).digest())
    return drawn < share * 2**64


def _told(release: LoadedRelease) -> tuple[datetime, int]:
    """The day that the jobs' features are of, and up to which event of the log they count what was posted."""
    source = release.funnel.job_features
    if not isinstance(source, OnlineJobFeatures):
        return release.manifest.as_of, 0
    return source.through or release.manifest.as_of, source.counted or 0


def _job_values(release: LoadedRelease, shown: Sequence[Shown], at: datetime) -> dict[str, list[Any]]:
    """Features of the jobs shown, aligned; None where unknown."""
    catalogue = release.funnel.catalogue
    rows = catalogue.rows_of([one.job_id for one in shown])
    read = release.funnel.job_features.read(rows, at=at)
    employers = catalogue.table["employer_id"].take(rows).to_pylist()
    values = {name: [None if np.isnan(one) else float(one) for one in column] for name, column in read.items()}
    return {"job_id": [one.job_id for one in shown], "employer_id": employers, **values}
