"""Writing feature rows so that a reader, or a machine that stops, never meets half of them.

Locally a file is written beside its place and renamed into it, and writers of one place wait for each other. What takes
several renames (a folder in another's place, files of several partitions) is finished, or taken back, by whoever opens
the folder next after a writer was killed (`recover`). On an object store an object appears whole or not at all. A Delta
table has commits of its own.

    .NAME-ID           being written; nobody reads it, and what a killed writer left of it may be deleted
    .NAME.adding-ID    written whole: its files are on their way into the folder NAME
    .NAME.old          the folder NAME, out of the way of another that takes its place
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from deltalake import write_deltalake
from pyarrow import fs

from rolecall.features.asof.delta_source import delta_schema, open_delta
from rolecall.features.asof.place import Place, SourceError


def append_delta(place: Place, rows: pa.Table) -> None:
    """One commit with more rows, in the table's column types. Raises SourceError where they do not fit."""
    schema = delta_schema(open_delta(place))
    write_deltalake(place.uri, fitted(rows, schema, place), mode="append", storage_options=dict(place.options) or None)


def replace_delta(place: Place, rows: pa.Table) -> None:
    """One commit that makes `rows` the whole table."""
    options = dict(place.options) or None
    write_deltalake(place.uri, rows, mode="overwrite", schema_mode="overwrite", storage_options=options)


def append_parquet(place: Place, rows: pa.Table) -> None:
    """More rows: a file is rewritten with them, a folder gets a file more.

    Raises SourceError for a pattern, and where the rows do not fit the columns that are there.
    """
    if place.is_glob:
        raise SourceError(f"{place.uri} names files to read; to write, give the source a file or a folder")
    system, path = place.filesystem()
    if place.is_folder():
        found = ds.dataset(path, filesystem=system, format="parquet", partitioning="hive")
        stored = next(found.get_fragments()).physical_schema.names
        layout = [name for name in found.schema.names if name not in stored]
        kinds = [rows.schema.field(one.name) if one.name in layout else one for one in found.schema]
        add_files(place, fitted(rows, pa.schema(kinds), place), layout)  # a folder named user=007 is no number
        return
    with _one_writer(place):
        before = pq.ParquetFile(path, filesystem=system).read()
        _write_file(place, pa.concat_tables([before, fitted(rows, before.schema, place)]))


def replace_parquet(place: Place, rows: pa.Table) -> None:
    """Make `rows` the whole content of a file (`*.parquet`) or of a folder."""
    if place.uri.endswith(".parquet"):
        _write_file(place, rows)
    elif place.local:
        _swap_folder(place.path, rows)
    else:
        kept = {address.rpartition("/")[2] for address in add_files(place, rows)}
        system, path = place.filesystem()
        for info in system.get_file_info(fs.FileSelector(path, recursive=True)):
            if info.type == fs.FileType.File and info.base_name not in kept:
                system.delete_file(info.path)


def add_files(place: Place, rows: pa.Table, partition_by: Sequence[str] = ()) -> list[str]:
    """Put Parquet files with `rows` into a folder, below `column=value` folders where asked. Their addresses."""
    system, path = place.filesystem()
    if not place.local:
        return [f"{place.uri.split('://')[0]}://{name}" for name in _write_files(system, path, rows, partition_by)]
    folder = place.path
    folder.mkdir(parents=True, exist_ok=True)
    beside, whole = _beside(folder), folder.parent / f".{folder.name}.adding-{uuid4().hex}"
    try:
        names = [Path(name).relative_to(beside) for name in _write_files(system, str(beside), rows, partition_by)]
        with _one_writer(place):
            _finish(folder)
            beside.replace(whole)  # from here on a killed writer's files are moved by the next who opens the folder
            try:
                return [str(target) for target in _moved(names, whole, folder)]
            except BaseException:
                whole.replace(beside)
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def recover(place: Place) -> None:
    """Finish, or take back, what a killed writer left half done of a local file or folder; a living one is waited for.

    Looks at names alone where there is nothing to do.
    """
    if place.local and _unfinished(place.path):
        with _one_writer(place):
            _finish(place.path)


