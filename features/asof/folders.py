"""Folders of Parquet files: what their `column=value` folders say, and which of their files differ."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from datetime import date
from urllib.parse import unquote

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs

from rolecall.features.asof.place import Place

_NULL = "__HIVE_DEFAULT_PARTITION__"
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,17}")
_SHOWN = 5


def parquet_files(place: Place) -> Iterator[str]:
    """The Parquet files below a folder by their paths in it, in order; hidden ones are none."""
    system, root = place.filesystem()
    found = system.get_file_info(fs.FileSelector(root, recursive=True))
    names = (info.path[len(root) :].lstrip("/") for info in found if info.type == fs.FileType.File)
    yield from sorted(
        name
        for name in names
        if name.endswith(".parquet") and not any(part.startswith((".", "_")) for part in name.split("/"))
    )


def hive_types(files: Collection[str], texts: Collection[str]) -> dict[str, pl.DataType]:
    """The types of the columns that the folders name, of text those in `texts`.

    Of the others a column is of whole numbers or dates where every value is written as one would be: "007" is none,
    for it would be read as another key.
    """
    values: dict[str, set[str]] = {}
    for file in files:
        for part in file.split("/")[:-1]:
            name, equals, value = part.partition("=")
            if equals:
                values.setdefault(unquote(name), set()).add(unquote(value))
    return {name: pl.String() if name in texts else _type(found - {_NULL}) for name, found in values.items()}


def differences(place: Place, files: Collection[str]) -> str:
    """How the files' columns differ from the first one's, for people; nothing where they do not."""
    system, root = place.filesystem()
    first, *rest = [(file, pq.read_schema(f"{root.rstrip('/')}/{file}", filesystem=system)) for file in files]
    told = [f"{file} {difference}" for file, schema in rest if (difference := _difference(schema, first[1]))]
    shown = "; ".join(told[:_SHOWN]) + (f"; and {len(told) - _SHOWN} more" if len(told) > _SHOWN else "")
    return f"unlike {first[0]}, {shown}" if told else ""


def _difference(schema: pa.Schema, first: pa.Schema) -> str:
    missing = [name for name in first.names if name not in schema.names]
    extra = [name for name in schema.names if name not in first.names]
    other = [
        f"{name} as {schema.field(name).type} and not {first.field(name).type}"
        for name in schema.names
        if name in first.names and schema.field(name).type != first.field(name).type
    ]
    told = [f"lacks {', '.join(missing)}"] if missing else []
    told += [f"has {', '.join([*extra, *other])}"] if extra or other else []
    return " and ".join(told)


def _type(values: set[str]) -> pl.DataType:
    if values and all(_INTEGER.fullmatch(value) for value in values):
        return pl.Int64()
    if values and all(_is_date(value) for value in values):
        return pl.Date()
    return pl.String()


def _is_date(value: str) -> bool:
    try:
        return date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False
