"""The people of a release: who agreed to be recommended, what they said of themselves, and what they did.

A person belongs to it if they were known at `as_of`, consent, are not hidden from everybody, and their profile says
something: titles, skills or a resume. Of somebody who only clicked an employer could be told nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rolecall.features.activity import candidate_profile
from rolecall.features.catalogue import Floats
from rolecall.features.context import CandidateContext
from rolecall.features.job_vectors import JobVectors
from rolecall.features.pairs import PairFeatures
from rolecall.features.people import APPLIED, CLOSED, LOG_KINDS, PEOPLE_SCHEMA, People
from rolecall.features.people_pairs import LOOKBACK
from rolecall.features.people_words import PeopleWords
from rolecall.features.text import candidate_lexical_text, candidate_text, tokens
from rolecall.pipelines.index import Indexed, write_index
from rolecall.platform.settings import VectorSettings
from rolecall.platform.vectors.protocol import person_payload
from rolecall.serving import parts

Embed = Callable[[Sequence[str]], Floats]
_CLOSING = (("candidate", "dismiss"), ("employer", "reject"), ("employer", "hire"))


@dataclass(frozen=True, kw_only=True)
class BuiltPeople:
    """What `build_people` wrote. `content_digest` stands for the index in the release's id."""

    people: int
    content_digest: str


def people_as_of(
    candidates: pl.DataFrame, events: pl.DataFrame, jobs: pl.DataFrame, *, since: datetime | None = None
) -> pa.Table:
    """PEOPLE_SCHEMA rows by candidate_id. All three as known at the instant; `jobs`: job_id and employer_id.

    `since`: the earliest instant anybody will ask about; None: any. What no instant from then on sees is left out.
    """
    visible = candidates.filter(pl.col("consent").fill_null(False), pl.col("visibility").fill_null("all") != "none")
    theirs = events.join(visible.select("candidate_id"), on="candidate_id", how="semi").join(
        jobs.select("job_id", "employer_id"), on="job_id", how="left"
    )
    listed = (
        visible.join(_log(theirs, since), on="candidate_id", how="left")
        .join(_facts(theirs), on="candidate_id", how="left")
        .with_columns(pl.col("^(log|fact)_.*$").fill_null([]))
        .sort("candidate_id")
    )
    table = listed.select(PEOPLE_SCHEMA.names).to_arrow().cast(PEOPLE_SCHEMA)
    described = [bool(candidate_text(context)) for context in profiles_of(table)]
    return table.filter(pa.array(described, pa.bool_()))


def profiles_of(table: pa.Table) -> list[CandidateContext]:
    """The people's profiles in row order, as the other direction reads them."""
    frame = pl.DataFrame(table)
    rows = candidate_profile(frame).drop("event_timestamp").iter_rows(named=True)
    return [_profile(row) for row in rows]


def _profile(row: Mapping[str, Any]) -> CandidateContext:
    told: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in row.items()}
    return CandidateContext(**told)


def careers_of(table: pa.Table) -> list[tuple[str, ...]]:
    """Titles of each person's past positions, each once."""
    lists = table["experience"].to_pylist()
    return [tuple(dict.fromkeys(one["title"] for one in person or () if one["title"])) for person in lists]


def build_people(
    table: pa.Table, jobs: PairFeatures, embed: Embed, settings: VectorSettings, folder: Path
) -> BuiltPeople:
    """Write the people's table, words, vectors and index below `folder`. `jobs`: of the same release."""
    contexts, careers = profiles_of(table), careers_of(table)
    pq.write_table(table, folder / parts.PEOPLE)
    PeopleWords.fit(jobs.lexicon, contexts, careers).save(folder / parts.PEOPLE_WORDS)
    people = People.from_table(table, jobs.catalogue)
    vectors = _vectors([candidate_text(context) for context in contexts], embed)
    rows = table.to_pylist()
    wanted = Indexed(
        ids=people.candidate_ids,
        vectors=vectors,
        terms=[tokens(" ".join((candidate_lexical_text(c), *t))) for c, t in zip(contexts, careers, strict=True)],
        payloads=lambda first, end: [person_payload(row, active_at=_active_at(row)) for row in rows[first:end]],
    )
    digest = write_index(
        wanted, settings, folder, index_file=parts.PEOPLE_INDEX, vectors_file=parts.PEOPLE_VECTORS, name="people"
    )
    return BuiltPeople(people=len(people), content_digest=digest)


