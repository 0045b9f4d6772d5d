"""The one definition of what the people rankers see of a (job, person) pair: PairFeatures with the roles exchanged.

    pairs = PeoplePairs(people, words, vectors, jobs)         # `jobs`: the release's PairFeatures
    prepared = pairs.prepare(question, vector)                # once a request
    pairs.matrix(prepared, rows, at=at, columns=PEOPLE_COLUMNS)   # float32 [len(rows), c]

A person is seen as known strictly before `at`, whenever the release was built: entries of the log at or after it do
not count. Unknown is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from rolecall.features.catalogue import MICROSECONDS_A_DAY, Floats, Rows, middle, normal, rank_of
from rolecall.features.context import JobQuestion
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import LexicalQuery
from rolecall.features.pairs import PairFeatures, same_as
from rolecall.features.people import LOG_KINDS, People, flat_places
from rolecall.features.people_columns import PEOPLE_COLUMNS, check_people_columns
from rolecall.features.people_words import PeopleWords
from rolecall.features.request_time import kilometres, log_pay
from rolecall.platform.errors import InputError

LOOKBACK = 200
"""Newest log entries of a person before the instant of a question that count."""

HISTORY = 20
"""Newest engagements that content columns look at."""

_KIND = {name: place for place, name in enumerate(LOG_KINDS)}
Columns = Mapping[str, Floats | float]


@dataclass(frozen=True, kw_only=True)
class PreparedJob:
    """What one job needs once for any number of people.

    `row`: in the catalogue, -1 for a job the release does not hold. `vector`: unit float32[d]. `skill_weights`
    float32[skills of people]: 1 where the job asks for it; `skills_asked`: how many the job lists.
    """

    question: JobQuestion
    row: int
    vector: Floats
    queries: Mapping[str, LexicalQuery]
    skill_weights: Floats
    skills_asked: int
    employer: int
    category_root: int
    log_pay: float


Group = Callable[[PreparedJob, Rows, float], Columns]


class PeoplePairs:
    """Features of (job, person) pairs over the parts of one release. Immutable: serves any number of threads."""

    def __init__(self, people: People, words: PeopleWords, vectors: JobVectors, jobs: PairFeatures) -> None:
        if not len(people) == len(vectors) == len(words):
            raise InputError(f"{len(people)} people, {len(vectors)} vectors, {len(words)} texts", "one each")
        self.people = people
        self.words = words
        self.vectors = vectors
        self.jobs = jobs
        self._log_pay = log_pay(jobs.catalogue.salary)
        self._skills = csr_matrix(
            (np.ones(len(people.skills.codes), np.float32), people.skills.codes, people.skills.starts),
            shape=(len(people), len(people.skills.names)),
        )
        self._groups: Mapping[str, Group] = {
            "text": self._text,
            "skill": self._skill,
            "place": self._place,
            "level": self._level,
            "history": self._history,
            "activity": self._activity,
        }

    def question(self, job_id: str, *, exclude_applicants: bool = True) -> JobQuestion | None:
        """A job of the catalogue as a question, None where the release does not hold it."""
        catalogue = self.jobs.catalogue
        row = catalogue.row_of(job_id)
        if row is None:
            return None
        job = catalogue.job(row)
        told: dict[str, Any] = {name: job[name] for name in _PLAIN}
        told |= {name: tuple(job[name] or ()) for name in ("skills", "category_path")}
        employer = catalogue.employers[row] or None
        return JobQuestion(employer_name=employer, exclude_applicants=exclude_applicants, **told)

    def prepare(self, question: JobQuestion, vector: Floats | None = None) -> PreparedJob:
        """Look up what all pairs of one job share.

        `vector`: unit float32[d] of the job's text; needed only where the catalogue does not hold the job.
        """
        catalogue, fields = self.jobs.catalogue, self.jobs.lexicon.fields
        row = catalogue.row_of(question.job_id) if question.job_id else None
        rows, texts = (np.array([row], np.int32), ("", "")) if row is not None else (_NO_ROWS, _texts(question))
        if row is not None:
            vector = self.jobs.vectors.rows(rows)[0]
        if vector is None:
            raise InputError(f"job {question.job_id} is not in the release", "its vector", "embed its text")
        queries = {
            name: fields[name].query(rows=rows, texts=() if row is not None else (text,))
            for name, text in zip(("title", "full"), texts, strict=True)
        }
        weights = np.zeros(len(self.people.skills.names), np.float32)
        weights[self.people.skills.known(question.skills)] = 1
        low, high = (np.array([_number(value)]) for value in (question.salary_min, question.salary_max))
        return PreparedJob(
            question=question,
            row=-1 if row is None else row,
            vector=np.asarray(vector, np.float32),
            queries=queries,
            skill_weights=weights,
            skills_asked=len({normal(skill) for skill in question.skills} - {""}),
            employer=catalogue.employer.of(question.employer_id),
            category_root=catalogue.category_root.of((question.category_path or ("",))[0]),
            log_pay=float(log_pay(middle(low, high))[0]),
        )

    def matrix(
        self,
        prepared: PreparedJob,
        rows: Rows,
        *,
        at: datetime,
        columns: Sequence[str],
        known: Mapping[str, Floats] | None = None,
    ) -> Floats:
        """float32 [len(rows), len(columns)]. `known`: columns computed before for the same rows.

        Raises InputError on a column that does not exist.
        """
        check_people_columns(columns)
        at_us = at.timestamp() * 1e6
        values: dict[str, Floats | float] = dict(known or {})
        for group in dict.fromkeys(_GROUP_OF[name] for name in columns if name not in values):
            values.update(self._groups[group](prepared, rows, at_us))
        out = np.full((len(rows), len(columns)), np.nan, np.float32)
        for place, name in enumerate(columns):
            if name in values:
                out[:, place] = values[name]
        return out

    def _text(self, prepared: PreparedJob, rows: Rows, _at: float) -> Columns:
        title = prepared.queries["title"]
        return {
            "dense_profile": self.vectors.cosines(rows, prepared.vector[:, None])[:, 0],
            "full_profile": self.words.similarity("full", prepared.queries["full"], rows),
            "title_desired": self.words.similarity("desired", title, rows),
            "title_career": self.words.similarity("career", title, rows),
            "title_resume": self.words.similarity("resume", title, rows),
        }

    def _skill(self, prepared: PreparedJob, rows: Rows, _at: float) -> Columns:
        counts = np.diff(self.people.skills.starts)[rows].astype(np.float32)
        listed = np.where(counts > 0, counts, np.nan).astype(np.float32)
        overlap = np.asarray(self._skills[rows] @ prepared.skill_weights, np.float32)
        columns: dict[str, Floats | float] = {"skill_count": float(prepared.skills_asked)}
        if prepared.skills_asked:
            columns["skill_overlap"] = np.where(counts > 0, overlap, np.nan).astype(np.float32)
            columns["skill_share"] = np.where(counts > 0, overlap / prepared.skills_asked, np.nan).astype(np.float32)
            columns["skill_cover"] = overlap / listed
        return columns

    def _place(self, prepared: PreparedJob, rows: Rows, _at: float) -> Columns:
        people, job = self.people, prepared.question
        columns: dict[str, Floats | float] = {
            "same_city": same_as(people.city, rows, job.city),
            "same_region": same_as(people.region, rows, job.region),
            "same_country": same_as(people.country, rows, job.country),
        }
        if job.remote is not None:
            columns["remote"] = float(job.remote)
        if job.lat is not None and job.lon is not None:
            there = np.radians(np.array([[job.lat], [job.lon]], np.float32))
            columns["distance_km"] = kilometres(people.latitude[rows], people.longitude[rows], there[0], there[1])[:, 0]
        return columns

    def _level(self, prepared: PreparedJob, rows: Rows, at: float) -> Columns:
        people = self.people
        places, owner = flat_places(people.career.starts, rows)
        began, ended = people.career.began[places], people.career.ended[places]
        held = began < at
        until = np.where(np.isnan(ended) | (ended > at), at, ended)
        years = np.where(held, (until - began) / (365.25 * MICROSECONDS_A_DAY), 0)
        return {
            "seniority_gap": np.float32(rank_of(prepared.question.seniority)) - people.seniority[rows],
            "experience_years": _sums(owner, years, len(rows)),
            "positions": _sums(owner, held.astype(np.float64), len(rows)),
            "log_salary": prepared.log_pay,
            "days_since_profile": ((at - people.known_since[rows]) / MICROSECONDS_A_DAY).astype(np.float32),
        }

    def _history(self, prepared: PreparedJob, rows: Rows, at: float) -> Columns:
        """Of the newest engagements: how like this job they were."""
        log = self.people.log.before(rows, at).newest(LOOKBACK)
        seen = log.where(log.kinds != _KIND["dismiss"]).newest(HISTORY)
        length = _sums(seen.owner, np.ones(len(seen.owner)), len(rows))
        known = seen.where(seen.jobs >= 0)
        columns: dict[str, Floats | float] = {"history_length": length}
        if not len(known.owner):
            return columns
        distinct, place = np.unique(known.jobs, return_inverse=True)
        cosines = self.jobs.vectors.cosines(distinct, prepared.vector[:, None])[:, 0][place]
        titles = self.jobs.lexicon.fields["title"].similarity(prepared.queries["title"], distinct)[:, 0][place]
        last = np.full(len(rows), np.nan, np.float32)
        last[known.owner] = cosines  # entries are in order of time: the newest is written last
        pay = self._log_pay[known.jobs]
        root = self.jobs.catalogue.category_root.codes[known.jobs]
        return columns | {
            "history_mean": _means(known.owner, cosines, len(rows)),
            "history_max": _largest(known.owner, cosines, len(rows)),
            "history_last": last,
            "history_title": _largest(known.owner, titles, len(rows)),
            "salary_to_history": np.float32(prepared.log_pay) - _means(known.owner, pay, len(rows)),
            "category_share": _means(known.owner, _share(root, prepared.category_root), len(rows)),
        }

    def _activity(self, prepared: PreparedJob, rows: Rows, at: float) -> Columns:
        log = self.people.log.before(rows, at).newest(LOOKBACK)
        engaged, days = log.kinds != _KIND["dismiss"], (at - log.times) / MICROSECONDS_A_DAY
        applied, dismissed = log.kinds == _KIND["apply"], log.kinds == _KIND["dismiss"]
        here = (log.jobs == prepared.row) & (prepared.row >= 0)
        employer = (log.employers == prepared.employer) & (prepared.employer >= 0)
        looked = (log.kinds == _KIND["view"]) | (log.kinds == _KIND["click"])
        newest = np.full(len(rows), np.nan, np.float32)
        newest[log.owner] = days

        def count(mask: npt.NDArray[np.bool_]) -> Floats:
            return _sums(log.owner, mask.astype(np.float64), len(rows))

        return {
            "viewed_job": count(here & looked),
            "saved_job": np.minimum(count(here & (log.kinds == _KIND["save"])), 1),
            "engaged_employer": count(employer & engaged),
            "applied_employer": count(employer & applied & ~here),
            "days_since_active": newest,
            "engagements_7d": count(engaged & (days <= 7)),
            "engagements_30d": count(engaged & (days <= 30)),
            "applies_30d": count(applied & (days <= 30)),
            "dismissals_30d": count(dismissed & (days <= 30)),
        }


_NO_ROWS = np.zeros(0, np.int32)
_PLAIN = ("job_id", "title", "description", "employer_id", "seniority", "city", "region", "country", "lat", "lon",
          "remote", "salary_min", "salary_max")  # fmt: skip
_MEMBERS: Mapping[str, tuple[str, ...]] = {
    "text": ("dense_profile", "full_profile", "title_desired", "title_career", "title_resume"),
    "skill": ("skill_overlap", "skill_share", "skill_cover", "skill_count"),
    "place": ("same_city", "same_region", "same_country", "distance_km", "remote"),
    "level": ("seniority_gap", "experience_years", "positions", "log_salary", "days_since_profile"),
    "history": ("history_length", "history_mean", "history_max", "history_last", "history_title", "salary_to_history",
                "category_share"),
}  # fmt: skip
_GROUP_OF = dict.fromkeys(PEOPLE_COLUMNS, "activity") | {
    name: group for group, names in _MEMBERS.items() for name in names
}


def _texts(question: JobQuestion) -> tuple[str, str]:
    """A job's words in the lexicon's fields `title` and `full`."""
    return question.title, " ".join(filter(None, (question.title, question.city, question.region)))


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _share(codes: Rows, code: int) -> Floats:
    """1 where a job is in the category; NaN where either category is unknown."""
    same = np.where(codes < 0, np.nan, codes == code)
    return np.asarray(same if code >= 0 else np.full(len(codes), np.nan), np.float32)


def _sums(owner: npt.NDArray[np.int64], values: npt.NDArray[np.floating], count: int) -> Floats:
    return np.bincount(owner, weights=values, minlength=count).astype(np.float32)


def _means(owner: npt.NDArray[np.int64], values: npt.NDArray[np.floating], count: int) -> Floats:
    """Mean of each owner's known values, NaN without any."""
    known = ~np.isnan(values)
    number = np.bincount(owner[known], minlength=count)
    total = np.bincount(owner[known], weights=values[known], minlength=count)
    return np.where(number > 0, total / np.maximum(number, 1), np.nan).astype(np.float32)


def _largest(owner: npt.NDArray[np.int64], values: npt.NDArray[np.floating], count: int) -> Floats:
    best = np.full(count, -np.inf, np.float32)
    np.maximum.at(best, owner, values.astype(np.float32))
    return np.where(np.isinf(best), np.nan, best).astype(np.float32)
