"""The point-in-time join on one machine in bounded memory: the stages one after the other, files in between."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from rolecall.features.asof.pieces import files_kept_open
from rolecall.features.asof.plan import Plan, make_plan, pieces, slices, splits
from rolecall.features.asof.stages import gather, join, scatter, split
from rolecall.features.asof.view import AsofView


def spilled_join(
    entities: pl.LazyFrame,
    views: Sequence[AsofView],
    *,
    timestamp: str,
    known_only: bool = False,
    memory: int,
    scratch: Path | None = None,
) -> Iterator[pl.DataFrame]:
    """The views' columns for every entity row, in order, a slice at a time. See `asof_join` for what a row sees.

    Beyond what the caller holds, about `memory` bytes are used, whatever the size of the data, as long as no single
    row or instant is larger; rows pass through files in a folder below `scratch` (default: the system's temporary
    one), which takes about twice the columns read and is gone at the end.
    """
    if scratch is not None:
        scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="asof-", dir=scratch) as folder:
        plan = make_plan(
            entities, views, timestamp=timestamp, known_only=known_only, folder=Path(folder), memory=memory
        )
        with files_kept_open():
            joined = _joined(plan)
        for place in range(plan.slices):
            with files_kept_open():
                yield gather(place, joined)


def _joined(plan: Plan) -> list[list[Path]]:
    scattered = [scatter(plan, work) for work in slices(plan)]
    cut = [split(plan, work) for work in splits(plan, scattered)]
    joined: list[list[Path]] = [[] for _ in plan.views]
    for work in pieces(plan, scattered, cut):
        joined[work.view].append(join(plan, work))
    return joined
