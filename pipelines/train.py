"""Training of the coarse and the fine ranker: LightGBM LambdaRank through Ray Train, and the calibrator.

`workers=0` trains inside the driver (Ray Train's local mode: no cluster is started); more workers train
data-parallel, each on whole requests. A report costs Ray Train about two seconds, so there is one, at the end.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt

from rolecall.pipelines.examples import APPLY_LABEL, TOP_LABEL, TrainingSet
from rolecall.platform.errors import InputError, UnavailableError
from rolecall.platform.settings import RankingSettings
from rolecall.serving.ranker import Calibrator

MODEL_FILE = "model.txt"
MIN_ISOTONIC_POSITIVES = 200
MAX_KNOTS = 64


@dataclass(frozen=True, kw_only=True)
class TreeShape:
    """What makes one ranker different from the other."""

    rounds: int
    leaves: int
    learning_rate: float
    feature_fraction: float = 1.0


@dataclass(frozen=True, kw_only=True)
class TrainedRankers:
    """LightGBM model texts, the columns each reads, and the fine ranker's calibrator (None without applications)."""

    coarse: str
    coarse_columns: tuple[str, ...]
    fine: str
    fine_columns: tuple[str, ...]
    calibrator: Calibrator | None


def shapes(settings: RankingSettings) -> tuple[TreeShape, TreeShape]:
    """Of the coarse and of the fine ranker."""
    coarse = TreeShape(rounds=settings.coarse_rounds, leaves=15, learning_rate=0.1)
    fine = TreeShape(rounds=settings.fine_rounds, leaves=31, learning_rate=0.05, feature_fraction=0.7)
    return coarse, fine


def train_rankers(
    examples: TrainingSet,
    *,
    coarse_columns: Sequence[str],
    settings: RankingSettings,
    storage: Path,
    threads: int = 1,
) -> TrainedRankers:
    """Train both rankers on the requests outside the calibration fold and calibrate the fine one on that fold.

    `storage`: folder for Ray Train's checkpoints, reachable by every worker. The same examples and settings
    give the same texts, whatever `threads` is (more than there are idle cores makes training ten times slower:
    LightGBM's threads wait for each other). Raises InputError where no request has a response.
    """
    learn = examples.learnable()
    if not learn.requests:
        raise InputError("no request with a response to learn from", "at least one", "widen ranking.train_days")
    coarse_shape, fine_shape = shapes(settings)
    coarse = train_ranker(learn.columns_only(coarse_columns), coarse_shape, settings, storage / "coarse", threads)
    fine = train_ranker(learn, fine_shape, settings, storage / "fine", threads)
    return TrainedRankers(
        coarse=coarse,
        coarse_columns=tuple(coarse_columns),
        fine=fine,
        fine_columns=examples.columns,
        calibrator=fit_calibrator(fine, examples.calibration()),
    )


def train_ranker(
    examples: TrainingSet, shape: TreeShape, settings: RankingSettings, storage: Path, threads: int = 1
) -> str:
    """One LightGBM model text."""
    from ray.train import RunConfig, ScalingConfig
    from ray.train.lightgbm import LightGBMTrainer

    shards = [examples.shard(rank, max(settings.workers, 1)) for rank in range(max(settings.workers, 1))]
    storage.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=storage) as folder, _quiet_ray():
        trainer = LightGBMTrainer(
            _train_worker,
            train_loop_config={
                "shards": _share(shards) if settings.workers else shards,
                "parameters": parameters(shape, settings, threads),
                "rounds": shape.rounds,
                "scratch": folder,
            },
            scaling_config=ScalingConfig(num_workers=settings.workers),
            run_config=RunConfig(name="ranker", storage_path=folder),
        )
        checkpoint = trainer.fit().checkpoint
        if checkpoint is None:
            raise UnavailableError("training ended without a checkpoint", todo="read the workers' logs")
        with checkpoint.as_directory() as kept:
            return (Path(kept) / MODEL_FILE).read_text()


