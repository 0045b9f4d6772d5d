"""The names of everything a ranker may read of a (candidate, job) pair, and what each means.

Pair columns are computed by `PairFeatures`; what comes from feature views is named `job.<feature>` or
`candidate.<feature>`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rolecall.platform.errors import InputError

JOB_PREFIX = "job."
CANDIDATE_PREFIX = "candidate."
PAIR_COLUMNS: Mapping[str, str] = {
    "dense_profile": "cosine of the job's vector with the profile text's",
    "dense_mean": "mean cosine with the history's jobs",
    "dense_max": "largest cosine with a history job",
    "dense_last": "cosine with the newest history job",
    "dense_recent": "mean cosine with the history, newer jobs weighing more",
    "full_profile": "TF-IDF cosine of title and place with the profile's titles, skills and place",
    "full_mean": "mean TF-IDF cosine of title and place with the history",
    "full_max": "largest TF-IDF cosine of title and place with a history job",
    "full_last": "TF-IDF cosine of title and place with the newest history job",
    "full_recent": "mean TF-IDF cosine of title and place with the history, newer jobs weighing more",
    "title_desired": "largest TF-IDF cosine of the title with a desired title",
    "title_resume": "TF-IDF cosine of the title with the first 200 words of the resume",
    "title_mean": "mean TF-IDF cosine of the title with the history",
    "title_max": "largest TF-IDF cosine of the title with a history job",
    "title_last": "TF-IDF cosine of the title with the newest history job",
    "title_recent": "mean TF-IDF cosine of the title with the history, newer jobs weighing more",
    "title_words": "number of terms in the title",
    "place_mean": "mean TF-IDF cosine of the place with the history",
    "place_max": "largest TF-IDF cosine of the place with a history job",
    "place_last": "TF-IDF cosine of the place with the newest history job",
    "place_profile": "TF-IDF cosine of the place with the profile's",
    "same_city": "1 in the profile's city, 0 in another, NaN where either is unknown",
    "same_region": "the same for the region",
    "same_country": "the same for the country",
    "city_last": "the same for the newest history job's city",
    "region_last": "the same for the newest history job's region",
    "city_share": "share of the history in the job's city",
    "region_share": "share of the history in the job's region",
    "remote": "1 for a remote job, 0 for one at a place",
    "distance_km": "kilometres from the profile's place",
    "distance_last_km": "kilometres from the newest history job",
    "distance_near_km": "kilometres from the nearest history job",
    "employer_last": "1 for the employer of the newest history job",
    "employer_share": "share of the history at the job's employer",
    "category_last": "1 for the category of the newest history job",
    "category_share": "share of the history in the job's category",
    "category_root_share": "share of the history in the job's top category",
    "category_desired": "largest TF-IDF cosine of a desired title with the middle of the titles of the job's category",
    "category_resume": "the same of the first 200 words of the resume",
    "category_skills": "how many of the profile's skills a job of the job's category asks for on average",
    "category_profile": "cosine of the profile text's vector with the middle of the vectors of the job's category",
    "distance_centroid_km": "kilometres from the middle of the history's places, newer jobs weighing more",
    "skill_overlap": "number of the job's skills that the profile lists",
    "skill_share": "share of the job's skills that the profile lists",
    "skill_cover": "share of the profile's skills that the job asks for",
    "skill_history": "mean share of history jobs that ask for one of the job's skills",
    "skill_count": "number of skills the job asks for",
    "seniority_gap": "job's seniority rank minus the profile's",
    "seniority_history_gap": "job's seniority rank minus the history's mean",
    "log_salary": "logarithm of the middle of the salary range",
    "salary_to_history": "that minus the logarithm of the history's median salary",
    "salary_to_usual": "logarithm of the salary over the median of its category and currency in this release",
    "age_days": "days since the job was posted",
    "remaining_days": "days until the job expires",
    "seen_shown": "times the job was shown to the candidate in the last days",
    "seen_ignored": "the same while nothing came of it, 0 once the candidate engaged with it in those days",
    "lean_category": "how much more came of jobs of this category shown to the candidate than of others",
    "lean_remote": "the same of jobs that are remote, or not, as this one",
    "lean_skills": "the same of each of the job's skills, added up",
    "lean_skills_within": "the same against what the categories of the jobs shown let expect",
    "lean_meaning": "cosine of the job's vector with the middle of what the candidate engaged with in those days, "
    "minus that with the middle of what was shown in vain",
    "words_desired": "largest cosine of the title's words with a desired title's",
    "history_length": "history jobs this release knows",
    "history_title_agreement": "mean TF-IDF cosine between titles of different history jobs",
    "history_place_agreement": "mean TF-IDF cosine between places of different history jobs",
}
"""Every pair column and what it holds."""

COARSE_COLUMNS: tuple[str, ...] = (
    "dense_profile",
    "dense_mean",
    "dense_max",
    "dense_last",
    "dense_recent",
    "full_profile",
    "full_mean",
    "full_max",
    "full_last",
    "full_recent",
    "same_city",
    "same_region",
    "city_last",
    "city_share",
    "remote",
    "distance_km",
    "employer_share",
    "seniority_gap",
    "log_salary",
    "age_days",
    "remaining_days",
    "history_length",
)
"""What the coarse ranker sees: a cheap subset."""


NOT_RANKED = frozenset({"distance_centroid_km", "salary_to_usual", "seen_shown", "seen_ignored", "words_desired"})
"""Computed for whoever asks, and read by no ranker: none of them ranked better in the laboratory
(tests/bench/ranking_features.py). A ranker that knows how often a job was shown learns what the policy that logged
shows, and its first ten are worse in truth."""


def fine_columns(*, job: Sequence[str] = (), candidate: Sequence[str] = ()) -> tuple[str, ...]:
    """All pair columns but those of NOT_RANKED, then features of the service's job and candidate views, prefixed."""
    return (
        *(name for name in PAIR_COLUMNS if name not in NOT_RANKED),
        *(JOB_PREFIX + name for name in job),
        *(CANDIDATE_PREFIX + name for name in candidate),
    )


def check_columns(columns: Sequence[str]) -> None:
    """Raise InputError if a column is neither a pair column nor a prefixed feature: refuses a model at load."""
    unknown = [c for c in columns if c not in PAIR_COLUMNS and not c.startswith((JOB_PREFIX, CANDIDATE_PREFIX))]
    if unknown:
        raise InputError(
            f"ranking columns {unknown}",
            f"PAIR_COLUMNS, {JOB_PREFIX}<feature> or {CANDIDATE_PREFIX}<feature>",
            "load the release with the code version of its manifest",
        )
