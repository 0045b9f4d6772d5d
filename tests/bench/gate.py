"""Does the gate promote what is better and nothing that is worse? Simulated nights through the real `judge_release`.

A night draws its targets from those measured by `gate_nights.py`: NDCG@10 of the champion, of the release retrained a
day later and of a worse one, and that of the baselines, target by target, with every slice they are in; and of the
impressions measured with them what each gave to what was shown. From these a challenger is made that is

- equal: each target's two values (champion, retrained) are exchanged by a coin, so both are the same in distribution;
- 3% worse: the same, and at a share of the targets it answers as the worse release did, as many as lose 3%;
- 3% better: the champion is the one that answers so.

A worse challenger meets an old champion, so that both doors are open to it, "better" and "equal". Every check of the
gate is asked but that of people for jobs; nothing is wrong with a challenger's size, schema, latency, names or leaks.

    python tests/bench/gate.py                      # 1,000 nights each
    python tests/bench/gate.py --nights 100         # quicker, coarser
    python tests/bench/gate.py --targets 500        # what a smaller board sees
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import polars as pl
from harness import ROOT, finish

if TYPE_CHECKING:
    from rolecall.pipelines.evaluation.gate.champion import Sensitivity
    from rolecall.pipelines.evaluation.impressions import ImpressionQuality
    from rolecall.pipelines.evaluation.judge import Evaluation
    from rolecall.pipelines.evaluation.targets import Target

sys.path.insert(0, str(ROOT / "infra" / "import_root"))

NAME = "gate"
GOALS = {"false_pass": ("<=", 0.01), "power_at_3pct": (">=", 0.8)}
FILE = Path(__file__).with_name("gate_targets.parquet")
IMPRESSIONS = Path(__file__).with_name("gate_impressions.parquet")
SYSTEMS = ("champion", "retrained", "worse")
EFFECT = 0.03
Values = npt.NDArray[np.float64]
_NO_BASELINES = ("target", "slice", *SYSTEMS)
Picks = npt.NDArray[np.int64]
"""Which system answers a target: its place in SYSTEMS."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Measured impressions, request by request: what each system gave, what came of it, whose they are."""

    given: list[Values]
    applied: list[npt.NDArray[np.bool_]]
    candidates: Picks

    @classmethod
    def read(cls, file: Path) -> Shown:
        requests = pl.read_parquet(file).partition_by("request", maintain_order=True)
        return cls(
            given=[one.select(SYSTEMS).to_numpy().astype(np.float64) for one in requests],
            applied=[one["applied"].to_numpy() for one in requests],
            candidates=np.array([one["candidate"][0] for one in requests], np.int64),
        )

    def quality(self, share_of_worse: float, random: np.random.Generator) -> ImpressionQuality:
        """Of as many requests drawn anew, each answered by champion or retrained, a share by the worse release."""
        from rolecall.pipelines.evaluation.impressions import impression_quality

        drawn = random.integers(0, len(self.given), len(self.given))
        picks = np.where(random.random(len(drawn)) < share_of_worse, 2, random.integers(0, 2, len(drawn)))
        return impression_quality(
            np.concatenate([self.given[one][:, pick] for one, pick in zip(drawn, picks, strict=True)]),
            np.concatenate([self.applied[one] for one in drawn]),
            np.repeat(self.candidates[drawn], [len(self.applied[one]) for one in drawn]),
        )


@dataclass(frozen=True, kw_only=True)
class Population:
    """Measured targets: `whole` float64[n, 3] and by slice the same, NaN outside of it; `baselines` float64[n] each."""

    whole: Values
    slices: dict[str, Values]
    baselines: dict[str, Values]
    shown: Shown

    @classmethod
    def read(cls, file: Path, impressions: Path) -> Population:
        rows = pl.read_parquet(file)
        count = int(rows["target"].max()) + 1  # type: ignore[arg-type]
        parts = {}
        for (name,), table in rows.partition_by("slice", as_dict=True).items():
            parts[str(name)] = np.full((count, len(SYSTEMS)), np.nan)
            parts[str(name)][table["target"].to_numpy()] = table.select(SYSTEMS).to_numpy()
        all_of = rows.filter(pl.col("slice") == "").sort("target")
        baselines = {name: all_of[name].to_numpy() for name in all_of.columns if name not in _NO_BASELINES}
        return cls(whole=parts.pop(""), slices=parts, baselines=baselines, shown=Shown.read(impressions))

    @property
    def mean(self) -> float:
        """Of champion and retrained, which are exchanged by a coin."""
        return float(self.whole[:, :2].mean())

    def share_of_worse(self, factor: float) -> float:
        """Share of targets that must be answered by the worse release for its answerer to have `factor` the mean."""
        share = (1 - factor) * self.mean / (self.mean - float(self.whole[:, 2].mean()))
        if not 0 <= share <= 1:
            sys.exit(f"the worse release of {FILE.name} is not bad enough: measure again with more labels permuted")
        return share

    def sensitivity(self, targets: int, factor: float = 1.0) -> Sensitivity:
        """Of a comparison of so many targets with a champion of `factor` the challenger's mean."""
        from rolecall.pipelines.evaluation.gate.champion import Sensitivity

        champion, retrained, worse = self.whole.T
        share, mean = self.share_of_worse(factor), factor * self.mean
        equal, unequal = (champion - retrained) ** 2, ((champion - worse) ** 2 + (retrained - worse) ** 2) / 2
        variance = float(((1 - share) * equal + share * unequal).mean()) - (self.mean - mean) ** 2
        return Sensitivity(targets=targets, champion_mean=mean, spread=variance**0.5 / mean, design=1.0)


