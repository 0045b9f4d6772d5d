"""Sizes of a Mixture-of-Logits that a device can afford, and what they will cost, from figures measured on it.

A few small forwards are timed and their times explained by what they do:

    seconds = fixed + bytes * a + products * b + steps * c         (a, b, c, fixed >= 0)

with bytes, products and pointwise steps from `intensity.mixture_of_logits`. With that, and never less than the
roofline's limit, the cost of any other sizes is predicted without running them. Among the sizes whose memory and time
fit a budget the planner prefers the most work a pair of query and item (P * width: what the mixture can express), then
the wider embedding, then the larger batch.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from rolecall.kernels import intensity, stopwatch
from rolecall.kernels.case_mixture import MixtureSizes, mixture, score
from rolecall.kernels.intensity import Work
from rolecall.kernels.roofline import Roofline

DIMENSIONS = (64, 128, 256, 384, 512, 768)
COMPONENTS = (1, 2, 4, 8, 16)
WIDTHS = (16, 32, 64, 128)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128)

# What is timed: cheap and dear in each of the terms.
PROBES = tuple(
    MixtureSizes(dimension=64, query_components=i, item_components=j, width=width, batch=batch)
    for i, j, width, batch in (
        (1, 1, 16, 1),
        (2, 2, 32, 1),
        (8, 4, 64, 1),
        (8, 8, 32, 2),
        (4, 4, 128, 4),
        (16, 4, 128, 1),
        (16, 8, 64, 2),
        (16, 16, 128, 1),
        (2, 1, 128, 16),
        (2, 2, 16, 32),
    )
)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """`items` scored by each query, all in `memory` bytes of the device; `seconds` for a batch."""

    items: int
    memory: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Costs:
    """What a forward costs on the device: seconds at all, a byte, an operation of a product, a pointwise step."""

    fixed: float
    byte: float
    product: float
    step: float
    dtype: torch.dtype
    roofline: Roofline

    def seconds(self, sizes: MixtureSizes, items: int) -> float:
        """Predicted for a batch that scores `items`."""
        work = work_of(sizes, items, self.dtype)
        amounts = _amounts(work, sizes, items)
        told = sum(a * b for a, b in zip(amounts, (self.fixed, self.byte, self.product, self.step), strict=True))
        return max(told, self.roofline.limit(work).seconds)


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """Sizes, and what they are predicted to take."""

    sizes: MixtureSizes
    seconds: float
    bytes: int

    @property
    def queries_per_second(self) -> float:
        """One batch after another."""
        return self.sizes.batch / self.seconds


def work_of(sizes: MixtureSizes, items: int, dtype: torch.dtype) -> Work:
    """Bytes and operations of one batch."""
    pair = (sizes.query_components, sizes.item_components)
    return intensity.mixture_of_logits(sizes.batch, items, pair, sizes.width, dtype, hidden=sizes.hidden)


def memory_of(sizes: MixtureSizes, items: int, dtype: torch.dtype) -> int:
    """Bytes held: caches and raw embeddings of the items, a batch's queries and scores, the gate's layers."""
    work = work_of(sizes, items, dtype)
    return work.bytes + items * sizes.dimension * dtype.itemsize


def calibrate(
    device: torch.device,
    roofline: Roofline,
    dtype: torch.dtype,
    *,
    items: int = 4096,
    turns: int = 5,
    probes: Sequence[MixtureSizes] = PROBES,
) -> Costs:
    """Time the probes on the device, each on `items` and on a quarter of them, and fit the costs to the times."""
    runs = [(sizes, count) for sizes in probes for count in (items, max(1, items // 4))]
    seconds = [run_seconds(sizes, count, dtype, device, turns=turns) for sizes, count in runs]
    amounts = [_amounts(work_of(sizes, count, dtype), sizes, count) for sizes, count in runs]
    fixed, byte, product, step = fit(amounts, seconds)
    return Costs(fixed=fixed, byte=byte, product=product, step=step, dtype=dtype, roofline=roofline)


def run_seconds(sizes: MixtureSizes, items: int, dtype: torch.dtype, device: torch.device, *, turns: int = 5) -> float:
    """The median time of a forward at these sizes."""
    with torch.inference_mode():
        made = mixture(sizes, items, dtype, device)
        arm = stopwatch.arm_of([lambda: score(made)], device)
        stopwatch.take_turns({"mixture": arm}, device, turns)
    return arm.median


def fit(amounts: Sequence[Sequence[float]], seconds: Sequence[float]) -> tuple[float, ...]:
    """Non-negative costs of the amounts' terms with the least squared relative error; terms that would be negative go.

    amounts [runs, terms], seconds [runs], all seconds above 0.
    """
    told = torch.tensor(amounts, dtype=torch.float64) / torch.tensor(seconds, dtype=torch.float64)[:, None]
    kept = [term for term in range(told.shape[1]) if bool((told[:, term] > 0).any())]
    costs = [0.0] * told.shape[1]
    while kept:
        scale = told[:, kept].amax(dim=0)
        one = torch.ones(len(seconds), 1, dtype=torch.float64)
        found = torch.linalg.lstsq(told[:, kept] / scale, one, driver="gelsd").solution[:, 0] / scale
        if bool((found >= 0).all()):
            for term, cost in zip(kept, found.tolist(), strict=True):
                costs[term] = cost
            break
        kept.pop(int((found * scale).argmin()))
    return tuple(costs)


def propose(budget: Budget, costs: Costs, *, count: int = 5) -> list[Proposal]:
    """The best `count` of the sizes that fit, each with the largest batch that does; none where nothing fits."""
    fitting = [found for sizes in _grid() if (found := _largest_batch(sizes, budget, costs)) is not None]
    fitting.sort(key=lambda found: _rank(found.sizes), reverse=True)
    return fitting[:count]


def _grid() -> Iterator[MixtureSizes]:
    for dimension, i, j, width in itertools.product(DIMENSIONS, COMPONENTS, COMPONENTS, WIDTHS):
        if j * width <= 4 * dimension and i >= j:  # components say no more than what they are made from
            yield MixtureSizes(dimension=dimension, query_components=i, item_components=j, width=width, batch=1)


def _largest_batch(sizes: MixtureSizes, budget: Budget, costs: Costs) -> Proposal | None:
    best = None
    for batch in BATCHES:
        tried = replace(sizes, batch=batch)
        held, seconds = memory_of(tried, budget.items, costs.dtype), costs.seconds(tried, budget.items)
        if held > budget.memory or seconds > budget.seconds:
            break
        best = Proposal(sizes=tried, seconds=seconds, bytes=held)
    return best


def _rank(sizes: MixtureSizes) -> tuple[int, int, int]:
    return sizes.pairs * sizes.width, sizes.dimension, sizes.batch


def _amounts(work: Work, sizes: MixtureSizes, items: int) -> tuple[float, float, float, float]:
    steps = sizes.batch * items * (8 * sizes.hidden + 6 * sizes.pairs)
    products = sum(work.operations.values()) - steps
    return 1.0, float(work.bytes), float(products), float(steps)
