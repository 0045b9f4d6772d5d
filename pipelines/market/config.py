"""How large a marketplace is, what happens in it, when it ends, and the one seed everything is drawn from."""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from rolecall.platform.errors import InputError

_NAMED = Path(__file__).with_name("configurations.toml")
MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US


class Choice(BaseModel):
    """Weights of the choice model; `choice.py` has the formulas they stand in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinship: float = 4.0
    skill: float = 2.0
    liked: float = 1.2
    seniority: float = -0.7
    distance: float = -1.5
    abroad: float = -2.0
    pay: float = 2.0
    rating: float = 0.6
    freshness: float = -0.6
    taste: float = Field(default=0.7, description="spread of what only this candidate knows about this job")
    spam: float = Field(default=-4.0, description="once the posting has been read")
    click_at: float = 4.6
    save_at: float = 6.0
    apply_at: float = 6.4
    position_power: float = Field(default=0.6, ge=0, description="examination falls as position to the minus this")
    trust: float = Field(default=0.4, ge=0, description="what the first position adds to the wish to click")
    repeated: float = Field(default=-0.15, description="for every earlier showing of the last two weeks, at most 6")
    clicked_before: float = -1.5
    session: float = Field(default=0.15, ge=0, description="examination lost with every earlier visit of the day")


class Hiring(BaseModel):
    """Weights of the employers' model; `choice.py` has the formulas they stand in."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    skill: float = 3.0
    kinship: float = 2.5
    seniority: float = -0.8
    distance: float = -0.6
    abroad: float = -1.0
    taste: float = 0.5
    shortlist_at: float = 4.0
    hire_at: float = 4.6
    answers: float = Field(default=0.75, ge=0, le=1, description="share of the applications considered at all")
    searches: float = Field(default=0.003, ge=0, le=1, description="chance a day that a live job looks for people")


class Bias(BaseModel):
    """Planted group bias: what group B loses, everything else being equal. Zero plants none."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    employer: float = Field(default=0.0, ge=0, le=10, description="taken off an employer's utility (log odds)")
    exposure: float = Field(default=0.0, ge=0, le=10, description="taken off the logging score of well-paid jobs")


class MarketConfig(BaseModel):
    """Sizes, behaviour and seed. With the locked packages the same values give the same tables, byte for byte.

    Events lie in the `days` days before `end` (exclusive, midnight UTC); nothing reads the clock. `horizon` is how
    many days a closed loop may go on after `end`: it changes nothing before `end`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    jobs: int = Field(default=5000, ge=50, le=20_000_000, description="postings made before `end`")
    candidates: int = Field(default=2000, ge=10, le=20_000_000, description="people who joined before `end`")
    employers: int = Field(default=400, ge=5, le=1_000_000)
    occupations: int = Field(default=300, ge=10, le=800)
    days: int = Field(default=30, ge=2, le=365)
    horizon: int = Field(default=0, ge=0, le=365, description="days after `end` that can be simulated")
    requests_per_candidate: float = Field(default=5.0, gt=0, le=100, description="in the `days` days, on average")
    slots: int = Field(default=12, ge=1, le=50, description="jobs shown per request")
    max_words: int = Field(default=80, ge=6, le=500, description="words of a description and of a resume, at most")
    reposts: float = Field(default=0.06, ge=0, le=0.5, description="share of near-duplicate postings")
    bad_employers: float = Field(default=0.03, ge=0, le=0.5, description="share of employers that post spam")
    newcomers: float = Field(default=0.25, ge=0, le=1, description="share of people who join within the `days`")
    leavers: float = Field(default=0.06, ge=0, le=1, description="share of people who leave, a month")
    drift: float = Field(default=0.1, ge=0, le=1, description="share of people whose wishes change, a month")
    told: float = Field(default=0.25, ge=0, le=1, description="share of those changes that reach the profile")
    seasons: bool = Field(default=True, description="weekdays differ")
    choice: Choice = Choice()
    hiring: Hiring = Hiring()
    bias: Bias = Bias()
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

    @property
    def start_us(self) -> int:
        """`starts_at` in microseconds since 1970."""
        return microseconds(self.starts_at)

    @property
    def end_us(self) -> int:
        """`ends_at` in microseconds since 1970."""
        return microseconds(self.ends_at)

    @property
    def last_us(self) -> int:
        """End of the horizon in microseconds since 1970."""
        return self.end_us + self.horizon * DAY_US


def microseconds(at: datetime) -> int:
    """Exact microseconds since 1970."""
    return int(at.timestamp()) * 1_000_000 + at.microsecond


def configurations() -> dict[str, dict[str, Any]]:
    """The named configurations of `configurations.toml`: what each sets differently from the defaults."""
    return tomllib.loads(_NAMED.read_text(encoding="utf-8"))


def named(name: str, **changes: Any) -> MarketConfig:
    """A named configuration with `changes` on top. Raises InputError for a name the file does not have."""
    known = configurations()
    if name not in known:
        raise InputError(f"no market configuration {name}", ", ".join(known), "name one of these")
    return MarketConfig(**(known[name] | changes))
