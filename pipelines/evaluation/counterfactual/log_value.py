"""What the logged visits say that a release would have brought, as the figures that evaluation and report keep.

They are evidence beside the gate and none of its rules: a log answers for what it tried, and warns of the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import polars as pl

from rolecall.features.store import FeatureStore
from rolecall.pipelines.evaluation.counterfactual.estimators import Estimate
from rolecall.pipelines.evaluation.counterfactual.log_judge import LogJudge
from rolecall.pipelines.evaluation.statistics import Interval
from rolecall.platform.errors import InputError
from rolecall.serving.funnel import Funnel

MOST_VISITS = 1000
"""Logged requests that each release answers; ten times what an estimate needs to be believed (`support.FEW`)."""

MAIN_ESTIMATOR = "snips"
"""The one that a reader is told first: steadiest without a model."""


@dataclass(frozen=True, kw_only=True)
class LogWindow:
    """A window of the log to ask releases about. `judge` is None where it says nothing of them, and `why` says so."""

    judge: LogJudge | None = None
    why: str = ""

    @classmethod
    def read(
        cls, events: pl.DataFrame, store: FeatureStore, *, start: datetime, end: datetime, seed: int = 7
    ) -> LogWindow:
        """The visits of [start, end), or why there are none to ask about."""
        try:
            judge = LogJudge.prepare(events, store, start=start, end=end, most=MOST_VISITS, seed=seed)
        except InputError as error:
            return cls(why=f"{error.got}; it needs {error.allowed}")
        return cls(judge=judge)

    def estimates(self, funnel: Funnel) -> Mapping[str, Estimate]:
        """By estimator; empty where the log says nothing."""
        return {} if self.judge is None else self.judge.estimates(funnel)


@dataclass(frozen=True, kw_only=True)
class LogValue:
    """Applications a logged visit under the release, by estimator, and what they are more than under `champion`: the
    release it is compared with, empty without one. `why`: why the log says nothing."""

    release: Mapping[str, Estimate] = field(default_factory=dict)
    champion: Mapping[str, Estimate] = field(default_factory=dict)
    why: str = ""

    @property
    def differences(self) -> dict[str, Interval]:
        """Release less champion, visit by visit."""
        both = [name for name in self.release if name in self.champion]
        return {name: self.release[name].less(self.champion[name]) for name in both}

    def metrics(self) -> dict[str, float]:
        """For MLflow: each estimate with the ends of its interval, and on how much it stands."""
        found: dict[str, float] = {}
        for name, one in self.release.items():
            found |= {
                f"log_{name}": one.mean,
                f"log_{name}_low": one.interval.low,
                f"log_{name}_high": one.interval.high,
            }
            found["log_effective"] = one.support.effective
            found["log_supported"] = one.support.supported.mean
        found |= {f"log_{name}_less_champion": gap.mean for name, gap in self.differences.items()}
        return {name: value for name, value in found.items() if np.isfinite(value)}

    def to_dict(self) -> dict[str, object]:
        """JSON values."""
        differences = self.differences
        told = {name: _told(one, differences.get(name)) for name, one in self.release.items()}
        return {"why": self.why, "estimates": told}


def _told(one: Estimate, difference: Interval | None) -> dict[str, object]:
    support = one.support
    return {
        "value": _finite(one.interval.to_dict()),
        "less_champion": None if difference is None else _finite(difference.to_dict()),
        "visits": support.visits,
        "effective": support.effective,
        "supported": _finite(support.supported.to_dict()),
        "warnings": list(one.warnings),
    }


def _finite(numbers: Mapping[str, float]) -> dict[str, float | None]:
    return {name: value if np.isfinite(value) else None for name, value in numbers.items()}
