"""Prometheus metrics of a language model: what its callers waited for, and where the time went."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeVar

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rolecall.serving.llm.statistics import Statistics
from rolecall.serving.metrics import Labelled

Family = TypeVar("Family", GaugeMetricFamily, CounterMetricFamily)
_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BETWEEN = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0)


class LLMMetrics:
    """Times are in seconds, as the HTTP side saw them. `replica`: a label that every sample then has."""

    def __init__(self, replica: str = "") -> None:
        registry = CollectorRegistry()
        self._exposed = Labelled(registry, "replica", replica) if replica else registry
        self._engines = _EngineCounts()
        self._first = Histogram(
            "rolecall_llm_first_token_seconds",
            "From a request's arrival to its first token",
            buckets=_FIRST,
            registry=registry,
        )
        self._between = Histogram(
            "rolecall_llm_inter_token_seconds",
            "From one token of a choice to the next",
            buckets=_BETWEEN,
            registry=registry,
        )
        self._framework = Counter(
            "rolecall_llm_framework_seconds", "Time of requests spent outside the engine", registry=registry
        )

    def began(self, seconds: float) -> None:
        """The first token of a request is there."""
        self._first.observe(seconds)

    def went_on(self, seconds: float, tokens: int) -> None:
        """So many more tokens of a choice are there."""
        for _ in range(tokens):
            self._between.observe(seconds / tokens)

    def ended(self, framework_s: float) -> None:
        """A request is answered; this much of its time was not the engine's."""
        self._framework.inc(max(framework_s, 0.0))

    def render(self, counts: Mapping[str, Statistics]) -> bytes:
        """The exposition text, with the counts of engines as they are now, by the process that each is in."""
        self._engines.counts = counts
        return generate_latest(self._exposed) + generate_latest(self._engines)


_GAUGES: Mapping[str, tuple[str, Callable[[Statistics], float]]] = {
    "waiting_requests": ("Requests that wait", lambda counts: counts.waiting),
    "waiting_tokens": ("Their tokens", lambda counts: counts.waiting_tokens),
    "running_sequences": ("Sequences being computed", lambda counts: counts.running),
    "cache_use_ratio": ("Share of the key-value cache in use", lambda counts: counts.cache_use),
    "draft_acceptance_ratio": ("Share of guessed tokens that were right", lambda counts: counts.acceptance),
}
_COUNTERS: Mapping[str, tuple[str, Callable[[Statistics], float]]] = {
    "requests": ("Requests taken", lambda counts: counts.requests),
    "computed_tokens": ("Tokens that went through the model", lambda counts: counts.computed_tokens),
    "cached_tokens": ("Prompt tokens found in the prefix cache", lambda counts: counts.cached_tokens),
    "generated_tokens": ("Tokens sampled", lambda counts: counts.generated_tokens),
    "drafted_tokens": ("Tokens guessed", lambda counts: counts.drafted_tokens),
    "kept_tokens": ("Guessed tokens that were right", lambda counts: counts.kept_tokens),
    "preemptions": ("Sequences that gave their memory to others", lambda counts: counts.preemptions),
}


class _EngineCounts(Collector):
    """Each sample names the process of its engine, where that has a name."""

    counts: Mapping[str, Statistics] = {}

    def collect(self) -> Iterator[Metric]:
        labels = ["replica"] if any(self.counts) else []
        for name, (told, value) in _GAUGES.items():
            yield self._filled(GaugeMetricFamily(f"rolecall_llm_{name}", told, labels=labels), value)
        for name, (told, value) in _COUNTERS.items():
            yield self._filled(CounterMetricFamily(f"rolecall_llm_{name}", told, labels=labels), value)
        seconds = CounterMetricFamily("rolecall_llm_seconds", "The engine's time by part", labels=[*labels, "part"])
        for replica, counts in self.counts.items():
            for part, spent in counts.seconds.items():
                seconds.add_metric([*([replica] if labels else []), part], spent)
        yield seconds

    def _filled(self, family: Family, value: Callable[[Statistics], float]) -> Family:
        for replica, counts in self.counts.items():
            family.add_metric([replica] if family._labelnames else [], float(value(counts)))
        return family
