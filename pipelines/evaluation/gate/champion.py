"""Better than the champion, or equal with a reason to replace it: the decision that promotes.

Two one-sided sign-flip tests on the same targets, whole candidates at a time, x the challenger's and c the champion's
value of a target:

- *better*: mean(x - c) > 0 at `better_level`;
- *equal*: mean(x - (1 - margin) c) > 0 at `equal_level`, non-inferiority with a margin relative to the champion's own
  mean, whose noise is thereby part of the test (Blackwelder 1982; Wellek 2010, ch. 5).

So a challenger that truly loses the margin or more is promoted as equal in at most `equal_level` of the nights, and as
better in far fewer. A test that saw no loss says nothing of rare ones: equality also needs enough targets to have met
one, n * margin * mean(c) >= ln(1 / equal_level) (the rule of three, Hanley and Lippman-Hand 1983).

A small board never has the targets to prove either. Where a loss of the margin would not be seen (power .8), *newer*
models may replace old ones (`undecided_days`) unless they surely lose: there the gate keeps out what is plainly worse,
and promises no more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from rolecall.pipelines.evaluation.gate.evidence import CHAMPION, Evidence, Pairs
from rolecall.pipelines.evaluation.gate.verdict import Check, Outcome
from rolecall.pipelines.evaluation.judge import MAIN_METRIC
from rolecall.pipelines.evaluation.statistics import (
    Interval,
    bootstrap,
    design_effect,
    detectable_effect,
    percentile_ratio,
    required_targets,
    sign_flip,
    sign_flip_columns,
)
from rolecall.platform.gate_rules import GateRules

POWER = 0.8
"""With which the sizes and effects beside a verdict are stated."""


@dataclass(frozen=True, kw_only=True)
class Sensitivity:
    """How much a comparison of n targets can see. `spread`: standard deviation of a target's difference over the
    champion's mean; `design`: how much of n the clusters cost (1: nothing)."""

    targets: int
    champion_mean: float
    spread: float
    design: float

    @classmethod
    def of(cls, pairs: Pairs) -> Sensitivity:
        difference = pairs.ours - pairs.theirs
        known = ~np.isnan(difference)
        mean = float(pairs.theirs[known].mean()) if known.any() else 0.0
        spread = float(difference[known].std()) / mean if mean > 0 else math.nan
        design = design_effect(difference, pairs.clusters) if known.any() else 1.0
        return cls(targets=int(known.sum()), champion_mean=mean, spread=spread, design=design)

    def effect(self, rules: GateRules) -> float:
        """The smallest true relative gain that is seen as better with power .8."""
        return detectable_effect(
            self.targets, self.spread, level=rules.champion.better_level, power=POWER, design=self.design
        )

    def needed(self, effect: float, rules: GateRules, level: float | None = None) -> int | None:
        """Targets with which a true relative `effect` is seen with power .8; None where nothing differs."""
        if not self.spread > 0:
            return None
        given = rules.champion.better_level if level is None else level
        return required_targets(effect, self.spread, level=given, power=POWER, design=self.design)

    def needed_for_equal(self, rules: GateRules) -> int:
        """Targets with which a truly equal challenger is found equal with power .8."""
        margin, level = rules.champion.margin, rules.champion.equal_level
        return max(self.needed(margin, rules, level) or 0, self.least_for_equal(rules))

    def least_for_equal(self, rules: GateRules) -> int:
        """Targets below which equality is never claimed: the rule of three."""
        lost = rules.champion.margin * self.champion_mean
        return math.ceil(-math.log(rules.champion.equal_level) / lost) if lost > 0 else 0


def against_champion(evidence: Evidence, pairs: Pairs, rules: GateRules) -> tuple[Check, Outcome]:
    """The check, and what the release is to the champion if everything else is well."""
    asked, sensitivity = rules.champion, Sensitivity.of(pairs)
    enough = sensitivity.targets >= rules.targets.least
    difference = bootstrap(
        pairs.ours - pairs.theirs,
        rounds=rules.statistics.bootstrap_rounds,
        seed=rules.statistics.seed,
        groups=pairs.clusters,
    )
    p_better, p_equal = _p_values(pairs, rules)
    better = enough and p_better <= asked.better_level
    equal = enough and p_equal <= asked.equal_level and sensitivity.targets >= sensitivity.least_for_equal(rules)
    told = _words(difference, sensitivity)
    numbers: dict[str, float | str | None] = {
        "targets": sensitivity.targets,
        "champion": sensitivity.champion_mean,
        "difference": difference.mean,
        "low": difference.low,
        "high": difference.high,
        "relative": difference.mean / sensitivity.champion_mean if sensitivity.champion_mean else None,
        "p_better": p_better,
        "p_loses_less_than_margin": p_equal,
        "seen_with_power_.8": sensitivity.effect(rules),
    }
    name = f"against {evidence.opponent}"
    if better:
        return Check(name=name, ok=True, detail=f"better, {told}, p {p_better:.4f}", evidence=numbers), "better"
    if equal:
        why = _reason_to_replace(evidence, pairs, rules)
        said = f"equal, {told}, surely loses less than {asked.margin:.0%} (p {p_equal:.4f})"
        detail = f"{said}; {why}" if why else f"{said}, but neither cheaper nor is the champion old"
        return Check(name=name, ok=bool(why), detail=detail, evidence=numbers), "equal" if why else "refused"
    if evidence.champion_must_go:
        return _unless_surely_worse(name, pairs, rules, f"the champion must go; {told}", numbers)
    if enough and _undecided(evidence, sensitivity, rules):
        least = sensitivity.needed(asked.margin, rules)
        seen = f"{sensitivity.targets:,} targets where a loss of {asked.margin:.0%} needs {least:,}"
        said = f"{told}; newer models, and {seen}"
        return _unless_surely_worse(name, pairs, rules, said, numbers, margin=0.0, outcome="newer")
    detail = f"{told}, not surely better (p {p_better:.4f}) nor surely losing less than {asked.margin:.0%}"
    detail += f" (p {p_equal:.4f}); {_size(sensitivity, rules)}"
    return Check(name=name, ok=False, detail=detail, evidence=numbers), "refused"


