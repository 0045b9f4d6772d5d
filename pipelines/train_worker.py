"""What runs inside each Ray Train worker: boosting in fixed segments, a checkpoint after each.

A segment starts from the model text of the one before and from nothing else, so a fit that was interrupted and resumed
from a checkpoint grows the same trees as one that was not. LightGBM's workers talk over sockets of their own, which are
opened by the first segment and stay open: a port of theirs cannot be bound twice in a row.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm

from rolecall.pipelines.examples import TrainingSet

MODEL_FILE = "model.txt"
ROUNDS_FILE = "rounds.txt"
ROUNDS = "rounds"
RESUMED_FROM = "resumed_from"
"""Metrics of every report: trees so far, and trees that were there when this worker began."""

_SOCKETS = ("machines", "local_listen_port")


@dataclass(frozen=True, kw_only=True)
class Segment:
    """Rounds `start` to `end`, with a seed of its own: a resumed segment draws what it would have drawn."""

    start: int
    end: int
    seed: int


def segments(rounds: int, length: int, seed: int) -> list[Segment]:
    """All rounds in segments of at most `length`; the same ones whenever they are asked for."""
    starts = range(0, rounds, length)
    return [
        Segment(start=start, end=min(start + length, rounds), seed=seed + number) for number, start in enumerate(starts)
    ]


def train_worker(config: Mapping[str, Any]) -> None:
    """Fit on this rank's requests from the newest checkpoint on; rank 0 reports the model after each segment."""
    import ray
    from ray.train import Checkpoint, get_context, report

    context = get_context()
    shard = config["shards"][context.get_world_rank()]
    examples: TrainingSet = ray.get(shard) if isinstance(shard, ray.ObjectRef) else shard
    before, text = restored()
    left = [segment for segment in config["segments"] if segment.start >= before]
    parameters = {**config["parameters"], **_network(context.get_world_size())}
    for segment, model in grow(examples, parameters, left, text):
        metrics = {ROUNDS: segment.end, RESUMED_FROM: before}
        if context.get_world_rank():
            report(metrics)
            continue
        with tempfile.TemporaryDirectory() as folder:
            # In the driver itself Ray Train keeps the folder that is reported, and copies nothing.
            local = Path(tempfile.mkdtemp(dir=config["scratch"])) if config["scratch"] else Path(folder)
            write_checkpoint(local, model, segment.end)
            report(metrics, checkpoint=Checkpoint.from_directory(str(local)))


def grow(
    examples: TrainingSet, parameters: Mapping[str, Any], left: list[Segment], text: str | None
) -> Iterator[tuple[Segment, str]]:
    """Each segment that is left with the model text at its end. `text`: the model that they start from.

    `parameters` with LightGBM's `machines`: every worker calls this at once, each with its own requests.
    """
    network: lightgbm.Booster | None = None  # the first booster owns the sockets: they close when it goes
    for segment in left:
        shared = {name: value for name, value in parameters.items() if network is None or name not in _SOCKETS}
        data = lightgbm.Dataset(
            examples.features,
            label=examples.labels,
            group=examples.groups,
            feature_name=[f"f{number}" for number in range(len(examples.columns))],
            params=dict(shared),
            free_raw_data=True,
        )
        booster = lightgbm.train(
            {**shared, "seed": segment.seed},
            data,
            num_boost_round=segment.end - segment.start,
            init_model=None if text is None else lightgbm.Booster(model_str=text),
        )
        network = network or booster
        text = portable(booster.model_to_string())
        yield segment, text


def write_checkpoint(folder: Path, model: str, rounds: int) -> None:
    """The model and the rounds behind it, which may be more than its trees: a round that finds no split grows none."""
    (folder / MODEL_FILE).write_text(model)
    (folder / ROUNDS_FILE).write_text(str(rounds))


def portable(model: str) -> str:
    """The trees without the training parameters, which name this machine's ports: equal trees, equal text."""
    head, _, rest = model.partition("\nparameters:\n")
    return head + "\n" + rest.partition("end of parameters\n")[2]


def restored() -> tuple[int, str | None]:
    """Rounds and model text of the newest checkpoint that the workers agreed on."""
    from ray.train import get_checkpoint

    checkpoint = get_checkpoint()
    if checkpoint is None:
        return 0, None
    with checkpoint.as_directory() as kept:
        return int((Path(kept) / ROUNDS_FILE).read_text()), (Path(kept) / MODEL_FILE).read_text()


def _network(world_size: int) -> dict[str, Any]:
    if world_size == 1:
        return {}
    from ray.train.lightgbm import get_network_params

    return {"tree_learner": "data", "pre_partition": True, **get_network_params()}
