"""What a report shows: figures gathered from evaluations, with nothing in them that names a person.

None, or an empty mapping, means that it was not measured; the page then has no such section and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rolecall.pipelines.evaluation.gate.evidence import CHAMPION
from rolecall.pipelines.evaluation.gate.power import Power
from rolecall.platform.release import Manifest

Kind = Literal["release", "champion", "baseline"]


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95% interval over `count` targets, in the metric's own unit. NaN where nothing applied."""

    mean: float
    low: float
    high: float
    count: int

    @property
    def known(self) -> bool:
        return math.isfinite(self.mean)


@dataclass(frozen=True, kw_only=True)
class System:
    """Something that ranked: the release, the champion or a baseline."""

    name: str
    kind: Kind
    metrics: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The release less another system on the same targets, in the main metric.

    `wins`, `ties`, `losses`: for how many targets; None where single targets are no longer known.
    """

    name: str
    kind: Kind
    difference: Estimate
    relative: float | None = None
    wins: int | None = None
    ties: int | None = None
    losses: int | None = None


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Share of what was wanted that is still there after a stage; `name` is its recall@k."""

    name: str
    release: Estimate
    champion: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The main metric on a part of the targets: `kind` is what it is cut by. `champion`, `difference`: on the targets
    that both were asked."""

    kind: str
    value: str
    release: Estimate
    champion: Estimate | None = None
    difference: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Milliseconds a request took in process: percentile to value, and a histogram of (from, to, requests)."""

    percentiles: Mapping[str, float]
    histogram: tuple[tuple[float, float, int], ...] = ()
    champion: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Impressions of like probability: mean predicted, share observed, how many."""

    predicted: float
    observed: float
    count: int


@dataclass(frozen=True, kw_only=True)
class Probability:
    """How good the apply probability is. `figures`: auc, grouped_auc, normalized_entropy, base_rate, intercept, slope
    with its 95% interval slope_low to slope_high, ece, and constant_ece: the error that the base rate given to all
    would have in the same bins. `champion`: the same of what it is compared with, on the same impressions."""

    figures: Mapping[str, float]
    count: int
    bins: tuple[Bin, ...]
    champion: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """Name swaps asked and changed, and by group the exposure it got over that of the others."""

    swaps: int
    changed: int
    exposure: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class LogFigure:
    """Applications a logged visit under the release by one estimator, and what they are more than under the release it
    is compared with. `effective`: visits its weights are worth; `warnings`: why not to believe it."""

    name: str
    value: Estimate
    less_champion: Estimate | None
    visits: int
    effective: float
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LogFigures:
    """What the logged visits say. `why`: why they say nothing, and then there are no rows."""

    rows: tuple[LogFigure, ...]
    why: str = ""

    @property
    def warnings(self) -> tuple[str, ...]:
        """Of all estimators, each once."""
        return tuple(dict.fromkeys(text for row in self.rows for text in row.warnings))


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """One place of a list: the job's title and what the person did with it, or a person's desired title and what came
    of it ("" where nothing)."""

    title: str
    did: str = ""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One target's two lists, best first, and what came of it: titles only. `ours`, `theirs`: main metric.

    `more`: further jobs (or people) that it should have held and are not shown; `subject`: the title of the job that
    people are for, "" of jobs for a person.
    """

    number: int
    ours: float
    theirs: float
    release: tuple[Ranked, ...]
    other: tuple[Ranked, ...]
    wanted: tuple[Ranked, ...]
    more: int = 0
    subject: str = ""


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Where the release did better, and where worse, than the system called `against`."""

    against: str
    kind: Kind
    wins: tuple[Sample, ...]
    losses: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class Direction:
    """The evaluation of jobs for people, or of people for jobs.

    `compared_targets`: how many the release and the champion were both asked; None without a champion. `apart`: these
    are other targets than the rest was measured on. `opponent`: what is called champion here.
    """

    targets: int
    systems: tuple[System, ...]
    comparisons: tuple[Comparison, ...]
    stages: tuple[Stage, ...] = ()
    slices: tuple[Slice, ...] = ()
    compared_targets: int | None = None
    apart: bool = False
    opponent: str = CHAMPION
    catalogue: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def release(self) -> Mapping[str, Estimate]:
        """The release's own metrics; empty where it was asked nothing."""
        return next((system.metrics for system in self.systems if system.kind == "release"), {})

    def against(self, kind: Kind) -> tuple[Comparison, ...]:
        return tuple(one for one in self.comparisons if one.kind == kind)


@dataclass(frozen=True, kw_only=True)
class Check:
    """One rule that was looked at, with what it was decided on."""

    name: str
    ok: bool
    detail: str
    evidence: Mapping[str, float | str | None] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Ruling:
    """What the gate said. `outcome`: first, better, equal, newer, passed (said without outcomes) or refused.

    `rules`: dotted names to values as text. `champion`: the release it was compared with, "" where none was;
    `opponent`: what that is.
    """

    outcome: str
    checks: tuple[Check, ...]
    rules: Mapping[str, str] = field(default_factory=dict)
    champion: str = ""
    opponent: str = CHAMPION

    @property
    def passed(self) -> bool:
        return self.outcome != "refused"

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.ok)


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything one page shows."""

    manifest: Manifest
    ruling: Ruling
    main_metric: str
    jobs: Direction
    people: Direction | None = None
    probability: Probability | None = None
    fairness: Fairness | None = None
    latency: Latency | None = None
    log: LogFigures | None = None
    power: Power | None = None
    drift: tuple[str, ...] = ()
    samples: Samples | None = None
    people_samples: Samples | None = None
