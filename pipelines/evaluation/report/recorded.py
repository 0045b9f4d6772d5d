"""Figures of a report from what a finished run, or a published release, kept on disk.

The files hold means and intervals and no single target, so a report from them has no samples and no histogram.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rolecall.pipelines.evaluation.gate.evidence import CHAMPION
from rolecall.pipelines.evaluation.gate.power import Power, PowerRow
from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC
from rolecall.pipelines.evaluation.report.figures import (
    Bin,
    Check,
    Comparison,
    Direction,
    Estimate,
    Fairness,
    Latency,
    LogFigure,
    LogFigures,
    Probability,
    Report,
    Ruling,
    Slice,
    Stage,
    System,
)
from rolecall.pipelines.evaluation.report.gather import REACHABLE
from rolecall.pipelines.evaluation.report.wording import rule_lines
from rolecall.platform.errors import InputError, NotFoundError
from rolecall.platform.release import Manifest, read_manifest

_LATENCY = {"p50": "evaluation.p50_ms", "p99": "evaluation.p99_ms"}
_NAN = float("nan")
Model = TypeVar("Model", bound=BaseModel)


class _Read(BaseModel):
    """What is not known here was written by a later version, and is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class _Interval(_Read):
    mean: float | None
    low: float | None
    high: float | None
    count: int

    def estimate(self) -> Estimate:
        low, mean, high = (_NAN if value is None else value for value in (self.low, self.mean, self.high))
        return Estimate(mean=mean, low=low, high=high, count=self.count)


class _Calibration(_Read):
    slope: float | None = None
    slope_low: float | None = None
    slope_high: float | None = None
    intercept: float | None = None
    ece: float | None = None
    constant_ece: float | None = None
    bins: tuple[tuple[float, float, int], ...] = ()


class _Impressions(_Read):
    auc: float | None = None
    grouped_auc: float | None = None
    normalized_entropy: float | None = None
    base_rate: float | None = None
    count: int
    calibration: _Calibration = _Calibration()

    def probability(self) -> Probability:
        levels = self.model_dump(include={"auc", "grouped_auc", "normalized_entropy", "base_rate"})
        levels |= self.calibration.model_dump(exclude={"bins"})
        bins = tuple(Bin(predicted=said, observed=came, count=count) for said, came, count in self.calibration.bins)
        figures = {name: _NAN if value is None else value for name, value in levels.items()}
        return Probability(figures=figures, count=self.count, bins=bins)


class _Gap(_Read):
    ratio: _Interval
    count: int = 0


class _Fairness(_Read):
    swaps: int
    changed: int
    exposure: dict[str, _Gap] = Field(default_factory=dict)

    def fairness(self) -> Fairness:
        exposure = {group: gap.ratio.estimate() for group, gap in self.exposure.items()}
        return Fairness(swaps=self.swaps, changed=self.changed, exposure=exposure)


class _LogEstimate(_Read):
    value: _Interval
    less_champion: _Interval | None = None
    visits: int
    effective: float
    warnings: tuple[str, ...] = ()


class _Log(_Read):
    why: str = ""
    estimates: dict[str, _LogEstimate] = Field(default_factory=dict)

    def figures(self) -> LogFigures:
        rows = tuple(
            LogFigure(
                name=name,
                value=one.value.estimate(),
                less_champion=one.less_champion.estimate() if one.less_champion else None,
                **one.model_dump(include={"visits", "effective", "warnings"}),
            )
            for name, one in self.estimates.items()
        )
        return LogFigures(rows=rows, why=self.why)


