"""Rows that must be gone from a Delta table, its history included.

Deleting in Delta Lake hides rows: older Parquet files keep them for time travel, and the log keeps the smallest and
largest value of every column of every file ever written. So an erasure deletes, vacuums every file the newest version
does not read, writes a checkpoint, and removes the log before it. Earlier versions are gone after that; version
numbers go on rising. Each step may be repeated: a kill in between loses nothing and a second call finishes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from rolecall.platform.errors import ConflictError, NotFoundError
from rolecall.platform.file_tree import FileTree
from rolecall.platform.tables import TableSchema, TableStore

LOG = "_delta_log"
_VERSION_DIGITS = 20

Test = Callable[[str], bool]


def table_names(store: TableStore) -> list[str]:
    """Every Delta table below the store's URI, whoever wrote it."""
    tree = FileTree(store.uri, store.options)
    return [name for name in tree.folders() if tree.files(f"{name}/{LOG}")]


def column_names(store: TableStore, name: str) -> list[str]:
    """The columns of a table as stored; none where it does not exist."""
    table = _open(store, name)
    return [] if table is None else [field.name for field in table.schema().fields]


def erase_rows(store: TableStore, name: str, column: str, values: Sequence[str]) -> int:
    """Delete the rows whose `column` is one of `values`. Returns how many; the history still has them.

    By a merge, because a delete's own log entry would quote the values. Raises ConflictError beside another writer.
    """
    table = _open(store, name)
    if table is None or not values:
        return 0
    found = pa.table({column: pa.array(list(dict.fromkeys(values)), pa.string())})
    try:
        done = (
            table.merge(found, f"target.{column} = source.{column}", source_alias="source", target_alias="target")
            .when_matched_delete()
            .execute()
        )
    except CommitFailedError as error:
        raise ConflictError(f"another writer committed to {name} at the same time", todo="run it again") from error
    return int(done["num_target_rows_deleted"])


def erase_before(store: TableStore, name: str, column: str, instant: datetime) -> int:
    """Delete the rows whose `column` is earlier than an instant. Returns how many; the history still has them."""
    table = _open(store, name)
    if table is None:
        return 0
    try:
        done = table.delete(f"{column} < '{instant.astimezone(UTC).isoformat()}'")
    except CommitFailedError as error:
        raise ConflictError(f"another writer committed to {name} at the same time", todo="run it again") from error
    return int(done["num_deleted_rows"] or 0)


def erase_history(store: TableStore, name: str) -> int:
    """Leave the newest version alone, in files and in the log. Returns how many files went."""
    table = _open(store, name)
    if table is None:
        return 0
    gone = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    table = DeltaTable(store.path(name), storage_options=store.options or None)
    table.create_checkpoint()
    tree, newest = FileTree(store.path(name), store.options), table.version()
    old = [file for file in tree.files(LOG) if (version := _version(file)) is not None and version < newest]
    for file in old:
        tree.delete(file)
    return len(gone) + len(old)


def history_holds(store: TableStore, name: str, column: str, theirs: Test, named: Test) -> int:
    """How many files of earlier versions have a value of `column` that is `theirs`, and files of the log a text in
    which they are `named`."""
    table = _open(store, name)
    if table is None:
        return 0
    tree = FileTree(store.path(name), store.options)
    live = {uri.rpartition("/")[2] for uri in table.file_uris()}
    held = 0
    for file in tree.files():
        if file.startswith(LOG):
            held += named(_log_text(file, tree.read(file)))
        elif file.endswith(".parquet") and file.rpartition("/")[2] not in live:
            held += any(theirs(value) for value in _values(tree.read(file), column))
    return held


def scan_rows(store: TableStore, name: str, version: int | None = None) -> pl.LazyFrame:
    """The rows of one version (default: newest) with the columns they are stored with; the table exists.

    Raises NotFoundError for a version that is gone or never was.
    """
    table = _open(store, name)
    if table is None:
        raise NotFoundError(f"table {name} does not exist", ", ".join(table_names(store)))
    columns = pa.schema(table.schema().to_arrow())
    kept = oldest_version(store, name) or 0
    if version is not None and not kept <= version <= table.version():
        raise NotFoundError(f"table {name} has no version {version}", f"{kept} to {table.version()}")
    return store.scan(TableSchema(name=name, columns=columns, key=(), required=(), time=""), version=version)


def oldest_version(store: TableStore, name: str) -> int | None:
    """The first version that can still be read; None where the table does not exist."""
    files = FileTree(store.path(name), store.options).files(LOG)
    versions = [version for file in files if (version := _version(file)) is not None]
    return min(versions, default=None)


def _open(store: TableStore, name: str) -> DeltaTable | None:
    try:
        return DeltaTable(store.path(name), storage_options=store.options or None)
    except TableNotFoundError:
        return None


def _version(file: str) -> int | None:
    digits = file.rpartition("/")[2][:_VERSION_DIGITS]
    return int(digits) if digits.isdigit() and len(digits) == _VERSION_DIGITS else None


def _values(parquet: bytes, column: str) -> set[str]:
    held = pq.ParquetFile(io.BytesIO(parquet))
    if column not in held.schema_arrow.names:
        return set()
    return {value for value in held.read(columns=[column], use_threads=False)[column].to_pylist() if value is not None}


def _log_text(file: str, content: bytes) -> str:
    if file.endswith(".parquet"):
        return str(pq.read_table(io.BytesIO(content), use_threads=False).to_pylist())
    return content.decode("utf-8", "replace")
