"""How many replicas the load calls for: what they hold, and what waits.

A replica's own work is the larger of two shares: of its cache that sequences hold, over the share it should use, and of
the sequences it may run. What waits is work nobody has taken: so many tokens are a replica more. The sum, rounded up,
is wanted; but never fewer than one less than there are, so that one quiet moment does not end replicas whose cached
prefixes the next minute needs. Serve holds each decision against min and max replicas and its delays.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # Serve's controller imports this file, and needs no model's libraries for it
    from rolecall.serving.llm.statistics import Statistics


@dataclass(frozen=True, kw_only=True)
class Load:
    """Of one replica. `cache_use`, `slot_use`: shares, 0 to 1, of its blocks and of `llm.max_sequences`."""

    cache_use: float = 0.0
    slot_use: float = 0.0
    waiting_tokens: float = 0.0

    @classmethod
    def of(cls, counts: Statistics, max_sequences: int) -> Load:
        """At this moment."""
        return cls(
            cache_use=counts.cache_use,
            slot_use=counts.running / max_sequences,
            waiting_tokens=float(counts.waiting_tokens),
        )


@dataclass(frozen=True, kw_only=True)
class Targets:
    """`cache_use` that each replica should have, 0 to 1; `waiting_tokens` that call for one more."""

    cache_use: float = 0.7
    waiting_tokens: float = 4000.0


def replicas_for(loads: Sequence[Load], *, current: int, targets: Targets, least: int, most: int) -> int:
    """Replicas wanted, `least` to `most`, where `current` are there. One that told nothing yet counts as idle."""
    held = sum(max(load.cache_use / targets.cache_use, load.slot_use) for load in loads)
    waiting = sum(load.waiting_tokens for load in loads) / targets.waiting_tokens
    wanted = max(math.ceil(held + waiting - 1e-9), current - 1)
    return min(max(wanted, least), most)


class QueueAndCache:
    """`replicas_for` as Serve asks it. Its options are `policy_kwargs` of a Serve configuration."""

    def __init__(self, cache_use: float = Targets.cache_use, waiting_tokens: float = Targets.waiting_tokens) -> None:
        self._targets = Targets(cache_use=cache_use, waiting_tokens=waiting_tokens)

    def __call__(self, context: Any) -> tuple[int, dict[str, Any]]:
        """`context`: Serve's AutoscalingContext. Returns the replicas wanted, and no state to keep."""
        wanted = replicas_for(
            loads_of(context.aggregated_metrics or {}),
            current=context.target_num_replicas,
            targets=self._targets,
            least=context.capacity_adjusted_min_replicas,
            most=context.capacity_adjusted_max_replicas,
        )
        return wanted, {}


def loads_of(metrics: Mapping[str, Mapping[Any, float]]) -> list[Load]:
    """From numbers by name and replica, as `record_autoscaling_stats` gave them, to a load a replica."""
    names = [name for name in ("cache_use", "slot_use", "waiting_tokens") if name in metrics]
    replicas = {replica for name in names for replica in metrics[name]}
    return [Load(**{name: float(metrics[name].get(replica, 0.0)) for name in names}) for replica in replicas]
