"""The gate's rules as settings: `gate.toml` beside this module < the file that `[gate] file` names < single values.

`gate.toml` says what each rule means; here are their ranges.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from rolecall.platform.errors import SettingsError

SHIPPED = Path(__file__).with_name("gate.toml")
_FILE = "file"


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TargetRules(_Table):
    """How many targets a verdict needs at all, and how many are asked at most."""

    least: int = Field(ge=1)
    most: int = Field(ge=1)


class ChampionRules(_Table):
    """What better than, and equal to, the champion mean; levels are one-sided."""

    better_level: float = Field(gt=0, lt=0.5)
    margin: float = Field(gt=0, lt=1)
    equal_level: float = Field(gt=0, lt=0.5)
    cheaper_by: float = Field(gt=0, lt=1)
    older_than_days: float = Field(ge=0)
    undecided_days: float = Field(ge=0)


class BaselineRules(_Table):
    """What simple recommenders ask of a release."""

    max_loss: float = Field(ge=0, lt=1)
    surely_above: tuple[str, ...]
    level: float = Field(gt=0, lt=0.5)


class SliceRules(_Table):
    """What no part of the candidates or jobs may lose."""

    max_loss: float = Field(ge=0, lt=1)
    level: float = Field(gt=0, lt=0.5)
    correction: Literal["holm", "benjamini_hochberg", "none"]
    least: int = Field(ge=1)
    own: dict[str, float] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _own_in_range(self) -> SliceRules:
        wrong = {name: bound for name, bound in self.own.items() if not 0 <= bound < 1}
        if wrong:
            raise ValueError(f"own bounds {wrong}: allowed are shares of at least 0 and below 1")
        return self

    def bound(self, name: str) -> float:
        """The largest loss of a slice `kind=value`."""
        return self.own.get(name, self.own.get(name.partition("=")[0], self.max_loss))


class PeopleRules(_Table):
    """What the recommendation of people for jobs may lose against the champion's."""

    max_loss: float = Field(ge=0, lt=1)
    level: float = Field(gt=0, lt=0.5)


class CatalogueRules(_Table):
    """How many jobs a release must offer, against the champion."""

    min_live: float = Field(ge=0, le=1)


class CalibrationRules(_Table):
    """What the apply probability must show on logged impressions."""

    least_impressions: int = Field(ge=1)
    least_applications: int = Field(ge=1)
    max_entropy: float = Field(gt=0, le=1)
    max_error: float = Field(gt=0, le=1)
    min_slope: float = Field(ge=0)
    max_slope: float = Field(gt=0)


class LatencyRules(_Table):
    """How long an answer may take."""

    max_p99_ms: float = Field(gt=0)


class SizeRules(_Table):
    """How large a release may be."""

    max_mb: float = Field(gt=0)


class FairnessRules(_Table):
    """What names, pronouns and groups may change."""

    max_changed: float = Field(ge=0, le=1)
    min_exposure_ratio: float = Field(gt=0, le=1)


class StatisticsRules(_Table):
    """How many draws tests and intervals take."""

    permutations: int = Field(ge=1000, le=1_000_000)
    bootstrap_rounds: int = Field(ge=100, le=100_000)
    seed: int = Field(ge=0)


class GateRules(_Table):
    """Every rule, resolved: equal rules are equal whatever file they came from."""

    targets: TargetRules
    champion: ChampionRules
    baselines: BaselineRules
    slices: SliceRules
    people: PeopleRules
    catalogue: CatalogueRules
    calibration: CalibrationRules
    latency: LatencyRules
    size: SizeRules
    fairness: FairnessRules
    statistics: StatisticsRules

    @model_validator(mode="before")
    @classmethod
    def _resolve(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        single = {name: value for name, value in given.items() if name != _FILE}
        tree = read_rules(SHIPPED)
        if given.get(_FILE):
            tree = _over(tree, read_rules(Path(str(given[_FILE])).expanduser()))
        return _over(tree, single)

    def changed(self, **tables: dict[str, Any]) -> GateRules:
        """These rules with single values changed: `rules.changed(latency={"max_p99_ms": 50})`."""
        return GateRules.model_validate(_over(self.model_dump(), tables))


def rules_of(file: Path) -> GateRules:
    """The rules of a file; what it leaves out is as shipped. Raises SettingsError with the first wrong values."""
    read_rules(file)
    try:
        return GateRules.model_validate({_FILE: str(file)})
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:10])
        raise SettingsError(f"rules {file}: {wrong}", f"the keys of {SHIPPED}", "correct the file") from error


def read_rules(file: Path) -> dict[str, Any]:
    """The tables of a rules file. Raises SettingsError where it cannot be read."""
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(
            f"rules {file} cannot be read: {error.strerror}", "a TOML file", "correct the path"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"rules {file} are not TOML: {error}", "UTF-8 TOML", f"see {SHIPPED}") from error


def _over(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`tree` with the values of `changes`, table by table."""
    merged = dict(tree)
    for name, value in changes.items():
        below = merged.get(name)
        merged[name] = _over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged
