"""Do the off-policy estimators say what a policy would have brought? Against the laboratory's truth, and against OBP.

Every log is drawn anew in a world whose apply probabilities and examination curve are known: visitors, slates by the
logging policy with its logged propensities, responses by the world's own code. The target is another policy, whose
true applications a visit are computed from the truth. Over many logs of several worlds: `bias_*` (mean error over the
truth), `spread_*` (half the interval's width over the truth), `coverage_*` (share of 95% intervals with the truth).

    slot      first slot alone: the contextual bandit            target: draws by another score
    cascade   first three slots, weights multiply                target: the same
    slate     first three slots, all their weights multiply      target: the same
    ordered   all twelve, position-based                         target: always the best twelve of a better score
    trust     ordered again, in worlds whose first positions also persuade, which the position-based model lacks:
              bias it leaves, with the true examination curve and with the one estimated from the log's clicks

`coverage` is the mean over slot, cascade and ordered, with `coverage_min` and `coverage_max` beside it.

    python tests/bench/ope.py --oracles .oracles/bin/python    # a Python with obp and seaborn; without: no obp_error
    python tests/bench/ope.py --quick                          # shows that it works, nothing more
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from harness import ROOT, finish

sys.path.insert(0, str(ROOT / "infra" / "import_root"))

if TYPE_CHECKING:
    from ope_lab import Day, Log

    from rolecall.pipelines.evaluation.counterfactual import Estimate

NAME = "ope"
SLOTS, FIRST = 12, 3
COUNTED = ("slot", "cascade", "ordered")
EVERY = ("ips", "snips", "dr", "sndr", "switch_dr")
GOALS = {
    "coverage": (">=", 0.93),
    "coverage_max": ("<=", 0.97),
    "coverage_min": (">=", 0.93),
    "obp_error": ("<=", 1e-6),
}
Answers = dict[str, list[tuple[float, float, float, float]]]
"""By case: truth, estimate, low and high of every log."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is simulated. `people`: visitors a log."""

    worlds: int
    logs: int
    people: int
    candidates: int
    jobs: int


QUICK = Size(worlds=1, logs=6, people=80, candidates=600, jobs=400)


class Judged:
    """A world's day, its targets and what they are really worth."""

    def __init__(self, seed: int, size: Size, *, trust: bool) -> None:
        from ope_lab import Day

        from rolecall.pipelines.market import MarketConfig, World
        from rolecall.pipelines.market.config import Choice

        config = MarketConfig(
            jobs=size.jobs, candidates=size.candidates, employers=150, occupations=100, days=14, seed=seed,
            requests_per_candidate=10, slots=SLOTS, choice=Choice() if trust else Choice(trust=0.0),
        )  # fmt: skip
        self.day: Day = Day(World(config), 10)
        better = self.day.score + 0.5 * self.day.utility
        self.best = self.day.greedy(better)
        self.exposure = self.day.exposure(self.best)
        self.other = np.asarray(0.9 * self.day.score + 0.2 * self.day.utility, np.float64)
        self.appeal = self.day.appeal(seed + 1_000_000, 4 * size.people)
        self.greedy_value = self.day.value(self.best)

    def position_based(self, log: Log, names: tuple[str, ...], curve: np.ndarray) -> dict[str, Estimate]:
        from rolecall.pipelines.evaluation import counterfactual as ope

        rows, seen = log.rows, self.day.looked_at
        exposure = np.take_along_axis(self.exposure[rows], log.shown, axis=1)
        if curve is not seen:  # the same places under another curve
            place = np.searchsorted(-seen, -exposure)
            exposure = np.where(exposure > 0, curve[np.minimum(place, SLOTS - 1)], 0.0)
        model = np.take_along_axis(self.appeal[rows], log.shown, axis=1)
        value = (np.take_along_axis(self.appeal[rows], self.best[rows], axis=1) * curve).sum(axis=1)
        sample = ope.ordered(log.logged, exposure, curve, appeal=model, value=value)
        return {name: getattr(ope, name)(sample) for name in names}

    def drawn(self, log: Log) -> Iterator[tuple[str, dict[str, Estimate]]]:
        from ope_lab import conditional

        from rolecall.pipelines.evaluation import counterfactual as ope
        from rolecall.pipelines.evaluation.counterfactual.estimators import default_limit

        rows, shown = log.rows, log.shown[:, :FIRST]
        model, seen = self.appeal[rows], self.day.looked_at[:FIRST]
        target, expected = conditional(self.other[rows], self.day.open[rows], shown, model)
        predicted = np.take_along_axis(model, shown, axis=1) * seen
        for case, slots in (("slot", 1), ("cascade", FIRST)):
            logged, first = log.logged.first(slots), slice(0, slots)
            sample = ope.sequential(
                logged, target[:, first], predicted=predicted[:, first], expected=(expected * seen)[:, first]
            )
            found = {name: getattr(ope, name)(sample) for name in EVERY}
            yield case, found | {"ips_clipped": ope.ips(sample, limit=default_limit(sample))}
        yield "slate", {"ips": ope.ips(ope.sequential(log.logged.first(FIRST), target, reach="slate"))}


