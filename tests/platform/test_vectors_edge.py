"""What only Qdrant Edge must show: private copies, hostile files, folders, the HNSW path."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from rolecall.platform.errors import IntegrityError, NotFoundError, SettingsError
from rolecall.platform.settings import VectorSettings
from rolecall.platform.vectors.archive import HEAD, read_head, unpack, write_archive
from rolecall.platform.vectors.backends import create_index, index_config, open_index
from rolecall.platform.vectors.edge import EdgeIndex
from rolecall.platform.vectors.protocol import DenseQuery, IndexConfig, IndexPoints, SearchFilter, SparseQuery

WIDTH, COUNT = 32, 3000


def _vectors() -> np.ndarray:
    rng = np.random.default_rng(3)
    vectors = rng.standard_normal((40, WIDTH))[rng.integers(0, 40, COUNT)] + 0.6 * rng.standard_normal((COUNT, WIDTH))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


VECTORS = _vectors()


def _build(scratch: Path, *, exact_below: int = 30_000) -> EdgeIndex:
    index = EdgeIndex.create(IndexConfig(dimension=WIDTH, average_terms=2.0, exact_below=exact_below), scratch)
    terms = [["nurse", f"w{row % 50}"] for row in range(COUNT)]
    rows = np.arange(COUNT, dtype=np.int32)
    index.upsert(IndexPoints(rows=rows, dense=VECTORS, terms=terms, payloads=[{"city": "x"}] * COUNT))
    index.optimize()
    return index


@pytest.fixture(scope="module")
def snapshot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("snapshot")
    index = _build(folder / "scratch")
    index.snapshot(folder / "index.tar")
    index.close()
    return folder / "index.tar"


def test_many_copies_of_a_snapshot_are_open_at_once_and_independent(snapshot: Path, tmp_path: Path) -> None:
    before = snapshot.read_bytes()
    one, other = EdgeIndex.open(snapshot, tmp_path), EdgeIndex.open(snapshot, tmp_path)
    one.delete([0, 1])
    assert (one.count(), other.count()) == (COUNT - 2, COUNT)
    one.close()
    assert other.count() == COUNT
    other.close()
    assert snapshot.read_bytes() == before


def test_reserved_pages_are_not_stored_and_come_back_as_long_as_they_were(tmp_path: Path) -> None:
    files = {"page": b"data" + bytes(3_000_000), "full": b"x" * 10, "zeros": bytes(2_000_000), "empty": b""}
    (tmp_path / "in").mkdir()
    for name, content in files.items():
        (tmp_path / "in" / name).write_bytes(content)
    config = IndexConfig(dimension=2, average_terms=1.0)
    write_archive(tmp_path / "i.tar", "edge", config, folder=tmp_path / "in")
    assert (tmp_path / "i.tar").stat().st_size < 50_000
    folder = unpack(tmp_path / "i.tar", tmp_path / "out")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == files


def test_closing_leaves_no_file_behind_and_may_be_repeated(snapshot: Path, tmp_path: Path) -> None:
    index = EdgeIndex.open(snapshot, tmp_path / "scratch")
    index.close()
    index.close()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_the_graph_finds_nine_of_ten_nearest(tmp_path: Path) -> None:
    index = _build(tmp_path, exact_below=0)
    queries = VECTORS[::100] + np.float32(0.02)
    found = index.search([DenseQuery(vector=vector) for vector in queries], SearchFilter(), limit=50)
    exact = np.argsort(-(queries @ VECTORS.T), axis=1)[:, :50]
    shared = [len(set(hits.rows.tolist()) & set(near.tolist())) / 50 for hits, near in zip(found, exact, strict=True)]
    assert np.mean(shared) >= 0.9
    index.close()


def test_a_group_of_equal_scores_is_cut_by_row_however_large_it_is(snapshot: Path, tmp_path: Path) -> None:
    index = EdgeIndex.open(snapshot, tmp_path)
    hits, few = index.search([SparseQuery(terms=["nurse"]), SparseQuery(terms=["w7"])], SearchFilter(), limit=40)
    assert hits.rows.tolist() == list(range(40))
    assert few.rows.tolist() == list(range(7, 7 + 40 * 50, 50))
    index.close()


def _tar(path: Path, name: str, *, link: str = "") -> Path:
    write_archive(path, "edge", IndexConfig(dimension=2, average_terms=1.0))
    with tarfile.open(path, "a") as tar:
        info = tarfile.TarInfo(name)
        if link:
            info.type, info.linkname = tarfile.SYMTYPE, link
        tar.addfile(info, io.BytesIO(b""))
    return path


@pytest.mark.parametrize(
    ("name", "link"), [("../outside", ""), ("shard/../../outside", ""), ("shard/link", "/etc/passwd")]
)
def test_an_archive_that_reaches_outside_is_refused(tmp_path: Path, name: str, link: str) -> None:
    with pytest.raises(IntegrityError):
        EdgeIndex.open(_tar(tmp_path / "evil.tar", name, link=link), tmp_path / "scratch" / "deep")
    assert not (tmp_path / "outside").exists()
    assert not (tmp_path / "scratch" / "outside").exists()
    assert list((tmp_path / "scratch" / "deep").iterdir()) == []


def test_a_cut_or_foreign_file_is_refused(snapshot: Path, tmp_path: Path) -> None:
    (tmp_path / "text.tar").write_text("no archive")
    (tmp_path / "cut.tar").write_bytes(snapshot.read_bytes()[:20_000])
    write_archive(tmp_path / "empty.tar", "edge", IndexConfig(dimension=2, average_terms=1.0))
    for name in ("text.tar", "cut.tar", "empty.tar"):
        with pytest.raises(IntegrityError):
            EdgeIndex.open(tmp_path / name, tmp_path / "scratch")


def test_an_archive_of_a_later_format_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "later.tar", "w") as tar:
        text = b'{"format": 99}'
        info = tarfile.TarInfo(HEAD)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    with pytest.raises(IntegrityError, match="format 99"):
        read_head(tmp_path / "later.tar")


def test_settings_choose_the_engine_and_its_build(tmp_path: Path) -> None:
    settings = VectorSettings(m=8, ef_construct=50, ef_search=64, exact_below=10)
    config = index_config(settings, dimension=4, average_terms=3.0)
    index = create_index(settings, config, scratch=tmp_path / "a", name="unused")
    index.snapshot(tmp_path / "index.tar")
    index.close()
    again = open_index(settings, tmp_path / "index.tar", scratch=tmp_path / "b")
    assert again.config == config
    assert isinstance(again, EdgeIndex)
    again.close()


def test_a_server_without_a_url_is_refused(tmp_path: Path) -> None:
    config = IndexConfig(dimension=2, average_terms=1.0)
    with pytest.raises(SettingsError, match=r"vectors\.url"):
        create_index(VectorSettings(backend="server"), config, scratch=tmp_path, name="x")


def test_a_collection_the_server_does_not_have_is_named(tmp_path: Path) -> None:
    from qdrant_client import QdrantClient

    from rolecall.platform.vectors.server import ServerIndex

    write_archive(tmp_path / "i.tar", "server", IndexConfig(dimension=2, average_terms=1.0), name="rolecall-gone")
    with pytest.raises(NotFoundError, match="rolecall-gone"):
        ServerIndex.open(QdrantClient(":memory:"), tmp_path / "i.tar")
