"""The fairness of a release, asked of the objects that serve: what a name changes, and what each group gets.

    audit_fairness(funnel, contexts, people=people_funnel, jobs=job_ids, at=as_of, events=log, groups=groups)

Names need no groups: a candidate asks under two of them, and the answers must be the same (`name_swaps`). Groups come
from a file of the operator's (`groups`); of each the attention and the chances are compared with everybody else's
(`parity`), in the release's lists and in what was logged. A gap in the log is a fact about those who showed and chose,
employers included, and a warning of what the next release learns from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import polars as pl

from rolecall.features.catalogue import Catalogue
from rolecall.features.context import CandidateContext
from rolecall.pipelines.evaluation.groups import Groups
from rolecall.pipelines.evaluation.name_swaps import SHOWN, swap_candidates, swap_people
from rolecall.pipelines.evaluation.parity import ExposureGap, Shares, gaps, listed, paid, wanted, well_paid_jobs
from rolecall.serving.funnel import Funnel
from rolecall.serving.people_funnel import PeopleFunnel

BOUND = 0.95
"""Parity is broken where the whole interval lies below this ratio or above its inverse. The four-fifths rule (29 CFR
1607.4 D) draws the line at 0.8 of a ratio of selection rates; a log sees smaller gaps, and sees them early."""

_LOG = "log: "
MOST_LISTS = 300
_SWAPPED_JOBS = 5
Asked = Sequence[tuple[CandidateContext, datetime]]


@dataclass(frozen=True, kw_only=True)
class Fairness:
    """What an audit found. `swaps` answers were asked for under two names, `changed` of them differed; `overlap`: mean
    share of their first ten in common. `exposure`: by what was compared, a group's share against the others'."""

    swaps: int
    changed: int
    exposure: Mapping[str, ExposureGap] = field(default_factory=dict)
    overlap: float = 1.0

    def unequal(self, bound: float = BOUND) -> tuple[str, ...]:
        """What surely breaks parity."""
        return tuple(name for name, gap in self.exposure.items() if gap.unequal(bound))

    def of_release(self) -> Fairness:
        """Without what the log alone says: of that a new release may learn, but it did not do it."""
        return replace(self, exposure={name: gap for name, gap in self.exposure.items() if not name.startswith(_LOG)})

    def to_dict(self) -> dict[str, object]:
        """As JSON values."""
        return {
            "swaps": self.swaps,
            "changed": self.changed,
            "overlap": self.overlap,
            "exposure": {name: gap.to_dict() for name, gap in self.exposure.items()},
            "unequal": list(self.unequal()),
        }


def audit_fairness(
    funnel: Funnel,
    asked: Asked,
    *,
    at: datetime,
    people: PeopleFunnel | None = None,
    jobs: Sequence[str] = (),
    events: pl.DataFrame | None = None,
    groups: Groups | None = None,
    swaps: int = 100,
    rounds: int = 1000,
    seed: int = 7,
) -> Fairness:
    """Audit a release. `asked`: candidates as known at the instants they ask; `jobs`: ids that `people` is asked about
    at `at`; `events`: the log up to then. The first `swaps` of the candidates, and as many people, are swapped."""
    told = swap_candidates(funnel, asked[:swaps])
    if people is not None:
        some = np.random.default_rng(seed).permutation(people.size)[:swaps]
        told += swap_people(people, some.tolist(), jobs[:_SWAPPED_JOBS], at)
    compared = _compared(funnel, asked[:MOST_LISTS], people, jobs[:MOST_LISTS], at, events, groups or Groups())
    found = {
        f"{name} group={group}": gap
        for name, shares in compared
        if len(shares.got)
        for group, gap in gaps(shares, rounds=rounds, seed=seed)
    }
    return Fairness(swaps=told.swaps, changed=told.changed, overlap=told.overlap, exposure=found)


def audit_log(events: pl.DataFrame, catalogue: Catalogue, groups: Groups) -> Iterator[tuple[str, Shares]]:
    """What the log alone says of groups of candidates."""
    shown = events.filter(pl.col("kind") == "impression", pl.col("position").is_not_null())
    yield f"{_LOG}well-paid jobs", paid(shown, well_paid_jobs(catalogue), groups.candidates)
    yield f"{_LOG}wanted by employers", wanted(events, groups.candidates)


def _compared(
    funnel: Funnel,
    asked: Asked,
    people: PeopleFunnel | None,
    jobs: Sequence[str],
    at: datetime,
    events: pl.DataFrame | None,
    groups: Groups,
) -> Iterator[tuple[str, Shares]]:
    """Everything that the given groups can be compared by."""
    if groups.candidates and events is not None:
        yield from audit_log(events, funnel.catalogue, groups)
    given = groups.candidates or groups.jobs
    lists = [(context, moment, _jobs_of(funnel, context, moment)) for context, moment in (asked if given else ())]
    if groups.candidates:
        yield "well-paid jobs", paid(_shown(lists), well_paid_jobs(funnel.catalogue), groups.candidates)
    if groups.jobs:
        yield "jobs shown", listed([(ids, _live(funnel, moment)) for _, moment, ids in lists], groups.jobs)
    if groups.candidates and people is not None:
        answers = [_people_of(people, job, at) for job in jobs]
        yield "people shown", listed([answer for answer in answers if answer is not None], groups.candidates)


def _jobs_of(funnel: Funnel, context: CandidateContext, at: datetime) -> list[str]:
    return list(funnel.catalogue.ids_of(funnel.rank_all(context, at=at).rows[:SHOWN]))


def _live(funnel: Funnel, at: datetime) -> list[str]:
    catalogue = funnel.catalogue
    rows = np.arange(len(catalogue), dtype=np.int32)
    return list(catalogue.ids_of(rows[catalogue.live(rows, at.timestamp() * 1e6)]))


def _people_of(people: PeopleFunnel, job: str, at: datetime) -> tuple[list[str], list[str]] | None:
    """Who is listed for a job, and who could have been."""
    question = people.pairs.question(job)
    if question is None:
        return None
    names = people.pairs.people.candidate_ids
    visible = np.flatnonzero(people.policy.visible(question, at.timestamp() * 1e6))
    ranked = people.rank_all(question, at=at).rows[:SHOWN]
    return [names[row] for row in ranked], [names[row] for row in visible]


def _shown(lists: Sequence[tuple[CandidateContext, datetime, list[str]]]) -> pl.DataFrame:
    rows = [
        (context.candidate_id or "", job, position)
        for context, _, ids in lists
        for position, job in enumerate(ids, start=1)
    ]
    schema = {"candidate_id": pl.String, "job_id": pl.String, "position": pl.Int64}
    return pl.DataFrame(rows, schema=schema, orient="row")
