"""Features of one candidate and 500 jobs, as a request needs them: ours against stock Feast on the same SQLite store.

What serving does: the candidate's rows are read from the store at every request (through Feast's own SQLite store; no
cache of ours before it), the events posted since from the ledger, and the job columns come from arrays in memory that
were read once after the run. `warm` is the steady state; `store` reads the jobs from the online store as well, with
nothing held in memory; `cold` is the first request of a process, Feast's import, the registry built from code and the
reading of all job columns included. Stock Feast is `get_online_features`, once for the candidate's views and once for
the jobs' (the jobs' employers among them), on a store opened and warmed in the same process.

    python tests/bench/online_features.py
    python tests/bench/online_features.py --jobs 5000 --rounds 50
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from harness import ROOT, finish

if TYPE_CHECKING:
    from rolecall.features.store import FeatureStore
    from rolecall.serving.reader import CandidateReader

sys.path.insert(0, str(ROOT / "infra" / "import_root"))

NAME = "online_features"
GOALS = {"p50_ms": ("<=", 5.0)}
AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
NOW = AS_OF + timedelta(hours=9)
SHOWN = 500


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the store holds, and how often it is asked."""

    jobs: int
    candidates: int
    employers: int
    rounds: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--candidates", type=int, default=5_000)
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--cold", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    sizes = Sizes(jobs=given.jobs, candidates=given.candidates, employers=given.jobs // 20, rounds=given.rounds)
    if given.cold:
        print(_first_request(given.cold, sizes))
        return
    with tempfile.TemporaryDirectory(prefix="online-features-") as folder:
        finish(NAME, _measure(Path(folder), sizes), goals=GOALS)


def _measure(home: Path, sizes: Sizes) -> dict[str, float]:
    store = _filled(home, sizes)
    started = time.perf_counter()
    again = store.materialize(AS_OF + timedelta(minutes=1))
    unchanged_s = time.perf_counter() - started
    if again is None or any(again.written.values()):
        sys.exit("a run over the same rows wrote some of them again")
    side = Side.open(home, sizes)
    rng = np.random.default_rng(5)
    times: dict[str, list[float]] = {"ours": [], "store": [], "feast": []}
    for number in range(sizes.rounds + 3):
        candidate = f"c{rng.integers(sizes.candidates)}"
        rows = rng.choice(sizes.jobs, SHOWN, replace=False)
        for name, ask in (("ours", side.ours), ("store", side.ours_from_store), ("feast", side.feast)):
            if name != "ours" and number % 10 and number > 3:  # the slow ones less often
                continue
            started = time.perf_counter()
            ask(candidate, rows)
            if number >= 3:
                times[name].append(1e3 * (time.perf_counter() - started))
    _same_values(side, rng, sizes)
    p50 = float(np.median(times["ours"]))
    return {
        "p50_ms": p50,
        "p99_ms": float(np.percentile(times["ours"], 99)),
        "store_p50_ms": float(np.median(times["store"])),
        "feast_p50_ms": float(np.median(times["feast"])),
        "vs_feast_x": float(np.median(times["feast"])) / p50,
        "store_vs_feast_x": float(np.median(times["feast"])) / float(np.median(times["store"])),
        "cold_s": float(np.median([_cold(home, sizes) for _ in range(3)])),
        "refresh_s": side.refresh_s,
        "unchanged_run_s": unchanged_s,
    }


@dataclass(frozen=True, kw_only=True)
class Side:
    """Both ways to the same features over one store."""

    store: FeatureStore
    reader: CandidateReader
    held: Any
    stock: Any
    refresh_s: float
    sizes: Sizes

    @classmethod
    def open(cls, home: Path, sizes: Sizes) -> Side:
        from rolecall.features.store import FeatureStore
        from rolecall.platform.event_log import EventLog
        from rolecall.platform.ledger import open_ledger
        from rolecall.platform.settings import FeatureSettings
        from rolecall.serving.job_features import OnlineJobFeatures
        from rolecall.serving.reader import CandidateReader

        store = FeatureStore(home / "feast", FeatureSettings())
        events = EventLog(open_ledger(f"sqlite:///{home / 'ledger.db'}"))
        started = time.perf_counter()
        ids = [f"j{n}" for n in range(sizes.jobs)]
        views = store.online_job_columns(ids, [_employer(n, sizes) for n in range(sizes.jobs)])
        return cls(
            store=store,
            reader=CandidateReader(store, events, history_length=20),
            held=OnlineJobFeatures(views, version=1, through=AS_OF),
            stock=store._feast.memory,
            refresh_s=time.perf_counter() - started,
            sizes=sizes,
        )

    def ours(self, candidate: str, rows: Any) -> Any:
        return self.reader.read(candidate, NOW), self.held.read(rows, at=NOW)

    def ours_from_store(self, candidate: str, rows: Any) -> Any:
        columns = self.store.online_jobs([f"j{n}" for n in rows], [_employer(n, self.sizes) for n in rows], at=NOW)
        return self.reader.read(candidate, NOW), columns

    def feast(self, candidate: str, rows: Any) -> Any:
        from rolecall.features.views import service_views

        views = service_views("ranker_full")
        own = [f"{view.name}:{name}" for view in views if view.entity == "candidate" for name in view.columns]
        theirs = [f"{view.name}:{name}" for view in views if view.entity != "candidate" for name in view.columns]
        entities = [{"job_id": f"j{n}", "employer_id": _employer(n, self.sizes)} for n in rows]
        first = self.stock.get_online_features(features=own, entity_rows=[{"candidate_id": candidate}]).to_dict()
        return first, self.stock.get_online_features(features=theirs, entity_rows=entities).to_dict()


