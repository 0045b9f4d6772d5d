"""The marketplace as a place where days go by: who is known when, who comes, what they do with what they are shown.

    world = World(config)
    events, memory = world.history()                  # the month, as the logging policy lived it
    for visits in world.visits(day).blocks(1024):     # a day after it, with jobs from anywhere
        responses = world.respond(visits, shown, propensity, memory)
    answers = world.answers(day, memory)

Nothing in a World changes once it is made; all that happens is in the Memory. Results do not depend on how visits are
put into blocks, as long as a person's visits of one day come in their order.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rolecall.pipelines.market.answers import Answers, PeopleLists
from rolecall.pipelines.market.browse import browse
from rolecall.pipelines.market.choice import Chooser
from rolecall.pipelines.market.config import DAY_US, MarketConfig, microseconds
from rolecall.pipelines.market.employers import make_employers
from rolecall.pipelines.market.event_rows import ordered
from rolecall.pipelines.market.job_table import JobTable
from rolecall.pipelines.market.luck import Draw, Luck
from rolecall.pipelines.market.memory import Memory, pair_key
from rolecall.pipelines.market.people import People, PeopleSource
from rolecall.pipelines.market.places import load_places
from rolecall.pipelines.market.policy import Shelf, Shelves, draw_slots
from rolecall.pipelines.market.postings import Postings, PostingSource, demand, take
from rolecall.pipelines.market.profiles import Profiles
from rolecall.pipelines.market.session import Responses, respond
from rolecall.pipelines.market.taxonomy import Taxonomy, build_taxonomy
from rolecall.pipelines.market.visits import MOST_VISITS, Visits, visits_of

BLOCK = 1024
"""Visits weighed at a time: some 300 jobs each."""


@lru_cache(maxsize=4)
def _taxonomy(occupations: int) -> Taxonomy:
    return build_taxonomy(occupations)


class World:
    """One marketplace. Raises NotFoundError where a package with the texts is not installed."""

    def __init__(self, config: MarketConfig) -> None:
        self.config = config
        self.luck = Luck(config.seed)
        self.taxonomy, self.places = _taxonomy(config.occupations), load_places()
        weights = demand(self.luck, self.taxonomy)
        groups = tuple(o.group for o in self.taxonomy.occupations)
        self.employers = make_employers(config, self.luck, groups, weights)
        self.posting_source = PostingSource(config, self.luck, self.taxonomy, weights, self.employers, self.places)
        self.people_source = PeopleSource(config, self.luck, self.taxonomy, weights, self.places)
        self.job_table = JobTable(config, self.luck, self.taxonomy, self.employers, self.places)
        self.profiles = Profiles(config, self.luck, self.taxonomy, self.places)

    @cached_property
    def postings(self) -> Postings:
        """Every posting up to the end of the horizon, as numbers."""
        return self.posting_source.all()

    @cached_property
    def people(self) -> People:
        """Everybody who joins up to the end of the horizon, as numbers."""
        return self.people_source.all()

    @cached_property
    def chooser(self) -> Chooser:
        """The choice model over all postings and people."""
        return Chooser(self.config, self.luck, self.taxonomy, self.postings, self.people, self.employers, self.places)

    @cached_property
    def shelves(self) -> Shelves:
        """What the logging policy weighs."""
        return Shelves(self.luck, self.taxonomy, self.postings, self.places)

    @cached_property
    def _answers(self) -> Answers:
        near = PeopleLists(self.luck, self.chooser, self.places.country_number)
        return Answers(self.config, self.luck, self.chooser, near)

    @cached_property
    def _shelf(self) -> Any:
        return lru_cache(maxsize=2)(self.shelves.day)

    # what is known

    def tables(self, until: date | None = None) -> dict[str, pa.Table]:
        """Jobs, candidates and employers by table name, as known at midnight that begins `until` (default: `end`).

        Of a candidate it is the newest row; of jobs all ever posted, expired ones too.
        """
        until_us = self.config.end_us if until is None else day_start(until)
        posted = int(np.searchsorted(self.postings.posted_us, until_us))
        return {
            "jobs": self.job_table.rows(take(self.postings, slice(0, posted))),
            "candidates": self.profiles.known(self.people, until_us),
            "employers": self.employers.table(0, until_us),
        }

    def known_on(self, day: date) -> dict[str, pa.Table]:
        """Rows that become known on that day: new postings, newcomers, profile edits, ratings; in order of time."""
        since, until = day_start(day), day_start(day + timedelta(days=1))
        first, last = np.searchsorted(self.postings.posted_us, [since, until]).tolist()
        return {
            "jobs": self.job_table.rows(take(self.postings, slice(first, last))),
            "candidates": self.profiles.told(self.people, since, until),
            "employers": self.employers.table(since, until),
        }

    # what happens

    def days(self) -> tuple[date, ...]:
        """The days before `end`."""
        first = self.config.starts_at.date()
        return tuple(first + timedelta(days=n) for n in range(self.config.days))

    def visits(self, day: date) -> Visits:
        """Everybody who comes on that day. Nobody's coming depends on what they were shown before."""
        return visits_of(self.config, self.luck, self.people, day_start(day))

    def show(self, visits: Visits, memory: Memory) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
        """The logging policy's jobs for each visit and their propensities [R, slots]; -1 and 0 for an empty slot."""
        who, at_us = visits.candidate, visits.at_us
        version = self.people.version(who, at_us)
        shelf = self._shelf_on(visits)
        job_RP = self.shelves.pool(shelf, self.people.declared[who, version], self.people.place[who, version])
        open_RP = self.shelves.open(job_RP, at_us) & (memory.applied.get(pair_key(who[:, None], job_RP)) == 0)
        score_RP = self.chooser.score(who, job_RP, at_us)
        gumbel_RP = self.luck.gumbel(Draw.SLOT, who[:, None], np.maximum(job_RP, 0), visits.visit[:, None])
        slot_RK, propensity_RK = draw_slots(score_RP, open_RP, self.config.slots, gumbel_RP)
        real_RK = np.take_along_axis(open_RP, slot_RK, axis=1)
        return np.where(real_RK, np.take_along_axis(job_RP, slot_RK, axis=1), -1), propensity_RK * real_RK

    def respond(
        self,
        visits: Visits,
        shown: npt.NDArray[Any],
        propensity: npt.NDArray[Any],
        memory: Memory,
    ) -> Responses:
        """What the visitors do with `shown` [R, K] job numbers, -1 for an empty slot. `memory` learns of it.

        `visits`: a day's, or a part of them in their order (`Visits.blocks`).
        """
        parts = []
        for again in range(MOST_VISITS):
            rows = np.flatnonzero(visits.again == again)
            if len(rows) or not again:
                some = visits.take(rows)
                done = respond(self.config, self.luck, self.chooser, some, shown[rows], propensity[rows], memory)
                parts.append((rows, done))
        return Responses.joined(parts, shown.shape)

    def browse(self, visits: Visits, memory: Memory) -> pa.Table:
        """Events of what the visitors find by themselves afterwards, whatever they were shown."""
        return browse(self.luck, self.chooser, self.shelves, self._shelf_on(visits), visits, memory)

    def answers(self, day: date, memory: Memory) -> pa.Table:
        """Employers' events of that day, and applications of those they invited. Once a day, after its visits."""
        return self._answers.on(day_start(day), memory)

    def live(self, day: date, memory: Memory) -> pa.Table:
        """One whole day as the logging policy would have it: events in order of time."""
        return ordered(list(self.live_in_blocks(day, memory)))

    def live_in_blocks(self, day: date, memory: Memory) -> Iterator[pa.Table]:
        """The same day block by block of visits, and the employers' answers at last."""
        for visits in self.visits(day).blocks(BLOCK):
            shown, propensity = self.show(visits, memory)
            yield self.respond(visits, shown, propensity, memory).events
            yield self.browse(visits, memory)
        yield self.answers(day, memory)
        memory.forget(day_start(day))

    def month(self, memory: Memory) -> Iterator[pa.Table]:
        """Each day before `end`, lived with the logging policy."""
        for day in self.days():
            yield self.live(day, memory)

    def history(self) -> tuple[pa.Table, Memory]:
        """All events before `end` in order of time, and the memory to go on from."""
        memory = Memory()
        return ordered(list(self.month(memory))), memory

    def job_number(self, job_id: str) -> int:
        """The number of a posting's id."""
        return int(job_id.removeprefix("job-"))

    def candidate_number(self, candidate_id: str) -> int:
        """The number of a candidate's id."""
        return int(candidate_id.removeprefix("cand-"))

    def _shelf_on(self, visits: Visits) -> Shelf:
        at_us = int(visits.at_us[0]) if len(visits) else self.config.start_us
        shelf: Shelf = self._shelf(at_us - at_us % DAY_US)
        return shelf


def day_start(day: date) -> int:
    """The midnight that begins the day, in microseconds since 1970."""
    return microseconds(datetime(day.year, day.month, day.day, tzinfo=UTC))
