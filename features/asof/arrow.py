"""Arrow types as Feast expects them: plain `string`, `list` and `binary`, whatever the engine works with."""

from __future__ import annotations

import polars as pl
import pyarrow as pa


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type without 64-bit offsets, views and dictionaries, inside lists, structs and maps too."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        return pa.binary()
    if pa.types.is_dictionary(kind):
        return plain_type(kind.value_type)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(plain_type(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, plain_type(field.type)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(plain_type(kind.key_type), plain_type(kind.item_type))
    return kind


def plain(table: pa.Table, names: set[str] | None = None) -> pa.Table:
    """The table with the columns `names` (None: all) in plain types. Text beyond 2 GiB a chunk stays as it is."""
    for place, field in enumerate(table.schema):
        wanted = plain_type(field.type)
        if wanted == field.type or (names is not None and field.name not in names):
            continue
        try:
            column = table.column(place).cast(wanted)
        except pa.ArrowInvalid:
            continue
        table = table.set_column(place, pa.field(field.name, wanted), column)
    return table


def to_arrow(frame: pl.DataFrame) -> pa.Table:
    """A Polars frame in plain types."""
    return plain(frame.to_arrow(compat_level=pl.CompatLevel.oldest()))
