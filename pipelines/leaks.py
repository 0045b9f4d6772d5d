"""The leak audit: would a feature still say the same if what it may not know had never happened?

For a few sampled requests the features are computed again by the same code,

- from the log without anything at or after the request: no column may change, and
- from the candidate's own events alone: no column of `ranker_content` may change.

Any column that does has a leak, whatever it looks like in the code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import polars as pl

from rolecall.features.catalogue import Floats, Rows
from rolecall.features.pairs import PairFeatures
from rolecall.features.store import FeatureStore
from rolecall.pipelines.materialize import feature_sources, write_sources
from rolecall.pipelines.requests import choose_requests, collect_requests
from rolecall.pipelines.training_set import Embed, Preparer, job_columns_at, read_contexts, training_columns
from rolecall.platform.errors import GateRefusedError
from rolecall.platform.settings import Settings

Sources = Callable[..., Mapping[str, pl.DataFrame]]
"""Makes the views' rows as `feature_sources` does."""


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A request whose features are computed again."""

    candidate_id: str
    at: datetime
    rows: Rows


@dataclass(frozen=True, kw_only=True)
class LeakAudit:
    """The code under audit and the tables that are not events."""

    candidates: pl.DataFrame
    employers: pl.DataFrame
    pairs: PairFeatures
    embed: Embed
    settings: Settings
    as_of: datetime
    scratch: Path
    make_sources: Sources = feature_sources

    def check(self, events: pl.DataFrame, sampled: Sequence[Sampled]) -> None:
        """Raise GateRefusedError that names every leaking column."""
        whole = self._features(events, sampled)
        future, others = set[str](), set[str]()
        for request, expected in zip(sampled, whole, strict=True):
            past = self._features(events.filter(pl.col("occurred_at") < request.at), [request])[0]
            future |= self._changed(expected, past)
            own = self._features(events.filter(pl.col("candidate_id") == request.candidate_id), [request])[0]
            others |= self._changed(expected, own) & set(training_columns("ranker_content"))
        if future or others:
            raise GateRefusedError(
                f"columns that know what comes later: {sorted(future)}; "
                f"ranker_content columns that know other candidates: {sorted(others)}",
                "features of what happened strictly before the request, in ranker_content to the candidate alone",
                "correct the feature; pipelines/leaks.py says how it was found",
            )

    def _features(self, events: pl.DataFrame, sampled: Sequence[Sampled]) -> list[Floats]:
        """Every training column of each request, as the training set computes them."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            sources = self.make_sources(
                events, self.candidates, self.employers, settings=self.settings, as_of=self.as_of
            )
            write_sources(sources, Path(folder) / "sources")
            store = FeatureStore(Path(folder), self.settings.features, sources=Path(folder) / "sources")
            contexts = read_contexts(store, [(r.candidate_id, r.at) for r in sampled], "ranker_full")
            rows = np.concatenate([request.rows for request in sampled])
            instants = [request.at for request in sampled for _ in request.rows]
            known = job_columns_at(store, self.pairs.catalogue, rows, instants, "ranker_full")
        preparer = Preparer(self.pairs, contexts, self.embed)
        ends = np.cumsum([len(request.rows) for request in sampled])
        return [
            self.pairs.matrix(
                preparer.prepare(context),
                request.rows,
                at=request.at,
                job_features={name: column[end - len(request.rows) : end] for name, column in known.items()},
                columns=training_columns("ranker_full"),
            )
            for request, context, end in zip(sampled, contexts, ends, strict=True)
        ]

    def _changed(self, expected: Floats, found: Floats) -> set[str]:
        same = ((expected == found) | (np.isnan(expected) & np.isnan(found))).all(axis=0)
        return {name for name, equal in zip(training_columns("ranker_full"), same, strict=True) if not equal}


def sample_requests(
    events: pl.DataFrame, pairs: PairFeatures, *, start: datetime, end: datetime, count: int = 3, seed: int = 7
) -> list[Sampled]:
    """Requests of [start, end), chosen by hash, with their jobs and as many others of the catalogue."""
    rows = choose_requests(collect_requests(events, start=start, end=end), limit=count, seed=seed)
    random = np.random.default_rng(seed)
    sampled = []
    for group in rows.partition_by("request", maintain_order=True):
        jobs = pairs.catalogue.rows_of(group["job_id"].to_list())
        others = random.integers(0, len(pairs.catalogue), max(len(jobs), 10)).astype(np.int32)
        sampled.append(
            Sampled(
                candidate_id=group["candidate_id"][0], at=group["at"][0], rows=np.unique(np.concatenate([jobs, others]))
            )
        )
    return sampled
