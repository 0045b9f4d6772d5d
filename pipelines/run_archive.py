"""Finished steps of a run in an object store, for a run that is resumed on another machine.

    <artifacts>/runs/<run id>/<step>/<sha256>.tar      the step's folder
    <artifacts>/runs/<run id>/<step>/kept.json         names the tar; written last

A step is whole or absent: without `kept.json`, or where the tar is not what it names, there is no such step.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolecall.platform.files import sync_tree
from rolecall.platform.object_store import Prefix, is_object_store, prefix
from rolecall.platform.settings import Settings

KEPT_FILE = "kept.json"
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RunArchive:
    """The finished steps of one run."""

    place: Prefix

    @classmethod
    def of(cls, settings: Settings, run_id: str) -> RunArchive | None:
        """None where artifacts lie in a folder: then the run's own folder is where its steps are kept."""
        if not is_object_store(settings.artifacts_uri):
            return None
        return cls(place=prefix(settings.artifacts_uri, settings.storage.options).below("runs", run_id))

    def holds(self, step: str) -> bool:
        """True where the step was kept."""
        return self._kept(step) is not None

    def keep(self, step: str, folder: Path) -> None:
        """Upload a finished step's folder."""
        place = self.place.below(step)
        packed = folder.with_name(f"{folder.name}.tar")
        try:
            with tarfile.open(packed, "w") as archive:
                for path in sorted(folder.rglob("*")):
                    archive.add(path, path.relative_to(folder).as_posix(), recursive=False)
            with packed.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            with packed.open("rb") as source, place.filesystem.open_output_stream(place.key(f"{digest}.tar")) as target:
                shutil.copyfileobj(source, target, _CHUNK)
        finally:
            packed.unlink(missing_ok=True)
        place.write(KEPT_FILE, json.dumps({"sha256": digest}).encode())

    def fetch(self, step: str, folder: Path) -> bool:
        """Unpack a kept step as `folder`, whole or not at all. False where it was not kept, or is damaged."""
        kept = self._kept(step)
        if kept is None:
            return False
        packed, partial = folder.with_name(f"{folder.name}.tar"), folder.with_name(f"{folder.name}.fetching")
        try:
            if not self._download(step, kept["sha256"], packed):
                return False
            shutil.rmtree(partial, ignore_errors=True)
            with tarfile.open(packed) as archive:
                archive.extractall(partial, filter="data")
            sync_tree(partial)
            partial.rename(folder)
        finally:
            packed.unlink(missing_ok=True)
        return True

    def _kept(self, step: str) -> dict[str, Any] | None:
        content = self.place.below(step).read(KEPT_FILE)
        return None if content is None else json.loads(content)

    def _download(self, step: str, sha256: str, target: Path) -> bool:
        place = self.place.below(step)
        try:
            with place.filesystem.open_input_stream(place.key(f"{sha256}.tar")) as source, target.open("wb") as sink:
                shutil.copyfileobj(source, sink, _CHUNK)
        except FileNotFoundError:
            return False
        with target.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest() == sha256
