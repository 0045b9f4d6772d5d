"""Logs an operator can search and metrics Prometheus can read.

    configure_logging("info")                        # once, at a process edge
    log = get_logger("rolecall.pipelines.daily")
    with log_context(run_id="..."):
        log.info("step finished", step="embed", seconds=12.3)

One JSON object a line on stderr, times in UTC. Records of other libraries' `logging` come out the same way.
What is personal is taken out of each record (`redaction`); metrics have no label that could name a person.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Literal, TextIO

import structlog
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from rolecall.platform.redaction import redact

_TRACEBACKS = structlog.processors.ExceptionRenderer(
    structlog.tracebacks.ExceptionDictTransformer(show_locals=False)  # locals hold people
)
LogLevel = Literal["debug", "info", "warning", "error"]
QUIET_LIBRARIES = ("alembic", "feast", "httpcore", "httpx", "mlflow", "ray", "sentence_transformers", "urllib3")
"""Libraries whose warnings matter and whose chatter does not."""

LATENCY_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


def configure_logging(level: LogLevel = "info", stream: TextIO | None = None) -> None:
    """Send every log record of this process to `stream` (default stderr) as JSON lines. May be called again."""
    shared = _shared_steps()
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _TRACEBACKS,
                redact,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET_LIBRARIES:
        logging.getLogger(name).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger whose keyword arguments become keys of the JSON object."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger


def log_context(**values: str) -> AbstractContextManager[None]:
    """Add keys (request_id, run_id, release_id) to every record made inside, in this thread or task only."""
    return structlog.contextvars.bound_contextvars(**values)


def _shared_steps() -> list[Any]:
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
        structlog.processors.StackInfoRenderer(),
    ]


class Metrics:
    """What one serving process counts. Holds its own registry, so that two in one process do not collide.

    Labels take few values by design: `route` is a template, never a path; `stage` a stage of the funnel.
    """

    def __init__(self, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._requests = Counter(
            "rolecall_requests_total", "Requests answered", ["route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "rolecall_request_seconds", "Time to answer", ["route"], buckets=LATENCY_BUCKETS, registry=self.registry
        )
        self._stage_seconds = Histogram(
            "rolecall_stage_seconds", "Time in a stage", ["stage"], buckets=LATENCY_BUCKETS, registry=self.registry
        )
        self._stage_jobs = Counter(
            "rolecall_stage_jobs_total", "Jobs a stage let through", ["stage"], registry=self.registry
        )
        self._events = Counter(
            "rolecall_events_total", "Events posted, by what became of them", ["outcome"], registry=self.registry
        )
        self._release = Gauge("rolecall_release_info", "1 for the release served", ["release"], registry=self.registry)
        self._swaps = Counter("rolecall_release_swaps_total", "Releases taken up", ["outcome"], registry=self.registry)

    def request(self, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def stage(self, stage: str, seconds: float, jobs: int) -> None:
        """One stage of one request is through and let `jobs` jobs pass."""
        self._stage_seconds.labels(stage).observe(seconds)
        self._stage_jobs.labels(stage).inc(jobs)

    def events(self, outcome: Literal["accepted", "duplicate", "refused"], count: int) -> None:
        """`count` posted events met this outcome."""
        self._events.labels(outcome).inc(count)

    def release(self, release_id: str) -> None:
        """This release is served from now on, and no other."""
        self._release.clear()
        self._release.labels(release_id).set(1)
        self._swaps.labels("taken").inc()

    def release_refused(self) -> None:
        """A release could not be taken up; the one before is still served."""
        self._swaps.labels("refused").inc()

    def render(self) -> tuple[bytes, str]:
        """Body and content type for `/metrics`."""
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class Stopwatch:
    """Seconds since it was started."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._start = clock()
        self._end: float | None = None

    @property
    def seconds(self) -> float:
        """So far, or until it was stopped."""
        return (self._clock() if self._end is None else self._end) - self._start

    def stop(self) -> None:
        """Hold the reading."""
        self._end = self._clock()


@contextmanager
def stopwatch(clock: Callable[[], float] = time.perf_counter) -> Iterator[Stopwatch]:
    """Measure a block; the reading stays after the block ends, also by an exception."""
    watch = Stopwatch(clock)
    try:
        yield watch
    finally:
        watch.stop()
