"""The one definition of what the rankers see of a (candidate, job) pair: training, evaluation and serving alike.

    pairs = PairFeatures(catalogue, lexicon, vectors)
    prepared = pairs.prepare(context, profile_vector)                      # once a request
    pairs.matrix(prepared, rows, at=at, job_features={}, columns=COARSE_COLUMNS)   # float32 [len(rows), c]

Pair columns know the candidate's own context and the jobs' content, nothing else: no job id, no row order, no
other candidate's behaviour. What comes from feature views is named `job.<feature>` or `candidate.<feature>`.
Unknown is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from rolecall.features.affinity import Sighted, code_lean, expected_of, middles, skill_lean
from rolecall.features.catalogue import MICROSECONDS_A_DAY, Catalogue, Codes, Floats, Rows, normal, rank_of
from rolecall.features.category_profiles import CategoryProfiles
from rolecall.features.context import CandidateContext
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import LexicalQuery, Lexicon
from rolecall.features.pair_columns import (
    CANDIDATE_PREFIX,
    COARSE_COLUMNS,
    JOB_PREFIX,
    PAIR_COLUMNS,
    check_columns,
    fine_columns,
)
from rolecall.features.pay import usual_pay
from rolecall.features.request_time import (
    centroid,
    ignored,
    kilometres,
    log_pay,
    pay_gap,
    seniority_gap,
    skill_match,
    title_similarity,
    title_words,
)
from rolecall.features.text import desired_titles, resume_words
from rolecall.platform.errors import InputError

__all__ = ["COARSE_COLUMNS", "PAIR_COLUMNS", "PairFeatures", "PreparedCandidate", "check_columns", "fine_columns"]

RESUME_WORDS = 200
"""How much of a resume `title_resume` reads."""

RECENCY = 0.7
"""Weight of a history job relative to the one that followed it, in `*_recent` columns."""


@dataclass(frozen=True, kw_only=True)
class PreparedCandidate:
    """What one candidate needs once for any number of jobs.

    `history`: rows of the k history jobs this release knows, oldest first. `recent` float32[k]: their weights, newer
    jobs weighing more, that sum to 1. `dense` float32[d, k (+1)]: history vectors, then the
    profile's. `profile` float32[d] or None. `queries`: the lexical queries by field, history first, then texts.
    """

    context: CandidateContext
    history: Rows
    recent: Floats
    dense: Floats
    profile: Floats | None
    queries: Mapping[str, LexicalQuery]
    skill_weights: Floats
    skills_listed: int
    sighted: Sighted
    title_agreement: float
    place_agreement: float

    @property
    def history_vectors(self) -> Floats:
        """Unit vectors of the history jobs, float32[k, d]."""
        return self.dense[:, : len(self.history)].T


Columns = Mapping[str, Floats | float]
Group = Callable[[PreparedCandidate, Rows, float], Columns]


class PairFeatures:
    """Pair features over the parts of one release. Immutable: one object serves any number of threads."""

    def __init__(self, catalogue: Catalogue, lexicon: Lexicon, vectors: JobVectors) -> None:
        if len(vectors) != len(catalogue):
            raise InputError(f"{len(vectors)} vectors for {len(catalogue)} jobs", "one each", "build both in one run")
        self.catalogue = catalogue
        self.lexicon = lexicon
        self.vectors = vectors
        self._skills = csr_matrix(
            (np.ones(len(catalogue.skills.codes), np.float32), catalogue.skills.codes, catalogue.skills.starts),
            shape=(len(catalogue), len(catalogue.skills.names)),
        )
        self._groups: Mapping[str, Group] = {
            "dense": self._dense,
            "full": self._full,
            "title": self._title,
            "place": self._place,
            "same": self._same,
            "distance": self._distance,
            "travel": self._travel,
            "shares": self._shares,
            "skill": self._skill,
            "job": self._job,
            "history": self._history,
            "seen": self._seen,
            "words": self._words,
            "category": self._category,
            "lean": self._lean,
        }
        self._pay = log_pay(catalogue.salary)
        self._usual_pay = usual_pay(catalogue)
        self._title_words = lexicon.fields["title"].words()
        self._categories = CategoryProfiles(catalogue, lexicon.fields["title"], vectors, self._skills)

    def prepare(self, context: CandidateContext, profile_vector: Floats | None = None) -> PreparedCandidate:
        """Look up what all pairs of one candidate share. `profile_vector`: unit float32[d] of the profile text."""
        history = self.catalogue.rows_of(context.history)
        fields = self.lexicon.fields
        titles = (resume_words(context, RESUME_WORDS), *desired_titles(context))
        queries = {
            "full": fields["full"].query(rows=history, texts=[profile_words(context)]),
            "title": fields["title"].query(rows=history, texts=titles),
            "place": fields["place"].query(rows=history, texts=[_place_words(context)]),
        }
        vectors = self.vectors.rows(history)
        extra = [] if profile_vector is None else [np.asarray(profile_vector, np.float32)[None]]
        listed = self.catalogue.skills.known(context.skills)
        return PreparedCandidate(
            context=context,
            history=history,
            recent=_recency(len(history)),
            dense=np.ascontiguousarray(np.concatenate([vectors, *extra]).T),
            profile=extra[0][0] if extra else None,
            queries=queries,
            skill_weights=self._skill_weights(listed, history),
            skills_listed=len({normal(skill) for skill in context.skills} - {""}),
            sighted=Sighted.of(context.sightings, self.catalogue),
            title_agreement=_agreement(queries["title"], len(history)),
            place_agreement=_agreement(queries["place"], len(history)),
        )

    def matrix(
        self,
        prepared: PreparedCandidate,
        rows: Rows,
        *,
        at: datetime,
        job_features: Mapping[str, npt.NDArray[np.floating]],
        columns: Sequence[str],
        known: Mapping[str, Floats] | None = None,
    ) -> Floats:
        """float32 [len(rows), len(columns)]. `job_features`: arrays aligned with `rows`; absent means unknown.

        `known`: columns computed before for the same rows, not to be computed again.
        Raises InputError on a column that does not exist.
        """
        check_columns(columns)
        at_us = at.timestamp() * 1e6
        values: dict[str, Floats | float] = dict(known or {})
        for group in dict.fromkeys(_GROUP_OF[name] for name in columns if name in _GROUP_OF and name not in values):
            values.update(self._groups[group](prepared, rows, at_us))
        out = np.full((len(rows), len(columns)), np.nan, np.float32)
        for place, name in enumerate(columns):
            value = values.get(name)
            if value is None:
                value = _foreign(name, prepared.context, job_features)
            if value is not None:
                out[:, place] = value
        return out

    def _dense(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        cosines = self.vectors.cosines(rows, prepared.dense)
        columns = dict(_summary("dense", cosines[:, : len(prepared.history)], prepared.recent))
        if prepared.profile is not None:
            columns["dense_profile"] = cosines[:, -1]
        return columns

    def _full(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        cosines = self.lexicon.fields["full"].similarity(prepared.queries["full"], rows)
        columns = dict(_summary("full", cosines[:, : len(prepared.history)], prepared.recent))
        if profile_words(prepared.context):
            columns["full_profile"] = cosines[:, -1]
        return columns

    def _title(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        cosines = self.lexicon.fields["title"].similarity(prepared.queries["title"], rows)
        k = len(prepared.history)
        columns = dict(_summary("title", cosines[:, :k], prepared.recent))
        if prepared.context.resume_text:
            columns["title_resume"] = cosines[:, k]
        if prepared.context.desired_titles:
            columns["title_desired"] = cosines[:, k + 1 :].max(axis=1)
        return columns

    def _place(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        cosines = self.lexicon.fields["place"].similarity(prepared.queries["place"], rows)
        history = cosines[:, : len(prepared.history)]
        columns = dict(_summary("place", history, prepared.recent))
        if _place_words(prepared.context):
            columns["place_profile"] = cosines[:, -1]
        return columns

    def _same(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        jobs, context = self.catalogue, prepared.context
        columns: dict[str, Floats | float] = {
            "same_city": same_as(jobs.city, rows, context.city),
            "same_region": same_as(jobs.region, rows, context.region),
            "same_country": same_as(jobs.country, rows, context.country),
        }
        if len(prepared.history):
            last = prepared.history[-1]
            codes = {
                "city_last": jobs.city,
                "region_last": jobs.region,
                "employer_last": jobs.employer,
                "category_last": jobs.category,
            }
            columns.update({name: _equal(code.codes[rows], int(code.codes[last])) for name, code in codes.items()})
        return columns

    def _shares(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        jobs, history = self.catalogue, prepared.history
        codes = {
            "city_share": jobs.city,
            "region_share": jobs.region,
            "employer_share": jobs.employer,
            "category_share": jobs.category,
            "category_root_share": jobs.category_root,
        }
        return {name: _share(code.codes[rows], code.codes[history]) for name, code in codes.items()}

    def _distance(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        jobs, context = self.catalogue, prepared.context
        latitude, longitude = jobs.latitude[rows], jobs.longitude[rows]
        columns: dict[str, Floats | float] = {}
        if context.lat is not None and context.lon is not None:
            home = np.radians(np.array([[context.lat], [context.lon]], np.float32))
            columns["distance_km"] = kilometres(latitude, longitude, home[0], home[1])[:, 0]
        return columns

    def _travel(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        jobs = self.catalogue
        latitude, longitude = jobs.latitude[rows], jobs.longitude[rows]
        columns: dict[str, Floats | float] = {}
        if len(prepared.history):
            visited = kilometres(latitude, longitude, jobs.latitude[prepared.history], jobs.longitude[prepared.history])
            columns["distance_last_km"] = visited[:, -1]
            columns["distance_near_km"] = np.fmin.reduce(visited, axis=1)
            middle = centroid(jobs.latitude[prepared.history], jobs.longitude[prepared.history], prepared.recent)
            columns["distance_centroid_km"] = kilometres(latitude, longitude, [middle[0]], [middle[1]])[:, 0]
        return columns

    def _skill(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        counts = np.diff(self.catalogue.skills.starts)[rows].astype(np.float32)
        shared, history = np.asarray(self._skills[rows] @ prepared.skill_weights, np.float32).T
        match = skill_match(shared, counts, prepared.skills_listed)
        columns: dict[str, Floats | float] = {
            "skill_count": counts,
            "skill_overlap": match.overlap,
            "skill_share": match.share,
            "skill_cover": match.cover,
        }
        if len(prepared.history):
            columns["skill_history"] = history / np.where(counts > 0, counts, np.float32("nan"))
        return columns

    def _job(self, prepared: PreparedCandidate, rows: Rows, at: float) -> Columns:
        jobs, history = self.catalogue, prepared.history
        pay, rank = self._pay[rows], jobs.seniority[rows]
        return {
            "title_words": np.diff(self.lexicon.fields["title"].matrix.indptr)[rows].astype(np.float32),
            "remote": jobs.remote[rows],
            "log_salary": pay,
            "salary_to_history": pay_gap(pay, _middle_known(self._pay[history])),
            "salary_to_usual": pay_gap(pay, self._usual_pay[rows]),
            "seniority_gap": seniority_gap(rank, rank_of(prepared.context.seniority)),
            "seniority_history_gap": rank - _mean_known(jobs.seniority[history]),
            "age_days": ((at - jobs.posted[rows]) / MICROSECONDS_A_DAY).astype(np.float32),
            "remaining_days": ((jobs.expires[rows] - at) / MICROSECONDS_A_DAY).astype(np.float32),
        }

    def _history(self, prepared: PreparedCandidate, _rows: Rows, _at: float) -> Columns:
        return {
            "history_length": float(len(prepared.history)),
            "history_title_agreement": prepared.title_agreement,
            "history_place_agreement": prepared.place_agreement,
        }

    def _seen(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        """Looked up by job: few of a candidate's jobs are among many rows."""
        shown, engaged = np.zeros(len(rows), np.float32), np.zeros(len(rows), np.bool_)
        seen = prepared.sighted
        for place in np.flatnonzero(np.isin(rows, seen.rows)).tolist():
            found = np.searchsorted(seen.rows, rows[place])
            shown[place], engaged[place] = seen.shown[found], seen.engaged[found]
        return {"seen_shown": shown, "seen_ignored": ignored(shown, engaged)}

    def _lean(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        jobs, seen = self.catalogue, prepared.sighted
        if not len(seen.rows):
            return {}
        expected = expected_of(jobs.category.codes, seen)
        columns: dict[str, Floats | float] = {
            "lean_category": code_lean(jobs.category.codes, seen, rows),
            "lean_remote": code_lean(np.nan_to_num(jobs.remote, nan=-1).astype(np.int32), seen, rows),
            "lean_skills": self._skills[rows] @ skill_lean(self._skills, seen, seen.rate * seen.shown),
            "lean_skills_within": self._skills[rows] @ skill_lean(self._skills, seen, expected),
        }
        liked, ignored_ = middles(self.vectors, seen)
        if liked is not None and ignored_ is not None:
            columns["lean_meaning"] = self.vectors.cosines(rows, (liked - ignored_)[:, None])[:, 0]
        return columns

    def _words(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        titles = [title_words(text) for text in desired_titles(prepared.context)]
        title = self.lexicon.fields["title"]
        matrix, lengths = self._title_words
        terms = matrix[rows]
        best = np.full(len(rows), np.nan, np.float32)
        for words in filter(None, titles):
            weights = np.zeros(len(title.terms), np.float32)
            weights[title.columns_of(words)] = 1
            cosines = title_similarity(terms @ weights, lengths[rows], float(len(words)))
            best = np.fmax(best, cosines)
        return {"words_desired": best}

    def _category(self, prepared: PreparedCandidate, rows: Rows, _at: float) -> Columns:
        """Worked out once for each category among the rows."""
        codes = self.catalogue.category.codes[rows]
        categories, place = np.unique(codes[codes >= 0], return_inverse=True)
        found: dict[str, Floats] = {}
        titles = self._categories.titles(categories, prepared.queries["title"])
        if prepared.context.resume_text:
            found["category_resume"] = titles[:, len(prepared.history)]
        if prepared.context.desired_titles:
            found["category_desired"] = titles[:, len(prepared.history) + 1 :].max(axis=1)
        if prepared.skills_listed:
            found["category_skills"] = self._categories.skills(categories, prepared.skill_weights[:, 0])
        if prepared.profile is not None:
            found["category_profile"] = self._categories.cosines(categories, prepared.profile)
        columns = {name: np.full(len(rows), np.nan, np.float32) for name in found}
        for name, values in found.items():
            columns[name][codes >= 0] = values[place]
        return columns

    def _skill_weights(self, listed: Rows, history: Rows) -> Floats:
        """float32[skills, 2]: whether the profile lists a skill, and the share of history jobs that ask for it."""
        weights = np.zeros((len(self.catalogue.skills.names), 2), np.float32)
        weights[listed, 0] = 1
        if len(history):
            asked: Any = self._skills[list(history)]
            np.add.at(weights[:, 1], asked.indices, np.float32(1 / len(history)))
        return weights


_OWN_GROUP = {
    "same_city": "same", "same_region": "same", "same_country": "same", "city_last": "same", "region_last": "same",
    "employer_last": "same", "category_last": "same", "seniority_gap": "job", "seniority_history_gap": "job",
    "log_salary": "job", "salary_to_history": "job", "age_days": "job", "remaining_days": "job", "remote": "job",
    "title_words": "job", "distance_last_km": "travel", "distance_near_km": "travel", "distance_centroid_km": "travel",
    "salary_to_usual": "job",
}  # fmt: skip
_GROUP_OF: Mapping[str, str] = {
    name: _OWN_GROUP.get(name)
    or ("shares" if name.endswith("_share") and name != "skill_share" else name.split("_")[0])
    for name in PAIR_COLUMNS
}


def _foreign(
    name: str, context: CandidateContext, job_features: Mapping[str, npt.NDArray[np.floating]]
) -> npt.NDArray[np.floating] | float | None:
    if name.startswith(JOB_PREFIX):
        return job_features.get(name.removeprefix(JOB_PREFIX))
    if name.startswith(CANDIDATE_PREFIX):
        return context.activity.get(name.removeprefix(CANDIDATE_PREFIX))
    return None


def _agreement(query: LexicalQuery, k: int) -> float:
    """Mean cosine between different ones of the first k queries; NaN below two."""
    if k < 2:
        return float("nan")
    vectors = query.weights[:, :k]
    return float((np.square(vectors.sum(axis=1)).sum() - np.square(vectors).sum()) / (k * (k - 1)))


def _place_words(context: CandidateContext) -> str:
    return " ".join(filter(None, (context.city, context.region)))


def profile_words(context: CandidateContext) -> str:
    """What `full_profile` reads of a profile."""
    return " ".join(filter(None, (*desired_titles(context), *context.skills, _place_words(context))))


def _recency(k: int) -> Floats:
    weights = RECENCY ** np.arange(k - 1, -1, -1, dtype=np.float32)
    return np.asarray(weights / weights.sum() if k else weights, np.float32)


def _summary(name: str, cosines: Floats, recent: Floats) -> dict[str, Floats | float]:
    """The history columns of one similarity, from cosines [rows, k]; nothing without a history."""
    if not cosines.shape[1]:
        return {}
    return {
        f"{name}_mean": cosines.mean(axis=1),
        f"{name}_max": cosines.max(axis=1),
        f"{name}_last": cosines[:, -1],
        f"{name}_recent": cosines @ recent,
    }


def same_as(codes: Codes, rows: Rows, text: str | None) -> Floats | float:
    """1 where the rows' text is this one, 0 where another, NaN where either is unknown."""
    if not text:
        return float("nan")
    found = codes.codes[rows]
    return np.where(found < 0, np.nan, found == codes.of(text)).astype(np.float32)


def _equal(codes: Rows, code: int) -> Floats | float:
    if code < 0:
        return float("nan")
    return np.where(codes < 0, np.nan, codes == code).astype(np.float32)


def _share(codes: Rows, history: Rows) -> Floats | float:
    """For each code its share in the history; NaN where the job's is unknown or there is no history."""
    if not (history >= 0).any():
        return float("nan")
    share = np.count_nonzero(codes[:, None] == history, axis=1) / len(history)
    return np.where(codes < 0, np.nan, share).astype(np.float32)


def _middle_known(values: Floats) -> np.float32:
    known = values[~np.isnan(values)]
    return np.float32(np.median(known)) if len(known) else np.float32("nan")


def _mean_known(values: Floats) -> np.float32:
    known = values[~np.isnan(values)]
    return np.float32(known.mean()) if len(known) else np.float32("nan")
