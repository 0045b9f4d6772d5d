"""Prometheus metrics of a language model: what its callers waited for, and where the time went."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rolecall.serving.llm.statistics import Statistics
from rolecall.serving.metrics import Labelled

_FIRST = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_BETWEEN = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0)


class LLMMetrics:
    """Times are in seconds, as the HTTP side saw them. `replica`: a label that every sample then has."""

    def __init__(self, replica: str = "") -> None:
        registry = CollectorRegistry()
        self._exposed = Labelled(registry, "replica", replica) if replica else registry
        self.counts: Statistics | None = None
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
        registry.register(_EngineCounts(self))

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

    def render(self, counts: Statistics) -> bytes:
        """The exposition text, with the engine's counts as they are now."""
        self.counts = counts
        return generate_latest(self._exposed)


class _EngineCounts(Collector):
    def __init__(self, metrics: LLMMetrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        counts = self._metrics.counts
        if counts is None:
            return
        for name, told, value in (
            ("waiting_requests", "Requests that wait", counts.waiting),
            ("waiting_tokens", "Their tokens", counts.waiting_tokens),
            ("running_sequences", "Sequences being computed", counts.running),
            ("cache_use_ratio", "Share of the key-value cache in use", counts.cache_use),
            ("draft_acceptance_ratio", "Share of guessed tokens that were right", counts.acceptance),
        ):
            yield GaugeMetricFamily(f"rolecall_llm_{name}", told, value=float(value))
        for name, told, value in (
            ("requests", "Requests taken", counts.requests),
            ("computed_tokens", "Tokens that went through the model", counts.computed_tokens),
            ("cached_tokens", "Prompt tokens found in the prefix cache", counts.cached_tokens),
            ("generated_tokens", "Tokens sampled", counts.generated_tokens),
            ("preemptions", "Sequences that gave their memory to others", counts.preemptions),
        ):
            yield CounterMetricFamily(f"rolecall_llm_{name}", told, value=float(value))
        seconds = CounterMetricFamily("rolecall_llm_seconds", "The engine's time by part", labels=["part"])
        for part, spent in counts.seconds.items():
            seconds.add_metric([part], spent)
        yield seconds
