"""From the event log to requests to learn from: who was asked for, when, with which jobs, and what they did.

Two kinds of log are read. Where impressions were logged, a request is what was shown together (`request_id`), and a
job's label is the strongest response to it. Where they were not (a plain view log), each first engagement of a
candidate with a job is a request of its own, and its negatives are sampled later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime

import numpy as np
import numpy.typing as npt
import polars as pl

from rolecall.features.activity import TIMESTAMP
from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.pipelines.examples import LABELS
from rolecall.pipelines.knowledge import Window

HELD_OUT_PERCENT = 15
_SHOWN_TO = ["request_id", "candidate_id"]
REQUEST_SCHEMA = pl.Schema(
    {
        "request": pl.String(),
        "candidate_id": pl.String(),
        "at": TIMESTAMP,
        "job_id": pl.String(),
        "label": pl.Int8(),
        "shown": pl.Boolean(),
        "held_out": pl.Boolean(),
    }
)
"""One row a job of a request. `shown`: it was an impression; else it is a positive that needs negatives."""


def collect_requests(events: pl.DataFrame, *, start: datetime, end: datetime) -> pl.DataFrame:
    """Requests made in [start, end) with the responses before `end`, in order of request and job (REQUEST_SCHEMA)."""
    told = (
        Window(start=start, end=end)
        .told(events)
        .filter(pl.col("actor") == "candidate")
        .with_columns(pl.col("kind").replace_strict(LABELS, default=0, return_dtype=pl.Int8).alias("label"))
    )
    rows = pl.concat([_shown(told, start), _engaged(told, start)])
    requests = rows.select("request").unique().sort("request")
    fold = [hashed("fold", name) % 100 < HELD_OUT_PERCENT for name in requests["request"]]
    held = requests.with_columns(pl.Series("held_out", fold, dtype=pl.Boolean))
    return rows.join(held, on="request").sort("request", "job_id").select(REQUEST_SCHEMA.names()).cast(REQUEST_SCHEMA)


def choose_requests(requests: pl.DataFrame, *, limit: int, seed: int) -> pl.DataFrame:
    """At most `limit` requests, the same ones whatever else is in the log.

    Requests without any response teach a ranker nothing and are kept for calibration only.
    """
    useful = requests.group_by("request").agg((pl.col("label").max() > 0).alias("answered"), pl.col("held_out").first())
    names = useful.filter(pl.col("answered") | pl.col("held_out"))["request"].to_list()
    kept = sorted(names, key=lambda name: (hashed(f"sample {seed}", name), name))[:limit]
    return requests.filter(pl.col("request").is_in(kept))


def choose(names: Sequence[str], *, limit: int, seed: int) -> set[str]:
    """At most `limit` of the names, chosen by hash."""
    return set(sorted(names, key=lambda name: (hashed(f"sample {seed}", name), name))[:limit])


def scattered(names: Iterable[str], *, seed: int) -> list[str]:
    """The names in an order that follows from a hash of each: the place in a file says nothing of what is there."""
    return sorted(names, key=lambda name: (hashed(f"order {seed}", name), name))


def scatter(name: str, count: int, *, seed: int) -> npt.NDArray[np.int64]:
    """An order of a request's rows drawn from its name: where a row stands says nothing of its label.

    LightGBM breaks ties by the order of rows; positives that come first would be preferred for that alone.
    """
    return np.random.default_rng(hashed(f"rows {seed}", name)).permutation(count)


def _shown(told: pl.DataFrame, start: datetime) -> pl.DataFrame:
    """Jobs shown together, each with the same candidate's strongest response under the same request.

    A client may use one request id for two people: the one who was shown something first keeps its name.
    """
    named = told.filter(pl.col("request_id").is_not_null())
    seen = named.filter(pl.col("kind") == "impression")
    whole = (
        seen.group_by(_SHOWN_TO)
        .agg(pl.col("occurred_at").min().alias("at"))
        .sort("request_id", "at", "candidate_id")
        .with_columns(
            pl.when(pl.col("request_id").is_first_distinct())
            .then("request_id")
            .otherwise(pl.concat_str("request_id", pl.lit(" of "), "candidate_id"))
            .alias("request")
        )
    )
    answers = named.group_by(*_SHOWN_TO, "job_id").agg(pl.col("label").max())
    return (
        seen.select(*_SHOWN_TO, "job_id")
        .unique()
        .join(whole, on=_SHOWN_TO)
        .filter(pl.col("at") >= start)
        .join(answers, on=[*_SHOWN_TO, "job_id"], how="left")
        .select(
            "request",
            "candidate_id",
            "at",
            "job_id",
            "label",
            pl.lit(True).alias("shown"),
        )
    )


def _engaged(told: pl.DataFrame, start: datetime) -> pl.DataFrame:
    """First engagements with jobs that no logged request explains."""
    seen = told.filter(pl.col("kind") == "impression", pl.col("request_id").is_not_null()).select(_SHOWN_TO).unique()
    acted = told.filter(pl.col("kind").is_in(ENGAGEMENT_EVENTS))
    first = acted.group_by("candidate_id", "job_id").agg(pl.col("occurred_at").min().alias("at"), pl.col("label").max())
    explained = acted.join(seen, on=_SHOWN_TO, how="semi").select("candidate_id", "job_id").unique()
    rows = first.join(explained, on=["candidate_id", "job_id"], how="anti").filter(pl.col("at") >= start)
    name = pl.concat_str("candidate_id", pl.lit(" @ "), pl.col("at").dt.epoch("us").cast(pl.String))
    return rows.select(name.alias("request"), "candidate_id", "at", "job_id", "label", pl.lit(False).alias("shown"))


def hashed(salt: str, name: str) -> int:
    """64 bits that follow from a name: what is drawn with them does not depend on whatever else there is."""
    return int.from_bytes(hashlib.blake2b(f"{salt}\0{name}".encode(), digest_size=8).digest(), "big")
