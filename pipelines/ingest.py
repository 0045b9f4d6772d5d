"""`rolecall ingest`: a folder (or one file) and a mapping become rows of the tables.

    report = ingest(Path("exports"), load_mapping("sjr"), store)
    for line in report.lines(): ...

For every section accepted + duplicate + quarantined = rows read. *Accepted* rows made a row of the table new or
different; *duplicate* ones say what the table or a later row already says (of one key the latest time wins, of equal
times the last row); *quarantined* ones are refused with a reason. So ingesting a file again accepts nothing.
A file without the mapped columns is refused whole, before anything is written. Each table is written in one commit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import polars as pl

from rolecall.features.columns import MEMBERS, POSITION, fold_rows, map_rows
from rolecall.features.gazetteer import gazetteer
from rolecall.features.mapping import Mapping
from rolecall.features.quarantine import keep, no_rows, refused_rows, unread_rows
from rolecall.features.validation import MESSAGE, REASON, ROW, as_table, newest
from rolecall.features.values import as_text
from rolecall.pipelines.door import Door
from rolecall.pipelines.layout import Section, joined, plan
from rolecall.pipelines.sources import CHUNK_ROWS, Broken, Chunk, SourceFile
from rolecall.platform.forgotten import ForgottenPeople
from rolecall.platform.tables import TableSchema, TableStore

Progress = Callable[[str, int], None]
Publish = Callable[[TableSchema, pl.DataFrame], None]
"""Given of each table the rows that are new or different, just before they go in: where it fails or is killed nothing
is in the table, and ingesting again gives them again."""
SHOWN_REFUSALS = 1000
_SOURCE = "__source"


@dataclass(frozen=True, kw_only=True)
class TableReport:
    """One section of the mapping. `refused`: the quarantine rows; `version`: the table's version afterwards;
    `forgotten`: rows of people who asked to be forgotten, which count as not read."""

    table: str
    files: tuple[str, ...]
    rows_read: int
    accepted: int
    duplicate: int
    quarantined: int
    passed_over: int
    forgotten: int
    inserted: int
    updated: int
    version: int
    refused: pl.DataFrame = field(repr=False)

    def as_dict(self) -> dict[str, object]:
        """For `--json`; the refused rows without their text."""
        shown: dict[str, object] = {name: value for name, value in vars(self).items() if name != "refused"}
        return shown | {"refused": self.refused.drop("row").to_dicts()}


@dataclass(frozen=True, kw_only=True)
class IngestReport:
    """What one ingest did, section by section."""

    mapping: str
    tables: tuple[TableReport, ...]

    def as_dict(self) -> dict[str, object]:
        return {"mapping": self.mapping, "tables": [table.as_dict() for table in self.tables]}

    def lines(self, refusals: int = SHOWN_REFUSALS) -> list[str]:
        """The report as text: a line a section, then each refused row with its reason, at most `refusals` of them."""
        told = []
        for one in self.tables:
            told.append(
                f"{one.table} <- {', '.join(one.files)}: {one.rows_read:,} rows = {one.accepted:,} accepted "
                f"+ {one.duplicate:,} duplicate + {one.quarantined:,} quarantined; {one.inserted:,} new and "
                f"{one.updated:,} changed rows in the table"
                + (f"; {one.passed_over:,} rows passed over" if one.passed_over else "")
                + (f"; {one.forgotten:,} rows of forgotten people passed over" if one.forgotten else "")
            )
            told += [
                f"  {row['source']} row {row['row_number']}: {row['reason']}: {row['message']}"
                for row in one.refused.head(refusals).iter_rows(named=True)
            ]
            if one.refused.height > refusals:
                told.append(f"  and {one.refused.height - refusals:,} more: see the table quarantine")
        return told


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A section read and checked. `rows` holds each key once and in MEMBERS how many file rows it stands for."""

    rows: pl.DataFrame
    read: int
    passed_over: int
    forgotten: int
    duplicate: int
    refused: pl.DataFrame


def ingest(
    source: Path,
    mapping: Mapping,
    store: TableStore,
    *,
    people: ForgottenPeople | None = None,
    progress: Progress | None = None,
    chunk_rows: int = CHUNK_ROWS,
    at: datetime | None = None,
    publish: Publish = lambda _schema, _rows: None,
) -> IngestReport:
    """Read `source` (a folder, or one file of it) through `mapping` into the tables of `store`.

    `people`: whose rows are passed over and counted; `at`: when a refused row is refused, default now;
    `progress` is told (table, rows read) after each chunk, `publish` what is accepted. Raises InputError where
    nothing in `source` belongs to the mapping, SchemaError where a file lacks mapped columns (with the first ten
    reasons; nothing is written).
    """
    sections = plan(source, mapping)
    told = progress or (lambda _table, _rows: None)
    door = Door(people)
    instant = at or datetime.now(UTC)
    return IngestReport(
        mapping=mapping.name,
        tables=tuple(
            _ingest_section(section, mapping, store, door, told, chunk_rows, instant, publish) for section in sections
        ),
    )


def _ingest_section(
    section: Section,
    mapping: Mapping,
    store: TableStore,
    door: Door,
    progress: Progress,
    chunk_rows: int,
    at: datetime,
    publish: Publish,
) -> TableReport:
    schema = section.spec.schema_
    prepared = _prepare(section, mapping, door, progress, chunk_rows)
    fresh = _unsettled(store, schema, prepared.rows)
    rows = as_table(schema, fresh)
    publish(schema, pl.DataFrame(rows))
    result = store.upsert(schema, rows)
    keep(store, [(file.label, schema.name) for file in section.files], prepared.refused, at=at)
    accepted = int(fresh[MEMBERS].sum())
    return TableReport(
        table=schema.name,
        files=tuple(file.path.name for file in section.files),
        rows_read=prepared.read,
        accepted=accepted,
        duplicate=prepared.duplicate + int(prepared.rows[MEMBERS].sum()) - accepted,
        quarantined=prepared.refused.height,
        passed_over=prepared.passed_over,
        forgotten=prepared.forgotten,
        inserted=result.inserted,
        updated=result.updated,
        version=result.version,
        refused=prepared.refused,
    )


