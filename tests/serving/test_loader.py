"""A release is opened only where every byte and every part fits; the folder it came from is never written to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rolecall.features.context import CandidateContext
from rolecall.platform.errors import IntegrityError, NotFoundError
from rolecall.platform.release import MANIFEST_FILE, ReleaseBuilder
from rolecall.platform.settings import Settings
from rolecall.serving import parts
from rolecall.serving.funnel import FunnelRequest
from rolecall.serving.loader import LoadedRelease, NamedEncoder, load_release
from rolecall.serving.parts import EmbedderPart, FeaturesPart, PolicyPart
from rolecall.serving.profiles import Encoder

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
SETTINGS = Settings()
NURSE = CandidateContext(desired_titles=("night nurse",), history=("job002",))


class ToyEmbedder:
    """The board's toy encoder under a name."""

    hash = "a" * 64

    def __init__(self, encoder: Encoder) -> None:
        self.encode = encoder.encode


@pytest.fixture(scope="module")
def embedder(board: Any) -> NamedEncoder:
    return ToyEmbedder(board.encoder)


@pytest.fixture(scope="module")
def release(board: Any, embedder: NamedEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small board's parts, sealed."""
    folder = tmp_path_factory.mktemp("sealed") / "release"
    shutil.copytree(board.folder, folder)
    EmbedderPart(model=SETTINGS.embedder.model, hash=embedder.hash, max_tokens=64).write(folder)
    seal(folder)
    return folder


@pytest.fixture(scope="module")
def loaded(release: Path, embedder: NamedEncoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoadedRelease]:
    with load_release(release, SETTINGS, tmp_path_factory.mktemp("scratch"), embedder=embedder) as opened:
        yield opened


@pytest.fixture
def copy(release: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(release, tmp_path / "copy"))


def seal(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    builder = ReleaseBuilder(folder)
    for file in sorted(folder.iterdir()):
        builder.add(file.name, file.name)
    builder.seal(as_of=NOON, code_version="test", tables={"jobs": 0}, settings={})


def ask(release: LoadedRelease) -> list[str]:
    reply = release.funnel.recommend(FunnelRequest(context=NURSE, at=NOON, request_id="r"))
    return [item.job_id for item in reply.items]


def test_a_loaded_release_recommends_and_searches(loaded: LoadedRelease) -> None:
    reply = loaded.funnel.recommend(FunnelRequest(context=NURSE, at=NOON, request_id="r"))
    assert reply.release_id == loaded.manifest.id
    assert sum("nurse" in item.title for item in reply.items) >= 8
    assert "cook" in loaded.search.search("cooks", at=NOON)[0].title


def test_the_snapshot_of_job_features_lies_in_catalogue_order(loaded: LoadedRelease) -> None:
    rating = loaded.funnel.job_features.read(np.arange(3, dtype=np.int32), at=NOON)["employer_rating"]
    np.testing.assert_array_equal(rating, np.array([4.5, 1.0, np.nan], np.float32))


def test_two_processes_may_open_one_release_and_neither_changes_it(
    loaded: LoadedRelease, release: Path, tmp_path: Path, embedder: NamedEncoder
) -> None:
    before = {file.name: file.read_bytes() for file in release.iterdir()}
    with load_release(release, SETTINGS, tmp_path, embedder=embedder) as second:
        assert ask(second) == ask(loaded)
        assert any(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []
    assert {file.name: file.read_bytes() for file in release.iterdir()} == before


@pytest.mark.parametrize("file", [parts.JOBS, parts.FINE, parts.INDEX, parts.VECTORS, "lexicon.npz", "policy.json"])
def test_a_changed_byte_anywhere_is_refused_before_the_file_is_opened(copy: Path, tmp_path: Path, file: str) -> None:
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    with pytest.raises(IntegrityError, match=file):
        load_release(copy, SETTINGS, tmp_path / "scratch")


def test_a_folder_without_a_manifest_is_no_release(copy: Path, tmp_path: Path) -> None:
    (copy / MANIFEST_FILE).unlink()
    with pytest.raises(NotFoundError):
        load_release(copy, SETTINGS, tmp_path)


def other_embedder(folder: Path) -> None:
    EmbedderPart(model=SETTINGS.embedder.model, hash="0" * 64, max_tokens=64).write(folder)


def fewer_columns(folder: Path) -> None:
    features = FeaturesPart.read(folder)
    features.model_copy(update={"fine_columns": features.fine_columns[:-1]}).write(folder)


def fewer_vectors(folder: Path) -> None:
    np.savez(folder / parts.VECTORS, codes=np.ones((144, 48), np.int8), scales=np.ones(9, np.float32))


def unknown_policy(folder: Path) -> None:
    (folder / PolicyPart.name()).write_text('{"recall_limit": 1, "coarse_limit": 1, "policy": {}, "magic": 1}')


@pytest.mark.parametrize("harm", [other_embedder, fewer_columns, fewer_vectors, unknown_policy])
def test_parts_that_do_not_fit_each_other_are_refused_and_nothing_is_left_behind(
    copy: Path, tmp_path: Path, embedder: NamedEncoder, harm: Callable[[Path], None]
) -> None:
    harm(copy)
    seal(copy)
    scratch = tmp_path / "scratch"
    with pytest.raises(IntegrityError):
        load_release(copy, SETTINGS, scratch, embedder=embedder)
    assert not scratch.exists() or list(scratch.iterdir()) == []
