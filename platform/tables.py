"""Delta Lake tables on a path or an object-store URI: atomic commits, versions to reproduce a run from.

store = TableStore("/data/tables")
store.upsert(JOBS, rows).version        # new and changed rows in one commit; nothing when all are known
store.replace_day(EVENTS, day, rows)    # that day's rows and no others, in one commit
store.read(JOBS, version=3)             # the table as it was
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from rolecall.platform.errors import ConflictError, InputError, NotFoundError, SchemaError


@dataclass(frozen=True, kw_only=True)
class TableSchema:
    """A table's name, Arrow columns, primary key, columns that may not be null, and the column that dates a row."""

    name: str
    columns: pa.Schema
    key: tuple[str, ...]
    required: tuple[str, ...]
    time: str


@dataclass(frozen=True, kw_only=True)
class UpsertResult:
    """What an upsert did. `version` is the table's version afterwards, also when nothing was written."""

    version: int
    inserted: int
    updated: int
    unchanged: int


class TableStore:
    """All tables below one URI. Holds no open file: safe to pickle and to share between processes."""

    def __init__(self, uri: str, options: Mapping[str, str] | None = None) -> None:
        self.uri = uri.rstrip("/")
        self.options = dict(options or {})

    def path(self, name: str) -> str:
        return f"{self.uri}/{name}"

    def version(self, name: str) -> int | None:
        """Newest version, or None where the table does not exist yet."""
        table = self._open(name)
        return None if table is None else table.version()

    def read(
        self, schema: TableSchema, *, version: int | None = None, columns: Sequence[str] | None = None
    ) -> pa.Table:
        """Rows of one version (default: newest) in the schema's column order; empty where the table does not exist.

        Raises NotFoundError if a version is asked for that does not exist.
        """
        wanted = list(columns) if columns is not None else schema.columns.names
        shape = pa.schema([schema.columns.field(name) for name in wanted])
        # Not DeltaTable.to_pyarrow_table: its threads abort about one short process in three at exit.
        return self.scan(schema, version=version).select(wanted).collect().to_arrow().cast(shape)

    def scan(self, schema: TableSchema, *, version: int | None = None) -> pl.LazyFrame:
        """A lazy Polars frame over one version; empty where the table does not exist.

        Columns the schema gained since the table was written are null.
        """
        table = self._open(schema.name, version)
        if table is None:
            return pl.LazyFrame(pl.from_arrow(schema.columns.empty_table()))
        if table.table_uri.startswith("file://") and "%" in table.table_uri:
            return _scan_files(table, schema)
        stored = pl.scan_delta(self.path(schema.name), version=version, storage_options=self.options or None)
        return _evolved(schema, stored)

    def upsert(self, schema: TableSchema, rows: pa.Table, *, replace: bool = True) -> UpsertResult:
        """Insert new keys and replace changed rows in one commit; writing known rows again changes nothing.

        Without `replace` a known key keeps the row it has. `rows` must hold each key once. Raises SchemaError on wrong
        columns, InputError on a repeated key, ConflictError when another writer committed to the same rows at the
        same time.
        """
        rows = _conform(schema, rows)
        fresh, changed, unchanged = self._compare(schema, rows)
        if not replace:
            changed, unchanged = changed.slice(0, 0), rows.num_rows - fresh.num_rows
        write = pa.concat_tables([fresh, changed])
        if write.num_rows:
            self._merge(schema, write) if self.version(schema.name) is not None else self._append(schema, write)
        version = self.version(schema.name)
        if version is None:
            self._append(schema, write)
            version = 0
        return UpsertResult(version=version, inserted=fresh.num_rows, updated=changed.num_rows, unchanged=unchanged)

    def replace_day(self, schema: TableSchema, day: date, rows: pa.Table) -> int:
        """Make `rows` the whole content of one UTC day in one commit. Returns the new version.

        Raises InputError where a row's time lies outside the day.
        """
        rows = _conform(schema, rows)
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        end = start + timedelta(days=1)
        outside = pl.DataFrame(rows.select([schema.time])).filter(~pl.col(schema.time).is_between(start, end, "left"))
        if outside.height:
            raise InputError(
                f"{outside.height} rows of {schema.name} outside {day}, first {outside.item(0, 0)}",
                f"{schema.time} from {start} up to {end}",
                "replace each day with its own rows",
            )
        inside = f"{schema.time} >= '{start.isoformat()}' AND {schema.time} < '{end.isoformat()}'"
        return self._overwrite(schema, rows, inside)

    def replace(self, schema: TableSchema, rows: pa.Table) -> int:
        """Make `rows` the whole table in one commit. Returns the new version."""
        return self._overwrite(schema, _conform(schema, rows), None)

    def _open(self, name: str, version: int | None = None) -> DeltaTable | None:
        try:
            table = DeltaTable(self.path(name), storage_options=self.options or None)
        except TableNotFoundError:
            if version is not None:
                raise NotFoundError(f"table {name} has no version {version}: it does not exist") from None
            return None
        if version is not None:
            newest = table.version()
            if not 0 <= version <= newest:
                raise NotFoundError(f"table {name} has no version {version}", f"0 to {newest}")
            table.load_as_version(version)
        return table

    def _compare(self, schema: TableSchema, rows: pa.Table) -> tuple[pa.Table, pa.Table, int]:
        source = pl.DataFrame(rows)
        key = list(schema.key)
        if source.select(key).is_duplicated().any():
            raise InputError(f"a key of {schema.name} occurs twice in one write", f"unique {key}", "deduplicate first")
        stored = self.scan(schema).join(source.lazy().select(key), on=key, how="semi").collect()
        fresh = source.join(stored, on=key, how="anti", maintain_order="left")
        known = source.join(stored, on=key, how="semi", maintain_order="left")
        same = known.with_columns(_fingerprint(known)).join(
            stored.select(source.columns).with_columns(_fingerprint(stored)).select([*key, "fingerprint"]),
            on=[*key, "fingerprint"],
            how="semi",
        )
        changed = known.join(same, on=key, how="anti", maintain_order="left")
        return _arrow(fresh, schema), _arrow(changed, schema), same.height

    def _append(self, schema: TableSchema, rows: pa.Table) -> None:
        write_deltalake(
            self.path(schema.name), rows, mode="append", schema_mode=None, storage_options=self.options or None
        )

    def _merge(self, schema: TableSchema, rows: pa.Table) -> None:
        table = self._open(schema.name)
        if table is None:
            raise NotFoundError(f"table {schema.name} vanished during a write")
        on = " AND ".join(f"target.{k} = source.{k}" for k in schema.key)
        try:
            (
                table.merge(rows, predicate=on, source_alias="source", target_alias="target", merge_schema=True)
                .when_matched_update_all()
                .when_not_matched_insert_all()
                .execute()
            )
        except CommitFailedError as error:
            raise ConflictError(
                f"another writer committed to {schema.name} at the same time", todo="run the write again"
            ) from error

    def _overwrite(self, schema: TableSchema, rows: pa.Table, predicate: str | None) -> int:
        exists = self.version(schema.name) is not None
        write_deltalake(
            self.path(schema.name),
            rows,
            mode="overwrite",
            schema_mode="merge",
            predicate=predicate if exists else None,
            storage_options=self.options or None,
        )
        version = self.version(schema.name)
        if version is None:
            raise NotFoundError(f"table {schema.name} vanished during a write")
        return version


