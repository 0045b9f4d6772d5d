"""A fit of several workers that goes on from a checkpoint grows the trees of one that was never interrupted."""

from __future__ import annotations

import multiprocessing
from dataclasses import replace
from pathlib import Path

import lightgbm
import numpy as np
import pytest
from ray.train import Checkpoint

from rolecall.pipelines.demo import free_ports
from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.train import TreeShape, parameters
from rolecall.pipelines.train_worker import Segment, grow, restored, segments, write_checkpoint
from rolecall.platform.settings import RankingSettings

WORKERS = 2
PLAN = segments(12, 5, seed=7)
SHAPE = TreeShape(rounds=12, leaves=7, learning_rate=0.1, feature_fraction=0.5)


def some_examples() -> TrainingSet:
    rng = np.random.default_rng(3)
    requests, shown = 60, 20
    features = rng.standard_normal((requests * shown, 6)).astype(np.float32)
    liked = features[:, 0] + rng.standard_normal(len(features)) > 1
    return TrainingSet(
        features=features,
        columns=tuple("abcdef"),
        labels=(3 * liked).astype(np.int8),
        shown=np.ones(len(features), bool),
        groups=np.full(requests, shown, np.int32),
        times=np.zeros(requests, np.int64),
        held_out=np.zeros(requests, bool),
    )


def work(rank: int, ports: list[int], left: list[Segment], text: str | None, folder: Path) -> None:
    network = {
        "tree_learner": "data",
        "pre_partition": True,
        "num_machines": WORKERS,
        "machines": ",".join(f"127.0.0.1:{port}" for port in ports),
        "local_listen_port": ports[rank],
    }
    settings = {**parameters(SHAPE, RankingSettings(), threads=1), **network}
    for segment, model in grow(some_examples().shard(rank, WORKERS), settings, left, text):
        (folder / f"{rank}-{segment.end}").write_text(model)


def fit(folder: Path, left: list[Segment], text: str | None = None) -> dict[str, str]:
    """Model texts by rank and rounds, of workers that talk over sockets as on a cluster."""
    folder.mkdir()
    context, ports = multiprocessing.get_context("fork"), free_ports(WORKERS)
    workers = [context.Process(target=work, args=(rank, ports, left, text, folder)) for rank in range(WORKERS)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(120)
        worker.kill()
        assert worker.exitcode == 0
    return {file.name: file.read_text() for file in folder.iterdir()}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return fit(tmp_path_factory.mktemp("fit") / "whole", PLAN)


def test_segments_cover_every_round_once_and_have_seeds_of_their_own() -> None:
    assert [(part.start, part.end) for part in PLAN] == [(0, 5), (5, 10), (10, 12)]
    assert len({part.seed for part in PLAN}) == len(PLAN)


def test_all_workers_hold_the_same_model_and_it_has_every_tree(unbroken: dict[str, str]) -> None:
    for end in (5, 10, 12):
        assert unbroken[f"0-{end}"] == unbroken[f"1-{end}"]
        assert lightgbm.Booster(model_str=unbroken[f"0-{end}"]).num_trees() == end


@pytest.mark.parametrize("finished", [1, 2])
def test_a_resumed_fit_grows_the_same_trees(unbroken: dict[str, str], finished: int, tmp_path: Path) -> None:
    checkpoint = unbroken[f"0-{PLAN[finished - 1].end}"]
    resumed = fit(tmp_path / "resumed", PLAN[finished:], checkpoint)
    assert resumed["0-12"] == unbroken["0-12"]


def test_rounds_that_grew_no_tree_are_not_grown_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Features that never split: fewer trees than rounds, and a fit that was through has nothing left."""
    flat = replace(some_examples(), features=np.zeros((1200, 6), np.float32))
    (*_, (last, text)) = grow(flat, parameters(SHAPE, RankingSettings(), threads=1), PLAN, None)
    assert lightgbm.Booster(model_str=text).current_iteration() < last.end == SHAPE.rounds
    write_checkpoint(tmp_path, text, last.end)
    monkeypatch.setattr("ray.train.get_checkpoint", lambda: Checkpoint.from_directory(str(tmp_path)))
    assert restored() == (SHAPE.rounds, text)
