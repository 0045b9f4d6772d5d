"""The names of everything the people rankers may read of a (job, person) pair, and what each means.

All of it is the job's content and the person's own: their profile, and what they did themselves before the instant.
Nothing other people did, and nothing employers decided about anybody.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rolecall.platform.errors import InputError

PEOPLE_COLUMNS: Mapping[str, str] = {
    "dense_profile": "cosine of the job's vector with the profile text's",
    "full_profile": "TF-IDF cosine of title and place with the profile's titles, skills and place",
    "title_desired": "largest TF-IDF cosine of the title with a desired title",
    "title_career": "largest TF-IDF cosine of the title with the title of a past position",
    "title_resume": "TF-IDF cosine of the title with the first 200 words of the resume",
    "skill_overlap": "number of the job's skills that the person lists",
    "skill_share": "share of the job's skills that the person lists",
    "skill_cover": "share of the person's skills that the job asks for",
    "skill_count": "number of skills the job asks for",
    "same_city": "1 in the job's city, 0 in another, NaN where either is unknown",
    "same_region": "the same for the region",
    "same_country": "the same for the country",
    "distance_km": "kilometres between the job and the person's place",
    "remote": "1 for a remote job, 0 for one at a place",
    "seniority_gap": "job's seniority rank minus the person's",
    "experience_years": "years in positions that began before the instant",
    "positions": "number of such positions",
    "log_salary": "logarithm of the middle of the job's salary range",
    "history_length": "engagements remembered, at most 20",
    "history_mean": "mean cosine of the job's vector with the jobs engaged with",
    "history_max": "largest cosine with such a job",
    "history_last": "cosine with the newest such job",
    "history_title": "largest TF-IDF cosine of the title with such a job's",
    "salary_to_history": "logarithm of the job's pay minus the mean logarithm of such jobs' pay",
    "category_share": "share of such jobs in the job's top category",
    "viewed_job": "how often the person viewed or clicked this job",
    "saved_job": "1 where the person saved this job",
    "engaged_employer": "engagements with jobs of this employer",
    "applied_employer": "applications to other jobs of this employer",
    "days_since_active": "days since the person last did anything",
    "engagements_7d": "engagements of the 7 days before",
    "engagements_30d": "engagements of the 30 days before",
    "applies_30d": "applications of the 30 days before",
    "dismissals_30d": "dismissals of the 30 days before",
    "days_since_profile": "days since the profile was last edited",
}
"""Every column and what it holds."""

PEOPLE_COARSE_COLUMNS: tuple[str, ...] = (
    "dense_profile",
    "full_profile",
    "title_desired",
    "skill_overlap",
    "skill_share",
    "same_city",
    "same_region",
    "same_country",
    "distance_km",
    "remote",
    "seniority_gap",
    "days_since_profile",
)
"""What the coarse ranker sees: nothing of the person's log, which is what costs time."""


def check_people_columns(columns: Sequence[str]) -> None:
    """Raise InputError if a column is none of PEOPLE_COLUMNS: refuses a model at load."""
    unknown = [name for name in columns if name not in PEOPLE_COLUMNS]
    if unknown:
        raise InputError(
            f"people ranking columns {unknown}",
            str(tuple(PEOPLE_COLUMNS)),
            "load the release with the code version of its manifest",
        )
