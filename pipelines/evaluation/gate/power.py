"""What a comparison of this size can see, and how many targets and days a smaller difference would take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rolecall.pipelines.evaluation.gate.champion import POWER, Sensitivity
from rolecall.pipelines.evaluation.statistics import power_of, required_days
from rolecall.platform.gate_rules import GateRules

EFFECTS = (0.01, 0.02, 0.03, 0.05, 0.10)


def power_rows(
    sensitivity: Sensitivity, rules: GateRules, *, days: float, effects: Sequence[float] = EFFECTS
) -> list[dict[str, Any]]:
    """A line a relative effect: the chance of seeing it now, the targets that see it with power .8, and the days in
    which so many come together at the rate of these `days`. Where most candidates have been asked already, longer
    windows bring fewer new ones: the days are then too few."""
    rate = sensitivity.targets / days
    rows: list[dict[str, Any]] = []
    for effect in effects:
        needed = sensitivity.needed(effect, rules)
        now = power_of(
            effect,
            sensitivity.targets,
            sensitivity.spread,
            level=rules.champion.better_level,
            design=sensitivity.design,
        )
        enough = None if needed is None or not rate else required_days(needed, rate)
        rows.append({"better by": f"{effect:.0%}", "seen now": now, "targets needed": needed, "days needed": enough})
    return rows


def power_words(sensitivity: Sensitivity, rules: GateRules) -> list[str]:
    """The same in sentences: what these targets show, and what equality needs."""
    if not sensitivity.spread > 0:
        return [f"the two releases answered all {sensitivity.targets:,} targets alike: nothing to tell apart"]
    return [
        f"with your {sensitivity.targets:,} targets an effect of {sensitivity.effect(rules):.1%} is seen with "
        f"power {POWER:g} (one-sided level {rules.champion.better_level:g}; a target's difference has a standard "
        f"deviation of {sensitivity.spread:.0%} of the champion's mean)",
        f"an equal challenger is found to lose less than {rules.champion.margin:.0%} with power {POWER:g} from "
        f"{sensitivity.needed_for_equal(rules):,} targets on (level {rules.champion.equal_level:g})",
    ]
