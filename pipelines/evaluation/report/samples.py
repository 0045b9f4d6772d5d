"""Where the release did better and worse, side by side: whose lists differ most in the main metric.

They are the extremes and not typical, and the page says so. Of a person only titles of jobs are kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rolecall.pipelines.evaluation.gate.evidence import CHAMPION
from rolecall.pipelines.evaluation.judge import FUNNEL
from rolecall.pipelines.evaluation.report.figures import Kind, Ranked, Sample, Samples
from rolecall.pipelines.evaluation.report.gather import best_baseline, main_values
from rolecall.pipelines.evaluation.report.sources import Judged, Values
from rolecall.pipelines.evaluation.report.wording import title
from rolecall.pipelines.evaluation.targets import Target
from rolecall.pipelines.examples import LABELS

SHOWN = 10
"""Places of a list that are shown, as many as the main metric looks at."""

_DID = {LABELS["view"]: "viewed", LABELS["save"]: "saved", LABELS["apply"]: "applied"}


def choose_samples(
    release: Judged, champion: Judged | None, titles: Mapping[str, str], *, opponent: str = CHAMPION, each: int = 4
) -> Samples | None:
    """At most `each` wins and losses against the champion, or against the best baseline where nothing is served.

    `release`: on the champion's targets. None where lists were not kept.
    """
    other = _opponent(release, champion, opponent)
    if other is None:
        return None
    return Samples(
        against=other.name,
        kind=other.kind,
        wins=_pick(release, other, titles, sign=1, each=each),
        losses=_pick(release, other, titles, sign=-1, each=each),
    )


@dataclass(frozen=True, kw_only=True)
class _Opponent:
    name: str
    kind: Kind
    lists: Sequence[Sequence[str]]
    values: Values


def _opponent(release: Judged, champion: Judged | None, name: str) -> _Opponent | None:
    if FUNNEL not in release.lists:
        return None
    if champion is not None and FUNNEL in champion.lists:
        return _Opponent(name=name, kind="champion", lists=champion.lists[FUNNEL], values=main_values(champion, FUNNEL))
    best = best_baseline(release, [name for name in release.lists if name != FUNNEL and name in release.systems])
    if best is None:
        return None
    return _Opponent(name=best, kind="baseline", lists=release.lists[best], values=main_values(release, best))


def _pick(
    release: Judged, opponent: _Opponent, titles: Mapping[str, str], *, sign: int, each: int
) -> tuple[Sample, ...]:
    """The largest differences of one sign; among equals those with most that was wanted, then in order of targets."""
    ours = main_values(release, FUNNEL)
    gaps = np.nan_to_num((ours - opponent.values) * sign, nan=0.0)
    wanted = [len(target.job_ids) for target in release.targets]
    order = sorted(range(len(gaps)), key=lambda row: (-gaps[row], -wanted[row], row))
    return tuple(
        _sample(number, row, release, opponent, titles)
        for number, row in enumerate((row for row in order[:each] if gaps[row] > 0), start=1)
    )


def _sample(number: int, row: int, release: Judged, opponent: _Opponent, titles: Mapping[str, str]) -> Sample:
    target: Target = release.targets[row]
    did = {job: _DID.get(label, "chose") for job, label in zip(target.job_ids, target.labels, strict=True)}
    strongest = sorted(zip(target.job_ids, target.labels, strict=True), key=lambda pair: -pair[1])

    def ranked(jobs: Sequence[str]) -> tuple[Ranked, ...]:
        return tuple(Ranked(title=title(titles.get(job)), did=did.get(job, "")) for job in jobs[:SHOWN])

    return Sample(
        number=number,
        ours=float(main_values(release, FUNNEL)[row]),
        theirs=float(opponent.values[row]),
        release=ranked(release.lists[FUNNEL][row]),
        other=ranked(opponent.lists[row]),
        wanted=ranked([job for job, _ in strongest]),
        more=max(len(strongest) - SHOWN, 0),
    )
