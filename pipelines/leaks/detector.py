"""The detector of leaks by numbers: what a finished training set shows that an honest one cannot.

    LeakDetector().findings(examples, window=windows.learning, judged=pairs)

False alarms are controlled at `alpha` for each training set: order effects are tested against their exact permutation
null, target statistics and columns that stand alone against a bound with a margin, each family by Holm's correction at
a third of `alpha`. Identities and duplicates are facts, not tests.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.knowledge import Window
from rolecall.pipelines.leaks.alone import suspicious_alone
from rolecall.pipelines.leaks.findings import Finding
from rolecall.pipelines.leaks.identity import identities
from rolecall.pipelines.leaks.matrix import Matrix
from rolecall.pipelines.leaks.order import order_effects
from rolecall.pipelines.leaks.target import target_statistics

TIMES, PAIRS = "(time of requests)", "(pairs)"
_TESTED_FAMILIES = 3
_EPOCH_UNITS = {"seconds": 1e6, "milliseconds": 1e3, "microseconds": 1.0}
_ROUNDED_US = 3e8
"""float32 holds an instant of today to about two minutes."""

_YEARS_US = 20 * 365.25 * 86_400e6


@dataclass(frozen=True, kw_only=True)
class LeakDetector:
    """`alpha`: chance of any false alarm in one clean training set. `most_rows`: rows looked at, whole requests."""

    alpha: float = 1e-3
    most_rows: int = 60_000
    seed: int = 7

    def findings(
        self, examples: TrainingSet, *, window: Window, judged: Collection[tuple[str, int]] = (), label: int = 1
    ) -> tuple[Finding, ...]:
        """What leaks into a set that has its origin. `judged`: (asker, item) pairs that evaluation asks about, none of
        which may have been learned with this label or a larger one.

        A set without a positive label has nothing to tell: nothing is found in it.
        """
        facts = [*_future_instants(examples, window), *_duplicates(examples, judged, label)]
        if not (examples.labels > 0).any():
            return tuple(facts)
        matrix, alpha = Matrix.of_examples(examples, most_rows=self.most_rows), self.alpha / _TESTED_FAMILIES
        return (
            *facts,
            *identities(matrix),
            *order_effects(matrix, alpha),
            *target_statistics(matrix, alpha, seed=self.seed),
            *suspicious_alone(matrix, alpha),
        )


def _future_instants(examples: TrainingSet, window: Window) -> list[Finding]:
    """Requests outside the window, and columns that hold an instant after their request's."""
    outside = (examples.times < _us(window.start)) | (examples.times >= _us(window.end))
    found = [Finding(kind="future", column=TIMES, evidence={"requests outside": float(outside.sum())})]
    found = found if outside.any() else []
    at = np.repeat(examples.times, examples.groups).astype(np.float64)
    for place, name in enumerate(examples.columns):
        column = examples.features[:, place].astype(np.float64)
        for unit, size in _EPOCH_UNITS.items():
            instants = column * size
            known = np.isfinite(instants)
            if not known.any() or not (np.abs(instants[known] - at[known]) < _YEARS_US).all():
                continue
            if later := float((instants > at + _ROUNDED_US)[known].mean()):
                found.append(Finding(kind="future", column=name, evidence={f"{unit} after the request": later}))
    return found


def _duplicates(examples: TrainingSet, judged: Collection[tuple[str, int]], label: int) -> list[Finding]:
    """Positives that evaluation asks about too."""
    if examples.origin is None or not judged:
        return []
    asked, origin = set(judged), examples.origin
    askers = np.repeat(np.arange(examples.requests), examples.groups)
    learned = {
        (origin.askers[askers[row]], int(origin.items[row]))
        for row in np.flatnonzero(examples.labels >= label).tolist()
    }
    both = len(learned & asked)
    return [Finding(kind="duplicate", column=PAIRS, evidence={"pairs": float(both)})] if both else []


def _us(at: datetime) -> int:
    return int(at.astimezone(UTC).timestamp() * 1e6)
