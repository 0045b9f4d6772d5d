"""The training set as a container of whole requests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rolecall.pipelines.examples import TrainingSet
from rolecall.platform.errors import InputError


@pytest.fixture
def made() -> TrainingSet:
    random = np.random.default_rng(0)
    groups = random.integers(1, 6, 40).astype(np.int32)
    rows = int(groups.sum())
    return TrainingSet(
        features=np.arange(rows * 3, dtype=np.float32).reshape(rows, 3),
        columns=("a", "b", "c"),
        labels=random.integers(0, 4, rows).astype(np.int8),
        shown=random.random(rows) < 0.5,
        groups=groups,
        times=np.arange(40, dtype=np.int64),
        held_out=np.arange(40) % 5 == 0,
    )


def test_saving_and_loading_gives_the_same_set(made: TrainingSet, tmp_path: Path) -> None:
    made.save(tmp_path / "examples.npz")
    read = TrainingSet.load(tmp_path / "examples.npz")
    assert read.columns == made.columns
    for name in ("features", "labels", "shown", "groups", "times", "held_out"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
    assert [path.name for path in tmp_path.iterdir()] == ["examples.npz"]


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_shards_hold_every_request_once_and_whole(made: TrainingSet, workers: int) -> None:
    shards = [made.shard(rank, workers) for rank in range(workers)]
    assert sorted(time for shard in shards for time in shard.times) == list(range(40))
    for shard in shards:
        np.testing.assert_array_equal(shard.groups, made.groups[shard.times])


def test_learning_and_calibration_share_no_request(made: TrainingSet) -> None:
    learn, held = made.learnable(), made.calibration()
    assert not set(learn.times) & set(held.times)
    assert set(held.times) == set(range(0, 40, 5))


def test_requests_with_one_label_only_are_not_learned_from(made: TrainingSet) -> None:
    flat = replace(made, labels=np.zeros_like(made.labels), held_out=np.zeros(40, np.bool_))
    assert flat.learnable().requests == 0


def test_columns_come_in_the_order_asked_for(made: TrainingSet) -> None:
    np.testing.assert_array_equal(made.columns_only(["c", "a"]).features, made.features[:, [2, 0]])
    with pytest.raises(InputError, match="'z'"):
        made.columns_only(["z"])


def test_groups_that_do_not_add_up_are_refused(made: TrainingSet) -> None:
    with pytest.raises(InputError, match="groups"):
        replace(made, groups=made.groups[:-1])
