"""Prometheus metrics of one serving process."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from rolecall.serving.models import EventReceipt, Readiness, Stage

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
_COUNTS = (0, 1, 10, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000)


class ServingMetrics:
    """Counters and histograms in a registry of their own, so that two applications in a process do not mix.

    `replica`: a label that every sample then has. Behind a proxy any one of the replicas answers a scrape: told apart
    by this label, no counter ever goes back, and rates over some minutes are right for all of them.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, replica: str = "") -> None:
        self.registry = CollectorRegistry()
        self._exposed = Labelled(self.registry, "replica", replica) if replica else self.registry
        self._requests = Counter(
            "rolecall_http_requests", "Answers by route and status", ("route", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "rolecall_http_request_seconds",
            "Time to the last byte",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._stage_seconds = Histogram(
            "rolecall_stage_seconds", "Time in a funnel stage", ("stage",), buckets=_SECONDS, registry=self.registry
        )
        self._stage_out = Histogram(
            "rolecall_stage_jobs", "Jobs a funnel stage let out", ("stage",), buckets=_COUNTS, registry=self.registry
        )
        self._unknown = Counter(
            "rolecall_unknown_candidates", "Recommendations without stored features", registry=self.registry
        )
        self._events = Counter("rolecall_events", "Events by outcome", ("outcome",), registry=self.registry)
        self._inside = Gauge("rolecall_lane_requests", "Waiting or running", ("lane",), registry=self.registry)
        self._ready = Gauge("rolecall_ready", "1 when requests are answered", registry=self.registry)
        self._release = Gauge("rolecall_release", "1 for the served release", ("release_id",), registry=self.registry)
        self._as_of = Gauge(
            "rolecall_release_as_of_timestamp_seconds",
            "The day the served release was built for",
            registry=self.registry,
        )

    def answered(self, route: str, status: int, seconds: float) -> None:
        """Count one answer."""
        self._requests.labels(route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def ranked(self, trace: Iterable[Stage], *, known: bool) -> None:
        """Count the stages of one recommendation."""
        for stage in trace:
            self._stage_seconds.labels(stage.stage).observe(stage.milliseconds / 1e3)
            self._stage_out.labels(stage.stage).observe(stage.count_out)
        if not known:
            self._unknown.inc()

    def received(self, receipt: EventReceipt) -> None:
        """Count the events of one batch."""
        self._events.labels("accepted").inc(receipt.accepted)
        self._events.labels("duplicate").inc(receipt.duplicate)
        self._events.labels("dropped").inc(receipt.dropped)

    def render(self, readiness: Readiness, inside: dict[str, int]) -> bytes:
        """The exposition text, with the gauges as they are now."""
        self._ready.set(1 if readiness.ready else 0)
        self._release.clear()
        if readiness.release_id:
            self._release.labels(readiness.release_id).set(1)
        if readiness.release_as_of:
            self._as_of.set(readiness.release_as_of.timestamp())
        for lane, count in inside.items():
            self._inside.labels(lane).set(count)
        return generate_latest(self._exposed)


class Labelled(Collector):
    """The samples of a registry with one more label."""

    def __init__(self, registry: CollectorRegistry, name: str, value: str) -> None:
        self._registry = registry
        self._label = {name: value}

    def collect(self) -> Iterator[Metric]:
        for metric in self._registry.collect():
            metric.samples = [sample._replace(labels=self._label | sample.labels) for sample in metric.samples]
            yield metric
