"""What a night's comparison looks like per target: measured once, kept in `gate_targets.parquet`, for `gate.py`.

In one made-up marketplace three releases that differ in their models alone answer the same targets through the judge of
the daily run: the champion, trained a day earlier; the same retrained with that day; and one whose training labels were
permuted within a share of the requests. What is kept is NDCG@10 of each, per target and slice, that of the baselines,
and in `gate_impressions.parquet` the probability that each gave to what was shown, with what became of it: how many
targets are zero, how far two releases agree, how unequal the slices are is then taken from life and not assumed.

    python tests/bench/gate_nights.py         # some fifteen minutes on one core; rewrites both files
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
import numpy.typing as npt
import polars as pl
from harness import ROOT

if TYPE_CHECKING:
    from conftest import World

    from rolecall.pipelines.evaluation.judge import Evaluation, Judge
    from rolecall.pipelines.examples import TrainingSet
    from rolecall.pipelines.market import MarketConfig
    from rolecall.pipelines.train import TrainedRankers
    from rolecall.serving.funnel import Funnel

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")
sys.path[:0] = [str(ROOT / "infra" / "import_root"), str(ROOT / "tests" / "pipelines")]

FILE = Path(__file__).with_name("gate_targets.parquet")
IMPRESSIONS = Path(__file__).with_name("gate_impressions.parquet")
SHOWN = 800
"""Requests whose impressions are judged."""
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


def market() -> MarketConfig:
    """The marketplace that is measured."""
    from rolecall.pipelines.market import MarketConfig

    size = {"jobs": 3000, "candidates": 3000, "employers": 250, "occupations": 150}
    return MarketConfig(**size, days=21, requests_per_candidate=6, end=date(2026, 9, 1))


def measure() -> tuple[pl.DataFrame, pl.DataFrame]:
    """A row a target and slice (`""`: all of it), with NDCG@10 of the three releases and, of all of it, of the
    baselines; and a row an impression, with the probability that each release gave it."""
    from conftest import build_world  # of tests/pipelines

    from rolecall.pipelines.evaluation.impressions import collect_impressions
    from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC, Judge
    from rolecall.pipelines.evaluation.targets import collect_targets

    with tempfile.TemporaryDirectory(prefix="rcg") as folder:
        world: World = build_world(Path(folder), market(), RANKING)
        whole = world.examples()
        earlier = world.examples(until=world.cutoff - timedelta(days=1))
        told = {"champion": earlier, "retrained": whole, "worse": permuted(whole, PERMUTED)}
        print(f"{whole.requests} requests to learn from", flush=True)
        targets = collect_targets(world.events, start=world.cutoff, end=world.as_of, limit=5000)
        shown = collect_impressions(world.events, start=world.cutoff, end=world.as_of, limit=SHOWN)
        judge = Judge.prepare(targets, world.store, impressions=shown)
        found, given = {}, {}
        for name, examples in told.items():
            funnel = world.funnel(trained(world, examples, Path(folder) / name))
            found[name] = judge.evaluate(funnel, baselines=None if name == "champion" else ())
            given[name] = probabilities_of(judge, funnel)
            print(name, found[name].interval(found[name].systems[FUNNEL][MAIN_METRIC]), flush=True)
            print(name, found[name].impressions, flush=True)
    shared = given["champion"].select("request", "candidate", "applied")
    return rows_of(found), shared.with_columns(table["given"].alias(name) for name, table in given.items())


def probabilities_of(judge: Judge, funnel: Funnel) -> pl.DataFrame:
    """What a release gives to each impression: request, candidate, applied, given. All hold the same jobs."""
    from rolecall.pipelines.evaluation.impressions import probabilities

    rows: list[tuple[int, int, bool, float]] = []
    who: dict[str, int] = {}
    for number, (past, request, context) in enumerate(judge.asked_impressions(funnel)):
        given, applied = probabilities(past, request, context)
        code = who.setdefault(request.candidate_id, len(who))
        rows += [(number, code, one, p) for one, p in zip(applied.tolist(), given.tolist(), strict=True)]
    columns = {"request": pl.Int32, "candidate": pl.Int32, "applied": pl.Boolean, "given": pl.Float32}
    return pl.DataFrame(rows, schema=columns, orient="row")


def trained(world: World, examples: TrainingSet, storage: Path) -> TrainedRankers:
    """Both rankers on these examples."""
    from rolecall.features.pairs import COARSE_COLUMNS
    from rolecall.pipelines.train import train_rankers

    return train_rankers(examples, coarse_columns=COARSE_COLUMNS, settings=world.settings.ranking, storage=storage)


def rows_of(found: dict[str, Evaluation]) -> pl.DataFrame:
    """Long format: target, slice, a column a release, and a column a baseline that is null but for all of a target."""
    from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC

    first = found["champion"]
    systems = {name: table[MAIN_METRIC] for name, table in first.systems.items() if name != FUNNEL}
    whole = {name: one.systems[FUNNEL][MAIN_METRIC] for name, one in found.items()}
    tables = [_table("", whole).with_columns(pl.Series(name, values) for name, values in systems.items())]
    for part in sorted(first.slices):
        values = {name: one.slices[part] for name, one in found.items()}
        tables.append(_table(part, values).filter(~pl.any_horizontal(pl.col(list(found)).is_nan())))
    return pl.concat(tables, how="diagonal")


def _table(part: str, values: dict[str, npt.NDArray[np.float64]]) -> pl.DataFrame:
    count = len(next(iter(values.values())))
    return pl.DataFrame({"target": np.arange(count, dtype=np.int32), "slice": part} | values)


if __name__ == "__main__":
    measured, impressions = measure()
    measured.write_parquet(FILE, compression="zstd")
    impressions.write_parquet(IMPRESSIONS, compression="zstd")
    print(measured.filter(pl.col("slice") == "").describe(), impressions.describe())
