"""Achieved beside possible: an operator's time at a shape against the least its device could take for it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rolecall.kernels import stopwatch
from rolecall.kernels.case import Case, Scale, scale_of
from rolecall.kernels.cases import OPERATORS, cases
from rolecall.kernels.roofline import Roofline


@dataclass(frozen=True, kw_only=True)
class Measured:
    """`seconds` of a call (median), `limit` the least possible, `bound` by which rate.

    `achieved` and `possible` are in `unit`: GB/s where a bandwidth is the limit, Gop/s where arithmetic is.
    """

    op: str
    shape: str
    seconds: float
    limit: float
    bound: str
    achieved: float
    possible: float
    unit: str
    captured: bool

    @property
    def percent(self) -> float:
        """Share of the limit reached."""
        return 100 * self.limit / self.seconds


def judged(case: Case, arm: stopwatch.Arm, roofline: Roofline) -> Measured:
    """What an arm that was timed came to."""
    limit = roofline.limit(case.work)
    arithmetic = next((count for kind, count in case.work.operations.items() if kind == limit.rate), 0)
    amount = arithmetic or case.work.bytes
    return Measured(
        op=case.op,
        shape=case.shape,
        seconds=arm.median,
        limit=limit.seconds,
        bound=limit.rate,
        achieved=amount / arm.median / 1e9,
        possible=amount / limit.seconds / 1e9 if limit.seconds else 0.0,
        unit="Gop/s" if arithmetic else "GB/s",
        captured=arm.captured,
    )


def prepared(case: Case, device: torch.device) -> list[Any]:
    """As many sets of inputs as a walk from memory needs."""
    return [case.inputs(seed) for seed in range(stopwatch.copies(case.work.bytes, device))]


def ours(case: Case, inputs: Sequence[Any], device: torch.device, backend: str | None = None) -> stopwatch.Arm:
    """The operator itself on these inputs, one after another."""
    return stopwatch.arm_of([partial(case.run, i, backend) for i in inputs], device, graph=not case.waits)


def measure(
    device: torch.device,
    roofline: Roofline,
    *,
    operators: Sequence[str] = OPERATORS,
    scale: Scale | None = None,
    turns: int = 5,
) -> Iterator[Measured]:
    """Every case of the operators on the device, one after another, at the device's own scale unless one is given.

    Raises ValueError for an unknown operator.
    """
    chosen = [case for op in operators for case in cases(op, scale or scale_of(device), device)]
    with torch.inference_mode():
        for case in chosen:
            arm = ours(case, prepared(case, device), device)
            stopwatch.take_turns({case.op: arm}, device, turns)
            yield judged(case, arm, roofline)


def close(got: Any, expected: Any, *, tolerance: float) -> bool:
    """Whether two results' first tensors agree: |got - expected| at most `tolerance` of the largest expected."""
    a, b = first_tensor(got).float(), first_tensor(expected).float()
    if a.numel() != b.numel():
        return False
    return not b.numel() or bool((a.flatten() - b.flatten()).abs().max() <= tolerance * b.abs().max())


def first_tensor(result: Any) -> Tensor:
    """The tensor that a result is, or the first it holds."""
    if isinstance(result, Tensor):
        return result
    return first_tensor(next(iter(vars(result).values())) if hasattr(result, "__dict__") else result[0])
