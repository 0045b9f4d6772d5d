"""Entity keys as small integers: the same number for the same key on both sides, -1 where a part of it is null."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

Codes = npt.NDArray[np.int64]
NO_KEY = -1
_ROOM = 2**31
_WIDE = (pl.UInt64, pl.Int128)
TEXTS = (pl.String, pl.Categorical, pl.Enum)


def key_codes(rows: pl.DataFrame, entities: pl.DataFrame, keys: Mapping[str, str]) -> tuple[Codes, Codes]:
    """Codes, below 2**31, of the keys of feature rows and of entity rows. `keys`: entity column -> rows column.

    No keys: everything has the one key 0. Raises TypeError where two columns cannot be compared.
    """
    codes = np.zeros(rows.height + entities.height, dtype=np.int64)
    size = 1
    for theirs, ours in keys.items():
        part, count = _codes(rows[ours], aligned(entities[theirs], rows[ours], theirs))
        codes = np.where((codes < 0) | (part < 0), NO_KEY, codes * count + part)
        size *= count
        if size > _ROOM:
            codes, size = _dense(codes)
    return codes[: rows.height], codes[rows.height :]


def aligned(entity: pl.Series, feature: pl.Series, name: str) -> pl.Series:
    """The entity column in the feature column's type; null where the value has no equal there, and for NaN.

    Raises TypeError where the types cannot be compared (text and numbers, say), naming the column `name`.
    """
    wanted, got = feature.dtype, entity.dtype
    if wanted in TEXTS and got in TEXTS:
        return entity.cast(pl.String)
    if wanted.is_numeric() and got.is_numeric() and not wanted.is_decimal() and not got.is_decimal():
        cast = entity.cast(wanted, strict=False)
        same = cast.cast(got, strict=False) == entity
        return cast.set(~same.fill_null(value=False), None)
    if pl.Null in (wanted, got):
        return pl.Series(entity.name, [None] * len(entity), dtype=pl.String if wanted in TEXTS else wanted)
    if wanted != got or wanted.is_nested():
        raise TypeError(
            f"key {name} is {got} in the entity rows and {wanted} in the feature rows: "
            "both must be text, both numbers, or one and the same type; cast one of them"
        )
    return entity


def _codes(feature: pl.Series, entity: pl.Series) -> tuple[Codes, int]:
    if feature.dtype.is_integer() and feature.dtype not in _WIDE:
        return _offsets(feature, entity)
    return _encoded(feature, entity)


def _offsets(feature: pl.Series, entity: pl.Series) -> tuple[Codes, int]:
    """Whole numbers that lie close together need no dictionary: the least one is 0."""
    least, most = feature.min(), feature.max()
    rows = len(feature) + len(entity)
    if not isinstance(least, int) or not isinstance(most, int) or most - least > 4 * rows:
        return _encoded(feature, entity)
    both = pl.concat([feature.cast(pl.Int64), entity.cast(pl.Int64)])
    inside = both.is_between(least, most).fill_null(value=False).to_numpy()
    return np.where(inside, both.fill_null(least).to_numpy() - least, NO_KEY), most - least + 1


def _encoded(feature: pl.Series, entity: pl.Series) -> tuple[Codes, int]:
    if feature.dtype in TEXTS:
        feature = feature.cast(pl.String)
    if feature.dtype.is_float():
        feature, entity = feature.fill_nan(None) + 0.0, entity.fill_nan(None) + 0.0
    chunks = [series.to_arrow(compat_level=pl.CompatLevel.oldest()) for series in (feature, entity)]
    joined = pa.chunked_array(chunks)
    encoded = joined.dictionary_encode().combine_chunks() if len(joined) else pa.nulls(0)
    if encoded.type == pa.null():
        return np.full(len(encoded), NO_KEY, dtype=np.int64), 1
    return encoded.indices.fill_null(NO_KEY).to_numpy().astype(np.int64), max(len(encoded.dictionary), 1)


def _dense(codes: Codes) -> tuple[Codes, int]:
    found, dense = np.unique(codes, return_inverse=True)
    shift = 1 if found.size and found[0] < 0 else 0
    return dense.astype(np.int64) - shift, max(found.size - shift, 1)
