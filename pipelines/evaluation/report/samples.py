"""Where the release did better and worse, side by side: whose lists differ most in the main metric.

They are the extremes and not typical, and the page says so. Of a person only titles of jobs are kept: those in their
list, or of people for a job a title they look for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rolecall.pipelines.evaluation.gate.evidence import CHAMPION
from rolecall.pipelines.evaluation.judge import FUNNEL
from rolecall.pipelines.evaluation.people_targets import PeopleTarget
from rolecall.pipelines.evaluation.report.figures import Kind, Ranked, Sample, Samples
from rolecall.pipelines.evaluation.report.gather import best_baseline, main_values
from rolecall.pipelines.evaluation.report.sources import Judged, Values
from rolecall.pipelines.evaluation.report.wording import NO_TITLE, NO_WISH, title
from rolecall.pipelines.evaluation.targets import Target
from rolecall.pipelines.examples import LABELS
from rolecall.pipelines.people_outcomes import INVITED, MUTUAL

SHOWN = 10
"""Places of a list that are shown, as many as the main metric looks at."""

_DID = {LABELS["view"]: "viewed", LABELS["save"]: "saved", LABELS["apply"]: "applied"}
_BECAME = {MUTUAL: "wanted by both", INVITED: "invited and came"}


def choose_samples(
    release: Judged,
    champion: Judged | None,
    titles: Mapping[str, str],
    *,
    opponent: str = CHAMPION,
    subjects: Mapping[str, str] | None = None,
    each: int = 4,
) -> Samples | None:
    """At most `each` wins and losses against the champion, or against the best baseline where nothing is served.

    `release`: on the champion's targets. `titles`: of what is listed, by id; `subjects`: of the jobs that people are
    listed for, None of jobs for people. None where lists were not kept.
    """
    other = _opponent(release, champion, opponent)
    if other is None:
        return None
    words = _Words(titles=titles, subjects=subjects)
    return Samples(
        against=other.name,
        kind=other.kind,
        wins=_pick(release, other, words, sign=1, each=each),
        losses=_pick(release, other, words, sign=-1, each=each),
    )


@dataclass(frozen=True, kw_only=True)
class _Words:
    """What ids are called."""

    titles: Mapping[str, str]
    subjects: Mapping[str, str] | None

    def of(self, item: str) -> str:
        return title(self.titles.get(item), NO_TITLE if self.subjects is None else NO_WISH)

    def subject(self, target: Target | PeopleTarget) -> str:
        return title((self.subjects or {}).get(target.job_id)) if isinstance(target, PeopleTarget) else ""


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


def _pick(release: Judged, opponent: _Opponent, words: _Words, *, sign: int, each: int) -> tuple[Sample, ...]:
    """The largest differences of one sign; among equals those with most that was wanted, then in order of targets."""
    ours = main_values(release, FUNNEL)
    gaps = np.nan_to_num((ours - opponent.values) * sign, nan=0.0)
    wanted = [len(_wanted(target)) for target in release.targets]
    order = sorted(range(len(gaps)), key=lambda row: (-gaps[row], -wanted[row], row))
    return tuple(
        _sample(number, row, release, opponent, words)
        for number, row in enumerate((row for row in order[:each] if gaps[row] > 0), start=1)
    )


def _sample(number: int, row: int, release: Judged, opponent: _Opponent, words: _Words) -> Sample:
    target = release.targets[row]
    said = _BECAME if isinstance(target, PeopleTarget) else _DID
    pairs = list(zip(_wanted(target), target.labels, strict=True))
    did = {item: said.get(label, "chose") for item, label in pairs}
    strongest = sorted(pairs, key=lambda pair: -pair[1])

    def ranked(items: Sequence[str]) -> tuple[Ranked, ...]:
        return tuple(Ranked(title=words.of(item), did=did.get(item, "")) for item in items[:SHOWN])

    return Sample(
        number=number,
        ours=float(main_values(release, FUNNEL)[row]),
        theirs=float(opponent.values[row]),
        release=ranked(release.lists[FUNNEL][row]),
        other=ranked(opponent.lists[row]),
        wanted=ranked([item for item, _ in strongest]),
        more=max(len(strongest) - SHOWN, 0),
        subject=words.subject(target),
    )


def _wanted(target: Target | PeopleTarget) -> tuple[str, ...]:
    return target.candidate_ids if isinstance(target, PeopleTarget) else target.job_ids
