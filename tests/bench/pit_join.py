"""Point-in-time joins: ours beside Feast's stores and beside the bare engines, on the same files.

    500,000 entity rows x 1,000,000 feature rows x 3 features, ttl 30 days, 90 days of data, 1% of the feature rows tied
    wide: 50,000 keys, 20 feature rows each; even: 5,000 keys, 200 each; deep: 500 keys, 2,000 each

Two comparisons, each interleaved, medians of `--rounds`:

- through Feast (`get_historical_features(...).to_arrow()`): our plugin, Feast's DuckDB store, Feast's dask store, a
  process each; one that needs more than 60% of the memory or 15 minutes is ended and left out (`<store>_shapes` counts
  the shapes it finished), one that takes more than a minute is asked once;
- files to one Arrow table with the same ttl, tie-break and row order: our engine, raw DuckDB (`ASOF JOIN`) and raw
  Polars (`join_asof`), each as its manual would have it.

A ratio is the smallest one of the shapes; each shape's own has its name in front. `mismatches` counts cells in which
our engine or plugin differs from the raw engines (Feast's own differences are printed, not counted).

Then the join in parts, 256 MB, in a child process a size (one entity row for two feature rows): `growth` is the slope
of log(seconds) over log(feature rows), `bounded_gb` the memory it grew by at the largest size, `flat_x` that over the
smallest size's. Last the same parts through Ray Data with one and two workers of one thread each.

    python tests/bench/pit_join.py                                    # all of it
    python tests/bench/pit_join.py --rounds 1 --no-feast --no-ray     # the engines and the growth
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import math
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from harness import ROOT, finish

from rolecall.features.asof.join import asof_join
from rolecall.features.asof.spill import spilled_join
from rolecall.features.asof.view import AsofView

ASKS, ROWS = 500_000, 1_000_000
SHAPES = {"wide": 50_000, "even": 5_000, "deep": 500}  # keys
SIZES = (1_000_000, 4_000_000, 16_000_000)
RAY_ROWS = 4_000_000
BOUND = 256 * 2**20
TTL = timedelta(days=30)
VALUES = ("score", "visits", "rate")
GOALS = {
    "vs_feast_duckdb_x": (">=", 15.0), "vs_feast_dask_x": (">=", 15.0), "vs_best_raw_x": (">=", 0.8),
    "mismatches": ("<=", 0.0), "growth": ("<=", 1.1),
}  # fmt: skip
Arm = Callable[[Path], pa.Table]
STORES = {"plugin": "rolecall.features.asof.AsofOfflineStore", "feast_duckdb": "duckdb", "feast_dask": "dask"}
MEMORY = 0.6 * psutil.virtual_memory().total  # bytes a child may hold
TIME = 900.0  # seconds it may take
LONG = 60.0


def generate(folder: Path, asks: int, rows: int, keys: int, seed: int = 7) -> None:
    """`asked.parquet` and `rows.parquet` in `folder`, in no order; 1% of the rows share key and instant."""
    random = np.random.default_rng(seed)
    names = pl.Series([f"candidate-{place:07d}" for place in range(keys)])
    start, length = 1_700_000_000_000_000, 90 * 86_400_000_000

    def stamps(micros: Any) -> pl.Series:
        return pl.Series(micros).cast(pl.Datetime("us", "UTC"))

    asked = {"candidate_id": names[random.integers(0, keys, asks)]}
    asked["event_timestamp"] = stamps(start + random.integers(0, length, asks))
    pl.DataFrame(asked | {"label": random.random(asks)}).write_parquet(folder / "asked.parquet")
    key, at = random.integers(0, keys, rows), start + random.integers(0, length, rows)
    tied, like = (random.integers(0, rows, rows // 100) for _ in range(2))
    key[tied], at[tied] = key[like], at[like]
    written = {"happened_at": stamps(at), "written_at": stamps(at + random.permutation(rows))}
    values = {"score": random.random(rows), "visits": random.integers(0, 1_000, rows), "rate": random.random(rows)}
    pl.DataFrame({"candidate_id": names[key]} | written | values).write_parquet(folder / "rows.parquet")


def the_view(folder: Path) -> AsofView:
    return AsofView(
        name="activity", rows=pl.scan_parquet(folder / "rows.parquet"), keys={"candidate_id": "candidate_id"},
        timestamp="happened_at", created="written_at", ttl=TTL, columns={name: name for name in VALUES},
    )  # fmt: skip


def engine(folder: Path) -> pa.Table:
    return asof_join(pq.read_table(folder / "asked.parquet"), [the_view(folder)], timestamp="event_timestamp")


def raw_polars(folder: Path) -> pa.Table:
    asked = pl.scan_parquet(folder / "asked.parquet").with_row_index("row").sort("event_timestamp")
    rows = pl.scan_parquet(folder / "rows.parquet").sort("happened_at", "written_at").drop("written_at")
    joined = asked.join_asof(
        rows, left_on="event_timestamp", right_on="happened_at", by="candidate_id", tolerance=TTL,
        check_sortedness=False,
    )  # fmt: skip
    return joined.sort("row").drop("row", "happened_at").collect().to_arrow()


def raw_duckdb(folder: Path) -> pa.Table:
    fresh = ", ".join(
        f"CASE WHEN r.happened_at >= a.event_timestamp - INTERVAL 30 DAY THEN r.{v} END {v}" for v in VALUES
    )
    newest = ", ".join(f"arg_max({value}, written_at) {value}" for value in VALUES)
    query = f"""
        SELECT a.candidate_id, a.event_timestamp, a.label, {fresh}
        FROM read_parquet('{folder}/asked.parquet', file_row_number = true) a
        ASOF LEFT JOIN (SELECT candidate_id, happened_at, {newest} FROM '{folder}/rows.parquet' GROUP BY ALL) r
        ON a.candidate_id = r.candidate_id AND a.event_timestamp >= r.happened_at
        ORDER BY a.file_row_number"""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.sql(query).to_arrow_table()


def feast_arm(store: Any, folder: Path) -> pa.Table:
    asked = pq.read_table(folder / "asked.parquet").to_pandas()
    job = store.get_historical_features(entity_df=asked, features=[f"activity:{name}" for name in VALUES])
    return job.to_arrow()


def feast_store(kind: str, folder: Path, scratch: Path) -> Any:
    """A Feast project over `rows.parquet` with the offline store `kind`."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64, Int64

    home = Path(tempfile.mkdtemp(dir=scratch))
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider="local",
            registry=str(home / "registry.db"),
            offline_store={"type": kind},
            online_store={"type": "sqlite", "path": str(home / "online.db")},
            entity_key_serialization_version=3,
        )
    )
    source = FileSource(
        path=str(folder / "rows.parquet"), timestamp_field="happened_at", created_timestamp_column="written_at"
    )
    candidate = Entity(name="candidate", join_keys=["candidate_id"], value_type=ValueType.STRING)
    kinds = dict(zip(VALUES, (Float64, Int64, Float64), strict=True))
    schema = [Field(name=name, dtype=kind) for name, kind in kinds.items()]
    store.apply([candidate, FeatureView(name="activity", entities=[candidate], ttl=TTL, schema=schema, source=source)])
    return store


