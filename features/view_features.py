"""Every column of every feature view with its meaning, unit and window. `features/activity.py` computes them."""

from __future__ import annotations

from rolecall.features.feature import EVER, Feature

WINDOWS_DAYS = (1, 7, 30)
"""Days that windowed counts look back."""

PROFILE = (
    Feature(name="desired_titles", kind="list", meaning="job titles the candidate is looking for"),
    Feature(name="skills", kind="list", meaning="skills the candidate lists"),
    Feature(name="resume_text", kind="text", meaning="the résumé, or past positions where there is none"),
    Feature(name="seniority", kind="text", meaning="the candidate's seniority, one of SENIORITIES"),
    Feature(name="city", kind="text", meaning="the city the candidate lives in"),
    Feature(name="region", kind="text", meaning="the region the candidate lives in"),
    Feature(name="country", kind="text", meaning="the country the candidate lives in"),
    Feature(name="lat", meaning="latitude of the candidate's place", unit="degrees"),
    Feature(name="lon", meaning="longitude of the candidate's place", unit="degrees"),
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
        name="applied_job_ids", kind="list", meaning="jobs the candidate applied to, the newest at the end", window=EVER
    ),
    Feature(
        name="dismissed_job_ids",
        kind="list",
        meaning="jobs the candidate dismissed, the newest at the end",
        window=EVER,
    ),
    Feature(
        name="engagement_count", meaning="views, clicks, saves and applies of the candidate", unit="events", window=EVER
    ),
    Feature(name="apply_count", meaning="different jobs the candidate applied to", unit="jobs", window=EVER),
    Feature(name="dismiss_count", meaning="different jobs the candidate dismissed", unit="jobs", window=EVER),
    Feature(
        name="mean_dwell_seconds",
        meaning="mean time spent on a job, where it was measured",
        unit="seconds",
        window=EVER,
    ),
    Feature(
        name="last_engaged_epoch",
        meaning="instant of the newest engagement; rankers read the hours since",
        unit="seconds since 1970",
        window=EVER,
    ),
)

_WHO = {"candidate": "of the candidate", "job": "of all candidates with the job"}
_COUNTED = {
    "impressions": ("jobs shown", "impressions"),
    "engagements": ("views, clicks, saves and applies", "events"),
    "applies": ("applications", "events"),
}


def activity(entity: str) -> tuple[Feature, ...]:
    """Windowed counts and shrunk rates, for `entity` candidate or job."""
    who = _WHO[entity]
    counts = tuple(
        Feature(name=f"{entity}_{name}_{days}d", meaning=f"{what} {who}", unit=unit, window=_days(days))
        for days in WINDOWS_DAYS
        for name, (what, unit) in _COUNTED.items()
    )
    return (
        *counts,
        Feature(
            name=f"{entity}_engagement_rate_30d",
            meaning=f"engagements an impression {who}, shrunk towards a constant",
            unit="share",
            window=_days(30),
        ),
        Feature(
            name=f"{entity}_apply_rate_30d",
            meaning=f"applications an engagement {who}, shrunk towards a constant",
            unit="share",
            window=_days(30),
        ),
        Feature(name=f"{entity}_applies_total", meaning=f"applications {who}", unit="events", window=EVER),
    )


EMPLOYER_RATING = (
    Feature(name="employer_rating", meaning="the employer's rating as known then", unit="points"),
    Feature(name="employer_rating_count", meaning="how many ratings stand behind it", unit="ratings"),
    Feature(name="employer_size", meaning="people the employer employs", unit="people"),
)

CONSENT = (
    Feature(name="hidden_from", kind="list", meaning="employers that must never see the candidate"),
    Feature(name="visibility", kind="text", meaning="which employers may see the candidate, one of VISIBILITIES"),
    Feature(name="consent", meaning="1 where the candidate agreed to be recommended to employers", unit="yes or no"),
)


def _days(days: int) -> str:
    return "1 day" if days == 1 else f"{days} days"
