"""The closed loop of one seed: every day all arms answer the same visits of the same world, each from its own home.

    midnight      the arm's night: ingest, train, judge, promote, or whatever it does
    the day       visits in order; a slate each; the world responds; the events go into the arm's own log
    midnight      employers' answers, then the day's new postings, edits and ratings go into every home

A finished day is kept on disk as the slates that were shown. Responses follow from them, so a loop that was killed
plays its finished days again without asking anybody, and goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from rolecall.pipelines.lab.arms import Arm
from rolecall.pipelines.lab.home import Home
from rolecall.pipelines.lab.outcome import COUNTED, Outcome
from rolecall.pipelines.lab.policies import Policy, Visit
from rolecall.pipelines.market.event_rows import request_names
from rolecall.pipelines.market.memory import Memory
from rolecall.pipelines.market.session import Responses
from rolecall.pipelines.market.visits import Visits
from rolecall.pipelines.market.world import World, day_start

pc: Any = pyarrow.compute  # its functions are made at import, where no type checker sees them

Say = Callable[[str], None]
"""Told of progress, a line at a time."""

_EVERYBODY = 1_000_000_000


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What one arm showed on one day: job numbers int64[R, K], -1 for an empty slot, and their propensities."""

    jobs: npt.NDArray[np.int64]
    propensities: npt.NDArray[np.float64]

    def take(self, rows: slice) -> Shown:
        return Shown(jobs=self.jobs[rows], propensities=self.propensities[rows])


@dataclass(kw_only=True)
class Life:
    """One arm's side of the world: its home, what the world remembers of it, and what it came to so far."""

    name: str
    arm: Arm
    home: Home
    memory: Memory
    counts: dict[str, npt.NDArray[np.int64]]
    exposure: npt.NDArray[np.int64]
    daily: list[int] = field(default_factory=list)

    def outcome(self, live: npt.NDArray[np.bool_]) -> Outcome:
        return Outcome(
            arm=self.name, counts=self.counts, daily=np.array(self.daily, np.int64), exposure=self.exposure[live]
        )


class SeedLoop:
    """One seed's world and the lives of all arms in it. `folder` holds their homes and the finished days.

    `start`: what the world remembers of its history, from which every arm's course goes on.
    """

    def __init__(
        self,
        world: World,
        start: Memory,
        base: Home,
        arms: Mapping[str, Arm],
        folder: Path,
        *,
        say: Say = lambda line: None,
    ) -> None:
        self.world, self.folder, self._say = world, folder, say
        self.lives = [
            Life(
                name=name,
                arm=arm,
                home=base.copy(folder / name),
                memory=start.copy(),
                counts={counted: np.zeros(len(world.people), np.int64) for counted in COUNTED},
                exposure=np.zeros(len(world.postings), np.int64),
            )
            for name, arm in arms.items()
        ]

    def run(self, days: int) -> list[Outcome]:
        """Live through the days after the world's end; one outcome an arm, in their order."""
        first = self.world.config.end
        for number in range(days):
            day = first + timedelta(days=number)
            visits, known = self.world.visits(day), self.world.known_on(day)
            for life in self.lives:
                self._live(life, day, visits, known)
        jobs, since = self.world.postings, day_start(first)
        live = (jobs.expires_us > since) & (jobs.posted_us < day_start(first + timedelta(days=days - 1)))
        return [life.outcome(live) for life in self.lives]

    def _live(self, life: Life, day: date, visits: Visits, known: Mapping[str, pa.Table]) -> None:
        """One arm's day: played again where it is on disk."""
        file = self._file(life, day)
        if file.exists():
            with np.load(file, allow_pickle=False) as arrays:
                shown = Shown(jobs=arrays["jobs"], propensities=arrays["propensities"])
            self._through(life, day, visits, _again(shown))
            if not self._file(life, day + timedelta(days=1)).exists():
                life.home.learn(known)  # the kill may have come before this
            return
        midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
        with life.arm.open(life.home, midnight) as policy:
            parts = self._through(life, day, visits, self._asked(policy), post=True)
        _save(file, parts)
        life.home.learn(known)
        self._say(f"{day} {life.name}: {life.daily[-1]} applications from {len(visits)} visits")

    def _through(
        self, life: Life, day: date, visits: Visits, answer: Callable[[Visits, slice], Shown], *, post: bool = False
    ) -> list[Shown]:
        """All visits of the day, nobody's second before their first, then the employers' answers."""
        received = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=1)
        first, applied, parts = 0, 0, []
        for block in visits.blocks(_EVERYBODY):
            shown = answer(block, slice(first, first + len(block)))
            responses = self.world.respond(block, shown.jobs, shown.propensities, life.memory)
            found = self.world.browse(block, life.memory)
            if post:
                life.home.post(pa.concat_tables([responses.events, found]), received_at=received)
            self._count(life, block, shown, responses)
            first, applied = first + len(block), applied + int(responses.applied.sum())
            parts.append(shown)
        answers = self.world.answers(day, life.memory)
        if post:
            life.home.post(answers, received_at=received)
        hired = answers.filter(pc.equal(answers["kind"], "hire"))["candidate_id"].to_pylist()
        np.add.at(life.counts["hires"], [self.world.candidate_number(who) for who in hired], 1)
        life.memory.forget(day_start(day))
        life.daily.append(applied)
        return parts

    def _asked(self, policy: Policy) -> Callable[[Visits, slice], Shown]:
        def answer(block: Visits, rows: slice) -> Shown:
            slates = [policy.slate(visit) for visit in visits_asked(block)]
            slots = self.world.config.slots
            jobs = np.full((len(slates), slots), -1, np.int64)
            propensities = np.zeros((len(slates), slots))
            for row, slate in enumerate(slates):
                filled = len(slate.job_ids)
                jobs[row, :filled] = [self.world.job_number(job_id) for job_id in slate.job_ids]
                propensities[row, :filled] = slate.propensities
            return Shown(jobs=jobs, propensities=propensities)

        return answer

    def _count(self, life: Life, block: Visits, shown: Shown, responses: Responses) -> None:
        marks = {
            "visits": np.ones((len(block), 1), np.bool_),
            "impressions": shown.jobs >= 0,
            "clicks": responses.clicked,
            "saves": responses.saved,
            "applications": responses.applied,
            "dismissals": responses.dismissed,
        }
        for name, marked in marks.items():
            np.add.at(life.counts[name], block.candidate, marked.sum(axis=1))
        np.add.at(life.exposure, shown.jobs[shown.jobs >= 0], 1)

    def _file(self, life: Life, day: date) -> Path:
        return self.folder / "days" / life.name / f"{day}.npz"


def visits_asked(visits: Visits) -> Sequence[Visit]:
    """Visits as a policy sees them. `request_id` is the one the world's events will carry."""
    names = request_names(visits.candidate, visits.visit)
    return [
        Visit(candidate_id=who, at=_instant(at), request_id=f"req-{name}")
        for who, at, name in zip(visits.candidate_ids, visits.at_us.tolist(), names, strict=True)
    ]


def _again(shown: Shown) -> Callable[[Visits, slice], Shown]:
    return lambda block, rows: shown.take(rows)


def _save(file: Path, parts: Sequence[Shown]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_suffix(".partial.npz")
    jobs = np.concatenate([part.jobs for part in parts])
    np.savez(temporary, jobs=jobs, propensities=np.concatenate([part.propensities for part in parts]))
    temporary.replace(file)


def _instant(at_us: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)
