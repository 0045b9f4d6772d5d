"""Every column of every feature view with its meaning, unit and window. `features/activity.py` computes them."""

from __future__ import annotations

from rolecall.features.feature import EVER, Feature

WINDOWS_DAYS = (1, 7, 30)
"""Days that windowed counts look back."""

SEEN_DAYS = 14
"""Days that single jobs shown to a candidate, or engaged with, are remembered."""

PROFILE = (
    Feature(name="desired_titles", kind="list", meaning="job titles the candidate is looking for"),
    Feature(name="skills", kind="list", meaning="skills the candidate lists"),
    Feature(
        name="past_employers",
        kind="list",
        meaning="employers of the candidate's past positions: names that a résumé keeps, whoever they are called after",
    ),
    Feature(name="resume_text", kind="text", meaning="the résumé, or past positions where there is none"),
    Feature(name="seniority", kind="text", meaning="the candidate's seniority, one of SENIORITIES"),
    Feature(name="city", kind="text", meaning="the city the candidate lives in"),
    Feature(name="region", kind="text", meaning="the region the candidate lives in"),
    Feature(name="country", kind="text", meaning="the country the candidate lives in"),
    Feature(name="lat", meaning="latitude of the candidate's place", unit="degrees", internal=True),
    Feature(name="lon", meaning="longitude of the candidate's place", unit="degrees", internal=True),
)

HISTORY = (
    Feature(
        name="recent_job_ids",
        kind="list",
        meaning="distinct jobs the candidate engaged with last, the newest at the end, as many as "
        "features.history_length says; title and place centroids of what was viewed are taken over these jobs",
        window=EVER,
    ),
    Feature(
        name="applied_job_ids",
        kind="list",
        meaning="jobs the candidate applied to, the newest at the end",
        window=EVER,
    ),
    Feature(
        name="dismissed_job_ids",
        kind="list",
        meaning="jobs the candidate dismissed, the newest at the end",
        window=EVER,
    ),
    Feature(
        name="engagement_count",
        meaning="views, clicks, saves and applies of the candidate",
        unit="events",
        window=EVER,
    ),
    Feature(name="apply_count", meaning="different jobs the candidate applied to", unit="jobs", window=EVER),
    Feature(name="dismiss_count", meaning="different jobs the candidate dismissed", unit="jobs", window=EVER),
    Feature(
        name="recent_at_us",
        kind="text",
        meaning="when each of recent_job_ids was engaged with last, microseconds since 1970",
        window=EVER,
        internal=True,
    ),
    Feature(
        name="dwell_ms_total",
        meaning="time spent on jobs, where it was measured",
        unit="milliseconds",
        window=EVER,
        internal=True,
    ),
    Feature(
        name="dwell_count",
        meaning="engagements whose time was measured",
        unit="events",
        window=EVER,
        internal=True,
    ),
    Feature(
        name="last_engaged_us",
        meaning="instant of the newest engagement",
        unit="microseconds since 1970",
        window=EVER,
        internal=True,
    ),
    Feature(
        name="history_until_us",
        meaning="instant of the newest event the row counts",
        unit="microseconds since 1970",
        window=EVER,
        internal=True,
    ),
)

HISTORY_DERIVED = (
    Feature(
        name="mean_dwell_seconds",
        meaning="mean time spent on a job, where it was measured",
        unit="seconds",
        window=EVER,
    ),
    Feature(
        name="hours_since_engagement",
        meaning="time since the candidate last engaged with a job",
        unit="hours",
        window=EVER,
    ),
)
"""Computed at an instant from the newest row and what was posted since: `candidate_state.HistoryState.activity`."""


def _days(days: int) -> str:
    return "1 day" if days == 1 else f"{days} days"


CANDIDATE_STATE = (
    Feature(
        name="days_before",
        kind="text",
        meaning="impressions, views, clicks, saves and applies of each active day before the newest",
        window=_days(WINDOWS_DAYS[-1]),
        internal=True,
    ),
    Feature(
        name="day_counts",
        kind="text",
        meaning="the same of the newest active day so far",
        window="1 day",
        internal=True,
    ),
    Feature(
        name="seen_before",
        kind="text",
        meaning="for each job and active day before the newest: times shown, and what the candidate did with it",
        window=_days(SEEN_DAYS),
        internal=True,
    ),
    Feature(
        name="seen_today",
        kind="text",
        meaning="the same of the newest active day so far",
        window="1 day",
        internal=True,
    ),
    Feature(
        name="candidate_applies_total",
        meaning="applications of the candidate",
        unit="events",
        window=EVER,
    ),
    Feature(
        name="last_shown_us",
        meaning="instant of the newest impression",
        unit="microseconds since 1970",
        window=EVER,
        internal=True,
    ),
    Feature(
        name="last_applied_us",
        meaning="instant of the newest application",
        unit="microseconds since 1970",
        window=EVER,
        internal=True,
    ),
    Feature(
        name="activity_until_us",
        meaning="instant of the newest event the row counts",
        unit="microseconds since 1970",
        window=EVER,
        internal=True,
    ),
)

