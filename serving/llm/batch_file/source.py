"""The lines of a batch file: found once by the driver, then read where they are answered, a few at a time.

source = open_source("s3://bucket/requests.jsonl", storage.options)
for found in source.scan(): ...                       # numbers, ids and places; no text is kept
source.read(places)                                   # the JSON of these lines
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from rolecall.platform.errors import InputError
from rolecall.platform.object_store import located
from rolecall.serving.llm.batch_file.line import LineError, custom_id_of, fields_of

PLACES = pa.schema({"number": pa.int64(), "part": pa.int64(), "start": pa.int64(), "stop": pa.int64()})
"""Where lines stand: bytes of a file of lines, or rows of a row group (`part`). A table of them stays in one part."""
_BYTES = 4 << 20
_MARK = b"\xef\xbb\xbf"  # what some editors write before UTF-8


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundLine:
    """A line, counted from 1, and where it stands. `custom_id` None: it has none that can be used."""

    number: int
    custom_id: str | None
    part: int
    start: int
    stop: int

    @property
    def key(self) -> str | int:
        """What it is told by in the answers."""
        return self.number if self.custom_id is None else self.custom_id


class Source(Protocol):
    """Safe to pickle: it holds a place, nothing that is open."""

    def scan(self) -> Iterator[FoundLine]:
        """Every line that is not blank, in order. Raises InputError where the file cannot be read."""
        ...

    def read(self, places: pa.Table) -> list[bytes]:
        """The JSON of the lines at these places."""
        ...


def open_source(uri: str, options: Mapping[str, str]) -> Source:
    """Raises InputError for a file that is neither lines of JSON nor Parquet."""
    if uri.endswith((".parquet", ".pq")):
        return ParquetRows(uri=uri, options=options)
    if uri.endswith((".gz", ".zst", ".bz2", ".xz", ".zip")):
        raise InputError(f"{uri} is compressed", "lines of JSON (.jsonl) or Parquet (.parquet)", "unpack it first")
    return JsonLines(uri=uri, options=options)


@dataclass(frozen=True, kw_only=True)
class JsonLines:
    """A file with an object in each line."""

    uri: str
    options: Mapping[str, str] = field(default_factory=dict[str, str])

    def scan(self) -> Iterator[FoundLine]:
        """See Source."""
        start = 0
        with _open(self.uri, self.options) as file:
            for number, text in enumerate(_lines(file), 1):
                if _text(text):
                    yield FoundLine(
                        number=number, custom_id=_id(text, number), part=0, start=start, stop=start + len(text)
                    )
                start += len(text)

    def read(self, places: pa.Table) -> list[bytes]:
        """See Source. One read from the first line to the last."""
        starts, stops = places["start"].to_pylist(), places["stop"].to_pylist()
        with _open(self.uri, self.options) as file:
            file.seek(starts[0])
            data = bytes(file.read(stops[-1] - starts[0]))
        return [_text(data[a - starts[0] : b - starts[0]]) for a, b in zip(starts, stops, strict=True)]


@dataclass(kw_only=True)
class ParquetRows:
    """A Parquet file with the fields of a line as columns; `body` may be JSON text, and null is as if left out."""

    uri: str
    options: Mapping[str, str] = field(default_factory=dict[str, str])
    _last: tuple[int, pa.Table] | None = field(default=None, repr=False)

    def scan(self) -> Iterator[FoundLine]:
        """See Source."""
        with _open(self.uri, self.options) as raw:
            file = _parquet(raw, self.uri)
            plain = {"body", "url", "method"}.isdisjoint(file.schema_arrow.names)
            known = "custom_id" in file.schema_arrow.names
            number = 0
            for part in range(file.num_row_groups):
                rows = file.metadata.row_group(part).num_rows
                ids = file.read_row_group(part, ["custom_id"])["custom_id"].to_pylist() if known else [None] * rows
                for row, given in enumerate(ids):
                    number += 1
                    name = custom_id_of({"custom_id": given} if plain else {"custom_id": given, "body": None}, number)
                    yield FoundLine(number=number, custom_id=name, part=part, start=row, stop=row + 1)

    def read(self, places: pa.Table) -> list[bytes]:
        """See Source. The row group read last is kept: the next places are mostly in it."""
        part = places["part"][0].as_py()
        if self._last is None or self._last[0] != part:
            with _open(self.uri, self.options) as raw:
                self._last = part, _parquet(raw, self.uri).read_row_group(part)
        return [orjson.dumps(_fields(row), default=str) for row in self._last[1].take(places["start"]).to_pylist()]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_last": None}


def _fields(row: dict[str, Any]) -> dict[str, Any]:
    """Without nulls: a column of structs has every field in every row. A body that is text keeps its own."""
    body = row.get("body")
    fields = {name: _given(value) for name, value in row.items() if value is not None}
    if isinstance(body, str):
        with contextlib.suppress(LineError):  # told where the line is answered: body is no object
            fields["body"] = fields_of(body.encode())
    return fields


def _given(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _given(inner) for name, inner in value.items() if inner is not None}
    return [_given(inner) for inner in value] if isinstance(value, list) else value


def _id(text: bytes, number: int) -> str | None:
    try:
        return custom_id_of(fields_of(_text(text)), number)
    except LineError:
        return None


def _text(line: bytes) -> bytes:
    return line.removeprefix(_MARK).strip()


def _lines(file: pa.NativeFile) -> Iterator[bytes]:
    """Lines with their ends, however long they are."""
    begun: list[bytes] = []
    for chunk in iter(partial(file.read, _BYTES), b""):
        first, *others = _split(bytes(chunk))
        begun.append(first)
        for text in others:
            yield b"".join(begun)
            begun = [text]
        if begun[-1].endswith(b"\n"):
            yield b"".join(begun)
            begun = []
    if begun:
        yield b"".join(begun)


def _split(chunk: bytes) -> list[bytes]:
    """Lines end in \\n alone: a lone \\r is one of a line's characters."""
    parts = chunk.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _parquet(raw: pa.NativeFile, uri: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(raw)
    except pa.ArrowInvalid as error:
        raise InputError(f"{uri}: {error}", "a Parquet file") from error


def _open(uri: str, options: Mapping[str, str]) -> pa.NativeFile:
    try:
        system, path = located(uri, options)
        return system.open_input_file(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise InputError(f"{uri} cannot be read: {error}", "a file, or an object of a store") from error
