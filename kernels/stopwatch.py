"""Times work on a device: many calls in a walk, walks in turns, every walk from memory rather than from a cache.

A walk calls an operator on one set of inputs after another, as many as make up four times the largest cache, so that
each call finds its inputs in memory. On a GPU a walk is captured once as a CUDA graph and replayed, so that launches
cost as little as in a captured decode step, and timed by the device's own events. Arms that are to be compared take
turns: what slows the machine for a while slows them all.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

CACHES = 4  # times the largest cache that a walk reads
MOST_COPIES = {"cpu": 32, "cuda": 512}  # a CPU's calls take a thousand times a GPU's
_CACHE_UNKNOWN = 2**25


@dataclass(kw_only=True)
class Arm:
    """`walk` makes `calls` calls; `seconds`: of one call, by turn. `captured`: whether a CUDA graph is replayed."""

    walk: Callable[[], object]
    calls: int = 1
    captured: bool = False
    seconds: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Seconds of one call."""
        return statistics.median(self.seconds)


def arm_of(calls: Sequence[Callable[[], object]], device: torch.device, *, graph: bool = True) -> Arm:
    """An arm that makes these calls one after another, each having been made once before.

    On a GPU as one CUDA graph, unless `graph` is False or a call refuses to be captured (it waits for the device).
    """

    def walk() -> None:
        for call in calls:
            call()

    walk()
    if device.type != "cuda":
        return Arm(walk=walk, calls=len(calls))
    torch.cuda.synchronize(device)
    if graph:
        try:
            return Arm(walk=_captured(walk, device), calls=len(calls), captured=True)
        except RuntimeError:  # what waits for the device cannot be captured; it is timed with its launches
            torch.cuda.synchronize(device)
    return Arm(walk=walk, calls=len(calls))


def _captured(walk: Callable[[], object], device: torch.device) -> Callable[[], object]:
    cuda: Any = torch.cuda
    side = cuda.Stream(device)
    side.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(side):
        walk()
    torch.cuda.current_stream(device).wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        walk()
    return graph.replay


def take_turns(arms: Mapping[str, Arm], device: torch.device, turns: int) -> None:
    """One walk of each arm untimed, then `turns` rounds of one timed walk each."""
    for arm in arms.values():
        arm.walk()
    for _ in range(turns):
        for arm in arms.values():
            arm.seconds.append(walk_seconds(arm.walk, device) / arm.calls)


def walk_seconds(walk: Callable[[], object], device: torch.device) -> float:
    """Seconds of one walk, on the device."""
    if device.type != "cuda":
        start = time.perf_counter()
        walk()
        return time.perf_counter() - start
    cuda: Any = torch.cuda
    first, last = (cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    walk()
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last)) / 1e3


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the turns' ratios."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def copies(bytes_moved: int, device: torch.device) -> int:
    """Sets of inputs a walk needs so that none of them is still in a cache when its turn comes again."""
    return max(1, min(MOST_COPIES[device.type], -(-CACHES * largest_cache(device) // max(1, bytes_moved))))


def largest_cache(device: torch.device) -> int:
    """Bytes of the device's last cache before its memory; 32 MiB where nobody says."""
    if device.type == "cuda":
        return int(getattr(torch.cuda.get_device_properties(device), "L2_cache_size", 0)) or _CACHE_UNKNOWN
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    units = {"K": 2**10, "M": 2**20}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1] in units), default=_CACHE_UNKNOWN)
