"""One small marketplace with everything built from it, shared by the tests of what is learned and judged."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from rolecall.features.catalogue import Catalogue, Floats
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import Lexicon
from rolecall.features.pairs import COARSE_COLUMNS, PairFeatures
from rolecall.features.schema import CANDIDATES, EMPLOYERS, EVENTS, TABLES
from rolecall.features.store import FeatureStore
from rolecall.features.text import job_text, tokens
from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.index import build_index
from rolecall.pipelines.knowledge import Windows, read_as_of
from rolecall.pipelines.leaks import LeakAudit
from rolecall.pipelines.market import MarketConfig, generate
from rolecall.pipelines.materialize import feature_store, materialize
from rolecall.pipelines.train import TrainedRankers, train_rankers
from rolecall.pipelines.training_set import build_training_set
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore
from rolecall.platform.vectors.edge import EdgeIndex
from rolecall.serving.funnel import Funnel, ProfileVectors, SnapshotJobFeatures
from rolecall.serving.policy import Policy
from rolecall.serving.ranker import Ranker
from rolecall.serving.recall import Recall

MARKET = MarketConfig(
    jobs=300,
    candidates=150,
    employers=25,
    occupations=30,
    days=14,
    requests_per_candidate=5,
    seed=3,
    end=date(2026, 9, 1),
)
WIDTH = 64


def hashed_words(texts: Sequence[str]) -> Floats:
    """A deterministic stand-in for the sentence embedder: the sum of one fixed random vector a word."""
    out = np.zeros((len(texts), WIDTH), np.float32)
    for row, text in enumerate(texts):
        for word in tokens(text):
            out[row] += np.random.default_rng(zlib.crc32(word.encode())).standard_normal(WIDTH, np.float32)
    norms = np.linalg.norm(out, axis=1, keepdims=True)
    return np.asarray(out / np.maximum(norms, 1e-9), np.float32)


class HashedWords:
    """`hashed_words` as the funnel's Encoder."""

    def encode(self, texts: Sequence[str]) -> Floats:
        return hashed_words(texts)


@dataclass(frozen=True, kw_only=True)
class World:
    """Tables, features and index of one marketplace as of its end."""

    start: datetime
    embed: Callable[[Sequence[str]], Floats] = hashed_words
    home: Path
    settings: Settings
    tables: TableStore
    versions: dict[str, int | None]
    as_of: datetime
    events: pl.DataFrame
    candidates: pl.DataFrame
    employers: pl.DataFrame
    store: FeatureStore
    pairs: PairFeatures
    recall: Recall

    @property
    def cutoff(self) -> datetime:
        return Windows.of(self.as_of, self.settings.ranking).learning.end

    def examples(
        self, events: pl.DataFrame | None = None, service: str = "ranker_full", until: datetime | None = None
    ) -> TrainingSet:
        return build_training_set(
            self.events if events is None else events,
            start=self.start,
            end=until or self.cutoff,
            store=self.store,
            service=service,
            pairs=self.pairs,
            embed=self.embed,
            settings=self.settings.ranking,
        )

    def leak_audit(self, **over: Any) -> LeakAudit:
        return LeakAudit(
            candidates=self.candidates,
            employers=self.employers,
            pairs=self.pairs,
            embed=self.embed,
            settings=self.settings,
            as_of=self.as_of,
            scratch=self.home,
            **over,
        )

    def funnel(self, rankers: TrainedRankers) -> Funnel:
        return Funnel(
            release_id="test",
            pairs=self.pairs,
            profiles=ProfileVectors(HashedWords()),
            recall=self.recall,
            coarse=Ranker(rankers.coarse, rankers.coarse_columns),
            fine=Ranker(rankers.fine, rankers.fine_columns, calibrator=rankers.calibrator),
            policy=Policy(self.settings.policy, self.pairs.catalogue, self.pairs.vectors),
            job_features=SnapshotJobFeatures({}),
            recall_limit=self.settings.ranking.recall_limit,
            coarse_limit=self.settings.ranking.coarse_limit,
        )


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    ranking = {"recall_limit": 120, "coarse_limit": 60, "coarse_rounds": 20, "fine_rounds": 40, "train_days": 14}
    return build_world(tmp_path_factory.mktemp("world"), MARKET, ranking)


def build_world(home: Path, market: MarketConfig, ranking: Mapping[str, int]) -> World:
    """Tables, features and index of a marketplace below a folder."""
    settings = Settings.model_validate({"home": home, "ranking": ranking})
    tables = TableStore(settings.tables_uri)
    for name, rows in generate(market).tables().items():
        tables.upsert(TABLES[name], rows)
    versions = {name: tables.version(name) for name in TABLES}
    materialize(tables, versions, as_of=market.ends_at, settings=settings, folder=home / "features")
    catalogue = Catalogue.from_table(tables.read(TABLES["jobs"]))
    built = build_index(
        catalogue.table,
        hashed_words([job_text(job) for job in catalogue.table.to_pylist()]),
        settings.vectors,
        home / "r",
    )
    vectors = JobVectors.load(built.vectors)
    return World(
        start=market.starts_at,
        home=home,
        settings=settings,
        tables=tables,
        versions=versions,
        as_of=market.ends_at,
        events=read_as_of(tables, EVENTS, versions, market.ends_at),
        candidates=read_as_of(tables, CANDIDATES, versions, market.ends_at),
        employers=read_as_of(tables, EMPLOYERS, versions, market.ends_at),
        store=feature_store(settings, home / "features"),
        pairs=PairFeatures(catalogue, Lexicon.fit(catalogue), vectors),
        recall=Recall(EdgeIndex.open(built.index, home / "scratch"), catalogue, vectors),
    )


@pytest.fixture(scope="session")
def examples(world: World) -> TrainingSet:
    return world.examples()


@pytest.fixture(scope="session")
def rankers(world: World, examples: TrainingSet) -> TrainedRankers:
    return train_rankers(
        examples, coarse_columns=COARSE_COLUMNS, settings=world.settings.ranking, storage=world.home / "train"
    )
