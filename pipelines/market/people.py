"""Who every candidate is, as numbers: what they can, what they want, and how that changes. Words: `profiles.py`.

A life has up to three phases. `declared` is what the profile says in a phase, `target` what the candidate really
looks for: a fifth look for something else from the start, and of later changes only a part (`MarketConfig.told`)
reaches the profile, some days late. What they do shows it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.market.config import DAY_US, MarketConfig
from rolecall.pipelines.market.luck import Draw, Luck, pick
from rolecall.pipelines.market.places import Places
from rolecall.pipelines.market.postings import EMPLOYERS_WORDS, NEVER_US, seniorities
from rolecall.pipelines.market.taxonomy import Taxonomy

PHASES = 3
MOST_LISTED = 10
MOST_ABLE = 14
LIKED = 3
GROUP_A, GROUP_B = 0, 1
CONSENT = (True, False, None)
VISIBLE = (None, "all", "applied", "none")
_CONSENT_SHARE = np.cumsum([0.7, 0.2, 0.1])
_VISIBLE_SHARE = np.cumsum([0.05, 0.8, 0.12, 0.03])
_HIDING = 0.08
_SWITCHERS = 0.2
_MONTH_DAYS = 30
_NEIGHBOURS = 5
_BLOCK = 65_536
_PEOPLES_WORDS = EMPLOYERS_WORDS[::-1]
_ANY_WORDS = np.ones_like(EMPLOYERS_WORDS)


@dataclass(frozen=True, kw_only=True)
class People:
    """Parallel arrays, one entry a candidate; P = 3 phases of life, of which most live through one.

    `work` is the occupation of their history. Phase p starts at `changed_us[:, p]`, and the profile tells of it from
    `told_us[:, p]` on (never, for most). `listed` skills stand in the profile, `able` are what they can, `liked` what
    they enjoy, mostly unlisted: positions in `Taxonomy.skills`, -1 for none. `consent` and `visibility` are positions
    in CONSENT and VISIBLE, `hidden_from` [N, 2] employers, -1 for none. `group` belongs to the truth.
    """

    number: npt.NDArray[np.int64]
    work: npt.NDArray[np.int16]
    declared: npt.NDArray[np.int16]
    target: npt.NDArray[np.int16]
    place: npt.NDArray[np.int16]
    seniority: npt.NDArray[np.int8]
    changed_us: npt.NDArray[np.int64]
    told_us: npt.NDArray[np.int64]
    left_us: npt.NDArray[np.int64]
    eager: npt.NDArray[np.float32]
    likes_remote: npt.NDArray[np.float32]
    listed: npt.NDArray[np.int16]
    able: npt.NDArray[np.int16]
    liked: npt.NDArray[np.int16]
    consent: npt.NDArray[np.int8]
    visibility: npt.NDArray[np.int8]
    hidden_from: npt.NDArray[np.int32]
    group: npt.NDArray[np.int8]

    def __len__(self) -> int:
        return len(self.number)

    @property
    def joined_us(self) -> npt.NDArray[np.int64]:
        """When each came to the job board."""
        return self.changed_us[:, 0]

    @property
    def findable(self) -> npt.NDArray[np.bool_]:
        """Who agreed to be recommended to employers they never applied to."""
        return (self.consent == CONSENT.index(True)) & (self.visibility < VISIBLE.index("applied"))

    def phase(self, rows: npt.NDArray[Any], at_us: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """The phase of life of these candidates at these instants."""
        return np.asarray((self.changed_us[rows, 1:] <= at_us[:, None]).sum(axis=1))

    def version(self, rows: npt.NDArray[Any], at_us: npt.NDArray[np.int64]) -> npt.NDArray[np.intp]:
        """The phase that their profiles tell of at these instants."""
        known = self.told_us[rows] <= at_us[:, None]
        return np.asarray((known * np.arange(PHASES)).max(axis=1))


class PeopleSource:
    """Draws candidates by their numbers."""

    def __init__(
        self, config: MarketConfig, luck: Luck, taxonomy: Taxonomy, weights: npt.NDArray[np.float64], places: Places
    ) -> None:
        self._config, self._luck = config, luck
        self._cumulated, self._places = np.cumsum(weights), np.cumsum(places.share)
        self._near = np.argsort(-taxonomy.kinship, axis=1, kind="stable")[:, 1 : _NEIGHBOURS + 1]
        self._skills = np.array([o.skills for o in taxonomy.occupations], dtype=np.int16)
        self._skill_count = len(taxonomy.skills)
        later = config.candidates * config.newcomers / config.days * config.horizon
        self._per_day = later / config.horizon if config.horizon else 0.0
        self.total = config.candidates + int(later)

    def all(self) -> People:
        """Everybody who joins up to the end of the horizon: about 250 bytes each."""
        parts = [self.draw(np.arange(at, min(at + _BLOCK, self.total))) for at in range(0, self.total, _BLOCK)]
        return People(**{f.name: np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(People)})

    def draw(self, number: npt.NDArray[np.int64]) -> People:
        """These candidates."""
        u = {column: self._uniform(number, column) for column in range(6)}
        work = pick(u[0], self._cumulated)
        changed, told, left = self._life(number)
        target, place, seniority = self._wishes(number, work)
        declared = target.copy()
        declared[:, 0] = work
        listed, able, liked = self._abilities(number, work, target)
        size = len(number)
        return People(
            number=number,
            work=work.astype(np.int16),
            declared=declared.astype(np.int16),
            target=target.astype(np.int16),
            place=place.astype(np.int16),
            seniority=seniority.astype(np.int8),
            changed_us=changed,
            told_us=told,
            left_us=left,
            eager=(np.exp(0.8 * self._luck.normal(Draw.PERSON, number, 6) - 0.32) * (u[1] > 0.08)).astype(np.float32),
            likes_remote=(0.2 + 0.6 * self._luck.normal(Draw.PERSON, number, 7)).astype(np.float32),
            listed=listed.reshape(size, PHASES, MOST_LISTED),
            able=able.reshape(size, PHASES, MOST_ABLE),
            liked=liked.reshape(size, PHASES, LIKED),
            consent=pick(u[3], _CONSENT_SHARE).astype(np.int8),
            visibility=pick(u[4], _VISIBLE_SHARE).astype(np.int8),
            hidden_from=self._hidden_from(number, u[5]),
            group=(u[2] < 0.5).astype(np.int8),
        )

    def _uniform(self, number: npt.NDArray[np.int64], column: int) -> npt.NDArray[np.float64]:
        return self._luck.uniform(Draw.PERSON, number, column)

    def _hidden_from(self, number: npt.NDArray[np.int64], u: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
        """A few hide from an employer or two, such as their own."""
        employers = self._luck.uniform(Draw.PERSON, number[:, None], np.array([14, 15])) * self._config.employers
        hides = np.stack([u < _HIDING, u < _HIDING / 3], axis=1)
        return np.where(hides, employers.astype(np.int32), -1).astype(np.int32)

    def _life(self, number: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], ...]:
        """Starts of the phases and of their telling [N, P], and the last instant."""
        config, start, end = self._config, self._config.start_us, self._config.end_us
        before = start - DAY_US - (299 * DAY_US * self._uniform(number, 20)).astype(np.int64)
        within = start + ((end - DAY_US - start) * self._uniform(number, 20)).astype(np.int64)
        joined = np.where(self._uniform(number, 21) < config.newcomers, within, before)
        if self._per_day:
            late = (number - config.candidates + self._uniform(number, 20)) / self._per_day
            joined = np.where(number >= config.candidates, end + (late * DAY_US).astype(np.int64), joined)
        since = np.maximum(joined, start)
        gaps = [self._after(number, column, config.drift) for column in (22, 23)]
        first = _later(since, gaps[0])
        changed = np.stack([joined, first, _later(first, gaps[1])], axis=1)
        told = changed.copy()
        for phase in (1, 2):
            delay = ((0.5 + 6 * self._uniform(number, 24 + phase)) * DAY_US).astype(np.int64)
            silent = self._uniform(number, 26 + phase) >= config.told
            told[:, phase] = np.where(silent, NEVER_US, _later(changed[:, phase], delay))
        told[:, 1] = np.where(told[:, 1] >= changed[:, 2], NEVER_US, told[:, 1])
        return changed, told, _later(since, self._after(number, 29, config.leavers))

    def _after(self, number: npt.NDArray[np.int64], column: int, share_a_month: float) -> npt.NDArray[np.int64]:
        """How long until something happens that happens to this share of people a month."""
        rate = -np.log1p(-min(share_a_month, 0.999))
        if rate == 0:
            return np.full(len(number), NEVER_US)
        months = self._luck.exponential(Draw.PERSON, number, column) / rate
        return np.asarray((np.minimum(months, 1_000) * _MONTH_DAYS * DAY_US).astype(np.int64))

    def _wishes(
        self, number: npt.NDArray[np.int64], work: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.intp]]:
        """Target occupation, place and seniority in every phase [N, P]."""
        u = self._luck.uniform(Draw.DRIFT, number[:, None], np.arange(12))
        target = [np.where(u[:, 0] < _SWITCHERS, self._near[work, (u[:, 1] * _NEIGHBOURS).astype(np.intp)], work)]
        place = [pick(self._uniform(number, 10), self._places)]
        seniority = [seniorities(self._uniform(number, 11)).astype(np.intp)]
        for phase in range(1, PHASES):
            own = u[:, 2 + 4 * (phase - 1) : 6 + 4 * (phase - 1)]
            kind = own[:, 0]
            near = self._near[target[-1], (own[:, 1] * _NEIGHBOURS).astype(np.intp)]
            target.append(np.where(kind < 0.6, near, target[-1]))
            moved = (kind >= 0.6) & (kind < 0.8)
            place.append(np.where(moved, pick(own[:, 2], self._places), place[-1]))
            seniority.append(np.where(kind >= 0.8, np.minimum(seniority[-1] + 1, 5), seniority[-1]))
        return np.stack(target, axis=1), np.stack(place, axis=1), np.stack(seniority, axis=1)

    def _abilities(
        self, number: npt.NDArray[np.int64], work: npt.NDArray[np.intp], target: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.int16], npt.NDArray[np.int16], npt.NDArray[np.int16]]:
        """Listed, able and liked skills in every phase. New work is learnt: three of its skills come with it."""
        luck = self._luck
        order = luck.subset(Draw.PERSON_SKILLS, number, _PEOPLES_WORDS, 0)
        own = np.take_along_axis(self._skills[work], order, axis=1)
        size = 3 + (4 * luck.uniform(Draw.PERSON, number, 12)).astype(np.intp)
        stray = (self._skill_count * luck.uniform(Draw.PERSON, number, 13)).astype(np.int16)[:, None]
        wanted = [luck.subset(Draw.PERSON_SKILLS, number, _ANY_WORDS, 1 + phase) for phase in range(PHASES)]
        listed, able, liked = [], [], []
        for phase in range(PHASES):
            learnt = np.take_along_axis(self._skills[target[:, phase]], wanted[phase][:, :LIKED], axis=1)
            new = learnt if phase else np.full_like(learnt, -1)
            listed.append(_distinct(np.concatenate([_first(own, size, 6), stray, new], axis=1)))
            able.append(_distinct(np.concatenate([_first(own, size + 4, 10), stray, new], axis=1)))
            liked.append(_distinct(learnt))
        return np.stack(listed, axis=1), np.stack(able, axis=1), np.stack(liked, axis=1)


def _later(at_us: npt.NDArray[np.int64], gap_us: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Their sum; never stays never."""
    never = (at_us == NEVER_US) | (gap_us > NEVER_US - 2 * np.abs(np.where(at_us == NEVER_US, 0, at_us)))
    return np.where(never, NEVER_US, at_us + np.where(never, 0, gap_us))


def _first(skills: npt.NDArray[np.int16], count: npt.NDArray[np.intp], width: int) -> npt.NDArray[np.int16]:
    """The first `count` of each row, -1 behind."""
    return np.where(np.arange(width) < count[:, None], skills[:, :width], -1).astype(np.int16)


def _distinct(skills: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
    """Each skill once a row, in place of a repetition -1."""
    again = np.zeros(skills.shape, dtype=bool)
    for column in range(1, skills.shape[1]):
        again[:, column] = (skills[:, :column] == skills[:, column : column + 1]).any(axis=1)
    return np.where(again, -1, skills).astype(np.int16)
