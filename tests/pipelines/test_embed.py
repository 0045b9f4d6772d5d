"""The embed step: the same vectors from the cache, from this process and from Ray actors."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from rolecall.features.embedder import Embedder
from rolecall.features.text import text_hash
from rolecall.features.vector_cache import VectorCache
from rolecall.pipelines.embed import CHUNK, embed_texts
from rolecall.platform.ray_runtime import environment, ray_session
from rolecall.platform.settings import EmbedderSettings, RaySettings


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(EmbedderSettings())


@pytest.fixture
def cache(tmp_path: Path) -> VectorCache:
    return VectorCache(tmp_path / "vectors.db")


TEXTS = ["welder", "night nurse", "welder", "senior data engineer", "nurse"]


def test_vectors_come_in_the_order_of_the_texts_repeats_included(embedder: Embedder, cache: VectorCache) -> None:
    assert (embed_texts(TEXTS, embedder, cache) == embedder.encode(TEXTS)).all()
    assert cache.count(embedder.hash) == 4


def test_known_texts_are_taken_from_the_cache(embedder: Embedder, cache: VectorCache) -> None:
    mark = np.full((1, embedder.dimension), 0.5, np.float32)
    cache.store(embedder.hash, [text_hash("nurse")], mark)
    steps: list[tuple[int, int]] = []
    vectors = embed_texts(TEXTS, embedder, cache, progress=lambda done, total: steps.append((done, total)))
    assert (vectors[4] == mark[0]).all()
    assert steps == [(3, 3)]


def test_a_rerun_encodes_nothing(embedder: Embedder, cache: VectorCache) -> None:
    first = embed_texts(TEXTS, embedder, cache)
    steps: list[tuple[int, int]] = []
    again = embed_texts(TEXTS, embedder, cache, progress=lambda done, total: steps.append((done, total)))
    assert (again == first).all()
    assert steps == []


def test_ray_is_not_started_for_a_few_texts(embedder: Embedder, cache: VectorCache) -> None:
    assert len(embed_texts(TEXTS, embedder, cache, distributed=lambda: pytest.fail("started"))) == len(TEXTS)


def test_no_texts_give_an_empty_matrix(embedder: Embedder, cache: VectorCache) -> None:
    assert embed_texts([], embedder, cache).shape == (0, embedder.dimension)


def test_ray_actors_give_the_same_bits_and_report_progress(
    embedder: Embedder, cache: VectorCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in environment(RaySettings(), Path("/h")):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    texts = [f"nurse {i}" for i in range(CHUNK + 44)]
    steps: list[tuple[int, int]] = []
    with ray_session(RaySettings(haproxy=False, object_store_mb=80), tmp_path / "home"):
        vectors = embed_texts(
            texts,
            embedder,
            cache,
            few=CHUNK,
            distributed=lambda: None,
            progress=lambda done, total: steps.append((done, total)),
        )
    assert (vectors == embedder.encode(texts)).all()
    assert steps[-1] == (CHUNK + 44, CHUNK + 44)
    assert cache.count(embedder.hash) == CHUNK + 44
