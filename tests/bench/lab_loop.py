"""Does learning every day bring applications? Days of a closed loop in worlds whose truth is known.

In each world the same candidates come at the same times to every arm, with the same luck: the product retrained by the
daily run every night; its release of the first night, frozen; the frozen rankers over each night's new postings and
features; TF-IDF over titles, skills, texts and places, refitted every night; the postings most applied to. Each arm
lives in a home of its own and learns from nothing but what it showed itself and the log before the first day.

Figures are ratios of applications, of the candidates who came, paired between arms and pooled over the seeds; each is
the LOWER end of its 95% bootstrap interval over candidates.

    python tests/bench/lab_loop.py                       # 14 days, two seeds, one process a seed
    python tests/bench/lab_loop.py --quick               # 3 days of a tiny world: shows that it works, nothing more
    python tests/bench/lab_loop.py --home FOLDER         # keeps what it made; killed, it goes on where it was
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from harness import ROOT, finish

if TYPE_CHECKING:
    from rolecall.pipelines.lab.config import LabConfig
    from rolecall.pipelines.lab.outcome import Outcome

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")  # one process a core: threads of two processes only wait for each other
sys.path.insert(0, str(ROOT / "infra" / "import_root"))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [sys.path[0], os.environ.get("PYTHONPATH")]))

NAME = "lab_loop"
GOALS = {"applications_vs_tfidf_x": (">=", 1.0), "applications_vs_frozen_x": (">=", 1.0)}


def lab_config(given: argparse.Namespace) -> LabConfig:
    """The loop's size."""
    from rolecall.pipelines.lab.config import COMPARED, LabConfig
    from rolecall.pipelines.market.config import named

    if given.quick:
        market = named("small", jobs=300, candidates=150, employers=30, occupations=20, days=7)
        return LabConfig(market=market, days=3, seeds=(7,), training_requests=300, rounds=20)
    market = named(
        "small", jobs=1200, candidates=600, employers=120, occupations=60, days=14, requests_per_candidate=8.0
    )
    return LabConfig(
        market=market,
        days=given.days,
        seeds=tuple(given.seeds),
        arms=(*COMPARED, *(["oracle"] if given.oracle else [])),
    )


def measured(config: LabConfig, outcomes: list[list[Outcome]], seconds: float) -> dict[str, float]:
    """The bench's figures: lower ends of the ratios, then the ratios and rates themselves."""
    from rolecall.pipelines.lab.outcome import compare, pool

    gaps = compare(outcomes, ours=config.arms[0])
    figures = {f"applications_vs_{arm}_x": gap.low for arm, gap in gaps.items()}
    figures |= {f"applications_vs_{arm}_mean": gap.mean for arm, gap in gaps.items()}
    figures |= {f"applications_vs_{arm}_high": gap.high for arm, gap in gaps.items()}
    for arm, counts in pool(outcomes).items():
        came = counts["visits"] > 0
        figures[f"{arm}_applications"] = float(counts["applications"][came].mean())
    figures["candidates"] = float(sum((one[0].counts["visits"] > 0).sum() for one in outcomes))
    figures["visits"] = float(sum(one[0].total("visits") for one in outcomes))
    figures["minutes"] = seconds / 60
    figures["peak_rss_gb"] = max(map(_peak_gb, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))
    return figures


def _peak_gb(who: int) -> float:
    return resource.getrusage(who).ru_maxrss / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="3 days of a tiny world, one seed")
    parser.add_argument("--days", type=int, default=14)
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8])
    parser.add_argument("--oracle", action="store_true", help="also the upper bound that knows the truth")
    parser.add_argument("--parallel", type=int, default=2, help="seeds at a time")
    parser.add_argument("--home", type=Path, help="where homes and releases go (default: a temporary folder)")
    given = parser.parse_args()
    from rolecall.pipelines.lab.commands import print_outcomes
    from rolecall.pipelines.lab.simulate import simulate
    from rolecall.platform.settings import load_settings

    config = lab_config(given)
    with tempfile.TemporaryDirectory(prefix="rcl") as scratch:
        settings = load_settings(environ={"ROLECALL_HOME": str((given.home or Path(scratch)).absolute())})
        started = time.monotonic()
        outcomes = simulate(config, settings, parallel=given.parallel, say=lambda line: print(line, flush=True))
        figures = measured(config, outcomes, time.monotonic() - started)
    print_outcomes(config, outcomes)
    finish(NAME, figures, goals={} if given.quick else GOALS)


if __name__ == "__main__":
    main()
