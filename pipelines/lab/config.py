"""What a closed loop is: which world, which arms, for how long, and the settings every arm's home runs with."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

from rolecall.pipelines.market.config import MarketConfig
from rolecall.platform.errors import InputError
from rolecall.platform.release import code_version
from rolecall.platform.settings import Settings

RETRAINED = "retrained"
ARMS = (RETRAINED, "frozen", "frozen_models", "tfidf", "popularity", "random", "oracle")
"""Every arm there is. `oracle` knows the truth and is an upper bound, no recommender."""

COMPARED = (RETRAINED, "frozen", "frozen_models", "tfidf", "popularity")


class LabConfig(BaseModel):
    """`market.seed` and `market.horizon` are set from `seeds` and `days`.

    `exploration`: share of the slots that releases draw at random among the jobs ranked, so that later models learn
    from more than what earlier ones preferred. `training_requests`, `rounds`: how much each night learns from and
    with how many trees; small worlds need little.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    market: MarketConfig
    days: int = Field(default=14, ge=1, le=365)
    seeds: tuple[int, ...] = Field(default=(7, 8), min_length=1)
    arms: tuple[str, ...] = Field(default=COMPARED, min_length=1)
    exploration: float = Field(default=0.02, ge=0.0, le=0.5)
    training_requests: int = Field(default=2000, ge=10)
    rounds: int = Field(default=80, ge=1)

    @field_validator("arms")
    @classmethod
    def _known(cls, arms: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [name for name in arms if name not in ARMS]
        if unknown or len(set(arms)) < len(arms):
            raise ValueError(f"arms {unknown or arms}: allowed are {', '.join(ARMS)}, each once")
        return arms

    def world(self, seed: int) -> MarketConfig:
        """The market of one seed, with as many days after its end as are simulated."""
        return self.market.model_copy(update={"seed": seed, "horizon": self.days})

    def digest(self, settings: Settings) -> str:
        """Names everything that one arm's days of one seed depend on."""
        told = self.model_dump(mode="json", exclude={"seeds", "arms"})
        told["market"] = self.market.model_dump(mode="json", exclude={"seed", "horizon"})
        told["code"] = code_version()
        told["settings"] = settings.model_dump(mode="json", include={"ranking", "policy", "features", "embedder"})
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]

    def settings(self, given: Settings, home: Path) -> Settings:
        """The settings of one home. The last day alone is held out for the gate, and the gate does not look at the
        clock: the laboratory measures choices, on machines that are doing other things. Of a small world's day, ten
        jobs found by oneself are enough to compare with the champion; with fewer it could hardly ever be replaced."""
        ranking = given.ranking.model_copy(
            update={
                "train_days": max(given.ranking.train_days, self.market.days),
                "evaluation_days": 1,
                "max_training_requests": self.training_requests,
                "coarse_rounds": max(1, self.rounds // 2),
                "fine_rounds": self.rounds,
            }
        )
        return given.model_copy(
            update={
                "home": home,
                "ranking": ranking,
                "policy": given.policy.model_copy(update={"exploration": self.exploration}),
                "fairness": given.fairness.model_copy(update={"swaps": 0}),
                "gate": given.gate.changed(latency={"max_p99_ms": 60_000.0}, targets={"least": 10}),
            }
        )


def arm_names(text: str) -> tuple[str, ...]:
    """`a,b` as names. Raises InputError for a name that is no arm."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    unknown = [name for name in names if name not in ARMS]
    if unknown or not names:
        raise InputError(f"arms {text!r}", ", ".join(ARMS), "separate them by commas")
    return names
