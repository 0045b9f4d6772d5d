"""What a night's comparison looks like per target: measured once, kept in `gate_targets.parquet`, for `gate.py`.

In one made-up marketplace three releases that differ in their models alone answer the same targets through the judge of
the daily run: the champion, trained a day earlier; the same retrained with that day; and one whose training labels were
permuted within a share of the requests. What is kept is NDCG@10 of each, per target and slice: how many targets are
zero, how far two releases agree, how unequal the slices are is then taken from life and not assumed.

    python tests/bench/gate_nights.py         # some fifteen minutes on one core; rewrites gate_targets.parquet
"""

from __future__ import annotations

import os
import sys
import tempfile
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from harness import ROOT

if TYPE_CHECKING:
    from conftest import World

    from rolecall.pipelines.evaluation.judge import Evaluation
    from rolecall.pipelines.examples import TrainingSet
    from rolecall.pipelines.train import TrainedRankers

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path[:0] = [str(ROOT / "infra" / "import_root"), str(ROOT / "tests" / "pipelines")]

FILE = Path(__file__).with_name("gate_targets.parquet")
RANKING = {"recall_limit": 500, "coarse_limit": 200, "train_days": 21, "max_training_requests": 3000}
PERMUTED = 0.5
"""Share of the requests whose labels the worse release learned permuted."""


def permuted(examples: TrainingSet, share: float, seed: int = 1) -> TrainingSet:
    """The same rows, labels permuted within that share of the requests."""
    random, labels, start = np.random.default_rng(seed), examples.labels.copy(), 0
    for size in examples.groups:
        if random.random() < share:
            labels[start : start + size] = random.permutation(labels[start : start + size])
        start += size
    return replace(examples, labels=labels)


def measure() -> pl.DataFrame:
    """One row a target and slice (`""`: all of it), with NDCG@10 of the three releases."""
    from conftest import build_world  # of tests/pipelines

    from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC, Judge
    from rolecall.pipelines.evaluation.targets import collect_targets
    from rolecall.pipelines.market import MarketConfig

    market = MarketConfig(
        jobs=3000,
        candidates=3000,
        employers=250,
        occupations=150,
        days=21,
        requests_per_candidate=6,
        end=date(2026, 9, 1),
    )
    with tempfile.TemporaryDirectory(prefix="rcg") as folder:
        world: World = build_world(Path(folder), market, RANKING)
        whole = world.examples()
        earlier = world.examples(until=world.cutoff - timedelta(days=1))
        told = {"champion": earlier, "retrained": whole, "worse": permuted(whole, PERMUTED)}
        print(f"{whole.requests} requests to learn from", flush=True)
        targets = collect_targets(world.events, start=world.cutoff, end=world.as_of, limit=5000)
        judge = Judge.prepare(targets, world.store)
        found = {}
        for name, examples in told.items():
            rankers = trained(world, examples, Path(folder) / name)
            found[name] = judge.evaluate(world.funnel(rankers), baselines=())
            print(name, found[name].interval(found[name].systems[FUNNEL][MAIN_METRIC]), flush=True)
    return rows_of(found)


def trained(world: World, examples: TrainingSet, storage: Path) -> TrainedRankers:
    """Both rankers on these examples."""
    from rolecall.features.pairs import COARSE_COLUMNS
    from rolecall.pipelines.train import train_rankers

    return train_rankers(examples, coarse_columns=COARSE_COLUMNS, settings=world.settings.ranking, storage=storage)


def rows_of(found: dict[str, Evaluation]) -> pl.DataFrame:
    """Long format: target, slice, a column a release."""
    from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC

    names = {"": None} | dict.fromkeys(sorted(next(iter(found.values())).slices))
    tables = []
    for part in names:
        columns = {name: one.slices[part] if part else one.systems[FUNNEL][MAIN_METRIC] for name, one in found.items()}
        table = pl.DataFrame({"target": np.arange(len(columns["champion"]), dtype=np.int32), "slice": part} | columns)
        tables.append(table.filter(~pl.any_horizontal(pl.col(list(columns)).is_nan())))
    return pl.concat(tables)


if __name__ == "__main__":
    measured = measure()
    measured.write_parquet(FILE, compression="zstd")
    whole = measured.filter(pl.col("slice") == "")
    print(whole.select(pl.col("champion", "retrained", "worse")).describe())
