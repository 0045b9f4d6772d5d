"""Where scheduled days run: every one through Ray Jobs, on a cluster that is there, or on one started for the tick."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from types import TracebackType

from rolecall.pipelines.schedule_commands import utc_now
from rolecall.platform.errors import ConflictError, InputError, UnavailableError
from rolecall.platform.jobs import EXCLUDES, HTTP, JobState, RayJobService, job_environment
from rolecall.platform.ledger import open_ledger
from rolecall.platform.ray_head import START_SECONDS, ray_head
from rolecall.platform.ray_runtime import ray_session
from rolecall.platform.schedule.definition import Schedule
from rolecall.platform.schedule.policy import Day
from rolecall.platform.schedule.scheduler import LEASE, Event, Scheduler
from rolecall.platform.schedule.store import ScheduleStore
from rolecall.platform.settings import Settings


def cluster_address(settings: Settings, option: str | None) -> str | None:
    """The dashboard to submit to: `--address`, setting `ray.address`, or `RAY_ADDRESS`. None: no cluster is named.

    Raises InputError for an option that is no http address.
    """
    if option is not None and not option.startswith(HTTP):
        raise InputError(f"--address {option!r}", "http://host:port of a Ray dashboard", "give that URL")
    named = option or settings.ray.address or os.environ.get("RAY_ADDRESS", "")
    return None if named in ("", "local") else named


def owner_name() -> str:
    """A name for this scheduler that no other has: host, process and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


class RayLauncher:
    """Runs days on the cluster at `address`; without one, on a Ray of its own from the first call until the exit.

    A Ray address that is no http URL is attached to, and its dashboard is used.
    """

    def __init__(self, settings: Settings, address: str | None) -> None:
        self._settings = settings
        self._address = address
        self._service: RayJobService | None = None
        self._ready_by = 0.0
        self._open = ExitStack()

    def __enter__(self) -> RayLauncher:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def submit(self, schedule: Schedule, day: Day) -> bool:
        from rolecall.pipelines.submit import pipeline_job

        service = self._connected()
        job = pipeline_job(self._settings, schedule.pipeline, day.as_of, service.address, promote=schedule.promote)
        runtime_env = job_environment(job.working_dir, job.env, EXCLUDES)
        while True:
            try:
                service.submit(
                    entrypoint=job.entrypoint, submission_id=day.submission_id or "", runtime_env=runtime_env
                )
            except ConflictError:
                return False
            except UnavailableError:
                if time.monotonic() >= self._ready_by:
                    raise
                time.sleep(1.0)
            else:
                return True

    def state(self, submission_id: str) -> JobState | None:
        return self._connected().state(submission_id)

    def why_failed(self, submission_id: str) -> str:
        return self._connected().why_failed(submission_id)

    def _connected(self) -> RayJobService:
        if self._service is None:
            http = self._address if self._address and self._address.startswith(HTTP) else None
            self._service = RayJobService(http or self._dashboard())
        return self._service

    def _dashboard(self) -> str:
        """Of the cluster attached to, or of a head started here."""
        self._ready_by = time.monotonic() + START_SECONDS
        if self._address is None:
            return self._open.enter_context(ray_head(self._settings.ray, self._settings.home))
        ray = self._settings.ray.model_copy(update={"address": self._address})
        url = self._open.enter_context(ray_session(ray, self._settings.home)).dashboard_url
        if not url:
            raise UnavailableError(f"Ray at {self._address} tells no dashboard", "http://host:port", "give --address")
        return url if url.startswith(HTTP) else f"http://{url}"


@contextmanager
def open_scheduler(
    settings: Settings, address: str | None, *, wait: bool, on_event: Callable[[Event], None] | None
) -> Iterator[Scheduler]:
    """A scheduler on the ledger and the cluster that the settings and `address` (an option's text) name.

    Raises InputError where a tick shall not wait and no cluster outlives it.
    """
    named = cluster_address(settings, address)
    if named is None and not wait:
        raise InputError(
            "--no-wait without a cluster",
            "--wait, or the address of a cluster that goes on when the tick has returned",
            "give --address, or set ray.address",
        )
    with RayLauncher(settings, named) as launcher:
        yield Scheduler(
            ScheduleStore(open_ledger(settings.ledger_url)),
            launcher,
            owner=owner_name(),
            clock=utc_now,
            pause=time.sleep,
            lease=_lease(named),
            on_event=on_event or (lambda event: None),
        )


def _lease(address: str | None) -> timedelta:
    """A Ray that is started for the tick may take its time: a lease that ended before would let a second tick start
    another one for the same day, whose job fails because the first one's executes the run."""
    return LEASE if address and address.startswith(HTTP) else LEASE + timedelta(seconds=START_SECONDS)


@contextmanager
def exit_on_term() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does: leases are given back and a local Ray is stopped."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
