"""A training set says which table versions it was read from, and comes again from them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from rolecall.features.schema import CANDIDATES, EVENTS
from rolecall.pipelines.examples import TrainingSet, recorded
from rolecall.pipelines.knowledge import Versions, read_as_of
from rolecall.pipelines.materialize import feature_store, materialize

if TYPE_CHECKING:
    from conftest import World


def test_any_other_row_is_another_digest(examples: TrainingSet, tmp_path: Path) -> None:
    examples.save(tmp_path / "set.npz")
    assert TrainingSet.load(tmp_path / "set.npz").digest() == examples.digest()
    other = examples.features.copy()
    other[3, 1] = 77
    assert replace(examples, features=other).digest() != examples.digest()
    assert replace(examples, labels=np.roll(examples.labels, 1)).digest() != examples.digest()
    assert replace(examples, columns=examples.columns[::-1]).digest() != examples.digest()


@pytest.mark.slow
def test_the_recorded_versions_give_the_same_rows_again_however_the_tables_went_on(
    world: World, examples: TrainingSet, tmp_path: Path
) -> None:
    told = recorded(examples, world.versions)
    assert told["tables"] == {name: version for name, version in world.versions.items() if version is not None}
    late = world.events.head(50).with_columns(
        pl.col("event_id") + "-late", pl.col("occurred_at") + timedelta(microseconds=7)
    )
    edited = world.candidates.with_columns(pl.lit(None, dtype=pl.List(pl.String)).alias("skills"))
    for schema, rows in ((EVENTS, late), (CANDIDATES, edited)):
        world.tables.upsert(schema, rows.select(schema.columns.names).to_arrow().cast(schema.columns))
    newest = {name: world.tables.version(name) for name in told["tables"]}
    assert again(world, told["tables"], tmp_path / "pinned").digest() == told["sha256"]
    assert again(world, newest, tmp_path / "newest").digest() != told["sha256"]


def again(world: World, versions: Versions, folder: Path) -> TrainingSet:
    """The training set from tables as they were at these versions."""
    settings = world.settings.model_copy(update={"home": folder / "home"})
    materialize(world.tables, versions, as_of=world.as_of, settings=settings, folder=folder)
    then = replace(world, store=feature_store(settings, folder))
    return then.examples(events=read_as_of(world.tables, EVENTS, versions, world.as_of))
