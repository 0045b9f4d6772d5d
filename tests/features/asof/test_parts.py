"""A join in parts: how it is cut, what it holds in memory, and that a cluster gives the rows one machine gives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from rolecall.features.asof.join import asof_join
from rolecall.features.asof.plan import make_plan, pieces, slices, splits
from rolecall.features.asof.stages import gather, join, scatter, split
from rolecall.features.asof.view import AsofView
from tests.features.asof.cases import AT

MB = 2**20
START = datetime(2024, 1, 1, tzinfo=UTC)


def frames(rows: int, asks: int, *, hot: float = 0.0, keys: int = 1_000, seed: int = 0) -> tuple[pl.DataFrame, ...]:
    """Entity rows and feature rows over 60 days; a `hot` share of both belongs to one key."""
    random = np.random.default_rng(seed)

    def key(count: int) -> list[str]:
        return [f"k{n}" for n in np.where(random.random(count) < hot, 0, random.integers(0, keys, count))]

    def at(count: int) -> pl.Series:
        micros = random.integers(0, 60 * 86_400, count) * 1_000_000 + int(START.timestamp()) * 1_000_000
        return pl.Series(micros).cast(pl.Datetime("us", "UTC"))

    asked = pl.DataFrame({"key": key(asks), AT: at(asks), "order": range(asks)})
    return asked, pl.DataFrame({"key": key(rows), "at": at(rows), "value": range(rows)})


def the_view(rows: pl.LazyFrame) -> AsofView:
    return AsofView(
        name="v", rows=rows, keys={"key": "key"}, timestamp="at", created=None,
        ttl=timedelta(days=30), columns={"value": "v__value"},
    )  # fmt: skip


def test_a_key_with_a_tenth_of_all_rows_is_cut_by_time_and_nothing_changes(tmp_path: Path) -> None:
    asked, rows = frames(20_000, 5_000, hot=0.1)
    views = [the_view(rows.lazy())]
    plan = make_plan(
        asked.lazy(), views, timestamp=AT, known_only=False, folder=tmp_path, memory=2**30, workers=32
    )  # fmt: skip
    scattered = [scatter(plan, work) for work in slices(plan)]
    cut = [split(plan, work) for work in splits(plan, scattered)]
    work = list(pieces(plan, scattered, cut))
    joined = [[join(plan, piece) for piece in work]]
    assert {one.part for one in cut} == {piece.part for piece in work if piece.cuts} != set()
    assert sum(max(file.counts) for file in scattered if not file.work.of_entities) > 20_000 / 10
    found = pl.concat([gather(place, joined) for place in range(plan.slices)])
    assert found.equals(pl.DataFrame(asof_join(asked.to_arrow(), views, timestamp=AT)).select("v__value"))


CHILD = """
import json, sys
from datetime import timedelta
from pathlib import Path
import polars as pl
import pyarrow.parquet as pq
import pytest
from rolecall.features.asof.view import AsofView
from rolecall.features.asof.spill import spilled_join

def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))

folder, memory = Path(sys.argv[1]), int(sys.argv[2])
def joined(asked, rows):
    view = AsofView(name="v", rows=rows, keys={"key": "key"}, timestamp="at", created=None, ttl=timedelta(days=30),
                    columns={"value": "v__value"})
    return spilled_join(asked, [view], timestamp="asked_at", memory=memory, scratch=folder)

asked, rows = (pl.scan_parquet(folder / name) for name in ("asked.parquet", "rows.parquet"))
list(joined(asked.head(100), rows.head(100)))
Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
count = total = 0
for batch in joined(asked, rows):
    count, total = count + batch.height, total + int(batch["v__value"].sum() or 0)
print(json.dumps({"grown_mb": status("VmHWM") - before, "rows": count, "total": total}))
"""


@pytest.mark.slow
def test_peak_memory_follows_the_setting_not_the_data(tmp_path: Path) -> None:
    rows = 6_000_000
    for name, frame in zip(("asked", "rows"), frames(rows, 300_000, keys=20_000), strict=True):
        frame.write_parquet(tmp_path / f"{name}.parquet", row_group_size=50_000)
    held = pl.read_parquet(tmp_path / "rows.parquet").estimated_size() / MB
    environment = os.environ | {"POLARS_MAX_THREADS": "2", "MALLOC_ARENA_MAX": "2"}
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), str(32 * MB)],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    told = json.loads(done.stdout)
    whole = asof_join(
        pq.read_table(tmp_path / "asked.parquet"), [the_view(pl.scan_parquet(tmp_path / "rows.parquet"))], timestamp=AT
    )
    assert told["grown_mb"] < 3 * 32 < held
    assert (told["rows"], told["total"]) == (whole.num_rows, sum(whole["v__value"].drop_null().to_pylist()))
