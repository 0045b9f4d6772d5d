"""A marketplace of any size as Parquet files that `rolecall ingest FOLDER --mapping native` reads.

Texts and events are made and written block by block; what stays in memory is numbers: about 90 bytes a posting and
250 a candidate, and what has happened lately.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.memory import Memory
from rolecall.pipelines.market.truth import Truth, write_truth
from rolecall.pipelines.market.world import World
from rolecall.platform.errors import InputError

ROWS = 16_384
"""Postings or candidates a file."""

EVENT_ROWS = 200_000
"""Events a file, about."""

Progress = Callable[[str, int], None]


@dataclass(frozen=True, kw_only=True)
class Written:
    """What `write_market` has written: rows by table, and the files in order."""

    rows: dict[str, int]
    files: tuple[Path, ...]


def write_market(
    config: MarketConfig, folder: Path, *, truth: Path | None = None, progress: Progress | None = None
) -> Written:
    """Write the marketplace of `config` to `folder`; `progress` is told (table, rows so far) after each file.

    The same rows as `generate(config)` returns, events in blocks of a day. `truth`: a folder, not inside `folder`, for
    what no table says. Raises InputError where `folder` already holds files of a market, or `truth` lies within it.
    """
    _refuse(folder, truth)
    world = World(config)
    folder.mkdir(parents=True, exist_ok=True)
    writer = _Writer(folder, progress or (lambda _table, _rows: None))
    for block in _blocks(config.jobs):
        writer.write("jobs", world.job_table.rows(world.posting_source.draw(block)))
    for block in _blocks(config.candidates):
        writer.write("candidates", world.profiles.known(world.people_source.draw(block), config.end_us))
    writer.write("employers", world.employers.table(0, config.end_us))
    for number, events in enumerate(_events(world)):
        writer.write("events", events)
        if truth is not None:
            truth.mkdir(parents=True, exist_ok=True)
            pq.write_table(Truth(world).of_impressions(events), truth / f"impressions.{number:05d}.truth.parquet")
    if truth is not None:
        write_truth(world, truth)
    return Written(rows=writer.rows, files=tuple(writer.files))


def _refuse(folder: Path, truth: Path | None) -> None:
    there = sorted(path.name for path in folder.glob("*.parquet"))
    if there:
        raise InputError(f"{folder} already holds {there[0]}", "a new or empty folder", "name another folder")
    if truth is not None and truth.resolve().is_relative_to(folder.resolve()):
        raise InputError(
            f"the truth would lie in {folder}, among the tables", "a folder outside", "name another folder"
        )


def _blocks(size: int) -> Iterator[np.ndarray[tuple[int], np.dtype[np.int64]]]:
    for at in range(0, size, ROWS):
        yield np.arange(at, min(at + ROWS, size), dtype=np.int64)


def _events(world: World) -> Iterator[pa.Table]:
    """Events day by day, in pieces of about EVENT_ROWS rows."""
    memory = Memory()
    kept: list[pa.Table] = []
    for day in world.days():
        for events in world.live_in_blocks(day, memory):
            kept.append(events)
            if sum(table.num_rows for table in kept) >= EVENT_ROWS:
                yield pa.concat_tables(kept)
                kept = []
    if kept:
        yield pa.concat_tables(kept)


class _Writer:
    """Numbered files of each table."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self._folder, self._progress = folder, progress
        self._number: dict[str, Iterator[int]] = {}
        self.rows: dict[str, int] = {}
        self.files: list[Path] = []

    def write(self, table: str, rows: pa.Table) -> None:
        path = self._folder / f"{table}.{next(self._number.setdefault(table, count())):05d}.parquet"
        pq.write_table(rows, path, compression="zstd")
        self.files.append(path)
        self.rows[table] = self.rows.get(table, 0) + rows.num_rows
        self._progress(table, self.rows[table])
