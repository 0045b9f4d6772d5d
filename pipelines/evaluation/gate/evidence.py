"""Everything a verdict depends on, as numbers without a name of anybody: kept with the release, so that other rules can
be tried on it (`rolecall releases gate`) without loading a model again.

Candidates are codes in order of appearance. Values are those of the main metric, a number a target.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.evaluation.impressions import ImpressionQuality
from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC, Evaluation
from rolecall.pipelines.evaluation.people_targets import PeopleTarget
from rolecall.pipelines.evaluation.statistics import Clusters, Interval, Values, clusters_of
from rolecall.platform.errors import InputError, IntegrityError

_META = "meta"
CHAMPION = "champion"
REFRESHED = "refreshed champion"
"""The champion as it is, or its rankers over this day's catalogue (`pipelines/refresh.py`)."""


class ExposureGap(Protocol):
    """A group's exposure over everybody's, and how many of the group were asked about."""

    @property
    def ratio(self) -> Interval: ...
    @property
    def count(self) -> int: ...


class FairnessAudit(Protocol):
    """What `fairness.audit_fairness` finds: of `swaps` changed names or pronouns, `changed` answers changed."""

    @property
    def swaps(self) -> int: ...
    @property
    def changed(self) -> int: ...
    @property
    def exposure(self) -> Mapping[str, ExposureGap]: ...


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One release's values on its own targets: `funnel`, `baselines`, and what each target took, all float64[n];
    `clusters` int64[n]: whose target it is."""

    funnel: Values
    clusters: Clusters
    baselines: Mapping[str, Values]
    milliseconds: Values


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Challenger (`ours`) and champion (`theirs`) on the same targets, float64[n]; by slice both, NaN outside of it."""

    ours: Values
    theirs: Values
    clusters: Clusters
    slices: Mapping[str, tuple[Values, Values]] = field(default_factory=dict)
    our_ms: Values
    their_ms: Values


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """`champion`, `people`: None where there is nothing to compare with; `opponent`: what that was, CHAMPION or
    REFRESHED, and `served` then the champion as it is. `size_bytes` and the age of the champion's models in days;
    `champion_must_go`: it may not be served on, whatever it is worth. `live_jobs`: in the release, and in the champion
    at its own instant. `impressions`, `exposure`: numbers by name, of logged impressions and of each group.
    `refresh`: it holds the champion's own rankers, and only their new catalogue is judged."""

    answers: Answers
    champion: Pairs | None = None
    people: Pairs | None = None
    served: Pairs | None = None
    opponent: str = CHAMPION
    refresh: bool = False
    size_bytes: int = 0
    champion_size_bytes: int | None = None
    champion_age_days: float | None = None
    champion_must_go: bool = False
    live_jobs: int | None = None
    champion_live_jobs: int | None = None
    schema_errors: tuple[str, ...] = ()
    leaks: tuple[str, ...] = ()
    impressions: Mapping[str, float] | None = None
    swaps: int | None = None
    changed: int = 0
    exposure: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """One .npz without pickle."""
        arrays = {f"answers/{name}": array for name, array in _arrays(self.answers)}
        for name in ("champion", "people", "served"):
            pairs = getattr(self, name)
            arrays |= {} if pairs is None else {f"{name}/{key}": array for key, array in _arrays(pairs)}
        told = {name: getattr(self, name) for name in _TOLD}
        arrays[_META] = np.frombuffer(json.dumps(told).encode(), np.uint8)
        with path.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, file: Path | BinaryIO) -> Evidence:
        """Raises IntegrityError for a file that `save` did not write."""
        try:
            with np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            told = json.loads(arrays.pop(_META).tobytes())
            answers = _part(arrays, "answers")
            return cls(
                answers=Answers(
                    funnel=answers["funnel"],
                    clusters=answers["clusters"],
                    milliseconds=answers["milliseconds"],
                    baselines=_below(answers, "baselines"),
                ),
                champion=_pairs(_part(arrays, "champion")),
                people=_pairs(_part(arrays, "people")),
                served=_pairs(_part(arrays, "served")),
                **(told | {name: tuple(told[name]) for name in ("schema_errors", "leaks")}),
            )
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise IntegrityError(f"the file is no evidence of a verdict: {error}", "a file of the gate") from error


