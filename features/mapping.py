"""How a source's files become tables: a TOML file, checked against the schemas when it is loaded.

    nulls = ["", "NA"]                        # texts that mean "nothing"
    zone = "Europe/Berlin"                    # zone of instants that name none; without it they are refused

    [[table]]
    target = "jobs"
    files = ["postings*.csv"]                 # .csv .tsv .jsonl .ndjson .parquet, the first four also .gz
    places = true                             # fill empty lat and lon from city, region, country
    ordered = [["From", "To"]]                # refuse a row whose To is before its From
    join = [{ name = "firm", file = "firms.csv", on = { "Firm.Id" = "Id" } }]
    [table.columns]
    job_id = "Id"                             # rename
    title = { concat = ["Role", "Level"] }
    skills = { from = "Skills", split = "|" }
    employer_id = { from = "firm.Name" }      # a column of the joined file
    country = { constant = "DE" }
    employment_type = { from = "Type", values = { "Full time" = "full_time" } }
    updated_at = { from = "Changed", format = "%d.%m.%Y %H:%M", zone = "Europe/Berlin" }

`fold = ["User"]` makes one row of all rows, in all files of the section, that agree in those columns; each
column then says with `collect` what becomes of the several values.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from rolecall.features.schema import TABLES
from rolecall.features.values import Parse
from rolecall.platform.errors import InputError, NotFoundError
from rolecall.platform.tables import TableSchema

BUILT_IN = Path(__file__).parent / "mappings"
Collect = Literal["first", "last", "min", "max", "list"]


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise ValueError(f"{name!r} is no time zone, such as Europe/Berlin or UTC") from error
    return name


Zone = Annotated[str, AfterValidator(_known_zone)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


class ColumnSpec(_Part):
    """Where one column of a table comes from and how it is written there. Exactly one origin."""

    source: str | None = Field(default=None, alias="from")
    constant: str | int | float | bool | None = None
    hash: tuple[str, ...] = Field(default=(), description="an id made of these columns")
    concat: tuple[str, ...] = Field(default=(), description="the texts of these columns, one after another")
    fields: dict[str, str] = Field(default_factory=dict, description="a struct: its fields and their columns")
    separator: str = " "
    split: str | None = Field(default=None, min_length=1)
    html: bool = Field(default=False, description="strip tags and entities")
    values: dict[str, str] = Field(default_factory=dict, description="words to exchange; others stay")
    format: str | None = None
    zone: Zone | None = None
    optional: bool = Field(default=False, description="null where the file has no such column")
    collect: Collect = "last"

    @model_validator(mode="after")
    def _one_origin(self) -> ColumnSpec:
        origins = [self.source is not None, self.constant is not None, bool(self.hash), bool(self.concat)]
        if sum(origins) + bool(self.fields) != 1:
            raise ValueError("exactly one of from, constant, hash, concat, fields is needed")
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The source columns that it reads."""
        named = (self.source,) if self.source is not None else ()
        return (*named, *self.hash, *self.concat, *self.fields.values())


class JoinSpec(_Part):
    """A second file whose columns become `name.column`: one value (`first`, `last`) or a list of all."""

    name: str = Field(min_length=1)
    file: str
    on: dict[str, str] = Field(min_length=1, description="this file's column = the second file's column")
    take: Literal["first", "last", "list"] = "first"


class TableSpec(_Part):
    """One section: some files and the table they become."""

    target: str
    files: tuple[str, ...] = Field(min_length=1)
    optional: bool = False
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    quote: str = Field(default='"', max_length=1, description="empty: quotes are ordinary characters")
    encoding: str = "utf-8"
    places: bool = False
    unknown: Literal["ignore", "refuse"] = "ignore"
    same_names: bool = Field(default=False, description="columns not named below come from those of the same name")
    only_with: tuple[str, ...] = Field(default=(), description="pass over rows where one of these columns is empty")
    ordered: tuple[tuple[str, str], ...] = ()
    fold: tuple[str, ...] = ()
    order_by: str | None = Field(default=None, description="folding order; a leading minus turns it round")
    join: tuple[JoinSpec, ...] = ()
    columns: dict[str, ColumnSpec] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, given: object) -> object:
        """`title = "Position"` stands for `title = { from = "Position" }`."""
        if not isinstance(given, dict) or not isinstance(given.get("columns", {}), dict):
            return given
        columns = {k: {"from": v} if isinstance(v, str) else v for k, v in given.get("columns", {}).items()}
        return given | {"columns": columns}

    @model_validator(mode="after")
    def _fits_the_table(self) -> TableSpec:
        if self.target not in TABLES:
            raise ValueError(f"target {self.target!r}: allowed are {', '.join(TABLES)}")
        schema = self.schema_
        unknown = [name for name in self.columns if name not in schema.columns.names]
        missing = [name for name in schema.required if name not in self.columns and not self.same_names]
        if unknown or missing:
            raise ValueError(f"{self.target}: unknown columns {unknown}, missing columns {missing}")
        self._check_structs(schema)
        return self

    def _check_structs(self, schema: TableSchema) -> None:
        for name, spec in self.columns.items():
            if not spec.fields:
                continue
            kind = schema.columns.field(name).type
            if not self.fold or not pa.types.is_list(kind) or not pa.types.is_struct(kind.value_type):
                raise ValueError(f"{name}: `fields` need `fold` and a column that is a list of structs")
            wrong = [field for field in spec.fields if kind.value_type.get_field_index(field) < 0]
            if wrong:
                raise ValueError(f"{name} has no fields {wrong}")

    @property
    def schema_(self) -> TableSchema:
        return TABLES[self.target]

    @property
    def row_columns(self) -> tuple[str, ...]:
        """Source columns that the section reads beside those of its columns."""
        order = (self.order_by.removeprefix("-"),) if self.order_by else ()
        return (*self.only_with, *(name for pair in self.ordered for name in pair), *self.fold, *order)

    def resolved(self) -> dict[str, ColumnSpec]:
        """Every mapped column, those of `same_names` included."""
        if not self.same_names:
            return self.columns
        required = self.schema_.required
        names = self.schema_.columns.names
        same = {n: ColumnSpec.model_validate({"from": n, "optional": n not in required}) for n in names}
        return same | self.columns


class Mapping(_Part):
    """A whole mapping: what a folder of files means."""

    name: str
    description: str = ""
    nulls: tuple[str, ...] = ("",)
    zone: Zone | None = None
    table: tuple[TableSpec, ...] = Field(min_length=1)

    def parse(self, spec: ColumnSpec) -> Parse:
        """How a column's values are written; its own zone wins over the mapping's."""
        return Parse(format=spec.format, zone=spec.zone or self.zone)


def mapping_names() -> list[str]:
    """The mappings that ship with RoleCall."""
    return sorted(path.stem for path in BUILT_IN.glob("*.toml"))


def load_mapping(name: str | Path) -> Mapping:
    """A shipped mapping by name, or a TOML file by path.

    Raises NotFoundError where neither exists, InputError where it is not TOML or names what does not exist.
    """
    path = BUILT_IN / f"{name}.toml"
    if not path.is_file():
        path = Path(name)
    if not path.is_file():
        raise NotFoundError(
            f"there is no mapping {str(name)!r}", f"a path to a TOML file, or {', '.join(mapping_names())}"
        )
    try:
        return Mapping.model_validate({"name": path.stem} | tomllib.loads(path.read_text("utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"mapping {path} is not TOML: {error}", "a UTF-8 TOML file", "correct it") from error
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:10])
        raise InputError(f"mapping {path}: {told}", "the keys of features/mapping.py", "correct it") from error
