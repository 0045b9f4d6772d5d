"""Who answers a visit: a release through the objects that serve, or a score over the same catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import Catalogue, Rows
from rolecall.features.context import CandidateContext
from rolecall.serving.funnel import Funnel, FunnelRequest
from rolecall.serving.policy import Policy as Rules
from rolecall.serving.policy import seed_of
from rolecall.serving.reader import CandidateReader

Scores = npt.NDArray[np.floating]


@dataclass(frozen=True, kw_only=True)
class Visit:
    """A candidate asks for jobs at an instant. The same visit has the same `request_id` under every policy."""

    candidate_id: str
    at: datetime
    request_id: str


@dataclass(frozen=True, kw_only=True)
class Slate:
    """The jobs shown, best slot first, each with the probability that it was shown there, given those above it."""

    job_ids: tuple[str, ...]
    propensities: tuple[float, ...]


class Policy(Protocol):
    """Answers the visits of one day."""

    def slate(self, visit: Visit) -> Slate: ...


class ReleasePolicy:
    """A loaded release's funnel, asked as serving asks it: online features, and the events posted since."""

    def __init__(self, funnel: Funnel, reader: CandidateReader, *, slots: int) -> None:
        self._funnel, self._reader, self._slots = funnel, reader, slots

    def slate(self, visit: Visit) -> Slate:
        context = self._reader.read(visit.candidate_id, visit.at)
        question = FunnelRequest(context=context, at=visit.at, request_id=visit.request_id, limit=self._slots)
        items = self._funnel.recommend(question).items
        return Slate(
            job_ids=tuple(item.job_id for item in items), propensities=tuple(item.propensity for item in items)
        )


class ScoringPolicy:
    """The highest scores among the jobs that a release's rules let through: live, and new to the candidate.

    Of equal scores the newest job comes first. `score`: one number a job of the catalogue.
    """

    def __init__(
        self,
        score: Callable[[Visit, CandidateContext], Scores],
        catalogue: Catalogue,
        rules: Rules,
        reader: CandidateReader,
        *,
        slots: int,
    ) -> None:
        self._score, self._catalogue, self._rules = score, catalogue, rules
        self._reader, self._slots = reader, slots
        self._rows: Rows = np.arange(len(catalogue), dtype=np.int32)
        self._age = -np.nan_to_num(catalogue.posted)

    def slate(self, visit: Visit) -> Slate:
        context = self._reader.read(visit.candidate_id, visit.at)
        open_ = self._rules.eligible(self._rows, context, visit.at.timestamp() * 1e6)
        order = np.lexsort((self._age, -self._score(visit, context)))
        best = order[open_[order]][: self._slots]
        return Slate(job_ids=tuple(self._catalogue.job_ids[row] for row in best), propensities=(1.0,) * len(best))


class RandomPolicy:
    """Any job the rules let through, each as likely as the others. The draw follows from the request id alone."""

    def __init__(self, catalogue: Catalogue, rules: Rules, reader: CandidateReader, *, slots: int) -> None:
        self._catalogue, self._rules, self._reader, self._slots = catalogue, rules, reader, slots
        self._rows: Rows = np.arange(len(catalogue), dtype=np.int32)

    def slate(self, visit: Visit) -> Slate:
        context = self._reader.read(visit.candidate_id, visit.at)
        open_ = np.flatnonzero(self._rules.eligible(self._rows, context, visit.at.timestamp() * 1e6))
        drawn = np.random.default_rng(seed_of(visit.request_id)).permutation(open_)[: self._slots]
        return Slate(
            job_ids=tuple(self._catalogue.job_ids[row] for row in drawn),
            propensities=tuple(1.0 / (len(open_) - slot) for slot in range(len(drawn))),
        )
