"""The catalogue of a release: the jobs that could be shown or had been shown lately, as known at one instant."""

from __future__ import annotations

from datetime import datetime, timedelta

import polars as pl
import pyarrow as pa

from rolecall.features.catalogue import EMPLOYER_NAME
from rolecall.features.schema import EMPLOYERS, JOBS
from rolecall.platform.errors import InputError
from rolecall.platform.tables import TableStore


def catalogue_as_of(
    store: TableStore, versions: dict[str, int | None], as_of: datetime, *, window: timedelta
) -> pa.Table:
    """JOBS columns and the employer's newest name, ordered by job_id.

    A job belongs to it if it was known and posted at `as_of` and had not expired before `as_of - window`: what
    expired within the window is still needed to learn from, and every stage asks whether a job is live.
    Raises InputError where no job is left.
    """
    jobs = (
        store.scan(JOBS, version=versions.get("jobs"))
        .filter(
            pl.col("updated_at") <= as_of,
            pl.col("posted_at").is_null() | (pl.col("posted_at") <= as_of),
            pl.col("expires_at").is_null() | (pl.col("expires_at") > as_of - window),
        )
        .sort("job_id")
        .collect()
    )
    if not jobs.height:
        raise InputError(
            f"no job was live at {as_of:%Y-%m-%d %H:%M} or in the {window.days} days before",
            "at least one job",
            "ingest jobs first, or choose another --as-of",
        )
    named = jobs.join(_names(store, versions, as_of), on="employer_id", how="left", maintain_order="left")
    fields = [*JOBS.columns, pa.field(EMPLOYER_NAME, pa.string())]
    return named.select([field.name for field in fields]).to_arrow().cast(pa.schema(fields))


def _names(store: TableStore, versions: dict[str, int | None], as_of: datetime) -> pl.DataFrame:
    return (
        store.scan(EMPLOYERS, version=versions.get("employers"))
        .filter(pl.col("observed_at") <= as_of)
        .sort("observed_at")
        .group_by("employer_id", maintain_order=True)
        .agg(pl.col("name").last().alias(EMPLOYER_NAME))
        .collect()
    )
