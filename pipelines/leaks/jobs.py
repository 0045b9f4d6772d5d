"""Replay of the columns that jobs are recommended by: would they say the same had what they may not know never been?

For a few sampled requests the features are computed again by the same code,

- from tables without anything that was not yet known at the request: no column may change, and
- from the candidate's own events alone: no column of `ranker_content` may change.

Any column that does has a leak, whatever it looks like in the code.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl

from rolecall.features.catalogue import Floats, Rows
from rolecall.features.pairs import PairFeatures
from rolecall.features.schema import CANDIDATES, EMPLOYERS
from rolecall.features.store import FeatureStore
from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.knowledge import before, recorded
from rolecall.pipelines.leaks.findings import Finding, Kind
from rolecall.pipelines.materialize import feature_sources, write_sources
from rolecall.pipelines.requests import choose, choose_requests, collect_requests
from rolecall.pipelines.training_set import Embed, Preparer, job_columns_at, read_contexts, training_columns
from rolecall.platform.errors import InputError
from rolecall.platform.settings import Settings

Sources = Callable[..., Mapping[str, pl.DataFrame]]
"""Makes the views' rows as `feature_sources` does."""

COLUMNS = training_columns("ranker_full")
_ALONE = frozenset(training_columns("ranker_content"))


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """A request whose features are computed again. `stored`: what a training set holds of it in some of COLUMNS; None:
    what all tables give is taken for it."""

    candidate_id: str
    at: datetime
    rows: Rows
    stored: Mapping[str, Floats] | None = None


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

    def findings(self, events: pl.DataFrame, sampled: Sequence[Sampled]) -> tuple[Finding, ...]:
        """A finding for each leaking column and kind, in order of column."""
        found: dict[tuple[Kind, str], Finding] = {}
        for request in self._expected(events, sampled):
            for finding in self._request(events, request):
                found.setdefault((finding.kind, finding.column), finding)
        return tuple(found[key] for key in sorted(found))

    def _expected(self, events: pl.DataFrame, sampled: Sequence[Sampled]) -> list[Sampled]:
        """Every request with what its columns hold."""
        unknown = [request for request in sampled if request.stored is None]
        told = iter(self._features(events, unknown) if unknown else [])
        return [r if r.stored is not None else replace(r, stored=_by_name(next(told))) for r in sampled]

    def _request(self, events: pl.DataFrame, request: Sampled) -> Iterator[Finding]:
        at = request.at
        earlier = replace(
            self,
            candidates=self.candidates.filter(recorded(at, CANDIDATES)),
            employers=self.employers.filter(recorded(at, EMPLOYERS)),
        )
        past = earlier._features(events.filter(before(at)), [request])[0]
        changed = _changed(request, past)
        if changed:  # is it what happened later, or what was written down later?
            told = self._features(events.filter(before(at)), [request])[0]
            later = _changed(request, told)
            yield from (_finding("future" if name in later else "profile", name, request, past) for name in changed)
        own = self._features(events.filter(pl.col("candidate_id") == request.candidate_id), [request])[0]
        yield from (_finding("others", name, request, own) for name in _changed(request, own) if name in _ALONE)

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
                columns=COLUMNS,
            )
            for request, context, end in zip(sampled, contexts, ends, strict=True)
        ]


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


def stored_requests(examples: TrainingSet, *, count: int = 3, seed: int = 7) -> list[Sampled]:
    """Requests of a training set, chosen by hash, with the columns it holds: what it says is compared with the past.

    Raises InputError for a training set without its origin.
    """
    origin = examples.origin
    if origin is None:
        raise InputError("a training set without its origin", "one that was just built", "audit it before it is saved")
    kept = choose(list(origin.requests), limit=count, seed=seed)
    ends = np.cumsum(examples.groups)
    sampled = []
    for number in np.flatnonzero([name in kept for name in origin.requests]).tolist():
        part = slice(int(ends[number] - examples.groups[number]), int(ends[number]))
        features = dict(zip(examples.columns, examples.features[part].T, strict=True))
        sampled.append(
            Sampled(
                candidate_id=origin.askers[number],
                at=datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=int(examples.times[number])),
                rows=origin.items[part],
                stored={name: column for name, column in features.items() if name in COLUMNS},
            )
        )
    return sampled


def _by_name(matrix: Floats) -> dict[str, Floats]:
    return dict(zip(COLUMNS, matrix.T, strict=True))


def _changed(request: Sampled, found: Floats) -> list[str]:
    """Columns that hold something else than was stored, in any bit."""
    again = _by_name(found)
    return [
        name for name, held in (request.stored or {}).items() if not np.array_equal(held, again[name], equal_nan=True)
    ]


def _finding(kind: Kind, name: str, request: Sampled, found: Floats) -> Finding:
    held = (request.stored or {})[name]
    differs = ~((held == _by_name(found)[name]) | (np.isnan(held) & np.isnan(_by_name(found)[name])))
    row = int(np.argmax(differs))
    evidence: dict[str, float | str] = {
        "request": f"{request.at:%Y-%m-%d %H:%M:%S}",
        "rows changed": float(differs.mean()),
        "held": float(held[row]),
        "without it": float(_by_name(found)[name][row]),
    }
    return Finding(kind=kind, column=name, evidence=evidence)