def world_answers(seed: int, size: Size) -> tuple[Answers, dict[str, list[float]]]:
    """All cases in one world, log after log; and effective sizes by case."""
    from rolecall.pipelines.evaluation.counterfactual import examination_from

    plain, trusting = Judged(seed, size, trust=False), Judged(seed, size, trust=True)
    curve = plain.day.looked_at
    drawn_values = trusting.day.drawn_values(trusting.other, FIRST, seed)
    answers: Answers = defaultdict(list)
    sizes: dict[str, list[float]] = defaultdict(list)

    def keep(case: str, truth: float, found: dict[str, Estimate]) -> None:
        for estimator, estimate in found.items():
            kept = estimate.interval
            answers[f"{case}_{estimator}"].append((truth, kept.mean, kept.low, kept.high))
            sizes[f"{case}_{estimator}"].append(estimate.support.effective)

    for number in range(size.logs):
        log = trusting.day.log(10_000_019 * (seed + 1) + number, size.people)
        for case, estimates in trusting.drawn(log):
            keep(case, drawn_values[0 if case == "slot" else -1], estimates)
        keep("trust", trusting.greedy_value, trusting.position_based(log, ("snips",), curve))
        place = np.take_along_axis(trusting.exposure[log.rows], log.shown, axis=1)
        fitted = examination_from(log.clicks, place)
        keep("trust_fitted", trusting.greedy_value, trusting.position_based(log, ("snips",), fitted))
        log = plain.day.log(20_000_003 * (seed + 1) + number, size.people)
        keep("ordered", plain.greedy_value, plain.position_based(log, EVERY, curve))
        brought = float(log.applied.sum(axis=1).mean())
        answers["unweighted"].append((plain.greedy_value, brought, np.nan, np.nan))
    return dict(answers), dict(sizes)


def figures(found: list[tuple[Answers, dict[str, list[float]]]]) -> dict[str, float]:
    """Bias, spread and coverage of every case, all worlds together."""
    out: dict[str, float] = {}
    for case in found[0][0]:
        truth, mean, low, high = np.concatenate([np.array(answers[case]) for answers, _ in found]).T
        out[f"bias_{case}"] = float((mean / truth - 1).mean())
        out[f"bias_{case}_error"] = float((mean / truth - 1).std() / np.sqrt(len(truth)))
        if case != "unweighted":
            out[f"spread_{case}"] = float(((high - low) / 2 / truth).mean())
            out[f"coverage_{case}"] = float(((low <= truth) & (truth <= high)).mean())
            out[f"effective_{case}"] = float(np.mean([np.mean(sizes[case]) for _, sizes in found]))
    counted = [value for key, value in out.items() if _counted(key)]
    out |= {"coverage": float(np.mean(counted)), "coverage_min": min(counted), "coverage_max": max(counted)}
    return out


def _counted(key: str) -> bool:
    kind, _, case = key.partition("_")
    return kind == "coverage" and case.partition("_")[0] in COUNTED


