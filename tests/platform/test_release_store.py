"""Publishing and fetching releases, on a path and on an object store; a release appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rolecall.platform import release_store
from rolecall.platform.errors import InputError, IntegrityError, NotFoundError
from rolecall.platform.release import MANIFEST_FILE, Manifest, ReleaseBuilder, verify
from rolecall.platform.release_store import ReleaseStore
from tests.services import S3Bucket

OpenStore = Callable[[str], ReleaseStore]


def staged(folder: Path, *, model: str = "trees", index: str = "index") -> Manifest:
    builder = ReleaseBuilder(folder)
    builder.path("nested/model.txt").write_text(model)
    builder.add("model", "nested/model.txt")
    builder.path("index.tar").write_text(index)
    builder.add("index", "index.tar", content="vectors")
    return builder.seal(as_of=datetime(2026, 3, 1, tzinfo=UTC), code_version="1", tables={"jobs": 1}, settings={})


@pytest.fixture(params=["path", "s3"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> OpenStore:
    """Opens the same store from a machine of the given name: machines share the store and not their caches."""
    if request.param == "path":
        return lambda machine: ReleaseStore(str(tmp_path / "artifacts"), tmp_path / "cache" / machine)
    bucket: S3Bucket = request.getfixturevalue("s3_bucket")
    return lambda machine: ReleaseStore(f"{bucket.uri}/prefix", tmp_path / "cache" / machine, bucket.options)


def test_what_was_published_is_fetched_elsewhere(open_store: OpenStore, tmp_path: Path) -> None:
    manifest = open_store("builder").publish(_folder(tmp_path, "a"))
    store = open_store("server")
    folder = store.fetch(manifest.id, seal=manifest.sha256)
    assert verify(folder) == manifest == store.manifest(manifest.id)
    assert (folder / "nested" / "model.txt").read_text() == "trees"
    assert store.fetch(manifest.id) == folder


def test_ids_are_those_of_published_releases(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store("builder")
    assert store.ids() == []
    published = [store.publish(_folder(tmp_path, name, model=name)).id for name in "abc"]
    assert store.ids() == sorted(published)
    assert all(store.exists(release_id) for release_id in published)
    assert not store.exists("0" * 16)


def test_an_existing_release_is_kept(open_store: OpenStore, tmp_path: Path) -> None:
    store = open_store("builder")
    first = store.publish(_folder(tmp_path, "a", index="first build"))
    again = store.publish(_folder(tmp_path, "b", index="second build"))
    assert again == first
    assert (open_store("server").fetch(first.id) / "index.tar").read_text() == "first build"


def test_an_unknown_release_is_not_found(open_store: OpenStore) -> None:
    for look in (open_store("server").fetch, open_store("server").manifest):
        with pytest.raises(NotFoundError, match="0000"):
            look("0" * 16)


@pytest.mark.parametrize("bad", ["../../etc", "", "ABCDEF0123456789", "0" * 15, "0" * 16 + "/x"])
def test_only_an_id_becomes_part_of_a_path(open_store: OpenStore, bad: str) -> None:
    for look in (open_store("server").fetch, open_store("server").exists, open_store("server").manifest):
        with pytest.raises(InputError):
            look(bad)


def test_a_folder_that_does_not_verify_is_not_published(open_store: OpenStore, tmp_path: Path) -> None:
    folder = _folder(tmp_path, "a")
    (folder / "index.tar").write_text("changed")
    with pytest.raises(IntegrityError):
        open_store("builder").publish(folder)
    assert open_store("builder").ids() == []


def test_publishing_at_once_leaves_one_intact_release(open_store: OpenStore, tmp_path: Path) -> None:
    folders = [_folder(tmp_path, f"{n}") for n in range(6)]
    with ThreadPoolExecutor(6) as pool:
        ids = {manifest.id for manifest in pool.map(open_store("builder").publish, folders)}
    assert open_store("builder").ids() == sorted(ids)
    assert len(ids) == 1
    assert verify(open_store("server").fetch(*ids)).id in ids


def test_a_local_copy_that_was_changed_is_not_served(open_store: OpenStore, tmp_path: Path) -> None:
    manifest = open_store("builder").publish(_folder(tmp_path, "a"))
    folder = open_store("server").fetch(manifest.id)
    (folder / "nested" / "model.txt").write_text("hostile trees")
    try:
        again = open_store("server").fetch(manifest.id)
    except IntegrityError:
        return  # on a path the copy is the release itself
    assert (again / "nested" / "model.txt").read_text() == "trees"


def test_a_publish_killed_half_way_shows_nothing_and_is_done_again(
    open_store: OpenStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the first file is being copied, wherever the store copies to."""
    folder = _folder(tmp_path, "a")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copyfileobj", killed)
        patch.setattr(release_store, "copy_tree", killed)
        with pytest.raises(KeyboardInterrupt):
            open_store("builder").publish(folder)
    assert open_store("builder").ids() == []
    manifest = open_store("builder").publish(folder)
    assert verify(open_store("server").fetch(manifest.id)) == manifest


