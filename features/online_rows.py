"""Feature rows as the online store keeps them: serialised keys, protobuf values, and what tells that a row changed."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import polars as pl

from rolecall.features.activity import TIMESTAMP
from rolecall.features.views import ViewShape

EVENT = "event_timestamp"
_STRING = 2
"""ValueType.STRING in Feast's protobuf."""

COUNTED_VALUE = "_counted"
"""Beside a view's columns in its row: up to which event of the log it counts what was posted. Written with the row in
one step, so whatever happened to a run, each row says itself what it counts."""


@dataclass(frozen=True, kw_only=True)
class Stamp:
    """What is kept beside a written row. `event_us`: its instant, microseconds since 1970. `digest`: of its values."""

    event_us: int
    digest: bytes

    def to_bytes(self) -> bytes:
        return struct.pack("<q", self.event_us) + self.digest

    @classmethod
    def from_bytes(cls, stored: bytes) -> Stamp:
        return cls(event_us=struct.unpack_from("<q", stored)[0], digest=stored[8:])


def join_key(view: ViewShape) -> str:
    """The column that names the view's entity."""
    return f"{view.entity}_id"


def newest_rows(file: Path, view: ViewShape, as_of: datetime) -> pl.DataFrame:
    """One row a key: the newest up to `as_of` that has not expired by then; of two at one instant the later in file."""
    known = pl.col(EVENT) <= as_of
    if view.ttl:
        known &= pl.col(EVENT) >= as_of - view.ttl
    rows = pl.scan_parquet(file).filter(known, pl.col(join_key(view)).is_not_null()).select(_columns(view)).collect()
    return _newest(rows, view)


def given_rows(rows: pl.DataFrame, view: ViewShape) -> pl.DataFrame:
    """Rows as they are written: the view's columns, and of each key the newest, of two at one instant the later."""
    return _newest(rows.select(_columns(view)), view)


def entity_keys(view: ViewShape, ids: Sequence[str]) -> list[bytes]:
    """Keys as Feast writes them (serialisation version 3, one text join key)."""
    prefix = key_prefix(view)
    return [prefix + struct.pack("<I", len(text)) + text for text in (one.encode() for one in ids)]


def key_prefix(view: ViewShape) -> bytes:
    """With what the key of every entity of the view begins."""
    name = join_key(view).encode()
    return struct.pack("<III", 1, _STRING, len(name)) + name + struct.pack("<I", _STRING)


def stamps(rows: pl.DataFrame, view: ViewShape) -> list[Stamp]:
    """A stamp a row. Equal stamps: the store need not be told again."""
    instants = rows[EVENT].cast(TIMESTAMP).dt.epoch("us").to_list()
    values = rows.select(pl.struct(list(view.columns)).struct.json_encode().alias("said"))["said"]
    return [
        Stamp(event_us=at, digest=hashlib.blake2b(said.encode(), digest_size=16).digest())
        for at, said in zip(instants, values, strict=True)
    ]


def to_feast(
    rows: pl.DataFrame, view: ViewShape, *, counted: int | None = None
) -> Iterator[tuple[Any, dict[str, Any], datetime, None]]:
    """Rows as `online_write_batch` of Feast's online stores takes them. What is null is written as an unset value.

    `counted`: up to which event of the log rows that count events do so.
    """
    from feast.protos.feast.types.Value_pb2 import StringList, Value

    makers: dict[str, Any] = {name: lambda v: Value(string_list_val=StringList(val=v)) for name in view.lists}
    makers |= {name: lambda v: Value(string_val=v) for name in view.texts}
    makers |= {name: lambda v: Value(double_val=v) for name in view.numbers}
    mark = {}
    if view.counted:
        mark[COUNTED_VALUE] = Value() if counted is None else Value(int64_val=counted)
    for row in rows.iter_rows(named=True):
        values = {name: Value() if row[name] is None else make(row[name]) for name, make in makers.items()} | mark
        yield entity_of(view, row[join_key(view)]), values, row[EVENT], None


def entity_of(view: ViewShape, name: str) -> Any:
    """An entity as Feast's online stores are asked for it."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    return EntityKey(join_keys=[join_key(view)], entity_values=[Value(string_val=name)])


def from_feast(value: Any) -> object:
    """A protobuf value as Python has it; None where it is unset."""
    kind = value.WhichOneof("val")
    if kind is None:
        return None
    held = getattr(value, kind)
    return list(held.val) if kind.endswith("_list_val") else held


def _columns(view: ViewShape) -> list[str]:
    return [join_key(view), EVENT, *view.columns]


def _newest(rows: pl.DataFrame, view: ViewShape) -> pl.DataFrame:
    ordered = rows.sort(EVENT, maintain_order=True)
    return ordered.unique(join_key(view), keep="last", maintain_order=True)