def night(
    population: Population, kind: str, targets: int, random: np.random.Generator
) -> tuple[Evaluation, Evaluation]:
    """Challenger and champion of one night."""
    drawn = random.integers(0, len(population.whole), targets)
    ours = random.integers(0, 2, targets)
    theirs = 1 - ours
    if kind == "worse":
        ours = np.where(random.random(targets) < population.share_of_worse(1 - EFFECT), 2, ours)
    if kind == "better":
        theirs = np.where(random.random(targets) < population.share_of_worse(1 / (1 + EFFECT)), 2, theirs)
    shown = population.shown.quality(population.share_of_worse(1 - EFFECT) if kind == "worse" else 0.0, random)
    champion = evaluation(population, drawn, theirs)
    return replace(evaluation(population, drawn, ours), impressions=shown), champion


def evaluation(population: Population, drawn: Picks, picks: Picks) -> Evaluation:
    """What the judge would have made of these answers."""
    from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC, Evaluation

    answers = {FUNNEL: population.whole[drawn, picks]}
    answers |= {name: values[drawn] for name, values in population.baselines.items()}
    return Evaluation(
        targets=_targets(len(drawn)),
        systems={name: {MAIN_METRIC: values} for name, values in answers.items()},
        stages={},
        slices={name: values[drawn, picks] for name, values in population.slices.items()},
        milliseconds=np.full(len(drawn), 20.0),
    )


@lru_cache(maxsize=2)
def _targets(count: int) -> tuple[Target, ...]:
    from rolecall.pipelines.evaluation.targets import Target

    at = datetime(2026, 9, 1, tzinfo=UTC)
    return tuple(Target(candidate_id=f"c{place:06d}", at=at, job_ids=("j",), labels=(1,)) for place in range(count))


def simulate(
    population: Population, kind: str, *, nights: int, targets: int, old: bool
) -> tuple[Counter[str], Counter[str]]:
    """How often each outcome came, and how often each check refused. `old`: the champion's models are."""
    from rolecall.pipelines.evaluation.fairness import Fairness
    from rolecall.pipelines.evaluation.gate import judge_release
    from rolecall.pipelines.evaluation.gate.evidence import REFRESHED
    from rolecall.platform.gate_rules import GateRules

    rules = GateRules.model_validate({"statistics": {"bootstrap_rounds": 100}})  # intervals decide nothing
    outcomes, refused = Counter[str](), Counter[str]()
    for number in range(nights):
        random = np.random.default_rng([len(kind), targets, number])
        challenger, champion = night(population, kind, targets, random)
        verdict = judge_release(
            challenger,
            champion,
            rules=rules.changed(statistics={"seed": number}),
            size_bytes=1 << 20,
            champion_size_bytes=1 << 20,
            fairness=Fairness(swaps=100, changed=0),
            opponent=REFRESHED,
            served=champion,
            live_jobs=1000,
            champion_live_jobs=1000,
            champion_age_days=rules.champion.older_than_days + 1 if old else 1.0,
        )
        outcomes[verdict.outcome] += 1
        refused.update(check.name for check in verdict.checks if not check.ok)
    return outcomes, refused


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nights", type=int, default=1000)
    parser.add_argument("--targets", type=int, help="targets of a night (default: what 3%% needs, and a tenth more)")
    given = parser.parse_args()
    from rolecall.pipelines.evaluation.gate.power import power_words
    from rolecall.platform.gate_rules import GateRules

    rules, population = GateRules.model_validate({}), Population.read(FILE, IMPRESSIONS)
    needed = population.sensitivity(0, 1 / (1 + EFFECT)).needed(EFFECT, rules)
    assert needed is not None
    targets = given.targets or -(-int(needed * 1.1) // 100) * 100
    print(f"{len(population.whole)} measured targets, mean {population.mean:.4f}, {len(population.slices)} slices")
    print(*(f"{name} {values.mean():.4f}" for name, values in population.baselines.items()), sep=", ")
    print(*power_words(population.sensitivity(targets), rules), sep="\n")
    started, found = time.monotonic(), {}
    for kind, old in (("equal", True), ("worse", True), ("better", False)):
        found[kind], refused = simulate(population, kind, nights=given.nights, targets=targets, old=old)
        print(f"{kind:>7}: {dict(found[kind])}; checks that refused: {dict(refused)}", flush=True)
    share = {kind: {name: count / given.nights for name, count in outcomes.items()} for kind, outcomes in found.items()}
    metrics = {
        "false_pass": 1 - share["worse"].get("refused", 0.0),
        "power_at_3pct": share["better"].get("better", 0.0),
        "equal_pass": share["equal"].get("better", 0.0),
        "equal_as_equal": share["equal"].get("equal", 0.0),
        "targets": float(targets),
        "targets_for_3pct": float(needed),
        "nights": float(given.nights),
        "minutes": (time.monotonic() - started) / 60,
    }
    finish(NAME, metrics, goals=GOALS)


if __name__ == "__main__":
    main()
