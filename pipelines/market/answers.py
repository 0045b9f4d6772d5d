"""What employers do: they look at applications in the order of their arrival, answer days later, and look for people.

Each job has a capacity: applications beyond it are never looked at. Of the others a share is considered at all,
shortlisted or rejected by the employer's utility; some of the shortlisted are replied to or hired while there is an
opening. Employers invite a few of those who opened a job without applying, and a few live jobs a day look for
somebody among the people who agreed to that and did not hide from them. Some of the invited apply.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rolecall.pipelines.market.choice import Chooser, sigmoid
from rolecall.pipelines.market.config import DAY_US, HOUR_US, MarketConfig
from rolecall.pipelines.market.event_rows import event_rows
from rolecall.pipelines.market.luck import Draw, Luck
from rolecall.pipelines.market.memory import Interest, Memory, Pending, pair_key
from rolecall.pipelines.market.visits import MOST_VISITS

KINDS = ("shortlist", "reject", "reply", "hire", "invite", "apply")
SEARCHED = -1
"""The position of an invitation, and of what follows from it, that no impression came before."""

_INVITE_VIEWERS = 0.1
_INVITED_APPLY_AT = 5.0
Numbers = npt.NDArray[Any]


class Answers:
    """The employers of a market."""

    def __init__(self, config: MarketConfig, luck: Luck, chooser: Chooser, people_near: PeopleLists) -> None:
        self._config, self._luck, self._chooser, self._near = config, luck, chooser, people_near

    def on(self, day_us: int, memory: Memory) -> pa.Table:
        """The events of the day that begins at `day_us`, after what happened before it has been looked at."""
        self._settle(day_us, memory)
        memory.pending += self._search(day_us, memory)
        if not memory.pending:
            return pa.concat_tables(self._rows(Pending.joined([_nothing()])))
        pending = Pending.joined(memory.pending)
        due = pending.due_us < day_us + DAY_US
        memory.pending = [pending.take(~due)]
        return pa.concat_tables(self._rows(self._applied(pending.take(due), memory)))

    def _settle(self, day_us: int, memory: Memory) -> None:
        """Decide about all interest shown before the day begins."""
        if not memory.interest:
            return
        interest = Interest.joined(memory.interest)
        early = interest.at_us < day_us
        memory.interest = [interest.take(~early)]
        self._decide(interest.take(early), memory)

    def _decide(self, interest: Interest, memory: Memory) -> None:
        who, job, weights = interest.candidate, interest.job, self._config.hiring
        fit = self._chooser.fit(who, job[:, None], interest.at_us)[:, 0]
        luck = [self._drawn(interest, number) for number in range(6)]
        earlier = memory.applications.get(job) + _rank(job, interest.applied)
        in_time = interest.applied & (earlier < self._chooser.postings.capacity[job])
        memory.applications.add(job[interest.applied])
        answered = in_time & (luck[0] < weights.answers)
        good = answered & (luck[1] < sigmoid(fit - weights.shortlist_at))
        fitting = good & (luck[2] < sigmoid(fit - weights.hire_at))
        openings = 1 + (self._chooser.postings.capacity[job] > 8)
        hired = fitting & (memory.hired.get(job) + _rank(job, fitting) < openings)
        memory.hired.add(job[hired])
        viewers = ~interest.applied & (luck[3] < _INVITE_VIEWERS * sigmoid(fit - weights.shortlist_at))
        at_us = interest.at_us + ((1 + 5 * luck[4]) * DAY_US).astype(np.int64)
        memory.pending += [
            _pending(interest, good, "shortlist", at_us),
            _pending(interest, answered & ~good, "reject", at_us),
            _pending(interest, good & (luck[5] < 0.6), "reply", at_us + DAY_US // 2),
            _pending(interest, hired, "hire", at_us + 5 * DAY_US),
            _pending(interest, viewers, "invite", at_us),
            self._accepted(_pending(interest, viewers, "invite", at_us)),
        ]

    def _drawn(self, interest: Interest, number: int) -> npt.NDArray[np.float64]:
        return self._luck.uniform(Draw.ANSWER, interest.candidate, interest.job, interest.visit, number)

    def _search(self, day_us: int, memory: Memory) -> list[Pending]:
        """Live jobs that look for somebody today, each for the best of a few people it finds."""
        jobs, index = self._chooser.postings, day_us // DAY_US
        until = int(np.searchsorted(jobs.posted_us, day_us))
        live = np.flatnonzero(jobs.expires_us[:until] > day_us + 2 * DAY_US)
        looking = live[self._luck.uniform(Draw.INVITE, live, index, 0) < self._config.hiring.searches]
        found = self._near.for_jobs(looking, day_us)
        fit = self._chooser.fit(found.ravel(), np.repeat(looking, found.shape[1])[:, None], np.full(found.size, day_us))
        fit = np.where(
            (found >= 0) & (memory.applied.get(pair_key(found, looking[:, None])) == 0),
            fit.reshape(found.shape),
            -np.inf,
        )
        best = fit.argmax(axis=1) if len(looking) else np.empty(0, np.intp)
        wanted = fit[np.arange(len(looking)), best] > self._config.hiring.shortlist_at
        hour = (8 + 9 * self._luck.uniform(Draw.INVITE, looking, index, 1)) * HOUR_US
        invites = Pending(
            due_us=day_us + hour.astype(np.int64),
            kind=np.full(len(looking), KINDS.index("invite"), dtype=np.int8),
            candidate=found[np.arange(len(looking)), best],
            job=looking,
            visit=np.full(len(looking), (day_us - self._config.start_us) // DAY_US * MOST_VISITS),
            position=np.full(len(looking), SEARCHED),
        ).take(wanted)
        return [invites, self._accepted(invites)]

    def _accepted(self, invites: Pending) -> Pending:
        """Applications that invitations lead to, late in the evening of the next day, when nobody visits."""
        who, job = invites.candidate, invites.job
        utility = self._chooser.utility(who, job[:, None], invites.due_us)[:, 0]
        utility += self._config.choice.spam * self._chooser.postings.spam[job]
        yes = self._luck.uniform(Draw.INVITE, who, job, invites.visit, 2) < sigmoid(utility - _INVITED_APPLY_AT)
        late = (23 + 0.9 * self._luck.uniform(Draw.INVITE, who, job, invites.visit, 3)) * HOUR_US
        due = (invites.due_us // DAY_US + 1) * DAY_US + late.astype(np.int64)
        yes &= (due < self._chooser.postings.expires_us[job]) & (due < self._chooser.people.left_us[who])
        rows = invites.take(yes)
        return Pending(
            due_us=due[yes],
            kind=np.full(int(yes.sum()), KINDS.index("apply"), dtype=np.int8),
            candidate=rows.candidate,
            job=rows.job,
            visit=rows.visit,
            position=rows.position,
        )

    def _applied(self, due: Pending, memory: Memory) -> Pending:
        """Without applications to a job already applied to; the others are interest like any."""
        order = np.lexsort([due.position, due.visit, due.job, due.candidate, due.due_us])
        due = due.take(order)
        applying = due.kind == KINDS.index("apply")
        keys = pair_key(due.candidate, due.job)
        again = applying & ((memory.applied.get(keys) > 0) | (_rank(keys, applying) > 0))
        due, keys = due.take(~again), keys[~again]
        new = due.kind == KINDS.index("apply")
        memory.applied.add(keys[new], 0)
        memory.interest.append(
            Interest(
                candidate=due.candidate[new],
                job=due.job[new],
                at_us=due.due_us[new],
                visit=due.visit[new],
                position=due.position[new],
                applied=np.ones(int(new.sum()), dtype=bool),
            )
        )
        return due

    def _rows(self, due: Pending) -> list[pa.Table]:
        tables = []
        for number, kind in enumerate(KINDS):
            one = due.take(due.kind == number)
            columns = (one.candidate.tolist(), one.job.tolist(), one.visit.tolist(), one.position.tolist())
            names = [f"{c:06d}-{j:06d}-{v:04d}{'s' if p < 0 else ''}" for c, j, v, p in zip(*columns, strict=True)]
            if kind == "apply":
                names = [f"invited-{name}" for name in names]
            actor = "candidate" if kind == "apply" else "employer"
            tables.append(event_rows(kind, names, one.candidate, one.job, one.due_us, actor=actor))
        return tables


class PeopleLists:
    """People by the occupation of their history and country, as an employer's search finds them."""

    def __init__(self, luck: Luck, chooser: Chooser, country: Numbers) -> None:
        people = chooser.people
        self._luck, self._chooser, self._country = luck, chooser, country
        self._countries = int(country.max()) + 1
        of = people.work.astype(np.int64) * self._countries + country[people.place[:, 0]]
        self._order = np.argsort(of, kind="stable")
        lists = np.arange(int(of.max(initial=0)) + 2)
        self._start = np.searchsorted(of[self._order], lists)

    def for_jobs(self, job: Numbers, at_us: int, size: int = 16) -> npt.NDArray[np.int64]:
        """Up to `size` people for each job [N, size] who may be found by its employer; -1 for nobody."""
        jobs, people = self._chooser.postings, self._chooser.people
        of = jobs.occupation[job].astype(np.int64) * self._countries + self._country[jobs.place[job]]
        of = np.minimum(of, len(self._start) - 2)
        first, count = self._start[of], self._start[of + 1] - self._start[of]
        drawn = self._luck.uniform(Draw.INVITE, job[:, None], at_us // DAY_US, 10 + np.arange(size))
        rows = first[:, None] + np.floor(drawn * count[:, None]).astype(np.int64)
        who = self._order[np.minimum(rows, len(self._order) - 1)]
        there = (count > 0)[:, None] & (people.joined_us[who] < at_us) & (people.left_us[who] > at_us + 2 * DAY_US)
        hidden = (people.hidden_from[who] == jobs.employer[job][:, None, None]).any(axis=2)
        return np.where(there & people.findable[who] & ~hidden, who, -1)


def _rank(key: Numbers, counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """How many counted entries of the same key come before each entry."""
    order = np.argsort(key, kind="stable")
    before: npt.NDArray[np.int64] = np.cumsum(counted[order]) - counted[order]
    first = np.searchsorted(key[order], key[order])
    rank = np.empty(len(key), dtype=np.int64)
    rank[order] = before - before[first] if len(key) else before
    return rank


def _pending(interest: Interest, rows: npt.NDArray[np.bool_], kind: str, at_us: Numbers) -> Pending:
    some = interest.take(rows)
    return Pending(
        due_us=at_us[rows],
        kind=np.full(len(some.job), KINDS.index(kind), dtype=np.int8),
        candidate=some.candidate,
        job=some.job,
        visit=some.visit,
        position=some.position,
    )


def _nothing() -> Pending:
    none = np.empty(0, dtype=np.int64)
    return Pending(due_us=none, kind=none.astype(np.int8), candidate=none, job=none, visit=none, position=none)
