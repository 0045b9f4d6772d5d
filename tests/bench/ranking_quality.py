"""Next-click ranking on real job views, through a release's own retrieval and rankers, beside TF-IDF.

Protocol: `rolecall.pipelines.evaluation.sessions`: of an applicant's first views of distinct jobs the last is the
target, the earlier ones the history; all jobs are ranked with the history masked, ties count half. The release is built
with the feature service `ranker_content`: nothing in it knows what other applicants viewed, and its leak audit runs.

Targets are cut into blocks by time. A block is answered by a release trained on views before the block's first target
alone; the first block, before which there is too little to learn from, by retrieval without a ranker. Retrieval gives
at most 1,000 of the 3,677 jobs; what it leaves out counts as missed.

    python tests/bench/ranking_quality.py [--data FOLDER] [--home FOLDER] [--blocks 6]
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
from harness import add_data_argument, data_folder, finish
from sklearn.feature_extraction.text import TfidfVectorizer

from rolecall.features.context import CandidateContext
from rolecall.features.mapping import load_mapping
from rolecall.features.schema import EVENTS, TABLES
from rolecall.pipelines.assemble import RELEASE_FOLDER
from rolecall.pipelines.daily import assembly_plan
from rolecall.pipelines.evaluation.metrics import ndcg_at, ranks_of
from rolecall.pipelines.evaluation.sessions import Session, block_starts, collect_sessions
from rolecall.pipelines.evaluation.statistics import bootstrap
from rolecall.pipelines.ingest import ingest
from rolecall.pipelines.leaks.findings import leaks_of
from rolecall.pipelines.materialize import feature_store, materialize
from rolecall.pipelines.people_steps import PeopleSteps
from rolecall.pipelines.steps import Run
from rolecall.pipelines.training_set import read_contexts
from rolecall.platform.errors import GateRefusedError
from rolecall.platform.settings import Settings, load_settings
from rolecall.platform.tables import TableStore
from rolecall.serving.funnel import Funnel
from rolecall.serving.loader import load_release

ENOUGH_PAIRS = 100
RECALL_LIMIT = 1000
ROUNDS = 10_000
BASELINES = {
    "tfidf": ("Title", "City", "State.Name"),
    "tfidf_best": ("Position", "City", "State.Name", "State.Code"),
}
"""TF-IDF, mean of the history, over two choices of columns: the published baseline (title with its company, city,
state), and the strongest one we found (no company, the state twice)."""


def tfidf_ranks(views: pd.DataFrame, targets: Sequence[Session], columns: Sequence[str]) -> np.ndarray:
    """The baseline: sublinear TF-IDF of 1-2-grams, cosine to the mean of the history."""
    jobs = views.drop_duplicates("Job.ID")
    row = {job: place for place, job in enumerate(jobs["Job.ID"])}
    texts = [" ".join(parts) for parts in jobs[list(columns)].itertuples(index=False)]
    matrix = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit_transform(texts).tocsr()
    ranks = []
    for target in targets:
        seen = [row[job] for job in target.history]
        scores = np.asarray((matrix @ matrix[seen].T).mean(axis=1)).ravel()
        scores[seen] = -np.inf
        ranks.append(ranks_of(scores, np.array([row[target.job_id]]))[0])
    return np.array(ranks)


def settings_for(home: Path) -> Settings:
    return load_settings(
        environ={
            "ROLECALL_HOME": str(home),
            "ROLECALL_FEATURES__SERVICE": "ranker_content",
            "ROLECALL_RANKING__TRAIN_DAYS": "365",
            "ROLECALL_RANKING__EVALUATION_DAYS": "1",
            "ROLECALL_RANKING__RECALL_LIMIT": str(RECALL_LIMIT),
        }
    )


def build(settings: Settings, as_of: datetime) -> Path:
    """The daily run as of an instant, up to the sealed release folder."""
    work = PeopleSteps(settings=settings, registry=None, mlflow_run="")  # type: ignore[arg-type]  # judges nothing
    started = time.monotonic()
    try:
        records = Run(settings.runs_dir, "bench", as_of, {}).execute(assembly_plan(work))
        if leaks := leaks_of(*(record.values for record in records.values())):
            raise GateRefusedError("; ".join(leaks), "a training set without leaks", "figures of it are worth nothing")
    finally:
        work.close()
    print(f"  release as of {as_of:%Y-%m-%d %H:%M} built in {time.monotonic() - started:.0f} s", flush=True)
    return records["assemble"].folder / RELEASE_FOLDER


def learned_until(target: Session) -> datetime:
    """The instant whose run learns from everything before the target: a run holds out its last day."""
    return target.at + timedelta(days=1)


def block_ranks(
    funnel: Funnel, targets: Sequence[Session], contexts: Sequence[CandidateContext], *, learned: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks of a block's targets, and whether retrieval found each."""
    ranks, found = [], []
    for target, context in zip(targets, contexts, strict=True):
        prepared = funnel.prepare(context)
        retrieved = funnel.retrieve(prepared, at=target.at)
        scores = np.full(len(funnel.catalogue), -np.inf)
        if learned:
            ranked = funnel.rank(prepared, funnel.cut(prepared, retrieved.rows, at=target.at), at=target.at)
            scores[ranked.rows] = ranked.scores
        else:
            scores[retrieved.rows] = -np.arange(len(retrieved.rows), dtype=float)
        scores[funnel.catalogue.rows_of(target.history)] = -np.inf
        row = funnel.catalogue.row_of(target.job_id)
        ranks.append(ranks_of(scores, np.array([row]))[0])
        found.append(row in retrieved.rows)
    return np.array(ranks), np.array(found)


