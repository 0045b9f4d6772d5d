"""The stages of a point-in-time join in parts; one machine walks them, a cluster spreads them.

    scatter    a slice of feature or entity rows -> one file with a batch for every hash of the key
    split      a batch with too many feature rows -> a batch for each span of time, and for each span the newest row
               of every key, which the later spans carry over
    join       one part's feature rows and entity rows -> result rows, in batches by slice of the result
    gather     one slice of the result, from all files that hold rows of it, in entity order

Each takes a description of its work and answers with one. Rows pass in files below the plan's folder only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

from rolecall.features.asof.instants import Instants, Ints, instants, rounded_up
from rolecall.features.asof.join import seen
from rolecall.features.asof.keys import key_codes
from rolecall.features.asof.match import FeatureRows, match
from rolecall.features.asof.pieces import key_parts, read_batches, with_aligned_keys, write_batches
from rolecall.features.asof.plan import ROW, Piece, Plan, Scattered, Slice, Split
from rolecall.features.asof.view import AsofView

_SAMPLE = 16
_EVER = 2**63 - 1


def scatter(plan: Plan, work: Slice) -> Scattered:
    """Write a slice as one file of batches by hash of the key; feature rows without key or instant go nowhere."""
    view, count = plan.views[work.view], plan.parts[work.view]
    if work.of_entities:
        frame, keys = _asked(plan, view, work), [*view.keys]
    else:
        there = [pl.col(name).is_not_null() for name in {*view.keys.values(), view.timestamp}]
        frame = view.rows.slice(work.start, work.rows).select(view.wanted).collect().filter(there)
        keys = [*view.keys.values()]
    parts = key_parts(frame, keys, count)
    path = plan.folder / f"{'asks' if work.of_entities else 'rows'}{work.view}-{work.start:015d}.arrow"
    counts = tuple(write_batches(path, frame, parts, count))
    samples = () if work.of_entities else _samples(_visible(plan, view, frame), parts, counts)
    return Scattered(work=work, path=path, counts=counts, samples=samples)


def split(plan: Plan, work: Split) -> Split:
    """Write a batch as 2n batches: its rows in each of n spans, then the newest row of every key in each span."""
    view = plan.views[work.view]
    rows = read_batches([work.path], work.part)
    count = len(work.cuts) + 1
    span = np.searchsorted(np.array(work.cuts, dtype=np.int64), _visible(plan, view, rows), side="right")
    places = [np.flatnonzero(span == one) for one in range(count)]
    newest = [place[_newest(plan, view, rows[place])] for place in places]
    carried = np.repeat(np.arange(count, 2 * count), [found.size for found in newest])
    both = pl.concat([rows, rows[np.concatenate(newest)]])
    write_batches(work.target, both, np.concatenate([span, carried]), 2 * count)
    return work


def join(plan: Plan, work: Piece) -> Path:
    """Join one piece; the file of its result rows, with a batch for every slice of the result."""
    view = plan.views[work.view]
    asked = read_batches(work.entities, work.part)
    if work.cuts:
        at = instants(asked[plan.timestamp], plan.timestamp).values
        asked = asked.filter(np.searchsorted(np.array(work.cuts, dtype=np.int64), at, side="right") == work.span)
    columns = seen(asked, _feature_rows(work), view, timestamp=plan.timestamp, known_only=plan.known_only)
    named = [column.alias(name) for column, name in zip(columns, view.columns.values(), strict=True)]
    first = work.entities[0].stem.rsplit("-", 1)[1]
    path = plan.folder / f"joined{work.view}-{work.part}-{work.span}-{first}.arrow"
    slices = asked[ROW].to_numpy().astype(np.int64) // plan.slice_rows
    write_batches(path, pl.DataFrame([asked[ROW], *named]), slices, plan.slices)
    return path


def gather(place: int, joined: Sequence[Sequence[Path]]) -> pl.DataFrame:
    """Every view's columns of slice `place` of the result, in entity order. `joined`: the result files of each view."""
    frames = [read_batches(paths, place).sort(ROW).drop(ROW) for paths in joined]
    return pl.concat(frames, how="horizontal") if frames else pl.DataFrame()


def _asked(plan: Plan, view: AsofView, work: Slice) -> pl.DataFrame:
    columns = [*dict.fromkeys((*view.keys, plan.timestamp))]
    asked = plan.entities.slice(work.start, work.rows).select(columns).collect()
    return with_aligned_keys(asked.with_row_index(ROW, offset=work.start), view.keys, view.rows.collect_schema())


def _feature_rows(work: Piece) -> pl.DataFrame:
    if not work.cuts:
        return read_batches(work.rows, work.part)
    spans = len(work.cuts) + 1
    carried = [read_batches(work.rows, spans + earlier) for earlier in range(work.span)]
    return pl.concat([*carried, read_batches(work.rows, work.span)])


def _visible(plan: Plan, view: AsofView, rows: pl.DataFrame) -> Ints:
    at = instants(rows[view.timestamp], view.timestamp)
    visible = rounded_up(at.values, at.unit, plan.unit)
    if not plan.known_only or view.created is None:
        return visible
    written = instants(rows[view.created], view.created)
    late = rounded_up(written.values, written.unit, plan.unit)
    return np.where(written.known, np.maximum(visible, late), _EVER).astype(np.int64, copy=False)


def _samples(visible: Ints, parts: Ints, counts: Sequence[int]) -> tuple[tuple[int, ...], ...]:
    """Up to `_SAMPLE` instants of each part, taken evenly from its rows in time order."""
    ordered = visible[np.lexsort((visible, parts))]
    ends = np.cumsum(counts)
    drawn = []
    for size, end in zip(counts, ends.tolist(), strict=True):
        places = end - size + np.unique(np.linspace(0, size - 1, _SAMPLE).astype(np.int64)) if size else []
        drawn.append(tuple(ordered[places].tolist()) if size else ())
    return tuple(drawn)


def _newest(plan: Plan, view: AsofView, rows: pl.DataFrame) -> Ints:
    """The places of the rows that an entity row at the end of time would see, one a key."""
    names = {name: name for name in view.keys.values()}
    keys = rows.select([*names]).unique() if names else pl.DataFrame({ROW: [0]})
    ours, theirs = key_codes(rows, keys, names)
    created = instants(rows[view.created], view.created) if view.created else None
    features = FeatureRows(codes=ours, at=instants(rows[view.timestamp], view.timestamp), created=created)
    known = np.ones(keys.height, dtype=np.bool_)
    ever = Instants(values=np.full(keys.height, _EVER, dtype=np.int64), known=known, unit=plan.unit)
    found = match(features, theirs, ever, ttl=None, known_only=plan.known_only)
    return np.sort(found[found >= 0])