def through_feast(kind: str, folder: Path) -> dict[str, float]:
    """In the child: seconds of one retrieval by the store `kind`, after one of a few rows that counts for nothing.
    The table is left in the folder."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    few = folder / "few"
    if not few.exists():
        few.mkdir()
        generate(few, 1_000, 2_000, 100)
    feast_arm(feast_store(kind, few, folder), few)
    store = feast_store(kind, folder, folder)
    start = time.perf_counter()
    table = feast_arm(store, folder)
    seconds = time.perf_counter() - start
    pq.write_table(table, folder / "answer.parquet")
    return {"seconds": seconds}


def retrievals(folder: Path, rounds: int) -> tuple[dict[str, float], dict[str, pa.Table]]:
    """Median seconds of each of Feast's stores, interleaved, a process each; a store that fails is printed and left
    out, and one that took longer than LONG is not asked again."""
    seconds: dict[str, list[float]] = {name: [] for name in STORES}
    tables = {}
    failed = set()
    for _ in range(rounds):
        for name in STORES:
            if name in failed or max(seconds[name], default=0) > LONG:
                continue
            try:
                seconds[name].append(in_child(name, folder, limited=True)["seconds"])
            except ChildProcessError as error:
                failed.add(name)
                print(f"{folder.name}: {name} {error}", flush=True)
            else:
                tables[name] = pq.read_table(folder / "answer.parquet")
    return {name: statistics.median(taken) for name, taken in seconds.items() if taken}, tables


def interleaved(arms: dict[str, Arm], folder: Path, rounds: int) -> tuple[dict[str, float], dict[str, pa.Table]]:
    """Median seconds of each arm after one round that counts for nothing, and its last table."""
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    tables = {}
    for turn in range(rounds + 1):
        for name, arm in arms.items():
            start = time.perf_counter()
            tables[name] = arm(folder)
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(taken) for name, taken in seconds.items()}, tables


def differing(one: pa.Table, other: pa.Table) -> int:
    """Cells that differ; where rows are missing, all cells of those."""
    names = ["candidate_id", "event_timestamp", "label", *VALUES]
    ours, theirs = (pl.DataFrame(table.select(names)).sort(names[:3]) for table in (one, other))
    if ours.height != theirs.height:
        return abs(ours.height - theirs.height) * len(names)
    times = pl.col("event_timestamp").cast(pl.Datetime("us", "UTC"))
    ours, theirs = ours.with_columns(times), theirs.with_columns(times)
    return sum(int(ours[name].ne_missing(theirs[name]).sum()) for name in names)


def shape(name: str, keys: int, scratch: Path, rounds: int, *, feast: bool) -> dict[str, float]:
    """Seconds of every arm on one shape, printed, and `mismatches`."""
    folder = scratch / name
    folder.mkdir()
    generate(folder, ASKS, ROWS, keys)
    seconds, tables = interleaved(
        {"engine": engine, "raw_polars": raw_polars, "raw_duckdb": raw_duckdb}, folder, rounds
    )
    mismatches = sum(differing(tables["engine"], tables[other]) for other in ("raw_polars", "raw_duckdb"))
    if tables["engine"]["event_timestamp"] != pq.read_table(folder / "asked.parquet")["event_timestamp"]:
        sys.exit("our rows are not in the order of the entity rows")
    if feast:
        more, theirs = retrievals(folder, rounds)
        seconds |= more
        mismatches += differing(theirs.pop("plugin"), tables["engine"])
        for other in theirs:
            print(f"{name}: {other} gives {theirs[other].num_rows:,} of {ASKS:,} rows, "
                  f"{differing(theirs[other], tables['engine']):,} cells differ")  # fmt: skip
    for arm, taken in seconds.items():
        print(f"{name:<5} {arm:<13} {taken:8.3f} s", flush=True)
    return seconds | {"mismatches": float(mismatches)}


def bounded(folder: Path) -> dict[str, float]:
    """In the child: seconds of the join in parts, and the memory it grew by, in GB."""
    asked, view = pl.scan_parquet(folder / "asked.parquet"), the_view(folder)
    few = AsofView(**(vars(view) | {"rows": view.rows.head(100)}))
    for _ in spilled_join(asked.head(100), [few], timestamp="event_timestamp", memory=BOUND, scratch=folder):
        pass
    Path("/proc/self/clear_refs").write_text("5")
    before, start, rows = _status("VmRSS"), time.perf_counter(), 0
    for batch in spilled_join(asked, [view], timestamp="event_timestamp", memory=BOUND, scratch=folder):
        rows += batch.height
    return {"seconds": time.perf_counter() - start, "grown_gb": _status("VmHWM") - before, "rows": rows}


def whole(folder: Path) -> dict[str, float]:
    """In the child: the peak of the whole process, in GB, joining at once."""
    rows = engine(folder).num_rows
    return {"peak_gb": _status("VmHWM"), "rows": rows}


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 2**20 for line in lines if line.startswith(field))


def in_child(what: str, folder: Path, *, limited: bool = False) -> dict[str, float]:
    """What the child measured. `limited`: ChildProcessError where it failed, or needed more than MEMORY or TIME."""
    command = [sys.executable, __file__, "--child", what, str(folder)]
    child = psutil.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    reached = threading.Event()
    guard = threading.Thread(target=watch, args=(child, reached))
    guard.start()
    told, wrong = child.communicate()
    guard.join()
    if child.returncode == 0:
        return dict(json.loads(told.splitlines()[-1]))
    if not limited:
        sys.exit(wrong)
    limit = f"needed more than {MEMORY / 2**30:.0f} GB or {TIME / 60:.0f} min"
    raise ChildProcessError(limit if reached.is_set() else f"failed: {wrong.splitlines()[-1:]}")


def watch(child: psutil.Popen, reached: threading.Event) -> None:
    """End the child when it passes a limit: otherwise the kernel would end some process of this machine."""
    start = time.monotonic()
    with contextlib.suppress(psutil.NoSuchProcess):
        while child.status() != psutil.STATUS_ZOMBIE:
            if child.memory_info().rss > MEMORY or time.monotonic() - start > TIME:
                reached.set()
                child.kill()
                return
            time.sleep(0.1)


def growth(scratch: Path, sizes: Sequence[int]) -> dict[str, float]:
    found = []
    for rows in sizes:
        folder = scratch / f"rows{rows}"
        folder.mkdir()
        generate(folder, rows // 2, rows, rows // 20)
        found.append(in_child("bounded", folder))
        print(f"{rows:>12,} feature rows  {found[-1]['seconds']:8.2f} s  {found[-1]['grown_gb']:.3f} GB", flush=True)
        for file in folder.iterdir():
            file.unlink()
    slope = np.polyfit(np.log(sizes), np.log([one["seconds"] for one in found]), 1)[0]
    return {
        "growth": float(slope),
        "bounded_gb": found[-1]["grown_gb"],
        "flat_x": found[-1]["grown_gb"] / found[0]["grown_gb"],
        "bounded_largest_s": found[-1]["seconds"],
    }


def through_ray(scratch: Path, rows: int, rounds: int) -> dict[str, float]:
    """Two workers against one, one thread each, interleaved."""
    from rolecall.features.asof.cluster import cluster_join
    from rolecall.platform.ray_runtime import ray_session
    from rolecall.platform.settings import RaySettings

    folder = scratch / "ray"
    folder.mkdir()
    generate(folder, rows // 2, rows, rows // 20)
    asked = pl.scan_parquet(folder / "asked.parquet")

    def run(workers: int, turn: int) -> float:
        start = time.perf_counter()
        cluster_join(
            asked, [the_view(folder)], timestamp="event_timestamp", target=folder / f"out{workers}-{turn}",
            scratch=folder / "scratch", memory=BOUND, workers=workers,
        )  # fmt: skip
        return time.perf_counter() - start

    with ray_session(RaySettings(), folder / "home"):
        taken = [[run(workers, turn) for workers in (1, 2)] for turn in range(rounds + 1)][1:]
    one, two = (statistics.median(column) for column in zip(*taken, strict=True))
    print(f"Ray Data, {rows:,} feature rows: one worker {one:.2f} s, two workers {two:.2f} s")
    return {"ray_1_worker_s": one, "ray_2_workers_s": two, "ray_2_workers_x": one / two}


def ratios(shapes: dict[str, dict[str, float]], feast: bool) -> dict[str, float]:
    """The metrics of the two comparisons: our seconds on every shape, the smallest of each ratio."""
    best = [min(one["raw_polars"], one["raw_duckdb"]) / one["engine"] for one in shapes.values()]
    metrics = {f"{name}_engine_s": one["engine"] for name, one in shapes.items()}
    metrics |= {"ours_s": max(one.get("plugin", one["engine"]) for one in shapes.values()), "vs_best_raw_x": min(best)}
    if feast:
        for other in ("feast_duckdb", "feast_dask"):
            found = {name: one[other] / one["plugin"] for name, one in shapes.items() if other in one}
            metrics |= {f"{name}_vs_{other}_x": ratio for name, ratio in found.items()}
            metrics |= {f"{other}_shapes": float(len(found)), f"vs_{other}_x": min(found.values(), default=math.nan)}
    return metrics | {"mismatches": math.fsum(one["mismatches"] for one in shapes.values())}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-feast", action="store_true", help="the engines alone")
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="feature rows of the join in parts")
    parser.add_argument("--ray-rows", type=int, default=RAY_ROWS)
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        what, folder = given.child[0], Path(given.child[1])
        if what in STORES:
            print(json.dumps(through_feast(STORES[what], folder)))
        else:
            print(json.dumps({"bounded": bounded, "whole": whole}[what](folder)))
        return
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    with tempfile.TemporaryDirectory(prefix="pit-join-") as name:
        scratch, feast = Path(name), not given.no_feast
        shapes = {one: shape(one, keys, scratch, given.rounds, feast=feast) for one, keys in SHAPES.items()}
        metrics = ratios(shapes, feast) | {"peak_rss_gb": in_child("whole", scratch / "wide")["peak_gb"]}
        metrics |= growth(scratch, [int(size) for size in given.sizes.split(",")])
        if not given.no_ray:
            metrics |= through_ray(scratch, given.ray_rows, given.rounds)
    finish("pit_join", metrics, goals=GOALS)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONPATH", str(ROOT / "infra" / "import_root"))
    main()
