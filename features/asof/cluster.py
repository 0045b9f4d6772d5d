"""The point-in-time join on a Ray cluster: the stages as Ray Data maps, rows passing in files all machines see.

Ray Data's own shuffle is not used: a stage's work items are small descriptions, its answers paths, row counts and a
sample of instants. No row comes to the driver, and none enters the object store.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from rolecall.features.asof.join import check
from rolecall.features.asof.pieces import in_place
from rolecall.features.asof.plan import Plan, make_plan, pieces, slices, splits
from rolecall.features.asof.stages import gather, join, scatter, split
from rolecall.features.asof.view import AsofView

_OLDEST = pl.CompatLevel.oldest()
_Items = list[dict[str, Any]]


def cluster_join(
    entities: pl.LazyFrame,
    views: Sequence[AsofView],
    *,
    timestamp: str,
    target: Path,
    scratch: Path,
    known_only: bool = False,
    memory: int = 2**30,
    workers: int,
    threads: int = 1,
) -> list[Path]:
    """What `asof_join` gives, written by tasks as Parquet files below `target`; their paths, in entity order.

    `entities` and the views' rows are scans of files that every machine sees, as `target` and `scratch` must be.
    `workers`: tasks at once, each in about `memory` bytes with `threads` threads. Ray must be running.
    Raises AsofInputError for inputs that cannot be joined, before anything is read.
    """
    check(entities.collect_schema().to_frame().to_arrow(compat_level=_OLDEST).schema, views, timestamp)
    target.mkdir(parents=True, exist_ok=True)
    scratch.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="asof-", dir=scratch) as folder:
        plan = make_plan(
            entities, views, timestamp=timestamp, known_only=known_only, folder=Path(folder).absolute(),
            memory=memory, workers=workers,
        )  # fmt: skip
        spread = partial(_spread, plan=plan, workers=workers, threads=threads)
        scattered = spread(scatter, slices(plan))
        cut = spread(split, splits(plan, scattered))
        work = list(pieces(plan, scattered, cut))
        paths = spread(join, work)
        joined = [[path for path, one in zip(paths, work, strict=True) if one.view == v] for v in range(len(views))]
        return spread(partial(_written, joined=joined, target=target.absolute()), range(plan.slices))


def _written(plan: Plan, place: int, *, joined: Sequence[Sequence[Path]], target: Path) -> Path:
    rows = plan.entities.slice(place * plan.slice_rows, plan.slice_rows).collect()
    found = gather(place, joined)
    path = target / f"part-{place:06d}.parquet"
    with in_place(path) as unfinished:
        pl.concat([rows, found], how="horizontal").write_parquet(unfinished)
    return path


def _spread(stage: Callable[[Plan, Any], Any], items: Iterable[Any], *, plan: Plan, workers: int, threads: int) -> Any:
    """The stage's answers to the items, in their order, from at most `workers` tasks at once."""
    import ray.data

    work = [pickle.dumps(item) for item in items]
    if not work:
        return []
    variables = dict.fromkeys(("POLARS_MAX_THREADS", "OMP_NUM_THREADS"), str(threads))
    answers: _Items = (
        ray.data.from_items(list(enumerate(work)), override_num_blocks=len(work))
        .map(
            partial(_answered, stage=stage, plan=plan),
            num_cpus=threads,
            compute=ray.data.TaskPoolStrategy(size=workers),
            runtime_env={"env_vars": variables},
        )
        .take_all()
    )
    return [pickle.loads(answer["answer"]) for answer in sorted(answers, key=lambda answer: answer["place"])]


def _answered(item: dict[str, Any], *, stage: Callable[[Plan, Any], Any], plan: Plan) -> dict[str, Any]:
    place, work = item["item"]
    return {"place": place, "answer": pickle.dumps(stage(plan, pickle.loads(work)))}
