"""What a comparison of this size can see, and how many targets and days a smaller difference would take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from rolecall.pipelines.evaluation.gate.champion import POWER, Sensitivity
from rolecall.pipelines.evaluation.gate.evidence import Evidence
from rolecall.pipelines.evaluation.statistics import power_of, required_days
from rolecall.platform.gate_rules import GateRules

EFFECTS = (0.01, 0.02, 0.03, 0.05, 0.10)


@dataclass(frozen=True, kw_only=True)
class PowerRow:
    """Of a true relative `effect` the chance of seeing it with the targets at hand (`now`), and the `targets` and
    `days` that see it with power .8; None where nothing differs."""

    effect: float
    now: float
    targets: int | None
    days: int | None

    def told(self) -> dict[str, Any]:
        """By the heads of a table."""
        return {
            "better by": f"{self.effect:.0%}",
            "seen now": self.now,
            "targets needed": self.targets,
            "days needed": self.days,
        }


@dataclass(frozen=True, kw_only=True)
class Power:
    """What a comparison of so many `targets`, come together in so many `days`, can tell."""

    targets: int
    days: float
    rows: tuple[PowerRow, ...]
    words: tuple[str, ...]

    @classmethod
    def of(cls, evidence: Evidence, rules: GateRules, *, days: float) -> Self | None:
        """None where the release was compared with nothing, or with what found nothing."""
        if evidence.champion is None:
            return None
        found = Sensitivity.of(evidence.champion)
        if not found.champion_mean > 0:
            return None
        return cls(
            targets=found.targets,
            days=days,
            rows=tuple(power_rows(found, rules, days=days)),
            words=tuple(power_words(found, rules)),
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def power_rows(
    sensitivity: Sensitivity, rules: GateRules, *, days: float, effects: Sequence[float] = EFFECTS
) -> list[PowerRow]:
    """A line a relative effect. Days are those in which so many targets come together at the rate of these `days`:
    where most candidates have been asked already, longer windows bring fewer new ones, and the days are too few."""
    rate = sensitivity.targets / days
    rows: list[PowerRow] = []
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
        rows.append(PowerRow(effect=effect, now=now, targets=needed, days=enough))
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
