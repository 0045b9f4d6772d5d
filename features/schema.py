"""The five tables of a job board and the words their columns may hold.

Times are UTC microseconds; dates stay dates. Everything that reads or writes a table takes
its Arrow schema, key and limits from here.
"""

from __future__ import annotations

import pyarrow as pa

from rolecall.platform.tables import TableSchema

TIMESTAMP = pa.timestamp("us", tz="UTC")
TEXT_LIST = pa.list_(pa.string())
EXPERIENCE = pa.struct(
    [
        ("title", pa.string()),
        ("company", pa.string()),
        ("started_at", pa.date32()),
        ("ended_at", pa.date32()),
        ("description", pa.string()),
    ]
)

SENIORITIES = ("intern", "junior", "mid", "senior", "lead", "executive")
EMPLOYMENT_TYPES = ("full_time", "part_time", "contract", "temporary", "internship", "volunteer")
VISIBILITIES = ("all", "applied", "none")
"""Which employers a consenting person may be recommended to: all (also where null), only those of jobs the person
applied to, or none. `consent` null means not agreed; `hidden_from` names employers that must never see the person."""

CANDIDATE_EVENTS = ("impression", "view", "click", "save", "apply", "dismiss")
EMPLOYER_EVENTS = ("invite", "shortlist", "reject", "reply", "hire")
ENGAGEMENT_EVENTS = ("view", "click", "save", "apply")
"""Candidate events that say "this job interests me": they make up a candidate's history."""

MAX_TEXT = 100_000
MAX_SHORT_TEXT = 1_000
MAX_LIST = 500


def _schema(**columns: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field(name, kind) for name, kind in columns.items()])


JOBS = TableSchema(
    name="jobs",
    key=("job_id",),
    required=("job_id", "title", "updated_at"),
    time="updated_at",
    columns=_schema(
        job_id=pa.string(),
        title=pa.string(),
        description=pa.string(),
        employer_id=pa.string(),
        skills=TEXT_LIST,
        category_path=TEXT_LIST,
        seniority=pa.string(),
        city=pa.string(),
        region=pa.string(),
        country=pa.string(),
        lat=pa.float64(),
        lon=pa.float64(),
        remote=pa.bool_(),
        salary_min=pa.float64(),
        salary_max=pa.float64(),
        currency=pa.string(),
        employment_type=pa.string(),
        posted_at=TIMESTAMP,
        expires_at=TIMESTAMP,
        updated_at=TIMESTAMP,
    ),
)

CANDIDATES = TableSchema(
    name="candidates",
    key=("candidate_id",),
    required=("candidate_id", "updated_at"),
    time="updated_at",
    columns=_schema(
        candidate_id=pa.string(),
        desired_titles=TEXT_LIST,
        resume_text=pa.string(),
        skills=TEXT_LIST,
        seniority=pa.string(),
        city=pa.string(),
        region=pa.string(),
        country=pa.string(),
        lat=pa.float64(),
        lon=pa.float64(),
        experience=pa.list_(EXPERIENCE),
        consent=pa.bool_(),
        visibility=pa.string(),
        hidden_from=TEXT_LIST,
        updated_at=TIMESTAMP,
    ),
)

PROFILES = TableSchema(
    name="profiles",
    key=("candidate_id", "updated_at"),
    required=CANDIDATES.required,
    time="updated_at",
    columns=CANDIDATES.columns,
)
"""What candidates' profiles were: filled by the daily run (`pipelines/profiles.py`), never by a mapping."""

EMPLOYERS = TableSchema(
    name="employers",
    key=("employer_id", "observed_at"),
    required=("employer_id", "observed_at", "name"),
    time="observed_at",
    columns=_schema(
        employer_id=pa.string(),
        observed_at=TIMESTAMP,
        name=pa.string(),
        rating=pa.float64(),
        rating_count=pa.int64(),
        size=pa.int64(),
        industry=pa.string(),
    ),
)

EVENTS = TableSchema(
    name="events",
    key=("event_id",),
    required=("event_id", "actor", "candidate_id", "job_id", "kind", "occurred_at"),
    time="occurred_at",
    columns=_schema(
        event_id=pa.string(),
        actor=pa.string(),
        candidate_id=pa.string(),
        job_id=pa.string(),
        kind=pa.string(),
        occurred_at=TIMESTAMP,
        request_id=pa.string(),
        position=pa.int32(),
        propensity=pa.float64(),
        dwell_seconds=pa.float64(),
    ),
)

QUARANTINE = TableSchema(
    name="quarantine",
    key=("source", "table", "row_number"),
    required=("source", "table", "row_number", "reason"),
    time="",
    columns=_schema(
        source=pa.string(),
        table=pa.string(),
        row_number=pa.int64(),
        row=pa.string(),
        reason=pa.string(),
        message=pa.string(),
        refused_at=TIMESTAMP,
    ),
)

TABLES: dict[str, TableSchema] = {t.name: t for t in (JOBS, CANDIDATES, EMPLOYERS, EVENTS)}
