"""`kernels_gpu.py --tune`: tries configurations around an operator's own and proposes the fastest.

Block sizes halved and doubled, warps and stages varied, one operator and shape class at a time; a candidate that does
not compile, or gives another result, is passed over. Proposals that gain 3% or more are written as lines of the table
in kernels/configurations.py, with their figures, to tests/bench/results/kernels_gpu_tuning.json; nobody changes the
table but a person who has read them.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from harness import ROOT, commit, machine

from rolecall.kernels import configurations, measured, stopwatch
from rolecall.kernels.case import Case, scale_of
from rolecall.kernels.cases import OPERATORS, cases
from rolecall.kernels.configurations import Configuration, Table, blocks

RESULT = ROOT / "tests" / "bench" / "results" / "kernels_gpu_tuning.json"
GAIN = 1.03
WARPS = (1, 2, 4, 8, 16)
STAGES = (1, 2, 3, 4)
SMALLEST, LARGEST = 1, 65_536
TOLERANCE = 0.03
FIXED = ("ROWS", "BAND")  # follow from the other sizes, or hardly matter


def tune(device: torch.device, operators: Sequence[str], *, turns: int, dry: bool) -> list[dict[str, Any]]:
    """Propose for each operator and write the proposals; `dry` tries the motions on the CPU and writes nothing."""
    found: list[dict[str, Any]] = []
    for op in (op for op in operators if op in OPERATORS):
        for case in cases(op, "tiny" if dry else scale_of(device), device):
            found += propose(case, device, turns=1 if dry else turns, most=2 if dry else 200)
    for one in found:
        print(f"{one['key']}: {one['gain_x']:.2f}x with {one['configuration']}")
    if not dry:
        RESULT.parent.mkdir(parents=True, exist_ok=True)
        RESULT.write_text(json.dumps({"commit": commit(), "machine": machine(), "proposals": found}, indent=1) + "\n")
    return found


def propose(case: Case, device: torch.device, *, turns: int, most: int) -> list[dict[str, Any]]:
    """The best configuration of each look-up the case makes, where it gains enough."""
    inputs = measured.prepared(case, device) if device.type == "cuda" else [case.inputs(0)]
    with watched() as watching:
        expected = measured.first_tensor(case.run(inputs[0], None)).clone()
    found = []
    for key, default in watching.asked.items():
        best, gain = default, 1.0
        for candidate in itertools.islice(candidates(default), most):
            gained = _gain(case, inputs, device, key, candidate, expected, turns)
            if gained > gain:
                best, gain = candidate, gained
        if gain >= GAIN:
            found.append({"key": list(key), "shape": case.shape, "gain_x": gain, "configuration": line(best)})
    return found


def candidates(default: Configuration) -> Iterator[Configuration]:
    """Sizes halved, kept and doubled, by warps, by stages."""
    names = [name for name in default.blocks if name not in FIXED]
    choices = [
        [
            size
            for size in (default.blocks[name] // 2, default.blocks[name], default.blocks[name] * 2)
            if size >= SMALLEST
        ]
        for name in names
    ]
    for sizes in itertools.product(*choices):
        if max(sizes, default=1) <= LARGEST:
            for warps, stages in itertools.product(WARPS, STAGES):
                chosen = {**default.blocks, **dict(zip(names, sizes, strict=True))}
                yield replace(default, blocks=blocks(**chosen), warps=warps, stages=stages, tuned=True)


class Watching(Table):
    """The table, with `tried` in place of some entries; `asked`: what was looked up, and what the answer was."""

    def __init__(self, table: Table, tried: Mapping[tuple[str, str], Configuration]) -> None:
        super().__init__(table.entries)
        self.tried = tried
        self.asked: dict[tuple[str, str], Configuration] = {}

    def entry(self, op: str, shape: str, device: str, default: Configuration) -> Configuration:
        found = self.tried.get((op, shape)) or super().entry(op, shape, device, default)
        self.asked[op, shape] = found
        return found


@contextmanager
def watched(tried: Mapping[tuple[str, str], Configuration] | None = None) -> Iterator[Watching]:
    """The look-ups made meanwhile; some of them answered otherwise."""
    before = configurations.TABLE
    watching = Watching(before, tried or {})
    configurations.TABLE = watching
    try:
        yield watching
    finally:
        configurations.TABLE = before


def _gain(
    case: Case,
    inputs: list[Any],
    device: torch.device,
    key: tuple[str, str],
    candidate: Configuration,
    expected: torch.Tensor,
    turns: int,
) -> float:
    """How many times faster than now; 0 where the candidate cannot run or gives something else."""
    try:
        with watched({key: candidate}):
            if not measured.close(case.run(inputs[0], None), expected, tolerance=TOLERANCE):
                return 0.0
            arm = measured.ours(case, inputs, device)
    except Exception:  # noqa: BLE001 (a candidate may fail in as many ways as a compiler has)
        return 0.0
    arms = {"now": measured.ours(case, inputs, device), "candidate": arm}
    stopwatch.take_turns(arms, device, max(3, turns // 4))
    return stopwatch.ratio(arms["now"].seconds, arms["candidate"].seconds)


def line(configuration: Configuration) -> str:
    """The configuration as the table writes it."""
    sizes = ", ".join(f"{name}={size}" for name, size in configuration.blocks.items())
    return (
        f"Configuration(blocks=blocks({sizes}), warps={configuration.warps}, stages={configuration.stages}, tuned=True)"
    )
