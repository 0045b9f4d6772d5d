"""How large a marketplace is, when it ends, and the one seed everything is drawn from."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
from pydantic import BaseModel, ConfigDict, Field


class MarketConfig(BaseModel):
    """Sizes and seed. With the locked packages the same values give the same tables, byte for byte.

    Events lie in the `days` days before `end` (exclusive, midnight UTC); nothing reads the clock.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: int = Field(default=5000, ge=50, le=200_000)
    candidates: int = Field(default=2000, ge=10, le=200_000)
    employers: int = Field(default=400, ge=5, le=20_000)
    occupations: int = Field(default=300, ge=10, le=800)
    days: int = Field(default=30, ge=2, le=365)
    requests_per_candidate: float = Field(default=5.0, gt=0, le=100)
    slots: int = Field(default=12, ge=1, le=50, description="jobs shown per request")
    seed: int = Field(default=7, ge=0)
    end: date = date(2026, 10, 1)

    @property
    def ends_at(self) -> datetime:
        """Midnight that ends the last day; a daily run as of this instant sees every event."""
        return datetime(self.end.year, self.end.month, self.end.day, tzinfo=UTC)

    @property
    def starts_at(self) -> datetime:
        """Midnight at which the first day begins."""
        return self.ends_at - timedelta(days=self.days)

    def random(self, *stream: int) -> np.random.Generator:
        """An independent generator for one named part of the market, so that parts do not disturb each other."""
        return np.random.default_rng([self.seed, *stream])