def _p_values(pairs: Pairs, rules: GateRules) -> tuple[float, float]:
    """Of "is better" and of "loses less than the margin"."""
    kept = np.stack([pairs.theirs, (1 - rules.champion.margin) * pairs.theirs], axis=1)
    columns = pairs.ours[:, None] - kept
    better, equal = sign_flip_columns(columns, rules.statistics.permutations, rules.statistics.seed, pairs.clusters)
    return float(better), float(equal)


def _reason_to_replace(evidence: Evidence, pairs: Pairs, rules: GateRules) -> str:
    """Why an equal release should take the champion's place; empty where nothing speaks for it."""
    asked = rules.champion
    if evidence.champion_must_go:
        return "the champion must go"
    if evidence.champion_age_days is not None and evidence.champion_age_days > asked.older_than_days:
        return f"the champion's models are {evidence.champion_age_days:.0f} days old"
    if evidence.champion_size_bytes and evidence.size_bytes <= evidence.champion_size_bytes * (1 - asked.cheaper_by):
        return f"{1 - evidence.size_bytes / evidence.champion_size_bytes:.0%} smaller"
    p99 = percentile_ratio(
        pairs.our_ms,
        pairs.their_ms,
        percentile=99,
        rounds=rules.statistics.bootstrap_rounds,
        seed=rules.statistics.seed,
    )
    return f"p99 {1 - p99.mean:.0%} lower" if p99.high <= 1 - asked.cheaper_by else ""


def _undecided(evidence: Evidence, sensitivity: Sensitivity, rules: GateRules) -> bool:
    """Whether the log is too small to tell, and the champion's models old enough to make room for newer ones."""
    age, days = evidence.champion_age_days, rules.champion.undecided_days
    least = sensitivity.needed(rules.champion.margin, rules) or 0
    return age is not None and 0 < days <= age and sensitivity.targets < least


def not_surely_worse(pairs: Pairs, rules: GateRules) -> tuple[Check, Outcome]:
    """For a release that takes the champion's place unless it surely loses more than the margin."""
    gap = bootstrap(
        pairs.ours - pairs.theirs,
        rounds=rules.statistics.bootstrap_rounds,
        seed=rules.statistics.seed,
        groups=pairs.clusters,
    )
    numbers: dict[str, float | str | None] = {"difference": gap.mean, "low": gap.low, "high": gap.high}
    told, numbers = _words(gap, Sensitivity.of(pairs)), numbers | {"targets": gap.count}
    return _unless_surely_worse(f"against {CHAMPION}", pairs, rules, told, numbers)


def _unless_surely_worse(
    name: str,
    pairs: Pairs,
    rules: GateRules,
    told: str,
    numbers: dict[str, float | str | None],
    *,
    margin: float | None = None,
    outcome: Outcome = "equal",
) -> tuple[Check, Outcome]:
    """Replaced unless that surely loses more than the margin; default the rules'."""
    allowed = rules.champion.margin if margin is None else margin
    p_worse = sign_flip(
        (1 - allowed) * pairs.theirs - pairs.ours,
        rounds=rules.statistics.permutations,
        seed=rules.statistics.seed,
        groups=pairs.clusters,
    )
    ok = p_worse > rules.champion.better_level
    loses = f"losing more than {allowed:.0%}" if allowed else "losing"
    detail = f"{told}, {'not surely' if ok else 'surely'} {loses} (p {p_worse:.4f})"
    return Check(name=name, ok=ok, detail=detail, evidence=numbers), outcome if ok else "refused"


def _words(difference: Interval, sensitivity: Sensitivity) -> str:
    text = f"{MAIN_METRIC} {difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    mean = sensitivity.champion_mean
    return f"{text} ({difference.mean / mean:+.1%} of {mean:.4f})" if mean else text


def _size(sensitivity: Sensitivity, rules: GateRules) -> str:
    needed = sensitivity.needed_for_equal(rules)
    return f"{sensitivity.targets:,} targets, an equal one needs about {needed:,}"
