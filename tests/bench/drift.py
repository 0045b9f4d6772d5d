"""Is the drift measure quiet on quiet days, and does it see what went wrong? Over simulated daily runs.

Twenty made-up marketplaces of different seeds, each with a log of some ten weeks; in each of them five days, six days
apart, are judged as the daily run judges them: every column of every view, of the live jobs, the new postings, what
candidates did that day and all the columns that the fine ranker read at its requests. Nothing was planted, so any alarm
is a false one: `false_alarm` is the share of the runs with at least one, over all features together, and
`false_alarm_high` the upper end of its 95% interval (Clopper and Pearson 1934).

Then the newest day's tables are spoilt, one way at a time, and judged by the same run: `detection` is the share of the
planted shifts of the five kinds that raise an alarm, `detected_*` that of each kind. Told beside them, and in no goal:
a change of unit in the new postings of one day alone, and applications logged twice (some fifty a day).

    python tests/bench/drift.py              # some fifteen minutes on two cores
    python tests/bench/drift.py --worlds 2   # shows that it works, nothing more
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ROOT, finish

if TYPE_CHECKING:
    from rolecall.pipelines.drift.measure import DriftReport

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "POLARS_MAX_THREADS"):
    os.environ.setdefault(name, "1")
sys.path[:0] = [str(Path(__file__).parent), str(ROOT / "infra" / "import_root")]

NAME = "drift"
GOALS = {"false_alarm": ("<=", 0.05), "detection": (">=", 0.95)}
KINDS = ("another_unit", "dropped_column", "country_gone", "doubled_rate", "half_of_the_people")
BESIDE = ("another_unit_for_new_jobs", "doubled_applies")


@dataclass(frozen=True, kw_only=True)
class Night:
    """One world's runs: the columns that raised an alarm on each quiet run and after each planted shift, and how high
    the quiet days stood."""

    seed: int
    quiet: tuple[tuple[str, ...], ...]
    planted: dict[str, tuple[str, ...]]
    heights: tuple[float, ...]
    columns: int
    seconds: float


def live(seed: int, runs: int) -> Night:
    """One world, all its runs."""
    import drift_worlds as worlds

    started = time.monotonic()
    world = worlds.CountedWorld(worlds.Shape(runs=runs), seed)
    quiet = [world.run(number) for number in range(runs)]
    planted = {kind: world.planted(getattr(worlds, kind)) for kind in (*KINDS, *BESIDE)}
    return Night(
        seed=seed,
        quiet=tuple(_alarms(report) for report in quiet),
        planted={kind: _alarms(report) for kind, report in planted.items()},
        heights=tuple(report.largest for report in quiet),
        columns=len(quiet[0].shifts),
        seconds=time.monotonic() - started,
    )


def _alarms(report: DriftReport) -> tuple[str, ...]:
    return (*(f"{one.source}:{one.column}" for one in report.alarms), *(f"{one.source}:rows" for one in report.lost))


def upper(alarms: int, runs: int) -> float:
    """Upper end of the two-sided 95% interval of a share."""
    from scipy.stats import beta

    return 1.0 if alarms == runs else float(beta.ppf(0.975, alarms + 1, runs - alarms))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--worlds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=5, help="days judged in each world")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--first", type=int, default=1, help="seed of the first world")
    given = parser.parse_args()
    nights = []
    with ProcessPoolExecutor(given.workers) as pool:
        seeds = range(given.first, given.first + given.worlds)
        for night in pool.map(live, seeds, [given.runs] * given.worlds):
            nights.append(night)
            tops = " ".join(f"{height:.2f}" for height in night.heights)
            false = [alarm for run in night.quiet for alarm in run]
            missed = [kind for kind, alarms in night.planted.items() if not alarms]
            print(
                f"world {night.seed}: {night.columns} columns, quiet days at {tops} of the threshold, "
                f"false alarms {false or 'none'}, not seen {missed or 'none'} ({night.seconds:.0f} s)",
                flush=True,
            )
    runs = [run for night in nights for run in night.quiet]
    alarms = sum(bool(run) for run in runs)
    seen = {kind: sum(bool(night.planted[kind]) for night in nights) / len(nights) for kind in (*KINDS, *BESIDE)}
    metrics = {
        "runs": float(len(runs)),
        "columns": float(nights[0].columns),
        "false_alarm": alarms / len(runs),
        "false_alarm_high": upper(alarms, len(runs)),
        "detection": sum(seen[kind] for kind in KINDS) / len(KINDS),
        **{f"detected_{kind}": share for kind, share in seen.items()},
        "highest_quiet": max(height for night in nights for height in night.heights),
    }
    finish(NAME, metrics, goals=GOALS)


if __name__ == "__main__":
    main()