_TOLD = (
    "opponent", "refresh", "live_jobs", "champion_live_jobs", "size_bytes",
    "champion_size_bytes", "champion_age_days", "champion_must_go",
    "schema_errors", "leaks", "impressions", "swaps", "changed", "exposure",
)  # fmt: skip


def gather(
    challenger: Evaluation,
    champion: Evaluation | None,
    *,
    rival: Evaluation | None = None,
    served: Evaluation | None = None,
    people: tuple[Evaluation, Evaluation] | None = None,
    fairness: FairnessAudit | None = None,
    leak_findings: Sequence[object] = (),
    **facts: Any,
) -> Evidence:
    """The evidence in two evaluations and what else is known of a release; `judge_release` says what each is.

    Raises InputError where champion and challenger were not asked the same.
    """
    return Evidence(
        answers=Answers(
            funnel=_main(challenger),
            clusters=_clusters(challenger),
            baselines={name: table[MAIN_METRIC] for name, table in challenger.systems.items() if name != FUNNEL},
            milliseconds=challenger.milliseconds,
        ),
        champion=None if champion is None else compared(rival or challenger, champion),
        people=None if people is None else compared(*people),
        served=None if served is None else compared(rival or challenger, served),
        leaks=tuple(map(told_leak, leak_findings)),
        impressions=_impressions(challenger.impressions),
        swaps=None if fairness is None else fairness.swaps,
        changed=0 if fairness is None else fairness.changed,
        exposure={} if fairness is None else {name: _gap(gap) for name, gap in fairness.exposure.items()},
        **facts,
    )


def compared(challenger: Evaluation, champion: Evaluation) -> Pairs:
    """Both on the same targets. Raises InputError where they are not the same."""
    if challenger.targets != champion.targets:
        raise InputError(
            "champion and challenger were evaluated on different targets", "the same targets in the same order"
        )
    return Pairs(
        ours=_main(challenger),
        theirs=_main(champion),
        clusters=_clusters(challenger),
        slices={
            name: (challenger.slices[name], champion.slices[name])
            for name in sorted(set(challenger.slices) & set(champion.slices))
        },
        our_ms=challenger.milliseconds,
        their_ms=champion.milliseconds,
    )


def told_leak(finding: object) -> str:
    """A finding of the leak audit in words: its kind, column and evidence, or what it says itself."""
    parts = [str(getattr(finding, name)) for name in ("kind", "column", "evidence") if hasattr(finding, name)]
    return ": ".join(parts) or str(finding)


def _main(evaluation: Evaluation) -> Values:
    return evaluation.systems[FUNNEL][MAIN_METRIC]


def _clusters(evaluation: Evaluation) -> npt.NDArray[np.int64]:
    return clusters_of(
        [target.job_id if isinstance(target, PeopleTarget) else target.candidate_id for target in evaluation.targets]
    )


def _impressions(quality: ImpressionQuality | None) -> dict[str, float] | None:
    """An ImpressionQuality by name; what is not known is left out."""
    if quality is None:
        return None
    names = ("auc", "grouped_auc", "normalized_entropy", "base_rate", "count")
    numbers = {name: float(getattr(quality, name)) for name in names}
    for name in ("slope", "intercept", "slope_low", "slope_high", "ece", "constant_ece"):
        numbers[name] = float(getattr(quality.calibration, name))
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


def _gap(gap: ExposureGap) -> dict[str, float]:
    return {"ratio": gap.ratio.mean, "low": gap.ratio.low, "high": gap.ratio.high, "count": float(gap.count)}


def _arrays(part: Answers | Pairs) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    for name in part.__dataclass_fields__:
        value = getattr(part, name)
        if isinstance(value, np.ndarray):
            yield name, value
        else:
            for key, below in value.items():
                yield f"{name}/{key}", np.stack(below) if isinstance(below, tuple) else below


def _part(arrays: Mapping[str, npt.NDArray[Any]], name: str) -> dict[str, npt.NDArray[Any]]:
    return {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}


_below = _part


def _pairs(arrays: Mapping[str, npt.NDArray[Any]]) -> Pairs | None:
    if not arrays:
        return None
    plain = {name: array for name, array in arrays.items() if not name.startswith("slices/")}
    slices = {name: (both[0], both[1]) for name, both in _part(arrays, "slices").items()}
    return Pairs(**plain, slices=slices)
