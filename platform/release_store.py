"""Where published releases are kept: a folder, or a prefix of an object store.

A release appears whole or not at all: by renaming a complete folder, or, in an object store, by writing
the manifest last. Publishing an id that is there already keeps what is there.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from pyarrow import fs

from rolecall.platform.errors import InputError, IntegrityError, NotFoundError
from rolecall.platform.file_tree import FileTree
from rolecall.platform.files import copy_tree, locked, sync
from rolecall.platform.object_store import is_object_store, s3_filesystem
from rolecall.platform.release import MANIFEST_FILE, Manifest, canonical_json, is_release_id, read_manifest, verify

PURGED_FILE = "purged.json"
_FOLDER = "releases"


class ReleaseStore:
    """Releases by id. `options`: object-store options as `deltalake` takes them (`AWS_ENDPOINT_URL`, ...)."""

    def __init__(self, artifacts_uri: str, cache_dir: Path, options: Mapping[str, str] | None = None) -> None:
        self.uri = artifacts_uri.rstrip("/")
        self.cache_dir = cache_dir
        self.options = dict(options or {})
        self._local = None if is_object_store(self.uri) else Path(self.uri.removeprefix("file://")) / _FOLDER

    def publish(self, folder: Path) -> Manifest:
        """Verify a sealed folder and make it available under its id. Returns the manifest that is stored.

        An intact release of the same id is kept as it is; a damaged one is replaced.
        """
        manifest = verify(folder)
        stored = self._intact(manifest.id)
        if stored is not None:
            return stored
        if self._local is None:
            self._upload(folder, manifest)
        else:
            self._move_in(folder, manifest.id, self._local)
        return manifest

    def fetch(self, release_id: str, *, seal: str | None = None) -> Path:
        """A verified local folder of the release; from an object store it is copied to the cache once.

        Raises NotFoundError where there is no such release, IntegrityError where it is damaged.
        """
        folder = (self._local or self.cache_dir / _FOLDER) / _checked(release_id)
        if (purged := self.purged(release_id)) is not None:
            raise NotFoundError(f"release {release_id} was {purged}", "a release that is kept", "build its day again")
        if self._local is None and not _verifies(folder, release_id):
            self._download(release_id, folder)
        if not folder.is_dir():
            raise self._missing(release_id)
        _same_id(verify(folder, seal=seal), release_id)
        return folder

    def manifest(self, release_id: str) -> Manifest:
        """The manifest alone, its files unread; a purged release's too. Raises NotFoundError or IntegrityError."""
        try:
            if self._local is not None:
                content = (self._local / _checked(release_id) / MANIFEST_FILE).read_bytes()
            else:
                with self._s3().open_input_stream(self._key(release_id, MANIFEST_FILE)) as stream:
                    content = stream.read()
        except FileNotFoundError:
            stub = self._stub(release_id)
            if stub is None:
                raise self._missing(release_id) from None
            content = canonical_json(stub["manifest"])
        return _same_id(read_manifest(content), release_id)

    def read_part(self, release_id: str, name: str) -> bytes:
        """One part's bytes alone, checked against the manifest. Raises NotFoundError where the release has no such part
        or was purged, IntegrityError where the bytes are not what was recorded."""
        manifest = self.manifest(release_id)
        part = manifest.part(name)
        if (purged := self.purged(release_id)) is not None:
            raise NotFoundError(f"release {release_id} was {purged}", "a release that is kept")
        try:
            if self._local is not None:
                content = (self._local / release_id / part.file).read_bytes()
            else:
                with self._s3().open_input_stream(self._part_key(manifest, part.file)) as stream:
                    content = stream.read()
        except FileNotFoundError as error:
            raise IntegrityError(f"{part.file} of release {release_id} is missing from {self.uri}") from error
        if hashlib.sha256(content).hexdigest() != part.sha256:
            raise IntegrityError(f"{part.file} of release {release_id} changed", f"sha256 {part.sha256}")
        return content

    def read_json(self, release_id: str, name: str) -> dict[str, Any] | None:
        """A part that is JSON; None where the release has no such part or was purged."""
        if all(part.name != name for part in self.manifest(release_id).parts) or self.purged(release_id) is not None:
            return None
        return dict(orjson.loads(self.read_part(release_id, name)))

    def purge(self, release_id: str, *, reason: str, at: datetime) -> None:
        """Remove every byte of a release and its cached copy; a stub with its manifest and the reason stays.

        Purging twice, or what was never published, is harmless.
        """
        tree, folder = FileTree(self.uri, self.options), f"{_FOLDER}/{_checked(release_id)}"
        files = [name for name in tree.files(folder) if name != f"{folder}/{PURGED_FILE}"]
        if self.exists(release_id):
            stub = {"at": at, "reason": reason, "manifest": orjson.loads(self.manifest(release_id).to_json())}
            tree.write(f"{folder}/{PURGED_FILE}", canonical_json(stub))
        for name in sorted(files, key=lambda name: not name.endswith(MANIFEST_FILE)):  # the manifest first: not whole
            tree.delete(name)
        self.drop_cached(release_id)

    def purged(self, release_id: str) -> str | None:
        """Why and when a release was purged, None where it was not."""
        stub = self._stub(release_id)
        return None if stub is None else f"purged on {stub['at'][:10]}: {stub['reason']}"

    def drop_cached(self, release_id: str) -> None:
        """Remove this machine's copy of a release that an object store holds."""
        shutil.rmtree(self.cache_dir / _FOLDER / _checked(release_id), ignore_errors=True)

    def _stub(self, release_id: str) -> dict[str, Any] | None:
        try:
            content = FileTree(self.uri, self.options).read(f"{_FOLDER}/{_checked(release_id)}/{PURGED_FILE}")
        except FileNotFoundError:
            return None
        return None if self.exists(release_id) else dict(orjson.loads(content))

    def exists(self, release_id: str) -> bool:
        """True where a release with this id was published; says nothing about its bytes."""
        if self._local is not None:
            return (self._local / _checked(release_id) / MANIFEST_FILE).is_file()
        info = self._s3().get_file_info(self._key(release_id, MANIFEST_FILE))
        return bool(info.type == fs.FileType.File)

    def ids(self) -> list[str]:
        """Ids of all published releases, sorted."""
        if self._local is not None:
            names = [path.name for path in self._local.iterdir()] if self._local.is_dir() else []
        else:
            selector = fs.FileSelector(f"{self._prefix()}/{_FOLDER}", allow_not_found=True)
            names = [info.base_name for info in self._s3().get_file_info(selector)]
        return sorted(name for name in names if is_release_id(name) and self.exists(name))

    def _intact(self, release_id: str) -> Manifest | None:
        if not self.exists(release_id):
            return None
        try:
            return verify(self.fetch(release_id))
        except (IntegrityError, NotFoundError):
            return None

    def _move_in(self, folder: Path, release_id: str, releases: Path) -> None:
        with locked(releases / ".lock"):
            for leftover in releases.glob(".publishing-*"):  # of a killed process: only one publishes at a time
                shutil.rmtree(leftover)
            if self._intact(release_id) is not None:
                return
            incoming = releases / f".publishing-{release_id}"
            copy_tree(folder, incoming)
            target = releases / release_id
            if target.exists():
                target.rename(releases / f".publishing-damaged-{release_id}")
            incoming.rename(target)
            sync(releases)
            shutil.rmtree(releases / f".publishing-damaged-{release_id}", ignore_errors=True)

    def _upload(self, folder: Path, manifest: Manifest) -> None:
        s3 = self._s3()
        files = [(part.file, self._part_key(manifest, part.file)) for part in manifest.parts]
        for name, key in [*files, (MANIFEST_FILE, self._key(manifest.id, MANIFEST_FILE))]:
            with (folder / name).open("rb") as source, s3.open_output_stream(key) as target:
                shutil.copyfileobj(source, target, 1 << 20)

    def _download(self, release_id: str, folder: Path) -> None:
        manifest = self.manifest(release_id)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with locked(folder.parent / ".lock"):
            if _verifies(folder, release_id):
                return
            shutil.rmtree(folder, ignore_errors=True)
            for leftover in folder.parent.glob(".fetching-*"):  # of a killed process: only one fetches at a time
                shutil.rmtree(leftover)
            incoming = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".fetching-"))
            for part in manifest.parts:
                self._copy_out(manifest, part.file, incoming / part.file)
            (incoming / MANIFEST_FILE).write_bytes(manifest.to_json())
            incoming.rename(folder)

    def _copy_out(self, manifest: Manifest, name: str, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with self._s3().open_input_stream(self._part_key(manifest, name)) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, 1 << 20)
        except FileNotFoundError as error:
            raise IntegrityError(f"{name} of release {manifest.id} is missing from {self.uri}") from error

    def _s3(self) -> fs.S3FileSystem:
        return s3_filesystem(self.options)

    def _prefix(self) -> str:
        return self.uri.removeprefix("s3://")

    def _key(self, release_id: str, name: str) -> str:
        return f"{self._prefix()}/{_FOLDER}/{_checked(release_id)}/{name}"

    def _part_key(self, manifest: Manifest, name: str) -> str:
        """Below the manifest's own digest: two builders of one id never mix their files."""
        return self._key(manifest.id, f"{manifest.sha256[:16]}/{name}")

    def _missing(self, release_id: str) -> NotFoundError:
        known = self.ids()
        return NotFoundError(
            f"no release {release_id} in {self.uri}",
            f"one of {', '.join(known[:10]) or 'none so far'}",
            "build it first",
        )


def _checked(release_id: str) -> str:
    if not is_release_id(release_id):
        raise InputError(f"release id {release_id!r}", "16 lower-case hex digits", "see `rolecall releases list`")
    return release_id


def _same_id(manifest: Manifest, release_id: str) -> Manifest:
    if manifest.id != release_id:
        raise IntegrityError(f"the folder of release {release_id} holds release {manifest.id}", release_id)
    return manifest


def _verifies(folder: Path, release_id: str) -> bool:
    try:
        return verify(folder).id == release_id
    except (NotFoundError, IntegrityError):
        return False
