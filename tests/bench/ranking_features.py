"""Do the newer feature columns rank better? One log of a simulated job board, one split, two fine rankers.

In each world of known truth the log of the days before the last is learned from: once with every column, once without
the ones named in ADDED; retrieval, the coarse ranker's cut, requests, negatives and tree shape are the same. Both then
answer, out of the whole catalogue, for everybody who came in the last days (`pipelines/evaluation`). Three things are
told of each, as the mean difference, paired by candidate and pooled over the worlds, with its 95% interval:

- `ndcg`: NDCG@10 of all that they went for. Most of it was shown by the policy that logged the days, so whoever
  guesses what that policy shows gains too.
- `unprompted`: the same of what they found by themselves, as a release is held against the champion where there is
  enough of it.
- `applied`: the true chance that each of the first ten jobs is applied to once looked at, their mean. The laboratory
  knows it; it depends on no policy and on no luck.

    python tests/bench/ranking_features.py               # three worlds
    python tests/bench/ranking_features.py --quick       # one tiny world: shows that it works, nothing more
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import finish

from rolecall.features.catalogue import Catalogue
from rolecall.features.embedder import Embedder
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import Lexicon
from rolecall.features.pair_columns import COARSE_COLUMNS
from rolecall.features.pairs import PairFeatures
from rolecall.features.schema import EVENTS, JOBS, TABLES
from rolecall.features.text import job_text
from rolecall.pipelines.evaluation.judge import FUNNEL, Evaluation, Judge
from rolecall.pipelines.evaluation.statistics import bootstrap
from rolecall.pipelines.evaluation.targets import collect_targets
from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.index import build_index
from rolecall.pipelines.knowledge import Windows, read_as_of
from rolecall.pipelines.market import MarketConfig, Truth, World, generate
from rolecall.pipelines.market.config import named
from rolecall.pipelines.materialize import feature_store, materialize
from rolecall.pipelines.train import shapes, train_ranker
from rolecall.pipelines.training_set import build_training_set
from rolecall.platform.settings import Settings, load_settings
from rolecall.platform.tables import TableStore
from rolecall.platform.vectors.edge import EdgeIndex
from rolecall.serving.funnel import Funnel, SnapshotJobFeatures
from rolecall.serving.policy import Policy
from rolecall.serving.profiles import ProfileVectors
from rolecall.serving.ranker import Ranker
from rolecall.serving.recall import Recall

NAME = "ranking_features"
ADDED = (
    *("category_desired", "category_resume", "category_skills", "category_profile"),
    *("lean_category", "lean_remote", "lean_skills", "lean_skills_within", "lean_meaning"),
)
"""The columns in question. What was tried and left out is in `pair_columns.NOT_RANKED` and in RESULTS.md."""

METRIC = "ndcg@10"
MEASURES = ("ndcg", "unprompted", "applied")
GOALS = {f"{measure}_gain_low": (">", 0.0) for measure in MEASURES}
BEST = 10
ROUNDS = 10_000
Values = Mapping[str, np.ndarray]
"""By measure a number a target; NaN where it does not apply."""


def market_config(seed: int, *, quick: bool) -> MarketConfig:
    """A world's size."""
    if quick:
        return named("small", jobs=300, candidates=150, employers=30, occupations=20, days=10, seed=seed)
    size = {"jobs": 1500, "candidates": 1500, "employers": 150, "occupations": 60, "days": 21}
    return named("small", **size, requests_per_candidate=8.0, seed=seed)


@dataclass(frozen=True, kw_only=True)
class Log:
    """What was learned from and is judged on in one world; `funnel` is the release without a fine ranker.

    `unprompted`: of the judge's targets those with something they found by themselves, and that alone.
    """

    settings: Settings
    examples: TrainingSet
    world: World
    judge: Judge
    unprompted: Judge
    funnel: Funnel
    index: EdgeIndex
    home: Path


def read_log(market: MarketConfig, home: Path) -> Log:
    """Tables, features, training set and targets of a world, through the steps of the daily run."""
    settings = load_settings(environ={"ROLECALL_HOME": str(home)})
    tables = TableStore(settings.tables_uri)
    for name, rows in generate(market).tables().items():
        tables.upsert(TABLES[name], rows)
    versions = {name: tables.version(name) for name in TABLES}
    materialize(tables, versions, as_of=market.ends_at, settings=settings, folder=home / "views")
    store = feature_store(settings, home / "views")
    embedder = Embedder(settings.embedder)
    events = read_as_of(tables, EVENTS, versions, market.ends_at)
    windows = Windows.of(market.ends_at, settings.ranking)
    pairs, index = released(tables, embedder, settings, home)
    examples = build_training_set(
        events,
        start=max(windows.learning.start, market.starts_at),
        end=windows.learning.end,
        store=store,
        service="ranker_full",
        pairs=pairs,
        embed=embedder.encode,
        settings=settings.ranking,
    )
    targets, unprompted = (
        collect_targets(
            events, start=windows.evaluation.start, end=windows.evaluation.end, limit=2000, unprompted=alone
        )
        for alone in (False, True)
    )
    coarse = trained(examples, COARSE_COLUMNS, settings, home / "coarse", shape=0)
    funnel = Funnel(
        release_id="bench",
        pairs=pairs,
        profiles=ProfileVectors(embedder),
        recall=Recall(index, pairs.catalogue, pairs.vectors),
        coarse=coarse,
        fine=coarse,
        policy=Policy(settings.policy, pairs.catalogue, pairs.vectors),
        job_features=SnapshotJobFeatures({}),
        recall_limit=settings.ranking.recall_limit,
        coarse_limit=settings.ranking.coarse_limit,
    )
    return Log(
        settings=settings,
        examples=examples,
        world=World(market),
        judge=Judge.prepare(targets, store),
        unprompted=Judge.prepare(unprompted, store),
        funnel=funnel,
        index=index,
        home=home,
    )