def _same_values(side: Side, rng: np.random.Generator, sizes: Sizes) -> None:
    """What is measured is the same work: all three ways give the same numbers of the jobs."""
    rows = rng.choice(sizes.jobs, SHOWN, replace=False)
    ours, stored = side.ours("c1", rows)[1], side.ours_from_store("c1", rows)[1]
    feast = side.feast("c1", rows)[1]
    for name, column in ours.items():
        theirs = np.array([np.nan if value is None else value for value in feast[name]], np.float32)
        if not (
            np.array_equal(column, theirs, equal_nan=True) and np.array_equal(column, stored[name], equal_nan=True)
        ):
            sys.exit(f"column {name} differs between the ways to it")


def _cold(home: Path, sizes: Sizes) -> float:
    """Seconds from a process that has imported nothing to the features of its first request."""
    command = [sys.executable, __file__, "--cold", str(home), "--jobs", str(sizes.jobs)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def _first_request(home: Path, sizes: Sizes) -> float:
    started = time.perf_counter()
    Side.open(home, sizes).ours("c1", np.arange(SHOWN))
    return time.perf_counter() - started


def _filled(home: Path, sizes: Sizes) -> FeatureStore:
    """An online store with a row of every view for everybody."""
    from rolecall.features.online_rows import join_key
    from rolecall.features.store import FeatureStore
    from rolecall.features.views import VIEWS
    from rolecall.platform.settings import FeatureSettings

    sources = home / "sources"
    sources.mkdir(parents=True)
    counts = {"job": sizes.jobs, "employer": sizes.employers, "candidate": sizes.candidates}
    rng = np.random.default_rng(3)
    told = _told(sizes, rng)
    for view in VIEWS:
        count = counts[view.entity]
        columns: dict[str, Any] = {
            join_key(view): [f"{view.entity[0]}{n}" for n in range(count)],
            "event_timestamp": [AS_OF] * count,
        }
        columns |= {name: [[f"j{n}", f"j{n + 1}"] for n in range(count)] for name in view.lists}
        columns |= {name: [f"text {n}" for n in range(count)] for name in view.texts}
        columns |= {name: np.floor(rng.random(count) * 100) for name in view.numbers}
        frame = pl.DataFrame(columns).with_columns(pl.col("event_timestamp").cast(pl.Datetime("us", "UTC")))
        frame = told.get(view.name, frame)
        frame.write_parquet(sources / f"{view.name}.parquet")
    store = FeatureStore(home / "feast", FeatureSettings(), sources=sources)
    store.materialize(AS_OF)
    return store


def _told(sizes: Sizes, rng: np.random.Generator) -> dict[str, pl.DataFrame]:
    """What candidates did in the month before: forty things each."""
    from rolecall.features.activity import candidate_activity, candidate_history
    from rolecall.features.schema import EVENTS

    empty = pl.DataFrame(EVENTS.columns.empty_table())
    count = 40 * sizes.candidates
    columns = {
        "event_id": [f"e{n}" for n in range(count)],
        "actor": ["candidate"] * count,
        "candidate_id": [f"c{n % sizes.candidates}" for n in range(count)],
        "job_id": [f"j{n}" for n in rng.integers(sizes.jobs, size=count)],
        "kind": rng.choice(["impression", "impression", "view", "click", "apply"], count).tolist(),
        "occurred_at": [AS_OF - timedelta(seconds=int(s)) for s in rng.integers(1, 30 * 86_400, size=count)],
    }
    events = pl.DataFrame(columns, schema={name: empty.schema[name] for name in columns})
    events = pl.concat([empty, events], how="diagonal")
    return {
        "candidate_history": candidate_history(events, history_length=20),
        "candidate_activity": candidate_activity(events, start=AS_OF - timedelta(days=30)),
    }


def _employer(number: int, sizes: Sizes) -> str:
    return f"e{number % sizes.employers}"


if __name__ == "__main__":
    main()
