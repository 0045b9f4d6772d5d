"""A point-in-time join in parts that each fit into a bound: which slices are read, cut by time, joined and gathered.

Whoever walks the stages (`stages.py`) is told row counts and a sample of instants, never rows: that is enough to see
which parts are too big (one key may hold a tenth of all rows) and where in time to cut them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from rolecall.features.asof.instants import Unit
from rolecall.features.asof.view import AsofView

ROW = "__asof_row"
"""The name under which the place of an entity row travels with it."""

_COPIES = 6
_WORKING = 32
_SAMPLED = 1_000
_MOST_PARTS = 4_096


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What every stage knows. `unit`: of the entity rows' instants. `slice_rows`: entity rows read, or result rows
    gathered, at once; `view_rows`: feature rows of each view read or joined at once; `parts`: hashes of each view's
    key; `folder`: where rows pass from stage to stage."""

    entities: pl.LazyFrame
    views: tuple[AsofView, ...]
    timestamp: str
    known_only: bool
    folder: Path
    unit: Unit
    entity_rows: int
    slice_rows: int
    heights: tuple[int, ...]
    view_rows: tuple[int, ...]
    parts: tuple[int, ...]

    @property
    def slices(self) -> int:
        """Slices of the result."""
        return -(-self.entity_rows // self.slice_rows)


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Rows `start` to `start + rows` of the entity rows (`of_entities`), or of the view's feature rows."""

    view: int
    of_entities: bool
    start: int
    rows: int


@dataclass(frozen=True, kw_only=True)
class Scattered:
    """A scattered slice: rows of each part and, of feature rows, a sample of the instants they are visible from."""

    work: Slice
    path: Path
    counts: tuple[int, ...]
    samples: tuple[tuple[int, ...], ...]


@dataclass(frozen=True, kw_only=True)
class Split:
    """One file's batch `part` to be cut by time: `cuts` are the first instants of the second and later spans."""

    view: int
    part: int
    path: Path
    cuts: tuple[int, ...]

    @property
    def target(self) -> Path:
        """Where the cut batch goes."""
        return self.path.with_name(f"{self.path.stem}-part{self.part}.arrow")


@dataclass(frozen=True, kw_only=True)
class Piece:
    """One join: the entity rows of `part` in `entities` that fall into span `span`, on the feature rows in `rows`."""

    view: int
    part: int
    entities: tuple[Path, ...]
    rows: tuple[Path, ...]
    cuts: tuple[int, ...]
    span: int


def make_plan(
    entities: pl.LazyFrame,
    views: Sequence[AsofView],
    *,
    timestamp: str,
    known_only: bool,
    folder: Path,
    memory: int,
    workers: int = 1,
) -> Plan:
    """The plan of a join whose stages each work in about `memory` bytes. Reads row counts and a few rows.

    `workers`: how many stages run at once; there are at least twice as many parts, so that none waits long.
    """
    keys = [*dict.fromkeys((*(name for view in views for name in view.keys), timestamp))]
    heights = tuple(_height(view.rows) for view in views)
    view_rows = tuple(_rows_within(memory, view.rows.select(view.wanted)) for view in views)
    entity_rows = _height(entities)
    slice_rows = min(_rows_within(memory, entities.select(keys)), *view_rows) if views else entity_rows
    if workers > 1:
        view_rows = tuple(min(most, -(-rows // workers) or 1) for most, rows in zip(view_rows, heights, strict=True))
        slice_rows = min(slice_rows, -(-entity_rows // workers) or 1)
    fewest = 1 if workers == 1 else 2 * workers
    kind = entities.collect_schema()[timestamp]
    return Plan(
        entities=entities, views=tuple(views), timestamp=timestamp, known_only=known_only, folder=folder,
        unit=kind.time_unit if isinstance(kind, pl.Datetime) else "us",
        entity_rows=entity_rows, slice_rows=max(slice_rows, 1), heights=heights, view_rows=view_rows,
        parts=tuple(
            min(max(fewest, -(-3 * rows // (2 * most))), _MOST_PARTS)
            for most, rows in zip(view_rows, heights, strict=True)
        ),
    )  # fmt: skip


def working_bytes(frame: pl.LazyFrame) -> int:
    """About how many bytes joining all its rows at once takes."""
    return int(_height(frame) * _working_width(frame))


def slices(plan: Plan) -> Iterator[Slice]:
    """What is to be scattered."""
    for view, (rows, step) in enumerate(zip(plan.heights, plan.view_rows, strict=True)):
        for start in range(0, max(rows, 1), step):
            yield Slice(view=view, of_entities=False, start=start, rows=step)
        for start in range(0, plan.entity_rows, plan.slice_rows):
            yield Slice(view=view, of_entities=True, start=start, rows=plan.slice_rows)


def splits(plan: Plan, scattered: Sequence[Scattered]) -> list[Split]:
    """Which batches are to be cut, and where: those of parts with more feature rows than are joined at once."""
    found = []
    for view, limit in enumerate(plan.view_rows):
        files = _files(scattered, view, of_entities=False)
        for part in range(plan.parts[view]):
            rows = sum(file.counts[part] for file in files)
            cuts = _cuts([file.samples[part] for file in files], -(-rows // limit))
            if cuts:
                found += [Split(view=view, part=part, path=f.path, cuts=cuts) for f in files if f.counts[part]]
    return found


def pieces(plan: Plan, scattered: Sequence[Scattered], cut: Sequence[Split]) -> Iterator[Piece]:
    """What is to be joined: every part that entity rows ask for, span by span, some `slice_rows` of them at once."""
    for view in range(len(plan.views)):
        rows = _files(scattered, view, of_entities=False)
        asks = _files(scattered, view, of_entities=True)
        for part in range(plan.parts[view]):
            mine = [work for work in cut if (work.view, work.part) == (view, part)]
            whole = tuple(file.path for file in rows if file.counts[part]) or (rows[0].path,)
            sources = tuple(work.target for work in mine) or whole
            cuts = mine[0].cuts if mine else ()
            for entities in _runs(asks, part, plan.slice_rows):
                for span in range(len(cuts) + 1):
                    yield Piece(view=view, part=part, entities=entities, rows=sources, cuts=cuts, span=span)


def _height(frame: pl.LazyFrame) -> int:
    return int(frame.select(pl.len()).collect().item())


def _rows_within(memory: int, frame: pl.LazyFrame) -> int:
    return max(int(memory / _working_width(frame)), 1)


def _working_width(frame: pl.LazyFrame) -> float:
    few = frame.head(_SAMPLED).collect()
    return _COPIES * (few.estimated_size() / max(few.height, 1) + _WORKING)


def _files(scattered: Sequence[Scattered], view: int, *, of_entities: bool) -> list[Scattered]:
    mine = [file for file in scattered if file.work.view == view and file.work.of_entities == of_entities]
    return sorted(mine, key=lambda file: file.work.start)


def _cuts(samples: Sequence[Sequence[int]], spans: int) -> tuple[int, ...]:
    sample = np.sort(np.array([instant for one in samples for instant in one], dtype=np.int64))
    if spans < 2 or not sample.size:
        return ()
    at = np.unique(sample[np.arange(1, spans) * sample.size // spans])
    return tuple(int(instant) for instant in at if instant > sample[0])


def _runs(files: Sequence[Scattered], part: int, most: int) -> Iterator[tuple[Path, ...]]:
    run: list[Path] = []
    rows = 0
    for file in files:
        if run and rows + file.counts[part] > most:
            yield tuple(run)
            run, rows = [], 0
        if file.counts[part]:
            run.append(file.path)
            rows += file.counts[part]
    if run:
        yield tuple(run)