def obp_error(python: Path, seed: int, visits: int) -> float:
    """Largest relative difference between our estimates and OBP's on one random log."""
    script = Path(__file__).with_name("ope_oracle.py")
    command = [str(python), str(script), "--seed", str(seed), "--visits", str(visits)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"{python} cannot answer: {done.stderr[-1000:]}")
        sys.exit(2)
    theirs = json.loads(done.stdout.splitlines()[-1])["answers"]
    ours = our_answers(seed, visits)
    for name, value in theirs.items():
        print(f"obp {name:<12} {value:.12f}   ours {ours[name]:.12f}")
    return max(abs(ours[name] - value) / abs(value) for name, value in theirs.items())


def our_answers(seed: int, visits: int) -> dict[str, float]:
    """What our estimators say of the log that `ope_oracle.py` asks OBP about."""
    from ope_oracle import LIMIT, inputs

    from rolecall.pipelines.evaluation import counterfactual as ope

    log, rows = inputs(seed, visits), np.arange(visits)
    single = ope.Logged(propensity=log["action_logging"][:, None], reward=log["reward"][:, None], cluster=rows)
    sample = ope.sequential(
        single,
        log["action_target"][:, None],
        predicted=log["model"][rows, log["action"]][:, None],
        expected=(log["target"] * log["model"]).sum(axis=1, keepdims=True),
    )
    slates = ope.Logged(propensity=log["slate_logging"], reward=log["slate_reward"], cluster=rows)
    reaches: tuple[ope.weights.Reach, ...] = ("slate", "slot", "cascade")
    return {
        "ips": ope.ips(sample).mean,
        "ips_clipped": ope.ips(sample, limit=LIMIT).mean,
        "snips": ope.snips(sample).mean,
        "dr": ope.dr(sample).mean,
        "sndr": ope.sndr(sample).mean,
        "switch_dr": ope.switch_dr(sample, limit=LIMIT).mean,
        **{reach: ope.ips(ope.sequential(slates, log["slate_target"], reach=reach)).mean for reach in reaches},
    }


def simulated(size: Size, seeds: list[int], parallel: int) -> Iterator[tuple[Answers, dict[str, list[float]]]]:
    if parallel == 1:
        yield from (world_answers(seed, size) for seed in seeds)
        return
    with ProcessPoolExecutor(parallel) as processes:
        yield from processes.map(world_answers, seeds, [size] * len(seeds))


def print_cases(metrics: dict[str, float]) -> None:
    print(f"{'':<22} {'bias':>8} {'+-':>7} {'spread':>7} {'coverage':>9} {'effective':>10}")
    for key in metrics:
        kind, _, case = key.partition("_")
        if kind == "coverage" and f"bias_{case}" in metrics:
            bias, error = metrics[f"bias_{case}"], metrics[f"bias_{case}_error"]
            print(
                f"{case:<22} {bias:>+8.2%} {1.96 * error:>7.2%} {metrics[f'spread_{case}']:>7.1%} "
                f"{metrics[key]:>9.3f} {metrics[f'effective_{case}']:>10.0f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oracles", type=Path, help="a Python with obp 0.4.1")
    parser.add_argument("--worlds", type=int, default=6)
    parser.add_argument("--logs", type=int, default=200, help="logs a world")
    parser.add_argument("--people", type=int, default=700, help="visitors a log")
    parser.add_argument("--parallel", type=int, default=2, help="worlds at a time")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    size = Size(worlds=given.worlds, logs=given.logs, people=given.people, candidates=5000, jobs=3000)
    size = QUICK if given.quick else size
    started = time.monotonic()
    error = {} if given.oracles is None else {"obp_error": obp_error(given.oracles, 7, 200 if given.quick else 5000)}
    found = []
    for one in simulated(size, list(range(1, size.worlds + 1)), 1 if given.quick else given.parallel):
        found.append(one)
        metrics = figures(found)
        print(f"worlds: {len(found)}")
        print_cases(metrics)
    metrics = error | metrics | {"logs": float(size.worlds * size.logs), "minutes": (time.monotonic() - started) / 60}
    finish(NAME, metrics, goals={} if given.quick else {k: v for k, v in GOALS.items() if k in metrics})


if __name__ == "__main__":
    main()
