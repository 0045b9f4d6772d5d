"""Files as chunks of rows: CSV, TSV, JSON Lines (plain or gzip) and Parquet, never a whole file at once.

A row that cannot be read (ragged, not UTF-8, not JSON) becomes a `Broken` and the rest go on; a file that cannot
be read at all (no header, truncated gzip, not Parquet) raises SchemaError. Rows are numbered from 1, the header
and blank lines not counted.
"""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from rolecall.features.mapping import TableSpec
from rolecall.features.validation import MESSAGE, REASON, ROW
from rolecall.platform.errors import SchemaError

CHUNK_ROWS = 50_000
FIELD_LIMIT = 64 * 1024 * 1024
KINDS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")
_END = "\x00end of file\x00"
_JSON_SAMPLE = 1000


@dataclass(frozen=True, kw_only=True)
class Broken:
    """A row that could not be read: its number, reason code, message and text."""

    row: int
    reason: str
    message: str
    text: str


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Rows that could be read, with their numbers in ROW, and those that could not."""

    rows: pl.DataFrame
    broken: tuple[Broken, ...]


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of a section. `label` names it in quarantine: its name and the start of its sha256."""

    path: Path
    spec: TableSpec
    label: str = field(default="")

    @property
    def kind(self) -> str:
        suffixes = self.path.suffixes
        return suffixes[-2] if suffixes[-1:] == [".gz"] and len(suffixes) > 1 else self.path.suffix

    def columns(self) -> list[str]:
        """The file's columns; of JSON Lines those of the first rows. Raises SchemaError where there are none."""
        with _readable(self.path):
            if self.kind == ".parquet":
                return list(pq.read_schema(self.path).names)
            with _open(self.path, self.spec) as lines:
                return _json_columns(lines) if self.kind in (".jsonl", ".ndjson") else _header(self, lines)[0]

    def chunks(self, rows: int = CHUNK_ROWS) -> Iterator[Chunk]:
        """The file's rows in order."""
        with _readable(self.path):
            if self.kind == ".parquet":
                yield from _parquet_chunks(self.path, rows)
                return
            with _open(self.path, self.spec) as lines:
                yield from (
                    _json_chunks(lines, rows) if self.kind in (".jsonl", ".ndjson") else _csv_chunks(self, lines, rows)
                )


