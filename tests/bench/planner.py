"""The planner's predictions against runs: sizes it proposes for three budgets, each then run on this machine.

`planner_<budget>_predicted_ms`, `_measured_ms`, and `planner_worst_x`: the largest factor, either way, between the two.
Costs are calibrated once, on other sizes than those proposed; a proposal's run is the median of its turns.

    python tests/bench/planner.py
    python tests/bench/planner.py --threads 1 --turns 9
"""

from __future__ import annotations

import argparse
import sys

import torch
from harness import ROOT, finish

sys.path.insert(0, str(ROOT / "infra" / "import_root"))

from rolecall.kernels import planner, roofline
from rolecall.kernels.case import working_dtype
from rolecall.kernels.planner import Budget

BUDGETS = {
    "small": Budget(items=1_000, memory=10**7, seconds=0.005),
    "middle": Budget(items=10_000, memory=10**8, seconds=0.1),
    "large": Budget(items=50_000, memory=10**9, seconds=1.0),
}
GOALS = {"planner_worst_x": ("<=", 2.0)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    costs = planner.calibrate(device, roofline.measure(device), working_dtype(device), turns=options.turns)
    metrics, worst = {}, 1.0
    for name, budget in BUDGETS.items():
        found = planner.propose(budget, costs, count=1)
        if not found:
            print(f"{name}: nothing fits {budget}")
            continue
        (best,) = found
        measured = planner.run_seconds(best.sizes, budget.items, costs.dtype, device, turns=options.turns)
        print(f"{name}: {best.sizes}, {best.bytes / 1e6:,.1f} MB")
        metrics[f"planner_{name}_predicted_ms"] = best.seconds * 1e3
        metrics[f"planner_{name}_measured_ms"] = measured * 1e3
        worst = max(worst, best.seconds / measured, measured / best.seconds)
    if not metrics:
        sys.exit("no budget was met by any sizes")
    finish("planner", {**metrics, "planner_worst_x": worst}, goals=GOALS)


if __name__ == "__main__":
    main()