def parameters(shape: TreeShape, settings: RankingSettings, threads: int) -> dict[str, Any]:
    """LightGBM's parameters; everything that could differ between two runs is pinned."""
    return {
        "objective": "lambdarank",
        "metric": "None",
        "label_gain": [2**label - 1 for label in range(TOP_LABEL + 1)],
        "num_leaves": shape.leaves,
        "learning_rate": shape.learning_rate,
        "feature_fraction": shape.feature_fraction,
        "min_data_in_leaf": 20,
        "lambda_l2": 1.0,
        "lambdarank_truncation_level": 30,
        "deterministic": True,
        "force_row_wise": True,
        "seed": settings.seed,
        "num_threads": threads,
        "verbosity": -1,
    }


def fit_calibrator(model: str, held_out: TrainingSet, *, wanted: int = APPLY_LABEL) -> Calibrator | None:
    """From raw fine score to the probability that what was shown ends in label `wanted` (for jobs: an application),
    on requests the model never saw.

    Isotonic with enough of them, else Platt's sigmoid; None without any or without anything else.
    """
    shown = held_out.shown
    applied = (held_out.labels[shown] == wanted).astype(np.float64)
    if not applied.any() or applied.all():
        return None
    booster = lightgbm.Booster(model_str=model)
    scores = np.asarray(booster.predict(held_out.features[shown], num_threads=1), np.float64)
    if applied.sum() >= MIN_ISOTONIC_POSITIVES:
        return _isotonic(scores, applied)
    return _platt(scores, applied)


def _train_worker(config: Mapping[str, Any]) -> None:
    """Runs in each Ray Train worker: fit on this rank's requests, report the model once."""
    import ray
    from ray.train import Checkpoint, get_context, report
    from ray.train.lightgbm import get_network_params

    context = get_context()
    shard = config["shards"][context.get_world_rank()]
    distributed = context.get_world_size() > 1
    examples: TrainingSet = ray.get(shard) if isinstance(shard, ray.ObjectRef) else shard
    network = {"tree_learner": "data", "pre_partition": True, **get_network_params()} if distributed else {}
    data = lightgbm.Dataset(
        examples.features,
        label=examples.labels,
        group=examples.groups,
        feature_name=[f"f{number}" for number in range(len(examples.columns))],
        params=dict(config["parameters"]),
        free_raw_data=True,
    )
    booster = lightgbm.train({**config["parameters"], **network}, data, num_boost_round=config["rounds"])
    if context.get_world_rank():
        report({})
        return
    with tempfile.TemporaryDirectory() as folder:
        local = Path(folder) if distributed else Path(tempfile.mkdtemp(dir=config["scratch"]))
        (local / MODEL_FILE).write_text(_portable(booster.model_to_string()))
        report({"rounds": booster.current_iteration()}, checkpoint=Checkpoint.from_directory(str(local)))


def _portable(model: str) -> str:
    """The trees without the training parameters, which name this machine's ports: equal trees, equal text."""
    head, _, rest = model.partition("\nparameters:\n")
    return head + "\n" + rest.partition("end of parameters\n")[2]


@contextlib.contextmanager
def _quiet_ray() -> Iterator[None]:
    logger = logging.getLogger("ray.train")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _share(shards: Sequence[TrainingSet]) -> list[Any]:
    import ray

    return [ray.put(shard) for shard in shards]


def _isotonic(scores: npt.NDArray[np.float64], applied: npt.NDArray[np.float64]) -> Calibrator:
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(scores, applied)
    x, place = np.unique(fitted.X_thresholds_, return_index=True)
    y = np.maximum.accumulate(fitted.y_thresholds_[place])
    if len(x) > MAX_KNOTS:
        kept = np.unique(np.linspace(0, len(x) - 1, MAX_KNOTS).round().astype(np.int64))
        x, y = x[kept], y[kept]
    return Calibrator(kind="isotonic", x=tuple(map(float, x)), y=tuple(map(float, y)))


def _platt(scores: npt.NDArray[np.float64], applied: npt.NDArray[np.float64]) -> Calibrator:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=1.0).fit(scores[:, None], applied)
    return Calibrator(kind="platt", x=(max(0.0, float(fitted.coef_[0, 0])),), y=(float(fitted.intercept_[0]),))
