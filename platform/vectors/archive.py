"""An index as one file: a plain tar of the engine's folder with `index.json` first.

`index.json` says the back end and the configuration, so that whoever opens the file needs nothing else.
The engine reserves its pages ahead (296 MB for 20,000 jobs, of which 50 are data): the zeros at a file's
end are not stored, only its length, and become a hole again when it is unpacked.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rolecall.platform.errors import IntegrityError
from rolecall.platform.vectors.protocol import IndexConfig

HEAD = "index.json"
_FORMAT = 1
_LENGTH = "ROLECALL.length"
_BLOCK = 1 << 20


def write_archive(path: Path, backend: str, config: IndexConfig, *, folder: Path | None = None, name: str = "") -> None:
    """Write the head and, for an engine in this process, everything below `folder`."""
    head = {"format": _FORMAT, "backend": backend, "name": name, "config": asdict(config)}
    text = json.dumps(head, sort_keys=True).encode()
    temporary = path.with_name(path.name + ".part")
    with tarfile.open(temporary, "w") as tar:
        info = tarfile.TarInfo(HEAD)
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
        for file in sorted(p for p in folder.rglob("*") if p.is_file()) if folder else ():
            _add(tar, file, f"shard/{file.relative_to(folder or file).as_posix()}")
    temporary.replace(path)


def read_head(path: Path) -> tuple[str, str, IndexConfig]:
    """Back end, collection name and configuration. Raises IntegrityError on a file that is no index archive."""
    try:
        with tarfile.open(path, "r:") as tar:
            member = tar.extractfile(HEAD)
            head: dict[str, Any] = json.loads(member.read()) if member else {}
        if head.get("format") != _FORMAT:
            raise ValueError(f"format {head.get('format')}")
        return str(head["backend"]), str(head["name"]), IndexConfig(**head["config"])
    except (tarfile.TarError, KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{path} is not an index archive: {error}", todo="fetch or build the release anew"
        ) from error


def unpack(path: Path, folder: Path) -> Path:
    """Unpack the engine's folder below an empty `folder` and return it. Links and paths leading out are refused."""
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tarfile.open(path, "r:") as tar:
            tar.extractall(folder, filter="data")
            for member in tar.getmembers():
                if member.isfile() and _LENGTH in member.pax_headers:
                    os.truncate(folder / member.name, int(member.pax_headers[_LENGTH]))
    except (tarfile.TarError, OSError, ValueError) as error:
        raise IntegrityError(f"{path} cannot be unpacked: {error}", todo="fetch or build the release anew") from error
    return folder / "shard"


def _add(tar: tarfile.TarFile, file: Path, name: str) -> None:
    """Add a file without the zeros at its end."""
    info = tarfile.TarInfo(name)
    info.size = _used(file)
    info.pax_headers = {_LENGTH: str(file.stat().st_size)}
    with file.open("rb") as stream:
        tar.addfile(info, stream)


def _used(file: Path) -> int:
    """Length of a file up to its last byte that is not zero."""
    end = file.stat().st_size
    with file.open("rb") as stream:
        while end > 0:
            start = max(0, end - _BLOCK)
            stream.seek(start)
            block = stream.read(end - start).rstrip(b"\0")
            if block:
                return start + len(block)
            end = start
    return 0
