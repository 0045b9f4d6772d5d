"""Which people an employer is shown: the one place where consent, visibility and past decisions are enforced.

A person is shown for a job only if all of this holds:

- they agreed to be recommended (nobody else is in a release's people at all);
- `visibility` is "all", or it is "applied" and they applied to a job of this employer;
- the employer is none of their `hidden_from`; of an employer that is not named nobody can say so, hence people
  who hide from anyone, and those visible to employers they applied to, are then not shown;
- they did not dismiss the job, and were neither rejected nor hired for it;
- they did not apply to the job, unless applicants are asked for: those come first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from rolecall.features.catalogue import Floats, Rows, normal
from rolecall.features.context import JobQuestion
from rolecall.features.job_vectors import JobVectors
from rolecall.features.people import People
from rolecall.platform.settings import PolicySettings
from rolecall.serving.policy import Groups, Mask, Rerank


@dataclass(frozen=True, kw_only=True)
class Permission:
    """What a person allows now, newer than the release."""

    consent: bool
    visibility: str = "all"
    hidden_from: tuple[str, ...] = ()


class PermissionSource(Protocol):
    """Newer knowledge of what people allow: None where there is none newer than the release."""

    def permissions(self, candidate_ids: Sequence[str]) -> list[Permission | None]: ...


class PeoplePolicy(Rerank[JobQuestion]):
    """The rules over the people of one release. No caps: every person is one of a kind."""

    def __init__(self, settings: PolicySettings, people: People, vectors: JobVectors) -> None:
        super().__init__(settings, vectors)
        self.people = people

    def eligible(self, rows: Rows, context: JobQuestion, at_us: float) -> Mask:
        """Which people may be shown at all."""
        return self.visible(context, at_us)[rows]

    def visible(self, question: JobQuestion, at_us: float) -> Mask:
        """For every person of the release whether this employer may see them for this job, as known at an instant."""
        people, employer = self.people, normal(question.employer_id)
        allowed = ~(people.known_since > at_us)
        applied = np.zeros(len(people), np.bool_)
        applied[people.applied_employers.before(employer, at_us)] = True
        allowed &= applied | ~people.applicants_only
        if employer:
            allowed[people.hidden_from.get(employer, _NOBODY)] = False
        else:
            allowed &= ~people.hides
        allowed[people.closed_jobs.before(question.job_id, at_us)] = False
        if question.exclude_applicants:
            allowed[people.applied_jobs.before(question.job_id, at_us)] = False
        return allowed

    def permits(self, row: int, permission: Permission | None, question: JobQuestion, at_us: float) -> bool:
        """Whether newer knowledge leaves a person visible who was so in the release."""
        if permission is None:
            return True
        if not permission.consent or permission.visibility == "none":
            return False
        employer = normal(question.employer_id)
        hidden = {normal(name) for name in permission.hidden_from}
        if hidden and (not employer or employer in hidden):
            return False
        return permission.visibility == "all" or row in self.people.applied_employers.before(employer, at_us)

    def _groups(self, rows: Rows) -> Groups:
        return Groups(title=rows, employer=np.full(len(rows), -1, np.int32))

    def _relevance(self, rows: Rows, scores: Floats, context: JobQuestion, at_us: float) -> Floats:
        """Applicants, where they are wanted, stand above everybody else."""
        relevance = super()._relevance(rows, scores, context, at_us)
        applicants = np.isin(rows, self.people.applied_jobs.before(context.job_id, at_us))
        return np.asarray(relevance + 2 * applicants, np.float32)


_NOBODY = np.zeros(0, np.int32)
