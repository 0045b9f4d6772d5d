"""The one door through which truth comes into the laboratory: the oracle's. Nothing else here may import this."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from rolecall.features.catalogue import Catalogue
from rolecall.pipelines.lab.policies import Scores, Visit
from rolecall.pipelines.lab.yardsticks import Wanted
from rolecall.pipelines.market.config import microseconds
from rolecall.pipelines.market.truth import Truth
from rolecall.pipelines.market.world import World


def wanted(world: World) -> Wanted:
    """Chance that a candidate who looks at a job clicks on it and applies, of every job of a catalogue.

    It leaves out what was shown and clicked before, so it is no strict upper bound: nobody knows more, but somebody
    could rotate better.
    """
    truth = Truth(world)

    def of(catalogue: Catalogue) -> Callable[[Visit], Scores]:
        jobs = np.array([world.job_number(job_id) for job_id in catalogue.job_ids], np.int64)[None, :]

        def score(visit: Visit) -> Scores:
            who = np.array([world.candidate_number(visit.candidate_id)])
            return truth.apply(who, jobs, np.array([microseconds(visit.at)]))[0]

        return score

    return of