def _unfinished(folder: Path) -> bool:
    return _old(folder).exists() or any(_adding(folder))


def _finish(folder: Path) -> None:
    if _old(folder).exists() and not folder.exists():
        _old(folder).replace(folder)
    shutil.rmtree(_old(folder), ignore_errors=True)
    for whole in _adding(folder):
        folder.mkdir(exist_ok=True)
        _moved([name.relative_to(whole) for name in sorted(whole.rglob("*.parquet"))], whole, folder)


def _adding(folder: Path) -> list[Path]:
    """Folders of files on their way into this one."""
    prefix = f".{folder.name}.adding-"
    return (
        sorted(one for one in folder.parent.iterdir() if one.name.startswith(prefix)) if folder.parent.exists() else []
    )


def _old(folder: Path) -> Path:
    return folder.parent / f".{folder.name}.old"


def _beside(place: Path) -> Path:
    return place.parent / f".{place.name}-{uuid4().hex}"


def _moved(names: Sequence[Path], whole: Path, folder: Path) -> list[Path]:
    """All files into the folder, and `whole` away; none of them where one cannot be moved."""
    targets: list[Path] = []
    try:
        for name in names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (whole / name).replace(folder / name)
            targets.append(folder / name)
    except BaseException:
        for target in targets:
            target.replace(whole / target.relative_to(folder))
        raise
    shutil.rmtree(whole, ignore_errors=True)
    return targets


def fitted(rows: pa.Table, schema: pa.Schema, place: Place) -> pa.Table:
    """The rows in the column types of what is there already. Raises SourceError where they do not fit."""
    try:
        return rows.select(schema.names).cast(pa.schema(list(schema)))
    except (KeyError, pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SourceError(
            f"rows of {_shape(rows.schema)} do not fit {place.uri}, which holds {_shape(schema)}: {error}"
        ) from error


def _shape(schema: pa.Schema) -> str:
    return ", ".join(f"{column.name} {column.type}" for column in schema)


def _write_files(system: fs.FileSystem, path: str, rows: pa.Table, partition_by: Sequence[str]) -> list[str]:
    kinds = pa.schema([rows.schema.field(name) for name in partition_by])
    written: list[str] = []
    ds.write_dataset(
        rows,
        path,
        filesystem=system,
        format="parquet",
        basename_template=f"{uuid4().hex}-{{i}}.parquet",
        partitioning=ds.partitioning(kinds, flavor="hive") if partition_by else None,
        existing_data_behavior="overwrite_or_ignore",
        max_partitions=max(rows.num_rows, 1),
        file_visitor=lambda file: written.append(file.path),
    )
    return written


def _write_file(place: Place, rows: pa.Table) -> None:
    system, path = place.filesystem()
    if not place.local:
        pq.write_table(rows, path, filesystem=system)
        return
    place.path.parent.mkdir(parents=True, exist_ok=True)
    beside = _beside(place.path)
    try:
        pq.write_table(rows, beside)
        beside.replace(place.path)
    finally:
        beside.unlink(missing_ok=True)


def _swap_folder(folder: Path, rows: pa.Table) -> None:
    """The new folder takes the old one's place by two renames, so what is there is always whole; a reader who comes
    between them waits, and after a kill between them puts the old one back."""
    new, old = _beside(folder), _old(folder)
    try:
        add_files(Place(uri=str(new)), rows)
        with _one_writer(Place(uri=str(folder))):
            _finish(folder)
            if folder.exists():
                folder.replace(old)
            try:
                new.replace(folder)
            finally:
                _finish(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def _one_writer(place: Place) -> Iterator[None]:
    """Read, append, rename: by one process or thread at a time, as far as one machine goes."""
    if not place.local:
        yield
        return
    handle = os.open(place.path.parent, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
