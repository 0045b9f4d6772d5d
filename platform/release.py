"""The release: an immutable folder of everything that must agree, with a manifest that names it by its content.

builder = ReleaseBuilder(staging)
builder.add("coarse", "coarse.txt")                       # identity: the file's sha256
builder.add("index", "index.tar", content=vectors_digest) # index files differ from build to build
builder.add("evaluation", "evaluation.json", identity=False)
manifest = builder.seal(as_of=..., code_version=code_version(), tables={"jobs": 3}, settings={...})
ReleaseStore(uri, cache_dir).publish(staging)
"""

from __future__ import annotations

import hashlib
import math
import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import orjson
from pydantic import AwareDatetime, ConfigDict, StringConstraints, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as checked_dataclass

from rolecall.platform.errors import InputError, IntegrityError, NotFoundError
from rolecall.platform.files import sha256_of, write_atomic

MANIFEST_FILE = "manifest.json"
AREAS = ("platform", "pipelines", "serving", "features", "kernels")
_SOURCES = frozenset({".py", ".toml", ".yaml", ".yml", ".json", ".cpp", ".h", ".cu", ".j2"})
_ID = re.compile(r"[0-9a-f]{16}")
_STRICT = ConfigDict(extra="forbid")

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


@checked_dataclass(frozen=True, kw_only=True, config=_STRICT)
class Part:
    """One file of a release. `content`: what stands for it in the release id; empty where it does not count."""

    name: str
    file: str
    sha256: Digest
    bytes: int
    content: str


@checked_dataclass(frozen=True, kw_only=True, config=_STRICT)
class Manifest:
    """What a release is made of. `id` follows from settings, code_version, tables and the parts' content alone."""

    id: str
    as_of: AwareDatetime
    code_version: str
    tables: dict[str, int]
    settings: dict[str, Any]
    parts: tuple[Part, ...]
    metrics: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def part(self, name: str) -> Part:
        """Raises NotFoundError where the release has no such part."""
        for part in self.parts:
            if part.name == name:
                return part
        raise NotFoundError(f"release {self.id} has no part {name}", ", ".join(part.name for part in self.parts))

    def to_json(self) -> bytes:
        """Canonical JSON: sorted keys, two manifests are equal exactly when these bytes are."""
        return canonical_json(asdict(self)) + b"\n"

    @property
    def sha256(self) -> str:
        """Digest of the whole manifest, file checksums included: the registry keeps it as the release's seal."""
        return hashlib.sha256(self.to_json()).hexdigest()


@dataclass(frozen=True, kw_only=True)
class _Added:
    file: str
    content: str | None


