"""What may be known at an instant. Every rule is said here; whoever reads a table as of an instant reads it with these.

| of | known at an instant `at` | why |
|---|---|---|
| events | strictly before it (`before`) | what answers a request must not be in its features |
| profiles | the newest recorded up to it (`profiles_as_of`) | an edit must not change what past requests knew |
| consent | what the newest profile allows, and nothing taken back since (`newest_profiles`) | obeyed at once |
| jobs | recorded and posted up to it, not expired (`catalogue_as_of`, `Catalogue.live`) | nothing else could be shown |
| a candidate's own activity | of the candidate's events strictly before it, windows to the day | posted a moment ago |
| a job's daily features | of the midnight before it (`midnight_before`) | serving has no newer ones |
| employers | the newest observation up to it | a rating is known once it was seen |
| labels | from the request to the end of its `Window`, never beyond | learning must not see evaluation |

A row of a feature view is stamped with the instant from which on these rules allow it (`features/activity.py`), so the
feature store's join keeps them too; `pipelines/leaks` takes what they forbid away and looks whether anything changes.
The jobs table keeps no history: a posting edited later is seen with its later words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Self

import polars as pl
import pyarrow as pa

from rolecall.features.catalogue import EMPLOYER_NAME
from rolecall.features.schema import CANDIDATES, EMPLOYERS, EVENTS, JOBS, PROFILES, VISIBILITIES
from rolecall.platform.errors import InputError
from rolecall.platform.settings import RankingSettings
from rolecall.platform.tables import TableSchema, TableStore

Versions = Mapping[str, int | None]
"""Table name to the Delta version a run is pinned to; None (or absent): the table did not exist."""

ANSWER_DAYS = 7
"""How long employers may take to answer: so much more is held out of learning about people."""

CONSENT = ("consent", "visibility", "hidden_from")
_WIDTH = {name: place for place, name in enumerate(VISIBILITIES)}


@dataclass(frozen=True, kw_only=True)
class Window:
    """Requests of [start, end), whose labels are what followed each of them up to `end`."""

    start: datetime
    end: datetime

    def told(self, events: pl.DataFrame) -> pl.DataFrame:
        """The events that labels of this window may be made of."""
        return events.filter(before(self.end))

    def asks(self, time: str = EVENTS.time) -> pl.Expr:
        """Whether a request of this instant belongs to the window; one that does lies before `end`."""
        return (pl.col(time) >= self.start) & (pl.col(time) < self.end)


@dataclass(frozen=True, kw_only=True)
class Windows:
    """The days before an instant divided into what is learned from and what is judged on, for both directions.

    Learning ends where evaluation begins, so no label of the one looks into the other.
    """

    learning: Window
    evaluation: Window
    people_learning: Window
    people_evaluation: Window

    @classmethod
    def of(cls, as_of: datetime, settings: RankingSettings) -> Self:
        """The windows of a run as of an instant."""
        start = as_of - timedelta(days=settings.train_days)
        cutoff = as_of - timedelta(days=settings.evaluation_days)
        people = cutoff - timedelta(days=ANSWER_DAYS)
        return cls(
            learning=Window(start=start, end=cutoff),
            evaluation=Window(start=cutoff, end=as_of),
            people_learning=Window(start=start, end=people),
            people_evaluation=Window(start=people, end=as_of),
        )

    @property
    def earliest(self) -> datetime:
        """The first instant that anything asks about."""
        return min(self.learning.start, self.people_evaluation.start)


def before(at: datetime, time: str = EVENTS.time) -> pl.Expr:
    """Events known at an instant: those strictly before it."""
    return pl.col(time) < at


def recorded(at: datetime, schema: TableSchema) -> pl.Expr:
    """Rows of a table known at an instant: events before it, all else recorded up to it."""
    return before(at) if schema.name == EVENTS.name else pl.col(schema.time) <= at


def midnight_before(at: datetime) -> datetime:
    """The midnight (UTC) whose daily features serving has at an instant."""
    return at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def read_as_of(tables: TableStore, schema: TableSchema, versions: Versions, as_of: datetime) -> pl.DataFrame:
    """Rows of the pinned version that were known at `as_of`."""
    return _rows(tables, schema, versions).filter(recorded(as_of, schema)).collect()


def read_ids(tables: TableStore, schema: TableSchema, versions: Versions) -> list[str]:
    """The first key column of every row of the pinned version."""
    return _rows(tables, schema, versions).select(schema.key[0]).collect().to_series().to_list()


def profiles_as_of(tables: TableStore, versions: Versions, as_of: datetime) -> pl.DataFrame:
    """One row a candidate and `updated_at`, known at `as_of`, from the pinned versions of both tables.

    A row of the candidates table wins over one kept for the same instant: it was corrected without a new time.
    """
    key, known = list(PROFILES.key), recorded(as_of, PROFILES)
    now = _rows(tables, CANDIDATES, versions).filter(known)
    then = _rows(tables, PROFILES, versions).filter(known)
    return pl.concat([now, then.join(now.select(key), on=key, how="anti")]).collect()


def consents_after(tables: TableStore, versions: Versions, as_of: datetime) -> pl.DataFrame:
    """The candidates rows of the pinned version that were recorded after `as_of`, for the consent in them.

    A profile counts as it was at the instant; a consent that was taken back since, or narrowed, is obeyed at once.
    """
    return _rows(tables, CANDIDATES, versions).filter(~recorded(as_of, CANDIDATES)).collect()


def consents_since(tables: TableStore, versions: Versions) -> pl.DataFrame:
    """The candidates rows that are new or different since the pinned version. For what candidates allow and nothing
    else: a run knows what it is pinned to."""
    if tables.version(CANDIDATES.name) == versions.get(CANDIDATES.name):
        return pl.DataFrame(pl.from_arrow(CANDIDATES.columns.empty_table()))
    said = pl.struct(*CANDIDATES.key, CANDIDATES.time, *CONSENT).struct.json_encode()
    now = tables.scan(CANDIDATES).select(CANDIDATES.columns.names).collect()
    pinned = _rows(tables, CANDIDATES, versions).select(said.alias("said")).collect()
    return now.filter(~said.is_in(pinned["said"].implode()))


def newest_profiles(tables: TableStore, versions: Versions, as_of: datetime) -> pl.DataFrame:
    """One row a candidate: the profile that held at `as_of`, and of the consent in it what is left since."""
    rows = profiles_as_of(tables, versions, as_of).sort("candidate_id", "updated_at")
    newest = rows.unique("candidate_id", keep="last", maintain_order=True)
    return _narrowed(newest, consents_after(tables, versions, as_of))


def known_jobs(tables: TableStore, versions: Versions, as_of: datetime) -> pl.DataFrame:
    """job_id and employer_id of every job known at an instant, expired ones included."""
    return read_as_of(tables, JOBS, versions, as_of).select("job_id", "employer_id")


def catalogue_as_of(tables: TableStore, versions: Versions, as_of: datetime, *, window: timedelta) -> pa.Table:
    """JOBS columns and the employer's newest name, ordered by job_id: the jobs of a release.

    A job belongs to it if it was known and posted at `as_of` and had not expired before `as_of - window`: what
    expired within the window is still needed to learn from, and every stage asks whether a job is live.
    Raises InputError where no job is left.
    """
    posted = pl.col("posted_at").is_null() | (pl.col("posted_at") <= as_of)
    needed = pl.col("expires_at").is_null() | (pl.col("expires_at") > as_of - window)
    known = _rows(tables, JOBS, versions).filter(recorded(as_of, JOBS))
    jobs = known.filter(posted, needed).sort("job_id").collect()
    if not jobs.height:
        raise InputError(
            f"no job was live at {as_of:%Y-%m-%d %H:%M} or in the {window.days} days before",
            "at least one job",
            "ingest jobs first, or choose another --as-of",
        )
    named = jobs.join(_names(tables, versions, as_of), on="employer_id", how="left", maintain_order="left")
    fields = [*JOBS.columns, pa.field(EMPLOYER_NAME, pa.string())]
    return named.select([field.name for field in fields]).to_arrow().cast(pa.schema(fields))


def _names(tables: TableStore, versions: Versions, as_of: datetime) -> pl.DataFrame:
    return (
        _rows(tables, EMPLOYERS, versions)
        .filter(recorded(as_of, EMPLOYERS))
        .sort("observed_at")
        .group_by("employer_id", maintain_order=True)
        .agg(pl.col("name").last().alias(EMPLOYER_NAME))
        .collect()
    )


def _narrowed(profiles: pl.DataFrame, later: pl.DataFrame) -> pl.DataFrame:
    """Profiles with less consent where a later row allows less; a later row never allows more."""
    now = later.select(
        "candidate_id", *[pl.col(name).alias(f"now_{name}") for name in CONSENT], pl.lit(True).alias("later")
    )
    consent, visibility, hidden = (pl.col(name) for name in CONSENT)
    agreed = consent & pl.col("now_consent").fill_null(False)
    least = pl.col("now_visibility").replace_strict(_WIDTH, default=0, return_dtype=pl.Int8).fill_null(0)
    held = visibility.replace_strict(_WIDTH, default=0, return_dtype=pl.Int8).fill_null(0)
    narrowed = pl.when(least > held).then(pl.col("now_visibility")).otherwise(visibility)
    both = pl.concat_list(hidden.fill_null([]), pl.col("now_hidden_from").fill_null([])).list.unique(
        maintain_order=True
    )
    touched = pl.col("later").fill_null(False)
    joined = profiles.join(now, on="candidate_id", how="left", maintain_order="left")
    return joined.with_columns(
        pl.when(touched).then(agreed).otherwise(consent).alias("consent"),
        pl.when(touched).then(narrowed).otherwise(visibility).alias("visibility"),
        pl.when(touched).then(both).otherwise(hidden).alias("hidden_from"),
    ).select(profiles.columns)


def _rows(tables: TableStore, schema: TableSchema, versions: Versions) -> pl.LazyFrame:
    version = versions.get(schema.name)
    if version is None:
        return pl.LazyFrame(pl.from_arrow(schema.columns.empty_table()))
    return tables.scan(schema, version=version).select(schema.columns.names)