def released(tables: TableStore, embedder: Embedder, settings: Settings, home: Path) -> tuple[PairFeatures, EdgeIndex]:
    """What a release holds of the jobs."""
    catalogue = Catalogue.from_table(tables.read(JOBS))
    texts = [job_text(job) for job in catalogue.table.to_pylist()]
    built = build_index(catalogue.table, embedder.encode(texts), settings.vectors, home / "index")
    vectors = JobVectors.load(built.vectors)
    pairs = PairFeatures(catalogue, Lexicon.fit(catalogue), vectors)
    return pairs, EdgeIndex.open(built.index, home / "scratch")


def trained(examples: TrainingSet, columns: Sequence[str], settings: Settings, storage: Path, *, shape: int) -> Ranker:
    """A ranker over some columns. `shape`: 0 the coarse ranker's, 1 the fine one's."""
    learn = examples.learnable().columns_only(columns)
    return Ranker(train_ranker(learn, shapes(settings.ranking)[shape], settings.ranking, storage).text, columns)


def answers(log: Log, left_out: Sequence[str]) -> Values:
    """What each target gets of a fine ranker without these columns."""
    columns = tuple(name for name in log.examples.columns if name not in left_out)
    began = time.monotonic()
    log.funnel.fine = trained(log.examples, columns, log.settings, log.home / f"fine{len(columns)}", shape=1)
    whole = log.judge.evaluate(log.funnel, baselines=())
    alone = log.unprompted.evaluate(log.funnel, baselines=())
    found = {
        "ndcg": whole.systems[FUNNEL][METRIC],
        "unprompted": alone.systems[FUNNEL][METRIC],
        "applied": applied(log, whole),
    }
    told = ", ".join(f"{name} {np.nanmean(values):.4f}" for name, values in found.items())
    print(f"  {len(columns)} columns: {told} ({time.monotonic() - began:.0f} s)", flush=True)
    return found


def applied(log: Log, answered: Evaluation) -> np.ndarray:
    """Mean true chance of an application among the first BEST jobs of each target's list."""
    world, chances = log.world, []
    truth = Truth(world)
    for target, ids in zip(log.judge.targets, answered.lists[FUNNEL], strict=True):
        who, at_us = world.candidate_number(target.candidate_id), int(target.at.timestamp() * 1e6)
        jobs = np.array([[world.job_number(job_id) for job_id in ids[:BEST]]], np.int64)
        chances.append(float(truth.apply(np.array([who]), jobs, np.array([at_us])).mean()))
    return np.array(chances)


def compare(seeds: Sequence[int], *, quick: bool) -> dict[str, float]:
    """The figures, pooled over worlds; a candidate of one world is not one of another."""
    arms: dict[str, Sequence[str]] = {"all": (), "landed": ADDED}
    values: dict[str, list[Values]] = {arm: [] for arm in arms}
    for seed in seeds:
        print(f"world {seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="rcf") as scratch:
            log = read_log(market_config(seed, quick=quick), Path(scratch))
            print(f"  {log.examples.requests} requests, {len(log.judge.targets)} candidates judged", flush=True)
            for arm, left_out in arms.items():
                values[arm].append(answers(log, left_out))
            log.index.close()
    measured = {"candidates": float(sum(len(one["ndcg"]) for one in values["all"]))}
    for name in MEASURES:
        ours, landed = (np.concatenate([one[name] for one in values[arm]]) for arm in arms)
        gain = bootstrap(ours - landed, rounds=ROUNDS, seed=7)
        measured |= {name: float(np.nanmean(ours)), f"{name}_landed": float(np.nanmean(landed))}
        measured |= {f"{name}_gain": gain.mean, f"{name}_gain_low": gain.low, f"{name}_gain_high": gain.high}
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one tiny world")
    parser.add_argument("--seeds", type=int, nargs="+", default=[7, 8, 9])
    given = parser.parse_args()
    seeds = given.seeds[:1] if given.quick else given.seeds
    finish(NAME, compare(seeds, quick=given.quick), goals={} if given.quick else GOALS)


if __name__ == "__main__":
    main()
