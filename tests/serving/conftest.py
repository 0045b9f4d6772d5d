"""A small job board with everything a funnel needs, built once: real index, real rankers, a toy encoder."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rolecall.features.catalogue import Catalogue
from rolecall.features.context import CandidateContext
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import Lexicon
from rolecall.features.pairs import COARSE_COLUMNS, PairFeatures, fine_columns
from rolecall.features.schema import JOBS
from rolecall.features.text import job_text, tokens
from rolecall.pipelines.index import build_index
from rolecall.platform.settings import PolicySettings, VectorSettings
from rolecall.platform.vectors.backends import open_index
from rolecall.serving import parts
from rolecall.serving.funnel import Funnel, SnapshotJobFeatures
from rolecall.serving.parts import FeaturesPart, PolicyPart
from rolecall.serving.policy import Policy
from rolecall.serving.profiles import Encoder, ProfileVectors
from rolecall.serving.ranker import Calibrator, Ranker
from rolecall.serving.recall import Recall
from rolecall.serving.search import Search

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
WORK = {
    "data engineer": ("sql", "python", "spark"),
    "line cook": ("knives", "grilling", "sauces"),
    "night nurse": ("triage", "charts", "care"),
    "truck driver": ("routes", "loading", "trailers"),
}
CITIES = (
    ("Berlin", "Berlin", 52.52, 13.40),
    ("Munich", "Bavaria", 48.14, 11.58),
    ("Potsdam", "Brandenburg", 52.39, 13.06),
)
LEVELS = ("junior", "mid", "senior")
JOBS_A_KIND = 36
RATING = "employer_rating"


class WordEncoder:
    """Words hashed into 48 dimensions: near means shared words. Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        self.calls += 1
        vectors = np.zeros((len(texts), 48), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            for word in tokens(text):
                row[zlib.crc32(word.encode()) % 48] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


@dataclass(frozen=True, kw_only=True)
class Board:
    """The parts of one small release, in `folder` (all but the embedder's and the manifest) and open."""

    folder: Path
    table: pa.Table
    funnel: Funnel
    search: Search
    encoder: WordEncoder

    @property
    def catalogue(self) -> Catalogue:
        return self.funnel.catalogue


def job_rows() -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    rows = []
    for number in range(JOBS_A_KIND * len(WORK)):
        title, skills = list(WORK.items())[number % len(WORK)]
        city, region, lat, lon = CITIES[random.integers(len(CITIES))]
        level = LEVELS[random.integers(len(LEVELS))]
        rows.append(
            dict.fromkeys(JOBS.columns.names)
            | {
                "job_id": f"job{number:03}",
                "title": f"{level} {title}",
                "description": f"We look for a {title} in {city} who knows {', '.join(skills)}. Number {number}.",
                "employer_id": f"firm {random.integers(40)}",
                "skills": list(skills[: 1 + random.integers(3)]),
                "category_path": [title.split()[-1]],
                "seniority": level,
                "city": city, "region": region, "country": "DE", "lat": lat, "lon": lon,
                "remote": bool(random.integers(2)),
                "salary_min": float(random.integers(30, 60) * 1000),
                "posted_at": NOON - timedelta(days=int(random.integers(0, 20))),
                "expires_at": NOON + timedelta(days=int(random.integers(1, 20))),
                "updated_at": NOON,
            }
        )  # fmt: skip
    rows[0] |= {"expires_at": NOON}
    rows[1] |= {"posted_at": NOON + timedelta(days=1)}
    return rows


def write_parts(folder: Path, encoder: Encoder) -> pa.Table:
    """Write every part of a release but the embedder's, the manifest and the index's settings."""
    table = pa.Table.from_pylist(job_rows(), schema=JOBS.columns)
    pq.write_table(table, folder / parts.JOBS)
    vectors = encoder.encode([job_text(row) for row in table.to_pylist()])
    build_index(table, vectors, VectorSettings(), folder)
    catalogue = Catalogue.from_table(table)
    lexicon = Lexicon.fit(catalogue)
    lexicon.save(folder)
    pairs = PairFeatures(catalogue, lexicon, JobVectors.load(folder / parts.VECTORS))
    fine = fine_columns(job=(RATING,))
    (folder / parts.COARSE).write_text(_train(pairs, encoder, COARSE_COLUMNS))
    (folder / parts.FINE).write_text(_train(pairs, encoder, fine))
    (folder / parts.CALIBRATOR).write_text(Calibrator(kind="platt", x=(1.0,), y=(-1.0,)).to_json())
    FeaturesPart(
        service="ranker_full", coarse_columns=COARSE_COLUMNS, fine_columns=fine, job_feature_columns=(RATING,)
    ).write(folder)
    PolicyPart(policy=PolicySettings(), recall_limit=60, coarse_limit=30).write(folder)
    rated = pa.table({"job_id": ["job001", "job000", "gone"], RATING: [1.0, 4.5, 3.0]})
    pq.write_table(rated, folder / parts.JOB_FEATURES)
    return table


def person(kind: str, **over: Any) -> CandidateContext:
    """Somebody in Berlin who does a kind of work."""
    known = CandidateContext(
        candidate_id=kind, known=True, desired_titles=(kind,), skills=WORK[kind], seniority="mid",
        city="Berlin", region="Berlin", country="DE", lat=52.52, lon=13.40,
    )  # fmt: skip
    return replace(known, **over)


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    folder = tmp_path_factory.mktemp("release")
    encoder = WordEncoder()
    table = write_parts(folder, encoder)
    catalogue = Catalogue.from_table(table)
    pairs = PairFeatures(catalogue, Lexicon.load(folder), JobVectors.load(folder / parts.VECTORS))
    index = open_index(VectorSettings(), folder / parts.INDEX, scratch=tmp_path_factory.mktemp("scratch"))
    features = FeaturesPart.read(folder)
    funnel = Funnel(
        release_id="small",
        pairs=pairs,
        profiles=ProfileVectors(encoder),
        recall=Recall(index, catalogue, pairs.vectors),
        coarse=Ranker((folder / parts.COARSE).read_text(), features.coarse_columns),
        fine=Ranker((folder / parts.FINE).read_text(), features.fine_columns),
        policy=Policy(PolicySettings(), catalogue, pairs.vectors),
        job_features=SnapshotJobFeatures({}),
        recall_limit=60,
        coarse_limit=30,
    )
    yield Board(folder=folder, table=table, funnel=funnel, search=Search(index, catalogue, encoder), encoder=encoder)
    index.close()


def _train(pairs: PairFeatures, encoder: Encoder, columns: Sequence[str]) -> str:
    rows = np.arange(len(pairs.catalogue), dtype=np.int32)
    profiles = ProfileVectors(encoder)
    matrices, labels = [], []
    for kind in WORK:
        prepared = pairs.prepare(person(kind), profiles.of(person(kind)))
        matrices.append(pairs.matrix(prepared, rows, at=NOON, job_features={}, columns=columns))
        fits = np.array([kind in title for title in pairs.catalogue.titles])
        labels.append(2 * fits + (np.array(pairs.catalogue.cities) == "Berlin"))
    data = lightgbm.Dataset(np.concatenate(matrices), np.concatenate(labels), group=[len(rows)] * len(WORK))
    parameters = {"objective": "lambdarank", "verbose": -1, "num_threads": 1, "num_leaves": 7, "seed": 0}
    return str(lightgbm.train(parameters | {"deterministic": True}, data, 20).model_to_string())
