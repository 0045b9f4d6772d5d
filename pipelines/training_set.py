"""The training set: what each candidate knew and did, joined as of each request, as feature rows.

    log -> requests -> Feast point-in-time rows -> contexts -> PairFeatures -> TrainingSet

The features come from the objects that serve. Jobs nobody was shown are added as negatives: a recommender ranks the
whole catalogue, not only what an earlier one chose to show. They are drawn from jobs live at the instant without
regard to who saw or viewed them; the candidate's own history and own later responses are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rolecall.features.candidates import candidate_context
from rolecall.features.catalogue import Catalogue, Floats, Rows
from rolecall.features.context import CandidateContext
from rolecall.features.pairs import PairFeatures, PreparedCandidate, fine_columns
from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.features.store import FeatureStore
from rolecall.features.text import candidate_text
from rolecall.features.views import candidate_feature_columns, job_feature_columns
from rolecall.pipelines.examples import Origin, TrainingSet
from rolecall.pipelines.requests import choose_requests, collect_requests, scatter, scattered
from rolecall.platform.settings import RankingSettings

Embed = Callable[[Sequence[str]], Floats]
"""Texts to unit vectors float32[n, d]."""

Retrieve = Callable[[PreparedCandidate, datetime], Rows]
"""The recall stage: rows worth ranking at an instant, best first."""

Progress = Callable[[int, int], None]
"""Called with requests done and requests in all."""

UNSHOWN_A_REQUEST = 10
"""Random jobs added to a logged request."""

HARD_POOL = 10
"""Hard negatives are drawn from the first `HARD_POOL` times as many retrieved jobs as are needed."""


@dataclass(frozen=True, kw_only=True)
class _Request:
    """One request with catalogue rows in place of job ids."""

    name: str
    at: datetime
    rows: Rows
    labels: npt.NDArray[np.int8]
    shown: npt.NDArray[np.bool_]
    held_out: bool


def training_columns(service: str) -> tuple[str, ...]:
    """What the fine ranker of a feature service reads."""
    return fine_columns(job=job_feature_columns(service), candidate=candidate_feature_columns(service))


def build_training_set(
    events: pl.DataFrame,
    *,
    start: datetime,
    end: datetime,
    store: FeatureStore,
    service: str,
    pairs: PairFeatures,
    embed: Embed,
    settings: RankingSettings,
    retrieve: Retrieve | None = None,
    progress: Progress = lambda done, total: None,
) -> TrainingSet:
    """Feature rows of the requests in [start, end), known through responses before `end`.

    `retrieve` gives hard negatives to requests without impressions; without it all negatives are random.
    Jobs the catalogue does not hold are left out. Requests, and rows in them, come in an order drawn by hash.
    """
    chosen = choose_requests(
        collect_requests(events, start=start, end=end), limit=settings.max_training_requests, seed=settings.seed
    )
    who = dict(chosen.select("request", "candidate_id").iter_rows())
    named = {request.name: request for request in _requests(chosen, pairs.catalogue)}
    requests = [named[name] for name in scattered(named, seed=settings.seed)]
    contexts = read_contexts(store, [(who[request.name], request.at) for request in requests], service)
    preparer = Preparer(pairs, contexts, embed)
    own = _own_rows(events, pairs.catalogue, end)
    sampler = _Sampler(pairs.catalogue, settings, preparer, retrieve)
    requests = [
        sampler.extend(request, context, own.get(context.candidate_id or "", _NONE))
        for request, context in zip(requests, contexts, strict=True)
    ]
    columns = training_columns(service)
    return TrainingSet(
        features=_features(store, service, pairs, requests, map(preparer.prepare, contexts), columns, progress),
        columns=columns,
        labels=_join([request.labels for request in requests], np.int8),
        shown=_join([request.shown for request in requests], np.bool_),
        groups=np.array([len(request.rows) for request in requests], np.int32),
        times=np.array([int(request.at.timestamp() * 1e6) for request in requests], np.int64),
        held_out=np.array([request.held_out for request in requests], np.bool_),
        origin=Origin(
            requests=tuple(request.name for request in requests),
            askers=tuple(who[request.name] for request in requests),
            items=_join([request.rows for request in requests], np.int32),
        ),
    )


def read_contexts(store: FeatureStore, asked: Sequence[tuple[str, datetime]], service: str) -> list[CandidateContext]:
    """Each candidate as known strictly before the instant."""
    rows = store.historical_candidates([who for who, _ in asked], [at for _, at in asked], service)
    return [candidate_context(who, row, at=at) for (who, at), row in zip(asked, rows, strict=True)]


class Preparer:
    """Contexts ready for pair features; their profile texts are embedded in one go, each text once.

    A prepared candidate is made when asked for and not kept: it is as wide as the vocabulary.
    """

    def __init__(self, pairs: PairFeatures, contexts: Sequence[CandidateContext], embed: Embed) -> None:
        self._pairs = pairs
        texts = sorted({candidate_text(context) for context in contexts} - {""})
        vectors = embed(texts) if texts else np.zeros((0, pairs.vectors.width), np.float32)
        self._vectors = dict(zip(texts, vectors, strict=True))

    def prepare(self, context: CandidateContext) -> PreparedCandidate:
        return self._pairs.prepare(context, self._vectors.get(candidate_text(context)))


def job_columns_at(
    store: FeatureStore, catalogue: Catalogue, rows: Rows, instants: Sequence[datetime], service: str
) -> Mapping[str, npt.NDArray[np.float32]]:
    """Feature-view columns of jobs, each as known at its instant."""
    employers = catalogue.table["employer_id"].to_pylist()
    return store.historical_jobs(catalogue.ids_of(rows), [employers[row] for row in rows], instants, service)


_NONE = np.zeros(0, np.int32)


@dataclass(frozen=True)
class _Sampler:
    """Adds negatives to requests. Every draw depends on the seed and the request alone."""

    catalogue: Catalogue
    settings: RankingSettings
    preparer: Preparer
    retrieve: Retrieve | None

    def extend(self, request: _Request, context: CandidateContext, own: Rows) -> _Request:
        random = np.random.default_rng([self.settings.seed, *request.name.encode()])
        taken = np.concatenate([request.rows, self.catalogue.rows_of(context.history), own])
        if request.shown.any():
            wanted, hard = min(UNSHOWN_A_REQUEST, self.settings.negatives_per_positive), _NONE
        else:
            wanted = self.settings.negatives_per_positive * len(request.rows)
            hard = self._hard(request.at, context, taken, random, wanted // 2)
        easy = self._easy(request.at, np.concatenate([taken, hard]), random, wanted - len(hard))
        extra = np.sort(np.concatenate([hard, easy]))
        order = scatter(request.name, len(request.rows) + len(extra), seed=self.settings.seed)
        return _Request(
            name=request.name,
            at=request.at,
            rows=np.concatenate([request.rows, extra])[order],
            labels=np.concatenate([request.labels, np.zeros(len(extra), np.int8)])[order],
            shown=np.concatenate([request.shown, np.zeros(len(extra), np.bool_)])[order],
            held_out=request.held_out,
        )

    def _hard(
        self, at: datetime, context: CandidateContext, taken: Rows, random: np.random.Generator, wanted: int
    ) -> Rows:
        if self.retrieve is None or not wanted:
            return _NONE
        found = self.retrieve(self.preparer.prepare(context), at)[: HARD_POOL * wanted]
        pool = found[~np.isin(found, taken)]
        return np.sort(random.permutation(pool)[:wanted]).astype(np.int32)

    def _easy(self, at: datetime, taken: Rows, random: np.random.Generator, wanted: int) -> Rows:
        drawn = np.unique(random.integers(0, len(self.catalogue), 3 * wanted)).astype(np.int32)
        open_ = drawn[self.catalogue.live(drawn, at.timestamp() * 1e6) & ~np.isin(drawn, taken)]
        return np.sort(random.permutation(open_)[:wanted]).astype(np.int32)


def _requests(chosen: pl.DataFrame, catalogue: Catalogue) -> Iterator[_Request]:
    """Requests in order of name; a request none of whose jobs the catalogue holds is left out."""
    rows = [catalogue.row_of(job_id) for job_id in chosen["job_id"]]
    known = chosen.with_columns(pl.Series("row", rows, dtype=pl.Int32)).filter(pl.col("row").is_not_null())
    for group in known.partition_by("request", maintain_order=True):
        yield _Request(
            name=group["request"][0],
            at=group["at"][0],
            rows=group["row"].to_numpy().astype(np.int32),
            labels=group["label"].to_numpy().astype(np.int8),
            shown=group["shown"].to_numpy().astype(np.bool_),
            held_out=bool(group["held_out"][0]),
        )


def _own_rows(events: pl.DataFrame, catalogue: Catalogue, end: datetime) -> dict[str, Rows]:
    """Jobs each candidate engaged with before `end`: never their negatives."""
    acted = events.filter(pl.col("occurred_at") < end, pl.col("kind").is_in(ENGAGEMENT_EVENTS))
    jobs = acted.group_by("candidate_id").agg(pl.col("job_id").unique())
    return {who: catalogue.rows_of(ids) for who, ids in jobs.iter_rows()}


def _features(
    store: FeatureStore,
    service: str,
    pairs: PairFeatures,
    requests: Sequence[_Request],
    prepared: Iterable[PreparedCandidate],
    columns: Sequence[str],
    progress: Progress,
) -> Floats:
    rows = _join([request.rows for request in requests], np.int32)
    instants = [request.at for request in requests for _ in request.rows]
    known = job_columns_at(store, pairs.catalogue, rows, instants, service)
    out = np.empty((len(rows), len(columns)), np.float32)
    first = 0
    for done, (request, candidate) in enumerate(zip(requests, prepared, strict=True), start=1):
        part = slice(first, first + len(request.rows))
        out[part] = pairs.matrix(
            candidate,
            request.rows,
            at=request.at,
            job_features={name: column[part] for name, column in known.items()},
            columns=columns,
        )
        first = part.stop
        progress(done, len(requests))
    return out


def _join(parts: Sequence[npt.NDArray[Any]], kind: Any) -> npt.NDArray[Any]:
    return np.asarray(np.concatenate([np.zeros(0, kind), *parts]), kind)
