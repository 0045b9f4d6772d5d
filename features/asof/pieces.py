"""Frames in files of numbered batches: what one stage of a partitioned join writes and the next reads in part."""

from __future__ import annotations

import os
import resource
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from rolecall.features.asof.keys import TEXTS, aligned

Parts = npt.NDArray[np.int64]
_SEED = 20_240_229
_MOST_OPEN = 2_000
_OLDEST = pl.CompatLevel.oldest()


def write_batches(path: Path, frame: pl.DataFrame, parts: Parts, count: int) -> list[int]:
    """Write the rows whose part is p as batch p of `count`, keeping their order; the number of rows of each."""
    order = np.argsort(parts, kind="stable")
    sizes = np.bincount(parts, minlength=count)
    table = (frame[order] if frame.height else frame.clear(1)).rechunk().to_arrow(compat_level=_OLDEST)
    batch = table.combine_chunks().to_batches()[0]
    ends = np.cumsum(sizes)
    with (
        in_place(path) as unfinished,
        pa.OSFile(str(unfinished), "wb") as sink,
        pa.ipc.new_file(sink, batch.schema) as writer,
    ):
        for size, end in zip(sizes.tolist(), ends.tolist(), strict=True):
            writer.write_batch(batch.slice(end - size, size))
    return [int(size) for size in sizes]


def read_batches(paths: Sequence[Path], part: int) -> pl.DataFrame:
    """Batch `part` of every file, one below the other."""
    kept = _KEPT_OPEN.get()
    if kept is not None:
        return pl.DataFrame(pa.Table.from_batches([kept.reader(path).get_batch(part) for path in paths]))
    batches = []
    for path in paths:
        with pa.OSFile(str(path), "rb") as source:
            batches.append(pa.ipc.open_file(source).get_batch(part))
    return pl.DataFrame(pa.Table.from_batches(batches))


class _OpenFiles:
    """The files read last, open: opening one reads where each of its batches begins, and a piece needs one of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._files: OrderedDict[Path, tuple[pa.OSFile, pa.ipc.RecordBatchFileReader]] = OrderedDict()

    def reader(self, path: Path) -> pa.ipc.RecordBatchFileReader:
        if path not in self._files:
            while len(self._files) >= self._most:
                self._files.popitem(last=False)[1][0].close()
            source = pa.OSFile(str(path), "rb")
            self._files[path] = (source, pa.ipc.open_file(source))
        self._files.move_to_end(path)
        return self._files[path][1]

    def close(self) -> None:
        for source, _ in self._files.values():
            source.close()


_KEPT_OPEN: ContextVar[_OpenFiles | None] = ContextVar("kept_open", default=None)


@contextmanager
def files_kept_open() -> Iterator[None]:
    """Within the block, and this thread, files of batches stay open, as far as the process may: half of its limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    kept = _OpenFiles(max(1, min(_MOST_OPEN, soft // 2)))
    token = _KEPT_OPEN.set(kept)
    try:
        yield
    finally:
        _KEPT_OPEN.reset(token)
        kept.close()


@contextmanager
def in_place(path: Path) -> Iterator[Path]:
    """A path to write to that becomes `path` once the block is through: a task run twice leaves one whole file."""
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.unfinished")
    try:
        yield unfinished
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def key_parts(rows: pl.DataFrame, columns: Sequence[str], count: int) -> Parts:
    """The part, below `count`, of each row's key: the same wherever and whenever the key is met."""
    mixed = np.zeros(rows.height, dtype=np.uint64)
    for column in columns:
        part = rows[column].cast(pl.String) if rows[column].dtype in TEXTS else rows[column]
        part = part + 0.0 if part.dtype.is_float() else part
        mixed = mixed * np.uint64(0x9E3779B97F4A7C15) ^ part.hash(_SEED).to_numpy()
    return ((mixed >> np.uint64(17)) % np.uint64(count)).astype(np.int64)


def with_aligned_keys(entities: pl.DataFrame, keys: Mapping[str, str], schema: pl.Schema) -> pl.DataFrame:
    """Entity rows with their key columns in the types of the feature rows, whose schema is given."""
    columns = [aligned(entities[ours], pl.Series(dtype=schema[theirs]), ours) for ours, theirs in keys.items()]
    return entities.with_columns(columns)
