"""The whole path at several sizes: seconds, processor time and peak memory of each step, and how they grow.

    generate -> tables -> ingest ... promote (the daily run) -> load the release -> first recommendations

Every size runs in a home of its own that did not exist before, so no vector is cached, and in child processes of its
own: one builds, a second one loads the release and recommends, as a replica does. A thread here adds up the resident
memory of all processes below the child (what processes share counts once in each) and their processor time.

One candidate for ten jobs and one employer for 25, at every size; about 60 events a candidate, so everything but the
occupations (300) and cities (180) grows with the jobs. Descriptions and resumes have at most 12 words, and the embedder
reads 16 tokens of each text, which is about 12 words; all other settings are the defaults.

Growth of a step is the slope of log(seconds) over log(jobs), by least squares over all sizes: 1 is linear. It is given
for steps that take 2 seconds or more at the largest size. `worst_growth` is the largest; `tail` is the slope between
the two largest sizes alone, in which constant costs weigh less.

    python tests/bench/scale.py                            # 10,000, 30,000 and 100,000 jobs
    python tests/bench/scale.py --full                     # and a million
    python tests/bench/scale.py --sizes 2000,6000,20000    # a small run
    python tests/bench/scale.py --markdown                 # prints the rows of infra/SIZING.md too
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from harness import commit, finish, machine

SIZES, MILLION = (10_000, 30_000, 100_000), 1_000_000
LEAST_SECONDS = 2.0
SAMPLE_SECONDS = 0.2
GOAL = 1.15
PATH = Path(__file__).with_name("scale_path.py")


@dataclass(kw_only=True)
class Cost:
    """What one step needed. `peak`: bytes resident in all processes together."""

    seconds: float = 0.0
    cpu: float = 0.0
    peak: int = 0


@dataclass(kw_only=True)
class Measured:
    """One size: costs by step, in order, and what the child counted."""

    jobs: int
    steps: dict[str, Cost] = field(default_factory=dict)
    facts: dict[str, float] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        return max(cost.peak for cost in self.steps.values())


class Watch:
    """Adds up memory and processor time of a process and everything below it, on the step that runs."""

    def __init__(self, pid: int, measured: Measured) -> None:
        self._root = psutil.Process(pid)
        self._measured = measured
        self._spent: dict[tuple[int, float], float] = {}
        self._step, self._since, self._cpu = "", time.monotonic(), 0.0
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._sample_often, daemon=True)
        self._thread.start()

    def begin(self, step: str) -> None:
        """Close the step that ran, open the next."""
        with self._lock:
            self._sample()
            now, cpu = time.monotonic(), sum(self._spent.values())
            if self._step:
                cost = self._measured.steps[self._step]
                cost.seconds += now - self._since
                cost.cpu += cpu - self._cpu
            self._step, self._since, self._cpu = step, now, cpu
            if step:
                self._measured.steps.setdefault(step, Cost())
                self._sample()

    def end(self) -> None:
        self.begin("")
        self._ended.set()
        self._thread.join()

    def _sample_often(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            with self._lock:
                self._sample()

    def _sample(self) -> None:
        resident = 0
        for process in self._processes():
            try:
                with process.oneshot():
                    times, key = process.cpu_times(), (process.pid, process.create_time())
                    resident += process.memory_info().rss
            except psutil.Error:
                continue
            self._spent[key] = max(self._spent.get(key, 0.0), times.user + times.system)
        if self._step:
            cost = self._measured.steps[self._step]
            cost.peak = max(cost.peak, resident)

    def _processes(self) -> list[psutil.Process]:
        try:
            return [self._root, *self._root.children(recursive=True)]
        except psutil.Error:
            return []


def measure(jobs: int, scratch: Path) -> Measured:
    """The path at one size, in a fresh home."""
    measured = Measured(jobs=jobs)
    with tempfile.TemporaryDirectory(dir=scratch, prefix=f"rc-{jobs}-") as home:
        for what in ("build", "serve"):
            _child(what, jobs, Path(home) / "home", measured)
    print(f"{jobs:,} jobs: {sum(c.seconds for c in measured.steps.values()):.0f} s, {measured.peak / 1e9:.2f} GB")
    return measured


def _child(what: str, jobs: int, home: Path, measured: Measured) -> None:
    reader, writer = os.pipe()
    command = [sys.executable, str(PATH), what, str(jobs), str(home), str(writer)]
    with subprocess.Popen(command, pass_fds=[writer], stdout=sys.stderr) as process:
        os.close(writer)
        watch = Watch(process.pid, measured)
        with os.fdopen(reader, encoding="utf-8") as messages:
            for line in messages:
                message = json.loads(line)
                if "step" in message:
                    watch.begin(message["step"])
                measured.facts.update(message.get("facts", {}))
        watch.end()
    if process.returncode:
        sys.exit(f"{what} at {jobs:,} jobs failed with exit code {process.returncode}")


def slope(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Exponent of growth: least squares of log(cost) over log(size)."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(costs, 1e-3)), 1)[0])


def growth(runs: Sequence[Measured]) -> dict[str, dict[str, float]]:
    """Exponents of the steps that take long enough to tell: of seconds, of processor time, of the last two sizes."""
    sizes = [run.jobs for run in runs]
    found: dict[str, dict[str, float]] = {}
    for step, last in runs[-1].steps.items():
        if last.seconds < LEAST_SECONDS or len(runs) < 2:
            continue
        seconds, cpu = [r.steps[step].seconds for r in runs], [r.steps[step].cpu for r in runs]
        found[step] = {"seconds": slope(sizes, seconds), "cpu": slope(sizes, cpu), "tail": slope(sizes[-2:], cpu[-2:])}
    return found


def rows(runs: Sequence[Measured]) -> list[list[str]]:
    """A line a step: seconds (processor seconds) and peak GB at each size, then exponents."""
    exponents = growth(runs)
    table = [["step", *(f"{run.jobs:,} jobs" for run in runs), "growth", "of processor time", "of its tail"]]
    for step in runs[-1].steps:
        cells = [f"{c.seconds:.1f} s ({c.cpu:.1f}), {c.peak / 1e9:.2f} GB" for c in (run.steps[step] for run in runs)]
        grown = exponents.get(step)
        table.append([step, *cells, *((f"{v:.2f}" for v in grown.values()) if grown else ("", "", ""))])
    return table


def storage_rows(runs: Sequence[Measured]) -> list[list[str]]:
    """Bytes a job of each part and folder, at each size."""
    names = [name for name in runs[-1].facts if name.startswith("bytes.")]
    table = [["bytes a job", *(f"{run.jobs:,} jobs" for run in runs)]]
    for name in names:
        table.append([name.removeprefix("bytes."), *(f"{run.facts.get(name, 0) / run.jobs:,.0f}" for run in runs)])
    return table


def show(table: Sequence[Sequence[str]], *, markdown: bool) -> None:
    widths = [max(len(row[place]) for row in table) for place in range(len(table[0]))]
    for number, row in enumerate(table):
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        print(f"| {' | '.join(cells)} |" if markdown else "  ".join(cells).rstrip())
        if markdown and not number:
            print(f"|{'|'.join('---' for _ in row)}|")
    print()


def metrics(runs: Sequence[Measured]) -> dict[str, float]:
    exponents = growth(runs)
    told: dict[str, float] = defaultdict(float)
    for run in runs:
        told |= {f"{step}_s_{run.jobs}": round(cost.seconds, 2) for step, cost in run.steps.items()}
        told[f"total_s_{run.jobs}"] = round(sum(cost.seconds for cost in run.steps.values()), 1)
        told[f"replica_gb_{run.jobs}"] = run.steps["recommend"].peak / 1e9
        told[f"recommend_ms_{run.jobs}"] = 1e3 * run.steps["recommend"].seconds / 50
    told |= {f"growth_{step}": round(grown["seconds"], 3) for step, grown in exponents.items()}
    told |= {f"cpu_growth_{step}": round(grown["cpu"], 3) for step, grown in exponents.items()}
    if exponents:
        told["worst_growth"] = max(grown["seconds"] for grown in exponents.values())
        told["worst_cpu_growth"] = max(grown["cpu"] for grown in exponents.values())
    told["peak_rss_gb"] = max(run.peak for run in runs) / 1e9
    return {name: value for name, value in told.items() if math.isfinite(value)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", help="numbers of jobs, for example 2000,6000,20000")
    parser.add_argument("--full", action="store_true", help="a million jobs as well")
    parser.add_argument("--markdown", action="store_true", help="print the rows of infra/SIZING.md")
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()), help="where the homes lie")
    given = parser.parse_args()
    sizes = sorted(int(size) for size in given.sizes.split(",")) if given.sizes else [*SIZES]
    runs = [measure(jobs, given.scratch) for jobs in sizes + ([MILLION] if given.full else [])]
    print(f"\n{machine()}, commit {commit()}; seconds (processor seconds), peak memory of all processes\n")
    for table in (rows(runs), storage_rows(runs)):
        show(table, markdown=given.markdown)
    finish("scale", metrics(runs), goals={"worst_growth": ("<=", GOAL), "peak_rss_gb": ("<=", 6.0)})


if __name__ == "__main__":
    main()
