"""Looking for traces of a person in whatever was left on disk: decoded as far as the formats go."""

from __future__ import annotations

import base64
import contextlib
import gzip
import io
import json
import sqlite3
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import pyarrow.parquet as pq

from rolecall.platform.file_tree import FileTree


def forms(text: str) -> tuple[bytes, ...]:
    """A text as it may stand in a file: UTF-8, UTF-16, escaped in JSON, encoded in a URL, base64."""
    escaped = json.dumps(text)[1:-1]
    return (
        text.encode(),
        text.encode("utf-16-le"),
        escaped.encode(),
        escaped.replace("\\", "\\\\").encode(),
        quote(text, safe="").encode(),
        base64.b64encode(text.encode()),
    )


def traces(tree: FileTree, texts: Sequence[str]) -> dict[str, str]:
    """Files that hold one of the texts in any form, each with the text."""
    needles = {form: text for text in texts for form in forms(text)}
    found = {}
    for name in tree.files():
        with contextlib.suppress(FileNotFoundError):  # a log or socket that left while we looked
            for content in _decoded(name, tree.read(name)):
                hits = [text for form, text in needles.items() if form in content]
                if hits:
                    found[name] = hits[0]
    return found


def _decoded(name: str, content: bytes) -> Iterator[bytes]:
    """The bytes themselves, and what they hold where they are an archive, Parquet or SQLite."""
    yield content
    if name.endswith(".gz"):
        yield from _decoded(name.removesuffix(".gz"), gzip.decompress(content))
    elif content[:2] == b"PK":
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for inner in archive.namelist():
                yield from _decoded(inner, archive.read(inner))
    elif name.endswith(".tar"):
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for member in archive:
                file = archive.extractfile(member)
                yield from _decoded(member.name, file.read() if file else b"")
    elif content[:4] == b"PAR1":
        rows = pq.read_table(io.BytesIO(content), use_threads=False).to_pylist()
        yield json.dumps(rows, default=str, ensure_ascii=False).encode()
    elif content[:15] == b"SQLite format 3":
        yield from _rows(content)


def _rows(content: bytes) -> Iterator[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "copy.db"
        file.write_bytes(content[:18] + b"\x01\x01" + content[20:])  # no write-ahead log beside the copy
        with contextlib.closing(sqlite3.connect(file)) as database:
            tables = [row[0] for row in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            for table in tables:
                for row in database.execute(f'SELECT * FROM "{table}"'):
                    yield b"\x00".join(value if isinstance(value, bytes) else str(value).encode() for value in row)


def by_store(found: Mapping[str, str]) -> set[str]:
    """The first folders of the files, or the files at the top; an SQLite log counts as the database it belongs to."""
    return {name.partition("/")[0].removesuffix("-wal") for name in found}
