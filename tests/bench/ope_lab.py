"""The laboratory as a judge of off-policy estimators: logs drawn again and again, targets whose value is known.

One day of one world: everybody who comes, the jobs the logging policy weighs for them, and how likely each would be
applied to at each position. A log is a fresh draw of visitors, slates (the world's own policy) and responses (the
world's own code, under a luck of its own). Shapes: V visits of the day, P jobs weighed, K slots.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rolecall.pipelines.evaluation.counterfactual import Logged
from rolecall.pipelines.market import Memory, Visits, World
from rolecall.pipelines.market.choice import sigmoid
from rolecall.pipelines.market.luck import Luck
from rolecall.pipelines.market.policy import draw_slots
from rolecall.pipelines.market.session import examination, respond, trust
from rolecall.pipelines.market.truth import Truth
from rolecall.pipelines.market.visits import MOST_VISITS

Array = npt.NDArray[Any]
_APART = 1000 * MOST_VISITS
_BINS = 20
_DRAWS = 40


@dataclass(frozen=True, kw_only=True)
class Log:
    """One drawn log. `rows` [m]: which visits of the day; `shown` int64[m, K]: positions among the jobs weighed;
    `propensity`, `applied` and `clicked` float64[m, K]; `events`: the table as it would be stored."""

    rows: Array
    cluster: Array
    shown: Array
    propensity: Array
    applied: Array
    clicked: Array
    events: pa.Table

    @property
    def logged(self) -> Logged:
        return Logged(propensity=self.propensity, reward=self.applied, cluster=self.cluster)

    @property
    def clicks(self) -> Logged:
        return Logged(propensity=self.propensity, reward=self.clicked, cluster=self.cluster)


class Day:
    """One day of a world, ready to be logged many times."""

    def __init__(self, world: World, number: int) -> None:
        self.world, self.slots = world, world.config.slots
        visits = world.visits(world.days()[number])
        version = world.people.version(visits.candidate, visits.at_us)
        place, declared = (of[visits.candidate, version] for of in (world.people.place, world.people.declared))
        shelf = world.shelves.day(int(visits.at_us[0]) // 86_400_000_000 * 86_400_000_000)
        job_VP = world.shelves.pool(shelf, declared, place)
        open_VP = world.shelves.open(job_VP, visits.at_us)
        kept = open_VP.sum(axis=1) > 2 * self.slots
        self.visits, self.open, self.job = visits.take(kept), open_VP[kept], np.maximum(job_VP[kept], 0)
        self.score = world.chooser.score(self.visits.candidate, self.job, self.visits.at_us)
        self.people, self.person = np.unique(self.visits.candidate, return_inverse=True)
        order = np.argsort(self.person, kind="stable")
        self._of_person = np.split(order, np.searchsorted(self.person[order], np.arange(1, len(self.people))))

    @cached_property
    def utility(self) -> Array:
        return self.world.chooser.utility(self.visits.candidate, self.job, self.visits.at_us)

    @cached_property
    def looked_at(self) -> Array:
        """Examination of each position on the first visit of a day, as the truth tells it [K]."""
        return Truth(self.world).examination(self.slots)

    @cached_property
    def _patience(self) -> Array:
        """What is left of examination on this visit [V]."""
        return examination(self.world.config.choice, np.ones(1), self.visits.again)[:, 0]

    def chance(self, shown_VK: Array) -> Array:
        """How likely the jobs shown are applied to, position by position [V, K]; the visit's patience is in it."""
        who, at = self.visits.candidate, self.visits.at_us
        job = np.take_along_axis(self.job, shown_VK, axis=1)
        wish = np.take_along_axis(self.utility, shown_VK, axis=1)
        weights, position = self.world.config.choice, np.arange(1, shown_VK.shape[1] + 1)
        opened = sigmoid(wish + trust(weights, position) - weights.click_at) / sigmoid(wish - weights.click_at)
        applied = Truth(self.world).apply(who, job, at) * opened
        return np.asarray(self._patience[:, None] * self.looked_at[: shown_VK.shape[1]] * applied, np.float64)

    def value(self, shown_VK: Array) -> float:
        """Applications a visit of these slates."""
        return float(self.chance(shown_VK).sum(axis=1).mean())

    def drawn_values(self, score_VP: Array, slots: int, seed: int) -> Array:
        """Applications a visit from the first slot, the first two, .. float64[slots], of slates drawn one by one
        by exp(score), without replacement: the mean of many draws, exact chances each."""
        random = np.random.default_rng(seed)
        slates = (draw_slots(score_VP, self.open, slots, random.gumbel(size=score_VP.shape))[0] for _ in range(_DRAWS))
        return np.asarray(np.mean([self.chance(slate).mean(axis=0).cumsum() for slate in slates], axis=0))

    def greedy(self, score_VP: Array) -> Array:
        """The highest open scores [V, K]."""
        best = np.argsort(np.where(self.open, -score_VP, np.inf), axis=1, kind="stable")
        return np.asarray(best[:, : self.slots])

    def exposure(self, shown_VK: Array) -> Array:
        """Examination that these slates give every job weighed [V, P]."""
        given = np.zeros(self.score.shape)
        np.put_along_axis(given, shown_VK, np.broadcast_to(self.looked_at, shown_VK.shape), axis=1)
        return given

    def log(self, seed: int, people: int) -> Log:
        """A log of so many visitors drawn with replacement, each with all their visits of the day."""
        drawn = np.random.default_rng([seed, people]).integers(0, len(self.people), people)
        parts = [self._of_person[person] for person in drawn]
        rows, copy = np.concatenate(parts), np.repeat(np.arange(people), [len(part) for part in parts])
        visits = self.visits.take(rows)
        visits = Visits(candidate=visits.candidate, visit=visits.visit + _APART * (1 + copy), at_us=visits.at_us)
        gumbel = np.random.default_rng([seed, people, 1]).gumbel(size=(len(rows), self.job.shape[1]))
        shown, propensity = draw_slots(self.score[rows], self.open[rows], self.slots, gumbel)
        job = np.take_along_axis(self.job[rows], shown, axis=1)
        done = respond(self.world.config, Luck(seed), self.world.chooser, visits, job, propensity, Memory())
        return Log(
            rows=rows,
            cluster=copy,
            shown=shown,
            propensity=propensity,
            applied=done.applied.astype(np.float64),
            clicked=done.clicked.astype(np.float64),
            events=done.events,
        )

    def appeal(self, seed: int, people: int) -> Array:
        """A reward model [V, P]: applications per examination by bins of the logging score, from a log of its own."""
        log = self.log(seed, people)
        score = self.score[log.rows[:, None], log.shown]
        edges = np.quantile(score, np.linspace(0, 1, _BINS + 1)[1:-1])
        bins = np.searchsorted(edges, score)
        seen = np.broadcast_to(self.looked_at, score.shape)
        rate = np.bincount(bins.ravel(), log.applied.ravel(), _BINS) / np.bincount(bins.ravel(), seen.ravel(), _BINS)
        return np.asarray(rate[np.searchsorted(edges, self.score)])


def conditional(score_VP: Array, open_VP: Array, shown_VK: Array, model_VP: Array) -> tuple[Array, Array]:
    """Of a policy that draws by exp(score), slot by slot, the slots above being as shown: its probability of the job
    shown, and what a model expects of the job it draws [V, K] each."""
    weight = np.where(open_VP, np.exp(score_VP - score_VP.max(axis=1, keepdims=True)), 0.0).astype(np.float64)
    taken, left = _left(weight, shown_VK)
    _, gain = _left(weight * model_VP, shown_VK)
    return np.minimum(taken / np.maximum(left, 1e-300), 1.0), gain / np.maximum(left, 1e-300)


def _left(value_VP: Array, shown_VK: Array) -> tuple[Array, Array]:
    """Of each slot's job, and of all jobs not above it."""
    taken = np.take_along_axis(value_VP, shown_VK, axis=1)
    return taken, value_VP.sum(axis=1, keepdims=True) - np.cumsum(taken, axis=1) + taken