class ReleaseBuilder:
    """Collects the files of a release in a staging folder and seals them with a manifest."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._parts: dict[str, _Added] = {}

    def path(self, file: str) -> Path:
        """Where to write a file of this release. Raises InputError for a name that leaves the folder."""
        _check_file_name(file, InputError)
        path = self.folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def add(
        self, name: str, file: str, *, source: Path | None = None, content: str | None = None, identity: bool = True
    ) -> None:
        """Make a file below the folder a part; `source` is copied there first.

        `content`: digest that stands for the part in the release id (default: the file's sha256);
        `identity=False` leaves the part out of the id (reports, timings).
        """
        path = self.path(file)
        if source is not None:
            shutil.copyfile(source, path)
        if not path.is_file():
            raise NotFoundError(f"part {name}: no file {file} in {self.folder}", todo="write it before adding it")
        if name in self._parts or file in {part.file for part in self._parts.values()}:
            raise InputError(f"part {name} ({file}) was added twice", "each name and file once")
        self._parts[name] = _Added(file=file, content=content if identity else "")

    def seal(
        self,
        *,
        as_of: datetime,
        code_version: str,
        tables: Mapping[str, int],
        settings: Mapping[str, Any],
        metrics: Mapping[str, float] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> Manifest:
        """Checksum every part, derive the id and write the manifest.

        `settings` must hold no secret: it is published. Metrics that are not finite are left out.
        Raises IntegrityError where the folder holds a file that is no part.
        """
        parts = tuple(self._checksum(name, added) for name, added in sorted(self._parts.items()))
        plain = orjson.loads(canonical_json(settings))
        manifest = Manifest(
            id=release_id(settings=plain, code_version=code_version, tables=tables, parts=parts),
            as_of=as_of,
            code_version=code_version,
            tables=dict(tables),
            settings=plain,
            parts=parts,
            metrics={name: value for name, value in (metrics or {}).items() if math.isfinite(value)},
            notes=dict(notes or {}),
        )
        write_atomic(self.folder / MANIFEST_FILE, manifest.to_json())
        return verify(self.folder)

    def _checksum(self, name: str, added: _Added) -> Part:
        path = self.folder / added.file
        digest = sha256_of(path)
        content = digest if added.content is None else added.content
        return Part(name=name, file=added.file, sha256=digest, bytes=path.stat().st_size, content=content)


def release_id(
    *, settings: Mapping[str, Any], code_version: str, tables: Mapping[str, int], parts: tuple[Part, ...]
) -> str:
    """First 16 hex digits of the sha256 over the canonical content. Times, run ids and metrics are not in it."""
    content = {
        "settings": settings,
        "code_version": code_version,
        "tables": dict(tables),
        "parts": {part.name: part.content for part in parts if part.content},
    }
    return hashlib.sha256(canonical_json(content)).hexdigest()[:16]


def canonical_json(value: Any) -> bytes:
    """JSON with sorted keys and no spaces; times in UTC."""
    return orjson.dumps(
        value, option=orjson.OPT_SORT_KEYS | orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS | orjson.OPT_SERIALIZE_NUMPY
    )


def is_release_id(text: str) -> bool:
    """True for 16 lower-case hex digits; nothing else becomes part of a path."""
    return _ID.fullmatch(text) is not None


def read_manifest(content: bytes, where: str = MANIFEST_FILE) -> Manifest:
    """Parse a manifest and check that its id follows from its content. Raises IntegrityError."""
    try:
        manifest = TypeAdapter(Manifest).validate_json(content)
    except ValidationError as error:
        raise IntegrityError(f"{where} is not a release manifest: {error.errors()[0]['msg']}") from error
    expected = release_id(
        settings=manifest.settings,
        code_version=manifest.code_version,
        tables=manifest.tables,
        parts=manifest.parts,
    )
    if manifest.id != expected:
        raise IntegrityError(f"{where} says release {manifest.id}", f"{expected}, which its content gives", _REBUILD)
    for part in manifest.parts:
        _check_file_name(part.file, IntegrityError)
    names, files = [part.name for part in manifest.parts], [part.file for part in manifest.parts]
    if len(set(names)) < len(names) or len(set(files)) < len(files):
        raise IntegrityError(f"{where} names a part or a file twice", "each once", _REBUILD)
    return manifest


def verify(folder: Path, *, seal: str | None = None) -> Manifest:
    """Check every byte of a release before anything opens one of its files.

    `seal`: the manifest's sha256 as the registry recorded it. Raises NotFoundError where there is no manifest,
    IntegrityError for a changed, missing, unknown or linked file, or a name that leaves the folder.
    """
    file = folder / MANIFEST_FILE
    if not file.is_file() or file.is_symlink():
        raise NotFoundError(f"no {MANIFEST_FILE} in {folder}", "the folder of a release", "build or fetch it first")
    content = file.read_bytes()
    manifest = read_manifest(content, str(file))
    if seal is not None and hashlib.sha256(content).hexdigest() != seal:
        raise IntegrityError(f"manifest of release {manifest.id} is not the one that was registered", seal, _REBUILD)
    _check_file_set(folder, manifest)
    for part in manifest.parts:
        path = folder / part.file
        if path.stat().st_size != part.bytes or sha256_of(path) != part.sha256:
            raise IntegrityError(f"{part.file} of release {manifest.id} changed", f"sha256 {part.sha256}", _REBUILD)
    return manifest


def code_version(package: Path | None = None) -> str:
    """Version and a digest over the package's source files: the same in a checkout, a wheel and without git.

    `package`: the folder that holds the areas; default the one this module was imported from.
    """
    root = package or Path(__file__).parent.parent
    digest = hashlib.sha256()
    for area in AREAS:
        for path in sorted((root / area).rglob("*"), key=lambda p: p.relative_to(root).as_posix()):
            name = path.relative_to(root)
            if path.suffix in _SOURCES and not any(step.startswith((".", "__pycache__")) for step in name.parts):
                digest.update(f"{name.as_posix()}\0{sha256_of(path)}\n".encode())
    try:
        number = version("rolecall")
    except PackageNotFoundError:
        number = "0"  # run from a source tree that was never installed
    return f"{number}+{digest.hexdigest()[:16]}"


_REBUILD = "roll back to an intact release, or build this one again"


def _check_file_name(file: str, error: type[InputError | IntegrityError]) -> None:
    path = PurePosixPath(file)
    inside = file and not path.is_absolute() and not {"..", ".", ""} & set(file.split("/")) and "\\" not in file
    if not inside or "\0" in file or file == MANIFEST_FILE:
        raise error(f"release file named {file!r}", f"a relative path inside the release, not {MANIFEST_FILE}")


def _check_file_set(folder: Path, manifest: Manifest) -> None:
    links = [path for path in folder.rglob("*") if path.is_symlink()]
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()} - {MANIFEST_FILE}
    named = {part.file for part in manifest.parts}
    problems = {"linked": sorted(map(str, links)), "missing": sorted(named - found), "unknown": sorted(found - named)}
    if any(problems.values()):
        what = "; ".join(f"{kind}: {', '.join(files[:5])}" for kind, files in problems.items() if files)
        raise IntegrityError(
            f"files of release {manifest.id}: {what}", "exactly the manifest's regular files", _REBUILD
        )
