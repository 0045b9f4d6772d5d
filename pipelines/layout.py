"""Which files of a source belong to which section of a mapping, checked before a row is read.

A file that lacks mapped columns, or has columns that a strict section does not know, is refused whole: all
such reasons of all files are found first and the first ten are told.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import polars as pl

from rolecall.features.mapping import JoinSpec, Mapping, TableSpec
from rolecall.features.validation import RESERVED
from rolecall.features.values import as_text
from rolecall.pipelines.sources import KINDS, SourceFile, labelled
from rolecall.platform.errors import InputError, SchemaError

_JSON = (".jsonl", ".ndjson")
_SHOWN_REASONS = 10


@dataclass(frozen=True, kw_only=True)
class Join:
    """A second file of a section and how it is joined."""

    spec: JoinSpec
    file: SourceFile


@dataclass(frozen=True, kw_only=True)
class Section:
    """A section of the mapping with the files found for it."""

    spec: TableSpec
    files: tuple[SourceFile, ...]
    joins: tuple[Join, ...]


@dataclass(frozen=True, kw_only=True)
class Lookup:
    """A joined file in memory: one row a key, columns named `name.column`."""

    on: dict[str, str]
    rows: pl.DataFrame

    def add_to(self, rows: pl.DataFrame) -> pl.DataFrame:
        """`rows` with the second file's columns; null where it has no such key."""
        absent = pl.Series([None] * rows.height, dtype=pl.String)
        given = [as_text(rows[left]) if left in rows.columns else absent for left in self.on]
        keys = {f"__on_{at}": key for at, key in enumerate(given)}
        wide = rows.with_columns(series.alias(name) for name, series in keys.items())
        return wide.join(self.rows, on=list(keys), how="left", maintain_order="left").drop(*keys)


def plan(source: Path, mapping: Mapping) -> tuple[Section, ...]:
    """The sections that have files. Raises InputError where there is none, SchemaError where files do not fit."""
    if not source.exists():
        raise InputError(f"{source} does not exist", "a folder or a file", "correct the path")
    folder = source if source.is_dir() else source.parent
    found = [(spec, _files(source, spec)) for spec in mapping.table]
    if not any(files for _, files in found):
        patterns = sorted({pattern for spec in mapping.table for pattern in spec.files})
        raise InputError(
            f"nothing in {source} belongs to mapping {mapping.name}",
            f"files {', '.join(patterns)}",
            "name another mapping",
        )
    absent = [s.target for s, files in found if not files and not s.optional]
    if source.is_dir() and absent:
        patterns = [p for s, files in found if not files and not s.optional for p in s.files]
        raise InputError(f"{source} has no file for {', '.join(absent)}", f"files {', '.join(patterns)}", "add them")
    sections = tuple(_section(folder, spec, files) for spec, files in found if files)
    reasons = [reason for section in sections for reason in _reasons(section)]
    if reasons:
        shown = "; ".join(reasons[:_SHOWN_REASONS])
        raise SchemaError(
            f"mapping {mapping.name} does not fit, {len(reasons)} reasons: {shown}",
            "the mapped columns",
            "correct the files, or the mapping (`optional = true` for a column that may be absent)",
        )
    return sections


def joined(join: Join) -> Lookup:
    """Read a second file. Rows of it that cannot be read, or have no key, join nothing."""
    rows = pl.concat([chunk.rows for chunk in join.file.chunks()], how="diagonal_relaxed").drop(RESERVED)
    keys = [as_text(rows[right]).alias(f"__on_{at}") for at, right in enumerate(join.spec.on.values())]
    names = [key.name for key in keys]
    wide = rows.rename(lambda name: f"{join.spec.name}.{name}").with_columns(keys).drop_nulls(names)
    values = pl.all().exclude(names)
    taken = {"first": values.first(), "last": values.last(), "list": values.drop_nulls()}[join.spec.take]
    return Lookup(on=join.spec.on, rows=wide.group_by(names, maintain_order=True).agg(taken))


def _files(source: Path, spec: TableSpec) -> list[Path]:
    candidates = sorted(source.iterdir()) if source.is_dir() else [source]
    matching = [p for p in candidates if p.is_file() and any(fnmatch(p.name, pattern) for pattern in spec.files)]
    wrong = [p.name for p in matching if not any(p.name.removesuffix(".gz").endswith(kind) for kind in KINDS)]
    if wrong:
        raise InputError(f"files {wrong} of {source}", f"files that end in {', '.join(KINDS)}, the texts also .gz")
    return matching


def _section(folder: Path, spec: TableSpec, files: list[Path]) -> Section:
    absent = [join.file for join in spec.join if not (folder / join.file).is_file()]
    if absent:
        raise InputError(f"{folder} lacks the joined files {absent}", "a file in the same folder", "add them")
    joins = tuple(Join(spec=join, file=labelled(folder / join.file, spec)) for join in spec.join)
    return Section(spec=spec, files=tuple(labelled(path, spec) for path in files), joins=joins)


def _reasons(section: Section) -> list[str]:
    """Why the files of a section do not fit it."""
    joined_columns = {f"{j.spec.name}.{name}" for j in section.joins for name in j.file.columns()}
    present = [(file, set(file.columns())) for file in section.files]
    reasons = []
    if section.spec.fold:
        # Files that are folded together complete one another: only the fold columns must be in each.
        everything = set().union(*(columns for _, columns in present))
        reasons += _missing(section.spec, section.files[0], everything | joined_columns)
        reasons += [
            f"{file.path.name} has no column {name}"
            for file, columns in present
            for name in section.spec.fold
            if name not in columns
        ]
    else:
        for file, columns in present:
            reasons += _missing(section.spec, file, columns | joined_columns)
    return reasons + _unknown(section, present) + _join_reasons(section, present)


def _missing(spec: TableSpec, file: SourceFile, columns: set[str]) -> list[str]:
    """JSON Lines leave out what is null: there only what the table requires must be seen."""
    lenient = file.kind in _JSON
    wanted = [
        name
        for target, column in spec.resolved().items()
        if not column.optional and not (lenient and target not in spec.schema_.required)
        for name in column.sources
    ]
    wanted += [] if lenient else spec.row_columns
    return [f"{file.path.name} has no column {name}" for name in dict.fromkeys(wanted) if name not in columns]


def _unknown(section: Section, present: list[tuple[SourceFile, set[str]]]) -> list[str]:
    if section.spec.unknown == "ignore":
        return []
    known = {name for column in section.spec.resolved().values() for name in column.sources}
    known |= set(section.spec.row_columns)
    return [
        f"{file.path.name} has the unknown column {name}"
        for file, columns in present
        for name in sorted(columns - known)
    ]


def _join_reasons(section: Section, present: list[tuple[SourceFile, set[str]]]) -> list[str]:
    reasons = []
    for join in section.joins:
        second = set(join.file.columns())
        reasons += [f"{join.file.path.name} has no column {n}" for n in join.spec.on.values() if n not in second]
        reasons += [
            f"{file.path.name} has no column {n}" for file, columns in present for n in join.spec.on if n not in columns
        ]
    return reasons