def _log(theirs: pl.DataFrame, since: datetime | None) -> pl.DataFrame:
    """What each person did, oldest first: all from `since` on, and the newest LOOKBACK before it.

    The newest LOOKBACK of all would not do: what somebody does later would push out what was known earlier.
    """
    did = theirs.filter(pl.col("actor") == "candidate", pl.col("kind").is_in(LOG_KINDS))
    if since is not None:
        recent = did.filter(pl.col("occurred_at") >= since)
        before = did.filter(pl.col("occurred_at") < since).sort("candidate_id", "occurred_at", "event_id")
        did = pl.concat(
            [before.group_by("candidate_id", maintain_order=True).tail(LOOKBACK).select(did.columns), recent]
        )
    kind = pl.col("kind").replace_strict({name: place for place, name in enumerate(LOG_KINDS)}, return_dtype=pl.Int8)
    return (
        did.sort("candidate_id", "occurred_at", "event_id")
        .group_by("candidate_id", maintain_order=True)
        .agg(
            pl.col("occurred_at").dt.epoch("us").alias("log_us"),
            pl.col("job_id").alias("log_job"),
            pl.col("employer_id").alias("log_employer"),
            kind.alias("log_kind"),
        )
    )


def _facts(theirs: pl.DataFrame) -> pl.DataFrame:
    """Since when each person has applied to, and is closed to, which jobs."""
    closing = pl.any_horizontal((pl.col("actor") == actor) & (pl.col("kind") == kind) for actor, kind in _CLOSING)
    applying = (pl.col("actor") == "candidate") & (pl.col("kind") == "apply")
    code = pl.when(applying).then(APPLIED).when(closing).then(CLOSED).cast(pl.Int8)
    first = (
        theirs.with_columns(code.alias("fact_kind"))
        .filter(pl.col("fact_kind").is_not_null())
        .group_by("candidate_id", "job_id", "employer_id", "fact_kind")
        .agg(pl.col("occurred_at").min().dt.epoch("us").alias("fact_us"))
    )
    return (
        first.sort("candidate_id", "fact_us", "job_id", "fact_kind")
        .group_by("candidate_id", maintain_order=True)
        .agg(
            "fact_us",
            pl.col("job_id").alias("fact_job"),
            pl.col("employer_id").alias("fact_employer"),
            "fact_kind",
        )
    )


def _active_at(row: dict[str, object]) -> datetime | None:
    """When a person was last heard of: the last thing they did, or the last edit of their profile."""
    edited = row["updated_at"]
    log = row["log_us"]
    if isinstance(log, list) and log and isinstance(edited, datetime):
        return max(edited, datetime.fromtimestamp(log[-1] / 1e6, edited.tzinfo))
    return edited if isinstance(edited, datetime) else None


def _vectors(texts: Sequence[str], embed: Embed) -> Floats:
    """The vector of each profile's text; equal texts are embedded once."""
    given = sorted(set(texts))
    known = dict(zip(given, embed(given), strict=True))
    return np.stack([known[text] for text in texts])


def open_people(folder: Path, jobs: PairFeatures) -> tuple[People, PeopleWords, JobVectors]:
    """What `build_people` wrote, but the index."""
    people = People.from_table(pq.read_table(folder / parts.PEOPLE), jobs.catalogue)
    words = PeopleWords.load(folder / parts.PEOPLE_WORDS, jobs.lexicon)
    return people, words, JobVectors.load(folder / parts.PEOPLE_VECTORS)