def labelled(path: Path, spec: TableSpec) -> SourceFile:
    """A source file whose label holds its digest: the same bytes are the same source wherever they lie."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    return SourceFile(path=path, spec=spec, label=f"{path.name}#{digest[:8]}")


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, gzip.BadGzipFile, zlib.error, EOFError, LookupError, UnicodeError, csv.Error) as error:
        raise SchemaError(
            f"{path} cannot be read: {error}", f"a file of {', '.join(KINDS)}", "write it anew"
        ) from error


def _open(path: Path, spec: TableSpec) -> IO[str]:
    """Bytes that are no text pass as surrogates, so that the row that holds them can be told apart."""
    encoding = "utf-8-sig" if spec.encoding.lower().replace("_", "-") in ("utf-8", "utf8") else spec.encoding
    newline = "" if spec.quote and _is_csv(path) else "\n"
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding=encoding, errors="surrogateescape", newline=newline)
    return path.open("r", encoding=encoding, errors="surrogateescape", newline=newline)


def _is_csv(path: Path) -> bool:
    return any(suffix in (".csv", ".tsv") for suffix in path.suffixes)


def _fields(source: SourceFile, lines: IO[str]) -> Iterator[list[str]]:
    """Fields of each row. The last item is [_END], unless a quote that is never closed swallowed it."""
    delimiter = source.spec.delimiter or ("\t" if source.kind == ".tsv" else ",")
    if source.spec.quote:
        csv.field_size_limit(FIELD_LIMIT)  # process-wide in Python; a larger limit hurts no other reader
        yield from csv.reader(_ended(lines), delimiter=delimiter, quotechar=source.spec.quote)
        return
    for line in lines:
        text = line.rstrip("\r\n")
        yield text.split(delimiter) if text else []
    yield [_END]


def _ended(lines: IO[str]) -> Iterator[str]:
    yield from lines
    yield _END


def _header(source: SourceFile, lines: IO[str]) -> tuple[list[str], Iterator[list[str]]]:
    fields = _fields(source, lines)
    names = [name.strip() for name in next((row for row in fields if row), [_END])]
    twice = sorted({name for name in names if names.count(name) > 1})
    if names == [_END] or twice or not all(_is_text(name) for name in names):
        got = f"columns {twice} twice" if twice else "no header in the file's encoding"
        raise SchemaError(
            f"{source.path}: {got}", "a first line with one name a column", "correct it, or declare `encoding`"
        )
    return names, fields


def _csv_chunks(source: SourceFile, lines: IO[str], size: int) -> Iterator[Chunk]:
    names, fields = _header(source, lines)
    good: list[list[str]] = []
    numbers: list[int] = []
    broken: list[Broken] = []
    number = 0
    for row in fields:
        if not row or row == [_END]:
            continue
        number += 1
        fault = _row_fault(names, row, number)
        if fault is None:
            good.append(row)
            numbers.append(number)
        else:
            broken.append(fault)
        if len(good) + len(broken) >= size:
            yield _chunk(names, good, numbers, broken)
            good, numbers, broken = [], [], []
    yield _chunk(names, good, numbers, broken)


def _row_fault(names: list[str], row: list[str], number: int) -> Broken | None:
    swallowed = row[-1].endswith(_END)
    if swallowed:
        row = [*row[:-1], row[-1].removesuffix(_END)]
        lines = row[-1].count("\n")
        told = f"a quote in the last field is never closed and swallows the file's last {lines} lines"
    elif len(row) != len(names):
        told = f"{len(row)} fields where the header has {len(names)}"
    else:
        return None
    return Broken(row=number, reason="ragged_row", message=told, text=_shown(row))


def _chunk(names: Sequence[str], rows: list[list[str]], numbers: list[int], broken: list[Broken]) -> Chunk:
    try:
        return Chunk(rows=_frame(names, rows, numbers), broken=tuple(broken))
    except UnicodeEncodeError:
        clean = [(row, at) for row, at in zip(rows, numbers, strict=True) if all(map(_is_text, row))]
        dirty = [
            _not_text(names, row, at) for row, at in zip(rows, numbers, strict=True) if not all(map(_is_text, row))
        ]
        frame = _frame(names, [row for row, _ in clean], [at for _, at in clean])
        return Chunk(rows=frame, broken=tuple(sorted([*broken, *dirty], key=lambda one: one.row)))


def _frame(names: Sequence[str], rows: list[list[str]], numbers: list[int]) -> pl.DataFrame:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    made = [pl.Series(name, column, dtype=pl.String) for name, column in zip(names, columns, strict=True)]
    return _numbered(pl.DataFrame(made), numbers)


def _numbered(frame: pl.DataFrame, numbers: Sequence[int]) -> pl.DataFrame:
    nothing = pl.lit(None, dtype=pl.String)
    return frame.with_columns(pl.Series(ROW, numbers, dtype=pl.Int64), nothing.alias(REASON), nothing.alias(MESSAGE))


def _not_text(names: Sequence[str], row: Sequence[str], number: int) -> Broken:
    bad = [name for name, value in zip(names, row, strict=True) if not _is_text(value)]
    return Broken(
        row=number, reason="bad_utf8", message=f"{', '.join(bad)}: bytes that are no text here", text=_shown(row)
    )


def _is_text(value: str | None) -> bool:
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(row: object) -> str:
    """The row as JSON; bytes that are no text are written as \\udcXX."""
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace").decode()


def _json_columns(lines: IO[str]) -> list[str]:
    names: dict[str, None] = {}
    for _, line in zip(range(_JSON_SAMPLE), lines, strict=False):
        found = _json_row(line)
        names |= dict.fromkeys(found) if isinstance(found, dict) else {}
    return list(names)


def _json_chunks(lines: IO[str], size: int) -> Iterator[Chunk]:
    rows: list[dict[str, Any]] = []
    numbers: list[int] = []
    broken: list[Broken] = []
    number = 0
    for line in lines:
        text = line.strip()
        if not text:
            continue
        number += 1
        found = _json_row(text)
        if isinstance(found, dict):
            rows.append(found)
            numbers.append(number)
        else:
            broken.append(Broken(row=number, reason=found[0], message=found[1], text=_shown(text)))
        if len(rows) + len(broken) >= size:
            yield _json_chunk(rows, numbers, broken)
            rows, numbers, broken = [], [], []
    yield _json_chunk(rows, numbers, broken)


def _json_row(line: str) -> dict[str, Any] | tuple[str, str]:
    """The object, or why there is none."""
    if not _is_text(line):
        return "bad_utf8", "the line holds bytes that are no text here"
    try:
        found = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        return "bad_json", f"not JSON: {error}"[:200]
    if not isinstance(found, dict):
        return "bad_json", f"a JSON {type(found).__name__} where an object must be"
    return found


def _json_chunk(rows: list[dict[str, Any]], numbers: list[int], broken: list[Broken]) -> Chunk:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return _chunk(names, [[_scalar(row.get(name)) for name in names] for row in rows], numbers, broken)


def _scalar(value: Any) -> Any:
    """What a text file would hold: text as it is, everything else as JSON."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _parquet_chunks(path: Path, size: int) -> Iterator[Chunk]:
    done = 0
    with pq.ParquetFile(path) as file:
        if not file.metadata.num_rows:
            yield _parquet_chunk(file.schema_arrow.empty_table(), done)
        for batch in file.iter_batches(batch_size=size):
            yield _parquet_chunk(pa.Table.from_batches([batch]), done)
            done += batch.num_rows


def _parquet_chunk(table: pa.Table, done: int) -> Chunk:
    """Parquet does not promise that its texts are UTF-8: where they are not, their rows are set apart."""
    bad: dict[int, str] = {}
    for name in table.column_names:
        if not _valid(table[name]):
            texts = table[name].cast(pa.large_binary()).to_pylist()
            wrong = [at for at, value in enumerate(texts) if value is not None and not _decodes(value)]
            bad |= {at: str(name) for at in wrong}
    keep = [at for at in range(table.num_rows) if at not in bad]
    broken = tuple(
        Broken(row=done + at + 1, reason="bad_utf8", message=f"{name}: bytes that are no text", text="[]")
        for at, name in sorted(bad.items())
    )
    whole = table if not bad else table.take(pa.array(keep, type=pa.int64()))
    return Chunk(rows=_numbered(pl.DataFrame(whole), [done + at + 1 for at in keep]), broken=broken)


def _valid(column: pa.ChunkedArray) -> bool:
    """Whether no value needs a closer look: texts that are UTF-8, and columns that are no texts."""
    if pa.types.is_binary(column.type) or pa.types.is_large_binary(column.type):
        return False
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return True
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _decodes(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True
