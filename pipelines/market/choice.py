"""How candidates choose, how employers choose, and what a posting looks like to the policy that logged the month.

Utility of job j for candidate c at instant t (terms that no log or profile states are marked *; the weights are
those of `Choice`, here with their defaults):

    4.0 * kinship(occupation c looks for* at t, occupation of j)
  + 2.0 * share of j's skills that c has*
  + 1.2 * number of j's skills that c likes*, at most 2
  - 0.7 * |seniority of j - seniority of c|, halved where j is one step up
  - 1.5 * tanh(km / 80)  - 2.0 in another country      (both a third for a remote job)
  + taste for remote work* where j is remote
  + 2.0 * pay of j against what such work usually pays
  + 0.6 * (rating of j's employer as known at t - 3.5)
  - 0.6 * age of j at t in months
  + 0.7 * N(0, 1), once per pair*

What happens with a job shown at position p to somebody on their v-th visit of the day (`session.py`):

    examined   with probability  p^-0.6 * exp(-0.15 * (v - 1))                              position bias, fatigue
    clicked    if examined, with sigmoid(utility + 0.4 * exp(-(p - 1) / 3) - 0.15 * earlier showings (at most 6)
               - 1.5 * earlier clicks (at most 2) - 4.6)                                     trust bias, fatigue
    saved      if clicked, with sigmoid(utility - 6.0);  applied to: sigmoid(utility - 6.4), less 4 for spam
    dismissed  if examined and not clicked, now and then, most often where the utility is low; or on reading spam

An employer weighs an application, or a person found by their own search, by

    3.0 * share of j's skills that c has  + 2.5 * kinship(occupation of c's history, occupation of j)
  - 0.8 * |seniority of j - seniority of c|  - 0.6 * tanh(km / 80)  - 1.0 in another country (both a third if remote)
  + 0.5 * N(0, 1), once per pair  - the planted bias, for people of group B

which knows nothing of what the candidate wishes. Shortlisted with sigmoid(that - 4.0), hired of those with
sigmoid(that - 4.6) while there is an opening (`answers.py`).

The logging policy sees profiles and postings only (`Chooser.score`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.market.config import DAY_US, MarketConfig
from rolecall.pipelines.market.employers import Employers
from rolecall.pipelines.market.luck import Draw, Luck
from rolecall.pipelines.market.people import GROUP_B, People
from rolecall.pipelines.market.places import Places
from rolecall.pipelines.market.postings import Postings
from rolecall.pipelines.market.taxonomy import Taxonomy

MONTH_US = 30 * DAY_US
_FRESHNESS_IN_SCORE = 0.8
_WELL_PAID = 0.05

Floats = npt.NDArray[np.float32]
Numbers = npt.NDArray[Any]


class Chooser:
    """All postings and people, ready to be weighed pair by pair. Nothing here is [candidates x jobs].

    Every method takes candidates [R], jobs [R, P] (any valid numbers where a slot is empty) and instants [R].
    """

    def __init__(
        self,
        config: MarketConfig,
        luck: Luck,
        taxonomy: Taxonomy,
        postings: Postings,
        people: People,
        employers: Employers,
        places: Places,
    ) -> None:
        self.postings, self.people, self.employers = postings, people, employers
        self._config, self._luck = config, luck
        self._kinship_OO = taxonomy.kinship
        self._distance_PP = places.distance_km()
        self._country = places.country_number
        self._skill_count = len(taxonomy.skills)

    def utility(self, who_R: Numbers, job_RP: Numbers, at_R: Numbers) -> Floats:
        """The candidate's utility, before anything that depends on what they saw before."""
        jobs, people, weights = self.postings, self.people, self._config.choice
        phase_R = people.phase(who_R, at_R)
        target_R = people.target[who_R, phase_R]
        total = weights.kinship * self._kinship_OO[target_R[:, None], jobs.occupation[job_RP]]
        total += weights.skill * self._share(people.able[who_R, phase_R], job_RP)
        total += weights.liked * np.minimum(self._overlap(people.liked[who_R, phase_R], job_RP), 2.0)
        total += weights.seniority * self._misfit(people.seniority[who_R, phase_R], job_RP, up=0.5)
        near, abroad = self._separation(people.place[who_R, phase_R], job_RP)
        total += weights.distance * near + weights.abroad * abroad
        total += people.likes_remote[who_R][:, None] * jobs.remote[job_RP]
        total += weights.pay * jobs.pay_log[job_RP]
        rating = self.employers.rating_at(jobs.employer[job_RP], at_R[:, None])
        total += weights.rating * (rating - 3.5)
        total += weights.freshness * self.age_in_months(job_RP, at_R)
        total += weights.taste * self._luck.normal(Draw.TASTE, who_R[:, None], job_RP)
        return np.asarray(total, dtype=np.float32)

    def fit(self, who_R: Numbers, job_RP: Numbers, at_R: Numbers) -> Floats:
        """The employer's utility."""
        jobs, people, weights = self.postings, self.people, self._config.hiring
        phase_R = people.phase(who_R, at_R)
        total = weights.skill * self._share(people.able[who_R, phase_R], job_RP)
        total += weights.kinship * self._kinship_OO[people.work[who_R][:, None], jobs.occupation[job_RP]]
        total += weights.seniority * self._misfit(people.seniority[who_R, phase_R], job_RP, up=1.0)
        near, abroad = self._separation(people.place[who_R, phase_R], job_RP)
        total += weights.distance * near + weights.abroad * abroad
        total += weights.taste * self._luck.normal(Draw.FIT, who_R[:, None], job_RP)
        total -= self._config.bias.employer * (people.group[who_R] == GROUP_B)[:, None]
        return np.asarray(total, dtype=np.float32)

    def score(self, who_R: Numbers, job_RP: Numbers, at_R: Numbers) -> Floats:
        """The logging policy's score: the profile's words against the posting's, and the posting's age."""
        jobs, people = self.postings, self.people
        version_R = people.version(who_R, at_R)
        declared_R = people.declared[who_R, version_R]
        here_R = people.place[who_R, version_R]
        total = 4.2 * self._kinship_OO[declared_R[:, None], jobs.occupation[job_RP]]
        total += 1.5 * self._share(people.listed[who_R, version_R], job_RP)
        there_RP, remote_RP = jobs.place[job_RP], jobs.remote[job_RP]
        near_RP = self._distance_PP[here_R[:, None], there_RP] < 60
        total += 1.5 * (near_RP | remote_RP)
        total -= 2.5 * (self._country[here_R][:, None] != self._country[there_RP])
        total -= _FRESHNESS_IN_SCORE * self.age_in_months(job_RP, at_R)
        if self._config.bias.exposure:
            worse = (people.group[who_R] == GROUP_B)[:, None] & (jobs.pay_log[job_RP] > _WELL_PAID)
            total -= self._config.bias.exposure * worse
        return np.asarray(total, dtype=np.float32)

    def age_in_months(self, job_RP: Numbers, at_R: Numbers) -> Floats:
        """Negative where a job is not posted yet."""
        return ((at_R[:, None] - self.postings.posted_us[job_RP]) / MONTH_US).astype(np.float32)

    def _separation(self, here_R: Numbers, job_RP: Numbers) -> tuple[Floats, Floats]:
        """tanh(km / 80) and whether abroad, both a third for a remote job."""
        there_RP = self.postings.place[job_RP]
        share = np.where(self.postings.remote[job_RP], np.float32(1 / 3), np.float32(1.0))
        near = np.tanh(self._distance_PP[here_R[:, None], there_RP] / 80) * share
        abroad = (self._country[here_R][:, None] != self._country[there_RP]) * share
        return near, abroad

    def _misfit(self, seniority_R: Numbers, job_RP: Numbers, *, up: float) -> Floats:
        """Steps between the two; a step up counts `up`."""
        step = self.postings.seniority[job_RP].astype(np.float32) - seniority_R[:, None]
        return np.where(step == 1, np.float32(up), np.abs(step))

    def _share(self, skills_RS: Numbers, job_RP: Numbers) -> Floats:
        count = (self.postings.skills[job_RP] >= 0).sum(axis=2)
        return self._overlap(skills_RS, job_RP) / np.maximum(count, 1).astype(np.float32)

    def _overlap(self, skills_RS: Numbers, job_RP: Numbers) -> Floats:
        """How many of each job's skills the candidate's row of skills holds [R, P]."""
        rows_R = np.arange(len(skills_RS))[:, None]
        has = np.zeros((len(skills_RS), self._skill_count + 1), dtype=np.int8)
        has[rows_R, skills_RS] = 1
        has[:, -1] = 0  # where -1, for no skill, points
        found = np.zeros(job_RP.shape, dtype=np.int8)
        for column in range(self.postings.skills.shape[1]):
            found += has[rows_R, self.postings.skills[job_RP, column]]
        return found.astype(np.float32)


def sigmoid(x: npt.NDArray[Any]) -> Floats:
    """1 / (1 + exp(-x)), elementwise."""
    return np.asarray(1.0 / (1.0 + np.exp(-x)), dtype=np.float32)
