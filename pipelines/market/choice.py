"""How candidates choose, and how the job board that logged the month chose what to show them.

Utility of job j for candidate c at instant t (terms that no log or profile states are marked *):

    4.0 * kinship(occupation c looks for*, occupation of j)
  + 2.0 * share of j's skills that c has*
  + 1.2 * number of j's skills that c likes*, at most 2
  - 0.7 * |seniority of j - seniority of c|, halved where j is one step up
  - 1.5 * tanh(km / 80)  - 2.0 in another country      (both a third for a remote job)
  + taste for remote work* where j is remote
  + 2.0 * pay of j against what such work usually pays
  + 0.6 * (rating of j's employer at t - 3.5)
  - 0.6 * age of j at t in months
  + 0.7 * N(0, 1), once per pair*

A shown job is examined with probability position^-0.6; an examined job is clicked with probability
sigmoid(utility - CLICK_AT). A clicked job is saved or applied to by sigmoids further up; an examined job that is
not clicked is dismissed now and then, most often where its utility is low. A second click on the same job is
rarer, and a job applied to is not shown again.

The logging policy sees profiles and postings only. It draws the slots one after another without replacement,
each job with probability proportional to exp(score) among those still open (Plackett-Luce), so the propensity
logged with an impression, given the slots above it, is exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from rolecall.pipelines.market.employers import Employers
from rolecall.pipelines.market.people import People
from rolecall.pipelines.market.places import Places
from rolecall.pipelines.market.postings import Postings
from rolecall.pipelines.market.taxonomy import Taxonomy

CLICK_AT = 4.4
SAVE_AT = 6.0
APPLY_AT = 6.4
POSITION_POWER = 0.6
_MONTH_US = 30 * 86_400_000_000

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Appeal:
    """Every job's standing [B, J] with the candidates of one block, before time enters.

    `utility` is the candidate's, `score` the logging policy's.
    """

    utility: Floats
    score: Floats


class Chooser:
    """The market's jobs and candidates, ready to be weighed block by block."""

    def __init__(
        self, taxonomy: Taxonomy, postings: Postings, people: People, employers: Employers, places: Places
    ) -> None:
        self.postings = postings
        self.people = people
        self._kinship_OO = taxonomy.kinship
        self._distance_PP = places.distance_km()
        self._country = places.country
        self._job_skill_count = np.asarray(postings.skills.sum(axis=1), dtype=np.float32).ravel()
        self._rating_2J = employers.ratings[:, postings.employer].astype(np.float32)
        self.rerated_us = int(employers.observed_at[1].timestamp()) * 1_000_000

    def appeal(self, block: slice, random: np.random.Generator) -> Appeal:
        """Utility and logging score of every job for the candidates of `block`."""
        jobs, people = self.postings, self.people
        km_BJ, abroad_BJ = self._separation(block)
        target_BJ = self._kinship_OO[people.target[block]][:, jobs.occupation]
        utility_BJ = 4.0 * target_BJ
        utility_BJ += 2.0 * self._overlap(people.able[block]) / self._job_skill_count
        utility_BJ += 1.2 * np.minimum(self._overlap(people.liked[block]), 2.0)
        utility_BJ -= 0.7 * self._misfit(block)
        utility_BJ -= np.where(jobs.remote, 1 / 3, 1.0) * (1.5 * np.tanh(km_BJ / 80) + 2.0 * abroad_BJ)
        utility_BJ += people.likes_remote[block, None] * jobs.remote
        utility_BJ += 2.0 * jobs.pay_log
        utility_BJ += 0.7 * random.standard_normal(utility_BJ.shape, dtype=np.float32)
        score_BJ = 4.2 * self._kinship_OO[people.declared[block]][:, jobs.occupation]
        score_BJ += 1.5 * self._overlap(people.listed[block]) / self._job_skill_count
        score_BJ += 1.5 * ((km_BJ < 60) | jobs.remote) - 2.5 * abroad_BJ
        return Appeal(utility=utility_BJ.astype(np.float32), score=score_BJ.astype(np.float32))

    def ages_in_months(self, at_us_R: npt.NDArray[np.int64]) -> Floats:
        """Age of every job at each request [R, J]; negative where it is not posted yet."""
        return np.asarray((at_us_R[:, None] - self.postings.posted_us) / _MONTH_US, dtype=np.float32)

    def ratings(self, at_us_R: npt.NDArray[np.int64], shown_RK: npt.NDArray[np.intp]) -> Floats:
        """Rating of the shown jobs' employers as known at each request [R, K]."""
        return np.asarray(self._rating_2J[(at_us_R >= self.rerated_us).astype(int)[:, None], shown_RK])

    def _separation(self, block: slice) -> tuple[Floats, npt.NDArray[np.bool_]]:
        here, there = self.people.place[block], self.postings.place
        return self._distance_PP[here][:, there], self._country[here][:, None] != self._country[there]

    def _misfit(self, block: slice) -> Floats:
        step_BJ = (self.postings.seniority - self.people.seniority[block, None]).astype(np.float32)
        return np.where(step_BJ == 1, 0.5, np.abs(step_BJ)).astype(np.float32)

    def _overlap(self, skills_BS: sparse.csr_matrix) -> Floats:
        return np.asarray((skills_BS @ self.postings.skills.T).toarray(), dtype=np.float32)


def draw_slots(
    score_RJ: npt.NDArray[np.floating[Any]], open_RJ: npt.NDArray[np.bool_], slots: int, random: np.random.Generator
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Plackett-Luce: `slots` open jobs for each request in shown order, and their propensities [R, K].

    Adding Gumbel noise and taking the largest draws exactly from it (Yellott 1977; Kool et al. 2019). Where fewer
    jobs are open than there are slots, closed ones fill the end with propensity 0.
    """
    logits_RJ = np.where(open_RJ, score_RJ, -np.inf).astype(np.float32)
    noise_RJ = -np.log(random.standard_exponential(logits_RJ.shape, dtype=np.float32) + np.float32(1e-20))
    noisy_RJ = logits_RJ + noise_RJ
    top_RK = np.argpartition(-noisy_RJ, slots - 1, axis=1)[:, :slots]
    order_RK = np.argsort(-np.take_along_axis(noisy_RJ, top_RK, axis=1), axis=1, kind="stable")
    shown_RK = np.take_along_axis(top_RK, order_RK, axis=1)
    weight_RJ = np.exp((logits_RJ - logits_RJ.max(axis=1, keepdims=True)).astype(np.float64))
    taken_RK = np.take_along_axis(weight_RJ, shown_RK, axis=1)
    left_RK = weight_RJ.sum(axis=1, keepdims=True) - np.cumsum(taken_RK, axis=1) + taken_RK
    return shown_RK, np.clip(taken_RK / np.maximum(left_RK, 1e-300), 0.0, 1.0)


def sigmoid(x: Floats) -> Floats:
    """1 / (1 + exp(-x)), elementwise."""
    return np.asarray(1.0 / (1.0 + np.exp(-x)), dtype=np.float32)
