"""The rows of a Feast data source as a lazy frame: only the columns and row groups that are asked for are read."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TypeAlias

import polars as pl
from feast import FileSource
from feast.data_format import DeltaFormat, ParquetFormat
from feast.data_source import DataSource

from rolecall.features.asof.delta_source import DeltaSource, open_delta
from rolecall.features.asof.folders import differences, hive_types, parquet_files
from rolecall.features.asof.place import Place, SourceError, place_of
from rolecall.features.asof.writing import recover

TableSource: TypeAlias = FileSource | DeltaSource
"""What this store reads and writes."""


def table_source(source: DataSource | None, of: str) -> TableSource:
    """The source, where it is one of ours. Raises SourceError otherwise; `of` names whose source it is."""
    if isinstance(source, DeltaSource):
        return source
    if isinstance(source, FileSource) and isinstance(source.file_format, DeltaFormat | ParquetFormat | None):
        return source
    kind = type(getattr(source, "file_format", None) if isinstance(source, FileSource) else source).__name__
    raise SourceError(
        f"{of} has a source of type {kind}: this store reads FileSource (Parquet or Delta) and DeltaSource; "
        "give it one of them"
    )


def is_delta(source: TableSource) -> bool:
    return isinstance(source, DeltaSource) or isinstance(source.file_format, DeltaFormat)


def source_place(source: TableSource, repo: Path | str | None) -> Place:
    """Where the rows lie; a relative path counts from the repository."""
    if isinstance(source, DeltaSource):
        return source.place(repo)
    return place_of(source.path, repo, endpoint=source.s3_endpoint_override, credentials=source.resolve_credentials())


def scan(
    source: TableSource, repo: Path | str | None, texts: Collection[str] = (), *, held: bool = True
) -> pl.LazyFrame:
    """Every row, under the column names of the files. `texts`: columns that are text though folders (`user=007`) name
    their values. `held`: hold a local file open, so that one replaced while it is read is read as it was; else the scan
    may be sent to other processes.

    Raises SourceError where nothing is there, or a pinned version is not.
    """
    place = source_place(source, repo)
    if is_delta(source):
        return _scan_delta(place, source.version if isinstance(source, DeltaSource) else None)
    return _scan_parquet(place, texts, held)


@contextlib.contextmanager
def reading(sources: Collection[TableSource], repo: Path | str | None) -> Iterator[None]:
    """Raises SourceError, and says which files differ, where the rows of sources turn out not to be readable."""
    try:
        yield
    except pl.exceptions.PolarsError as error:
        for source in sources:
            if differing := _differing(source, repo):
                why = f"its files differ: {differing}; write them anew with the same columns"
                raise SourceError(f"{source.path} cannot be read: {why}") from error
        names = ", ".join(source.path for source in sources)
        raise SourceError(f"{names} cannot be read: {error}; check the files") from error


def _differing(source: TableSource, repo: Path | str | None) -> str:
    place = source_place(source, repo)
    if is_delta(source) or place.is_glob or not place.is_folder():
        return ""
    return differences(place, list(parquet_files(place)))


def columns_of(frame: pl.LazyFrame, source: TableSource) -> list[str]:
    """Column names. Raises SourceError where files are not readable as what they should be."""
    try:
        return frame.collect_schema().names()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"{source.path} cannot be read: {error}; check the path and the file format") from error


def mapped(frame: pl.LazyFrame, mapping: Mapping[str, str], names: list[str], source: TableSource) -> pl.LazyFrame:
    """Columns under the names that the mapping gives them (file column -> feature name).

    Raises SourceError where a new name is a column already.
    """
    renames = {old: new for old, new in mapping.items() if old in names and old != new}
    taken = sorted(new for new in renames.values() if new in names and new not in renames)
    if taken:
        raise SourceError(
            f"the field mapping of {source.path} gives the name {', '.join(taken)}, which is a column of it already; "
            "map to a new name, or drop the column"
        )
    return frame.rename(renames)


def _scan_parquet(place: Place, texts: Collection[str], held: bool) -> pl.LazyFrame:
    uri, hive = place.uri, None
    if not place.is_glob:
        recover(place)
        uri = _checked(place)
        if held and place.local and not place.is_folder():
            return pl.scan_parquet(place.path.open("rb"))
        if place.is_folder():
            hive = hive_types(list(parquet_files(place)), texts) or None
    return pl.scan_parquet(
        uri,
        hive_schema=hive,
        glob=place.is_glob or not place.local,
        hidden_file_prefix=[".", "_"],
        storage_options=_polars_options(place),
    )


def _checked(place: Place) -> str:
    """The address as Polars wants it: a folder on an object store ends in a slash."""
    if not place.exists():
        raise SourceError(f"no file or folder at {place.uri}; write the source first, or correct its path")
    if not place.is_folder():
        return place.uri
    if place.local and not any(place.path.rglob("*.parquet")):
        raise SourceError(f"{place.uri} holds no Parquet file; write one first: an empty folder has no columns")
    return place.uri if place.local else f"{place.uri.rstrip('/')}/"


def _scan_delta(place: Place, version: int | None) -> pl.LazyFrame:
    table = open_delta(place, version)
    if place.local and any("%" in uri for uri in table.file_uris()):
        # Polars looks for `my%20home` where a path holds a space or an umlaut; pyarrow does not
        return pl.scan_pyarrow_dataset(table.to_pyarrow_dataset())
    return pl.scan_delta(table, storage_options=_polars_options(place))


def _polars_options(place: Place) -> dict[str, str] | None:
    return {name.lower(): value for name, value in place.options.items()} or None