_COUNTS = {
    "impressions": ("jobs shown to the candidate", "impressions"),
    "views": ("jobs the candidate viewed", "events"),
    "clicks": ("jobs the candidate clicked", "events"),
    "saves": ("jobs the candidate saved", "events"),
    "applies": ("applications of the candidate", "events"),
}
CANDIDATE_ACTIVITY = (
    *(
        Feature(name=f"candidate_{name}_{days}d", meaning=meaning, unit=unit, window=_days(days))
        for days in WINDOWS_DAYS
        for name, (meaning, unit) in _COUNTS.items()
    ),
    Feature(
        name="candidate_engagement_rate_30d",
        meaning="views, clicks, saves and applies an impression, drawn towards a constant",
        unit="share",
        window="30 days",
    ),
    Feature(
        name="candidate_apply_rate_30d",
        meaning="applications an engagement, drawn towards a constant",
        unit="share",
        window="30 days",
    ),
    Feature(
        name="hours_since_shown",
        meaning="time since the candidate was last shown a job",
        unit="hours",
        internal=True,
        window=EVER,
    ),
    Feature(
        name="hours_since_apply",
        meaning="time since the candidate last applied",
        unit="hours",
        internal=True,
        window=EVER,
    ),
)
"""Computed at an instant from the newest row and what was posted since: `candidate_state.ActivityState.activity`."""

_JOB_COUNTS = {
    "impressions": ("times the job was shown to anybody", "impressions"),
    "engagements": ("views, clicks, saves and applies of all candidates", "events"),
    "applies": ("applications of all candidates", "events"),
}
JOB_ACTIVITY = (
    *(
        Feature(name=f"job_{name}_{days}d", meaning=meaning, unit=unit, window=_days(days))
        for days in WINDOWS_DAYS
        for name, (meaning, unit) in _JOB_COUNTS.items()
    ),
    Feature(
        name="job_engagement_rate_30d",
        meaning="engagements an impression of the job, drawn towards a constant",
        unit="share",
        window="30 days",
    ),
    Feature(
        name="job_apply_rate_30d",
        meaning="applications an engagement with the job, drawn towards a constant",
        unit="share",
        window="30 days",
    ),
    Feature(name="job_applies_total", meaning="applications of all candidates", unit="events", window=EVER),
    Feature(
        name="job_applicants_total",
        meaning="different candidates who applied so far",
        unit="candidates",
        internal=True,
        window=EVER,
    ),
    Feature(
        name="job_velocity",
        meaning="engagements of the last day over those of a day of the last seven, one added to each",
        unit="ratio",
        internal=True,
        window="7 days",
    ),
)
"""Snapshots of the midnight before."""

EMPLOYER_RATING = (
    Feature(name="employer_rating", meaning="the employer's rating as known then", unit="points"),
    Feature(name="employer_rating_count", meaning="how many ratings stand behind it", unit="ratings"),
    Feature(name="employer_size", meaning="people the employer employs", unit="people"),
)

JOB_PROFILE = (
    Feature(name="job_title", kind="text", meaning="the job's title"),
    Feature(name="job_skills", kind="list", meaning="skills the job asks for"),
    Feature(name="job_category", kind="text", meaning="the leaf of the job's category path"),
    Feature(name="job_seniority", kind="text", meaning="the job's seniority, one of SENIORITIES"),
    Feature(name="job_city", kind="text", meaning="the job's city"),
    Feature(name="job_region", kind="text", meaning="the job's region"),
    Feature(name="job_country", kind="text", meaning="the job's country"),
    Feature(name="job_currency", kind="text", meaning="the currency of the job's salary"),
    Feature(name="job_lat", meaning="latitude of the job's place", unit="degrees", internal=True),
    Feature(name="job_lon", meaning="longitude of the job's place", unit="degrees", internal=True),
    Feature(name="job_salary", meaning="middle of the salary range", unit="job_currency", internal=True),
    Feature(name="job_remote", meaning="1 for a remote job, 0 for one at a place", unit="yes or no", internal=True),
)

CONSENT = (
    Feature(name="hidden_from", kind="list", meaning="employers that must never see the candidate"),
    Feature(name="visibility", kind="text", meaning="which employers may see the candidate, one of VISIBILITIES"),
    Feature(name="consent", meaning="1 where the candidate agreed to be recommended to employers", unit="yes or no"),
)