class _Evaluation(_Read):
    targets: int
    systems: dict[str, dict[str, _Interval]]
    differences: dict[str, _Interval] = Field(default_factory=dict)
    stages: dict[str, _Interval] = Field(default_factory=dict)
    slices: dict[str, _Interval] = Field(default_factory=dict)
    reachable: _Interval | None = None
    catalogue: dict[str, dict[str, float | None]] | None = None
    impressions: _Impressions | None = None
    fairness: _Fairness | None = None
    log: _Log | None = None
    people: _Evaluation | None = None

    def direction(self) -> Direction:
        return Direction(
            targets=self.targets,
            systems=tuple(_system(name, table) for name, table in self.systems.items()),
            comparisons=tuple(
                Comparison(name=name, kind="baseline", difference=gap.estimate(), relative=self._relative(name, gap))
                for name, gap in self.differences.items()
            ),
            stages=tuple(Stage(name=name, release=one.estimate()) for name, one in self._kept().items()),
            slices=tuple(_slice(name, one) for name, one in self.slices.items()),
            catalogue={
                name: {metric: value for metric, value in table.items() if value is not None}
                for name, table in (self.catalogue or {}).items()
            },
        )

    def _kept(self) -> dict[str, _Interval]:
        known = self.reachable is not None and self.reachable.count
        return ({REACHABLE: self.reachable} if self.reachable and known else {}) | self.stages

    def _relative(self, name: str, gap: _Interval) -> float | None:
        level = self.systems.get(name, {}).get(MAIN_METRIC)
        return gap.mean / level.mean if gap.mean is not None and level is not None and level.mean else None


class _Check(_Read):
    name: str
    ok: bool
    detail: str
    evidence: dict[str, float | str | None] = Field(default_factory=dict)


class _Power(_Read):
    targets: int
    days: float
    rows: tuple[PowerRow, ...]
    words: tuple[str, ...]

    def power(self) -> Power:
        return Power(targets=self.targets, days=self.days, rows=self.rows, words=self.words)


class _Verdict(_Read):
    checks: tuple[_Check, ...]
    power: _Power | None = None
    champion: str | None = None
    against: str | None = None
    opponent: str = CHAMPION
    outcome: str = ""
    rules: dict[str, object] = Field(default_factory=dict)

    def ruling(self) -> Ruling:
        passed = "passed" if all(check.ok for check in self.checks) else "refused"
        return Ruling(
            outcome=self.outcome or passed,
            checks=tuple(Check(**check.model_dump()) for check in self.checks),
            rules=rule_lines(self.rules) if self.rules else {},
            champion=self.against or self.champion or "",
            opponent=self.opponent,
        )


def recorded_report(manifest: Manifest, evaluation: bytes, verdict: bytes) -> Report:
    """From the JSON of `evaluation.json` and `verdict.json`. Raises InputError where they do not hold that."""
    told, said = _parse(_Evaluation, evaluation), _parse(_Verdict, verdict)
    return Report(
        manifest=manifest,
        ruling=said.ruling(),
        main_metric=MAIN_METRIC,
        jobs=told.direction(),
        people=told.people.direction() if told.people and told.people.targets else None,
        probability=told.impressions.probability() if told.impressions else None,
        fairness=told.fairness.fairness() if told.fairness else None,
        latency=_latency(manifest.metrics),
        log=told.log.figures() if told.log else None,
        power=said.power.power() if said.power else None,
    )


def report_of_run(folder: Path) -> Report:
    """The report of a finished daily run's folder. Raises NotFoundError where a step's files are missing."""
    evaluate, release = folder / "evaluate", folder / "release" / "release"
    return recorded_report(
        read_manifest(_bytes(release / "manifest.json")),
        _bytes(evaluate / "evaluation.json"),
        _bytes(evaluate / "verdict.json"),
    )


def _bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        raise NotFoundError(f"no {file}", "the folder of a finished daily run", "let the run end first") from None


def _parse(model: type[Model], content: bytes) -> Model:
    try:
        return model.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{where}: {first['msg']}", "the JSON that the evaluate step writes", "run it again") from None


def _system(name: str, table: Mapping[str, _Interval]) -> System:
    metrics = {metric: one.estimate() for metric, one in table.items()}
    return System(name=name, kind="release" if name == FUNNEL else "baseline", metrics=metrics)


def _slice(name: str, interval: _Interval) -> Slice:
    kind, _, value = name.partition("=")
    return Slice(kind=kind, value=value, release=interval.estimate())


def _latency(metrics: Mapping[str, float]) -> Latency | None:
    found = {short: metrics[name] for short, name in _LATENCY.items() if name in metrics}
    return Latency(percentiles=found) if len(found) == len(_LATENCY) else None