def contexts_of(settings: Settings, targets: Sequence[Session], folder: Path) -> list[CandidateContext]:
    """Every applicant as known strictly before the target, through Feast."""
    end = targets[-1].at + timedelta(days=1)
    tables = TableStore(settings.tables_uri)
    versions = {name: tables.version(name) for name in TABLES}
    materialize(tables, versions, as_of=end, settings=settings, folder=folder)
    asked = [(target.candidate_id, target.at) for target in targets]
    return read_contexts(feature_store(settings, folder), asked, settings.features.service)


def run(data: Path, home: Path, blocks: int) -> dict[str, float]:
    settings = settings_for(home)
    for line in ingest(data / "sjr", load_mapping("sjr"), TableStore(settings.tables_uri)).lines(refusals=0):
        print(line)
    views = pd.read_csv(data / "sjr" / "Job_Views.csv", dtype=str, keep_default_na=False, na_values=["NA"]).fillna("")
    events = TableStore(settings.tables_uri).scan(EVENTS).collect()
    targets = collect_sessions(events)
    starts = block_starts(targets, events["occurred_at"].to_list(), blocks=blocks, enough=ENOUGH_PAIRS)
    contexts = contexts_of(settings, targets, home / "contexts")
    ranks, found = [], []
    for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(targets)], strict=True)):
        folder = build(settings, learned_until(targets[starts[1] if number == 0 else start]))
        with contextlib.closing(load_release(folder, settings, settings.scratch_dir)) as release:
            part = block_ranks(release.funnel, targets[start:end], contexts[start:end], learned=number > 0)
        ranks.append(part[0])
        found.append(part[1])
        print(f"  block {number}: {end - start} targets, HR@10 {np.mean(part[0] <= 10):.3f}", flush=True)
    return metrics(np.concatenate(ranks), np.concatenate(found), views, targets)


def metrics(ranks: np.ndarray, found: np.ndarray, views: pd.DataFrame, targets: Sequence[Session]) -> dict[str, float]:
    hits = (ranks <= 10).astype(float)
    ndcg = np.array([ndcg_at(np.array([rank]), np.ones(1), 10) for rank in ranks])
    measured = {
        "targets": float(len(ranks)),
        "session_hr10": hits.mean(),
        "session_ndcg10": ndcg.mean(),
        "session_mrr": float(np.mean(1 / ranks)),
        "session_recall1000": found.mean(),
    }
    for name, columns in BASELINES.items():
        theirs = tfidf_ranks(views, targets, columns)
        gap = bootstrap(hits - (theirs <= 10), rounds=ROUNDS, seed=7)
        measured |= {
            f"{name}_hr10": float(np.mean(theirs <= 10)),
            f"session_vs_{name}": gap.mean,
            f"session_vs_{name}_low": gap.low,
            f"session_vs_{name}_high": gap.high,
        }
    return measured


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_data_argument(parser)
    parser.add_argument("--home", type=Path, help="where tables and releases go (default: a temporary folder)")
    parser.add_argument("--blocks", type=int, default=6)
    given = parser.parse_args()
    data = data_folder(given.data)
    with tempfile.TemporaryDirectory() as scratch:
        measured = run(data, (given.home or Path(scratch)).absolute(), given.blocks)
    finish("ranking_quality", measured, goals={"session_vs_tfidf_low": (">=", 0.0)})


if __name__ == "__main__":
    main()