def _scan_files(table: DeltaTable, schema: TableSchema) -> pl.LazyFrame:
    """A local table whose path a URI writes in another way (a space, an umlaut): `scan_delta` looks for `my%20home`."""
    files = [unquote(uri) for uri in table.file_uris()]
    if not files:
        return pl.LazyFrame(pl.from_arrow(schema.columns.empty_table()))
    return pl.scan_parquet(files, glob=False, schema=_shape(schema), missing_columns="insert", extra_columns="ignore")


def _evolved(schema: TableSchema, stored: pl.LazyFrame) -> pl.LazyFrame:
    """A table written under an older schema, with the columns it lacks."""
    present = stored.collect_schema().names()
    missing = [pl.lit(None, dtype=kind).alias(name) for name, kind in _shape(schema).items() if name not in present]
    return stored.with_columns(missing).select(schema.columns.names) if missing else stored


def _shape(schema: TableSchema) -> pl.Schema:
    return pl.DataFrame(schema.columns.empty_table()).schema


def _conform(schema: TableSchema, rows: pa.Table) -> pa.Table:
    missing = [name for name in schema.columns.names if name not in rows.column_names]
    unknown = [name for name in rows.column_names if name not in schema.columns.names]
    if missing or unknown:
        raise SchemaError(
            f"{schema.name} rows lack {missing} and have unknown {unknown}",
            f"{schema.columns.names}",
            "map the columns",
        )
    try:
        rows = rows.select(schema.columns.names).cast(schema.columns)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(f"{schema.name}: {error}", str(schema.columns), "convert the values first") from error
    empty = [name for name in schema.required if rows[name].null_count]
    if empty:
        raise SchemaError(f"{schema.name} rows have nulls in {empty}", "a value in each", "quarantine such rows")
    return rows


def _fingerprint(frame: pl.DataFrame) -> pl.Series:
    """One text a row that is equal exactly when the rows are."""
    return frame.select(pl.struct(frame.columns).struct.json_encode().alias("fingerprint")).to_series()


def _arrow(frame: pl.DataFrame, schema: TableSchema) -> pa.Table:
    return frame.select(schema.columns.names).to_arrow().cast(schema.columns)