def _prepare(section: Section, mapping: Mapping, door: Door, progress: Progress, chunk_rows: int) -> _Prepared:
    good: list[pl.DataFrame] = []
    refused: list[pl.DataFrame] = [no_rows()]
    read = passed_over = forgotten = 0
    lookups = [joined(join) for join in section.joins]
    for file in section.files:
        for chunk in file.chunks(chunk_rows):
            rows = _only_with(section, mapping, chunk)
            passed_over += chunk.rows.height - rows.height
            for lookup in lookups:
                rows = lookup.add_to(rows)
            checked = map_rows(section.spec, mapping, rows)
            let_in = door.lets_in(checked)
            forgotten += int((~let_in).sum())
            checked, rows = checked.filter(let_in), rows.filter(let_in)
            refused += _refused(file, section, checked, rows, [door.without_forgotten(one) for one in chunk.broken])
            numbered = checked.with_columns(
                pl.int_range(read, read + checked.height, dtype=pl.Int64).alias(POSITION),
                pl.lit(file.label).alias(_SOURCE),
            )
            good.append(numbered.filter(pl.col(REASON).is_null()))
            read += checked.height + len(chunk.broken)
            progress(section.spec.target, read)
    return _whole(section, pl.concat(good), pl.concat(refused), read, passed_over, forgotten)


def _refused(
    file: SourceFile, section: Section, checked: pl.DataFrame, rows: pl.DataFrame, unread: list[Broken]
) -> list[pl.DataFrame]:
    broken = [(one.row, one.reason, one.message, one.text) for one in unread]
    target = section.spec.target
    return [refused_rows(file.label, target, checked, rows), unread_rows(file.label, target, broken)]


def _only_with(section: Section, mapping: Mapping, chunk: Chunk) -> pl.DataFrame:
    """Rows that are rows of this table at all."""
    there = [
        (~as_text(chunk.rows[name]).is_in(mapping.nulls)).fill_null(False).alias(name)
        for name in section.spec.only_with
        if name in chunk.rows.columns
    ]
    if len(there) < len(section.spec.only_with):
        return chunk.rows.clear()
    if not there:
        return chunk.rows
    return chunk.rows.filter(pl.DataFrame(there).select(pl.all_horizontal(pl.all())).to_series())


def _whole(
    section: Section, good: pl.DataFrame, refused: pl.DataFrame, read: int, passed_over: int, forgotten: int
) -> _Prepared:
    """All chunks of a section as rows with each key once."""
    spec = section.spec
    if spec.fold:
        folded = fold_rows(spec, good)
        refused = pl.concat([refused, _refused_members(spec.target, folded, good)])
        rows = folded.filter(pl.col(REASON).is_null()).with_columns(pl.col(MEMBERS).list.len().cast(pl.Int64))
    else:
        rows = good.with_columns(pl.lit(1, dtype=pl.Int64).alias(MEMBERS))
    members = int(rows[MEMBERS].sum())
    rows, _ = newest(spec.schema_, rows)
    if spec.places:
        rows = gazetteer().fill(rows)
    kept = int(rows[MEMBERS].sum())
    return _Prepared(
        rows=rows,
        read=read,
        passed_over=passed_over,
        forgotten=forgotten,
        duplicate=members - kept,
        refused=refused.sort("source", "row_number"),
    )


def _refused_members(target: str, folded: pl.DataFrame, parts: pl.DataFrame) -> pl.DataFrame:
    """A folded row that is refused takes all its file rows with it."""
    bad = folded.filter(pl.col(REASON).is_not_null()).select(MEMBERS, REASON, MESSAGE).explode(MEMBERS)
    found = bad.join(parts.select(POSITION, ROW, _SOURCE), left_on=MEMBERS, right_on=POSITION, maintain_order="left")
    frames = [no_rows()]
    for row in found.iter_rows(named=True):
        broken = (row[ROW], row[REASON], row[MESSAGE], "")
        frames.append(unread_rows(row[_SOURCE], target, [broken]))
    return pl.concat(frames)


def _unsettled(store: TableStore, schema: TableSchema, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows that say something the table does not know: a new key, or newer and different content."""
    key, names = list(schema.key), schema.columns.names
    stored = store.scan(schema).join(rows.lazy().select(key), on=key, how="semi").select(names).collect()
    if not stored.height:
        return rows
    given = pl.DataFrame(as_table(schema, rows)).with_columns(rows[MEMBERS])
    known = stored.select(*key, pl.col(schema.time).alias("__time"), _fingerprint(names).alias("__known"))
    both = given.with_columns(_fingerprint(names).alias("__given")).join(
        known, on=key, how="left", maintain_order="left"
    )
    newer = pl.col("__time").is_null() | (
        (pl.col("__time") <= pl.col(schema.time)) & (pl.col("__known") != pl.col("__given"))
    )
    return both.filter(newer).select(*names, MEMBERS)


def _fingerprint(names: list[str]) -> pl.Expr:
    """One text a row that is equal exactly when the rows are."""
    return pl.struct(names).struct.json_encode()
