"""The index step: what it writes can be opened, and its digest names the content."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from rolecall.features.schema import JOBS
from rolecall.features.text import tokens
from rolecall.pipelines.index import BuiltIndex, build_index
from rolecall.platform.errors import InputError
from rolecall.platform.settings import VectorSettings
from rolecall.platform.vectors.backends import open_index
from rolecall.platform.vectors.protocol import DenseQuery, SearchFilter, SparseQuery

WIDTH = 24


def _jobs(count: int = 60, city: str = "Berlin") -> pa.Table:
    rows = [
        {"job_id": f"j{i:03}", "title": f"Nurse {i}", "city": city, "country": "DE" if i % 2 else "FR"}
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, schema=JOBS.columns)


def _vectors(count: int = 60) -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((count, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> BuiltIndex:
    return build_index(_jobs(), _vectors(), VectorSettings(), tmp_path_factory.mktemp("release"))


def test_the_snapshot_answers_for_the_catalogue(built: BuiltIndex, tmp_path: Path) -> None:
    index = open_index(VectorSettings(), built.index, scratch=tmp_path)
    dense, sparse = index.search(
        [DenseQuery(vector=_vectors()[7]), SparseQuery(terms=tokens("nurses 9"))], SearchFilter(countries=("DE",)), 5
    )
    assert (index.count(), dense.rows[0], sparse.rows[0]) == (60, 7, 9)
    assert (dense.rows % 2 == 1).all()
    index.close()


def test_vectors_are_kept_as_codes_and_scales_near_the_originals(built: BuiltIndex) -> None:
    with np.load(built.vectors, allow_pickle=False) as arrays:
        codes, scales = arrays["codes"], arrays["scales"]
    assert (codes.dtype, scales.dtype) == (np.int8, np.float32)
    assert np.abs(codes * scales[:, None] - _vectors()).max() <= scales.max() * 0.51


def test_only_the_two_parts_are_left_in_the_folder(built: BuiltIndex) -> None:
    assert sorted(file.name for file in built.index.parent.iterdir()) == ["index.tar", "vectors.npz"]


def test_the_same_catalogue_has_the_same_digest_and_vector_bytes(built: BuiltIndex, tmp_path: Path) -> None:
    again = build_index(_jobs(), _vectors(), VectorSettings(), tmp_path)
    assert again.content_digest == built.content_digest
    assert _sha256(again.vectors) == _sha256(built.vectors)


def test_any_change_of_content_or_build_changes_the_digest(built: BuiltIndex, tmp_path: Path) -> None:
    moved = _vectors()
    moved[0, 0] = np.nextafter(moved[0, 0], np.float32(2))
    renamed = _jobs().set_column(0, "job_id", pa.array([f"k{i:03}" for i in range(60)]))
    others = (
        build_index(_jobs(), moved, VectorSettings(), tmp_path / "a"),
        build_index(_jobs(city="Bonn"), _vectors(), VectorSettings(), tmp_path / "b"),
        build_index(renamed, _vectors(), VectorSettings(), tmp_path / "c"),
        build_index(_jobs(), _vectors(), VectorSettings(m=8), tmp_path / "d"),
    )
    assert len({built.content_digest, *(other.content_digest for other in others)}) == 5


def test_an_empty_catalogue_has_an_index_too(tmp_path: Path) -> None:
    empty = build_index(_jobs(0), np.zeros((0, WIDTH), np.float32), VectorSettings(), tmp_path)
    index = open_index(VectorSettings(), empty.index, scratch=tmp_path / "scratch")
    assert index.search([SparseQuery(terms=["nurse"])], SearchFilter(), 5)[0].rows.tolist() == []
    index.close()


def test_jobs_out_of_order_or_without_a_vector_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="order"):
        build_index(_jobs().take([1, 0]), _vectors(2), VectorSettings(), tmp_path)
    with pytest.raises(InputError, match="one vector each"):
        build_index(_jobs(), _vectors(59), VectorSettings(), tmp_path)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
