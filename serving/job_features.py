"""Job features while serving: whole columns in memory, so that a request indexes arrays; read anew after each run.

    use_online_job_features(release, features)                     # when a release is loaded
    refresher = JobFeatureRefresher(slot, features, interval_s=30)
    refresher.start()                                              # and from then on, on a thread of its own

A run that told the online store something is seen within the interval; a value past its ttl is missing from that
instant on, however long nobody could read the store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Rows
from rolecall.features.stamped_columns import StampedColumns
from rolecall.platform.errors import UnavailableError
from rolecall.serving.follow import ReleaseSlot
from rolecall.serving.loader import LoadedRelease

_LOG = logging.getLogger("rolecall.serving.job_features")


class StoredJobFeatures(Protocol):
    """The online store, as far as jobs are concerned."""

    def online_version(self) -> int: ...

    def materialized_through(self) -> datetime | None: ...

    def counted_through(self) -> int | None: ...

    def online_job_columns(
        self, job_ids: Sequence[str], employer_ids: Sequence[str | None]
    ) -> Sequence[StampedColumns]: ...


class OnlineJobFeatures:
    """Columns by catalogue row: a JobFeatureSource. `version`: of the store they were read from; `through`: the day
    it held then, and `counted`: up to which event of the log it counted what was posted."""

    def __init__(
        self, views: Sequence[StampedColumns], *, version: int, through: datetime | None, counted: int | None = None
    ) -> None:
        self.views = tuple(views)
        self.version = version
        self.through = through
        self.counted = counted

    def read(self, rows: Rows, *, at: datetime) -> Mapping[str, npt.NDArray[np.floating]]:
        return {name: column for view in self.views for name, column in view.read(at, rows).items()}


def use_online_job_features(release: LoadedRelease, features: StoredJobFeatures) -> None:
    """Read the feature views of every job of the release at once: a request then indexes arrays.

    Where the online store knows none of the jobs (a copy of the release on another machine), the values the release
    was built with stay. A value the store has but that is too old counts as missing, as it did in training.
    """
    version, through, counted = features.online_version(), features.materialized_through(), features.counted_through()
    # before the rows: what changes meanwhile is read again
    catalogue = release.funnel.catalogue
    views = features.online_job_columns(catalogue.job_ids, catalogue.table["employer_id"].to_pylist())
    if any(np.isfinite(column).any() for view in views for column in view.columns.values()):
        release.funnel.job_features = OnlineJobFeatures(views, version=version, through=through, counted=counted)


class JobFeatureRefresher:
    """Keeps the job features of the release being served no older than the interval. Requests never wait for it: the
    new columns take the place of the old ones in one assignment. Give it a store that requests do not read."""

    def __init__(self, slot: ReleaseSlot[LoadedRelease], features: StoredJobFeatures, *, interval_s: float) -> None:
        self._slot = slot
        self._features = features
        self._interval_s = interval_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._seen: tuple[str | None, int] | None = None

    def step(self) -> bool:
        """Look once whether the store was told anything, and read it again if so. True where it was read. Raises
        nothing: what could not be read is tried at the next step."""
        try:
            with self._slot.lease() as release:
                return self._refresh(release)
        except UnavailableError:
            return False
        except Exception as error:  # noqa: BLE001 - the edge of a thread: the old columns serve on until they expire
            _LOG.warning("job features could not be read: %s", error, exc_info=error)
            return False

    def start(self) -> None:
        """Step at every interval on a thread, until `close`."""
        self._thread = threading.Thread(target=self._run, name="rolecall-job-features", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread; columns being read are still finished."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._interval_s):
            self.step()

    def _refresh(self, release: LoadedRelease) -> bool:
        held, version = release.funnel.job_features, self._features.online_version()
        seen = (release.manifest.id, version)
        if seen == self._seen or (isinstance(held, OnlineJobFeatures) and held.version == version):
            return False
        use_online_job_features(release, self._features)
        self._seen = seen
        return True