def test_leftovers_of_a_killed_publish_are_cleared(tmp_path: Path) -> None:
    store = ReleaseStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    leftover = tmp_path / "artifacts" / "releases" / ".publishing-0123456789abcdef"
    leftover.mkdir(parents=True)
    (leftover / "half").write_text("x")
    assert store.ids() == []
    manifest = store.publish(_folder(tmp_path, "a"))
    assert [path.name for path in leftover.parent.iterdir() if path.is_dir()] == [manifest.id]


def test_a_damaged_release_is_replaced_by_publishing_again(tmp_path: Path) -> None:
    store = ReleaseStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    manifest = store.publish(_folder(tmp_path, "a"))
    (store.fetch(manifest.id) / "index.tar").write_text("damaged")
    with pytest.raises(IntegrityError):
        store.fetch(manifest.id)
    assert store.publish(_folder(tmp_path, "b")).id == manifest.id
    assert verify(store.fetch(manifest.id)).id == manifest.id


def test_a_release_under_another_ones_name_is_refused(tmp_path: Path) -> None:
    store = ReleaseStore(str(tmp_path / "artifacts"), tmp_path / "cache")
    manifest = store.publish(_folder(tmp_path, "a"))
    folder = store.fetch(manifest.id)
    folder.rename(folder.with_name("0" * 16))
    for look in (store.fetch, store.manifest):
        with pytest.raises(IntegrityError, match=manifest.id):
            look("0" * 16)


def test_an_object_that_vanished_is_an_integrity_error(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    s3, bucket = s3_bucket.filesystem, s3_bucket.name
    manifest = ReleaseStore(s3_bucket.uri, tmp_path / "one", s3_bucket.options).publish(_folder(tmp_path, "a"))
    s3.delete_file(f"{bucket}/releases/{manifest.id}/{manifest.sha256[:16]}/index.tar")
    other = ReleaseStore(s3_bucket.uri, tmp_path / "two", s3_bucket.options)
    assert other.exists(manifest.id)
    with pytest.raises(IntegrityError, match=r"index\.tar"):
        other.fetch(manifest.id)
    assert ReleaseStore(s3_bucket.uri, tmp_path / "one", s3_bucket.options).publish(tmp_path / "a") == manifest
    assert verify(other.fetch(manifest.id)) == manifest


def test_the_manifest_is_the_last_object_written(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    """A reader beside an upload sees either nothing or everything: without the manifest there is no release."""
    s3, bucket = s3_bucket.filesystem, s3_bucket.name
    store = ReleaseStore(s3_bucket.uri, tmp_path / "one", s3_bucket.options)
    manifest = store.publish(_folder(tmp_path, "a"))
    s3.delete_file(f"{bucket}/releases/{manifest.id}/{MANIFEST_FILE}")
    assert not store.exists(manifest.id)
    assert store.ids() == []


def _folder(tmp_path: Path, name: str, *, model: str = "trees", index: str = "index") -> Path:
    staged(tmp_path / name, model=model, index=index)
    return tmp_path / name
