"""The one door through which truth comes into the laboratory: the oracle's. Nothing else here may import this."""

from __future__ import annotations

import numpy as np

from rolecall.features.catalogue import Catalogue
from rolecall.pipelines.lab.policies import Scores, Visit
from rolecall.pipelines.lab.yardsticks import Wanted
from rolecall.pipelines.market.choice import sigmoid
from rolecall.pipelines.market.config import microseconds
from rolecall.pipelines.market.world import World


def wanted(world: World) -> Wanted:
    """Chance that a candidate who looks at a job clicks on it and applies, of every job of a catalogue.

    It leaves out what was shown and clicked before, so it is no strict upper bound: nobody knows more, but somebody
    could rotate better.
    """
    weights = world.config.choice
    numbers: dict[int, np.ndarray] = {}

    def score(visit: Visit, catalogue: Catalogue) -> Scores:
        if id(catalogue) not in numbers:
            numbers.clear()
            numbers[id(catalogue)] = np.array([world.job_number(job_id) for job_id in catalogue.job_ids])
        jobs = numbers[id(catalogue)]
        who = np.array([world.candidate_number(visit.candidate_id)])
        utility = world.chooser.utility(who, jobs[None, :], np.array([microseconds(visit.at)]))[0]
        read = utility + weights.spam * world.postings.spam[jobs]
        return np.asarray(sigmoid(utility - weights.click_at) * sigmoid(read - weights.apply_at), np.float32)

    return score
