"""Training of the coarse and the fine ranker: LightGBM LambdaRank through Ray Train, and the calibrator.

`workers=0` trains inside the driver (Ray Train's local mode: no cluster is started); more workers train
data-parallel, each on whole requests, and keep a checkpoint every `checkpoint_rounds` rounds (a report costs Ray Train
about two seconds). A worker that dies is replaced and the fit goes on from the newest checkpoint; so does a fit whose
driver died, where the checkpoints lie in an object store.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import numpy.typing as npt

from rolecall.pipelines.examples import APPLY_LABEL, TOP_LABEL, TrainingSet
from rolecall.pipelines.train_worker import MODEL_FILE, RESUMED_FROM, Segment, segments, train_worker
from rolecall.platform.errors import InputError, UnavailableError
from rolecall.platform.object_store import Prefix
from rolecall.platform.settings import RankingSettings
from rolecall.serving.ranker import Calibrator

MIN_ISOTONIC_POSITIVES = 200
MAX_KNOTS = 64
MAX_FAILURES = 3
"""Workers that may die in one fit before it gives up."""


@dataclass(frozen=True, kw_only=True)
class TreeShape:
    """What makes one ranker different from the other. `least`: rows a leaf holds at least."""

    rounds: int
    leaves: int
    learning_rate: float
    feature_fraction: float = 1.0
    least: int = 20


@dataclass(frozen=True, kw_only=True)
class TrainedRankers:
    """LightGBM model texts, the columns each reads, and the fine ranker's calibrator (None without applications)."""

    coarse: str
    coarse_columns: tuple[str, ...]
    fine: str
    fine_columns: tuple[str, ...]
    calibrator: Calibrator | None


@dataclass(frozen=True, kw_only=True)
class TrainedRanker:
    """A LightGBM model text. `resumed_from`: rounds that the fit's last workers found in a checkpoint."""

    text: str
    resumed_from: int = 0


def shapes(settings: RankingSettings) -> tuple[TreeShape, TreeShape]:
    """Of the coarse and of the fine ranker.

    The fine one reads many columns of which each says little, and few of its rows are positive: small trees of large
    leaves rank better in the laboratory than the 31 leaves of 20 rows it had (tests/bench/RESULTS.md).
    """
    coarse = TreeShape(rounds=settings.coarse_rounds, leaves=15, learning_rate=0.1)
    fine = TreeShape(rounds=settings.fine_rounds, leaves=7, learning_rate=0.08, feature_fraction=0.4, least=100)
    return coarse, fine


def people_shapes(settings: RankingSettings) -> tuple[TreeShape, TreeShape]:
    """Of the rankers of people: there are far fewer questions, and leaves of many rows would tell few apart."""
    coarse, _ = shapes(settings)
    return coarse, TreeShape(rounds=settings.fine_rounds, leaves=31, learning_rate=0.05, feature_fraction=0.7)


def train_rankers(
    examples: TrainingSet,
    *,
    coarse_columns: Sequence[str],
    settings: RankingSettings,
    storage: Path,
    threads: int = 1,
) -> TrainedRankers:
    """Train both rankers on the requests outside the calibration fold and calibrate the fine one on that fold.

    `storage`: folder for workers' checkpoints. The same examples and settings
    give the same texts, whatever `threads` is (more than there are idle cores makes training ten times slower:
    LightGBM's threads wait for each other). Raises InputError where no request has a response.
    """
    learn = examples.learnable()
    if not learn.requests:
        raise InputError("no request with a response to learn from", "at least one", "widen ranking.train_days")
    coarse_shape, fine_shape = shapes(settings)
    coarse = train_ranker(learn.columns_only(coarse_columns), coarse_shape, settings, storage / "coarse", threads).text
    fine = train_ranker(learn, fine_shape, settings, storage / "fine", threads).text
    return TrainedRankers(
        coarse=coarse,
        coarse_columns=tuple(coarse_columns),
        fine=fine,
        fine_columns=examples.columns,
        calibrator=fit_calibrator(fine, examples.calibration()),
    )


def train_ranker(
    examples: TrainingSet, shape: TreeShape, settings: RankingSettings, storage: Path | Prefix, threads: int = 1
) -> TrainedRanker:
    """One ranker. With workers its checkpoints go below `storage`, which every one of them must reach: an object
    store, or a folder that all nodes share. Calling this again with the same examples goes on from the newest."""
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.lightgbm import LightGBMTrainer

    workers = settings.workers
    whole = [Segment(start=0, end=shape.rounds, seed=settings.seed)]
    plan = segments(shape.rounds, settings.checkpoint_rounds, settings.seed) if workers else whole
    grown = parameters(shape, settings, threads)
    with _quiet_ray(), _scratch(workers) as scratch:
        kept = scratch if scratch is not None else storage
        trainer = LightGBMTrainer(
            train_worker,
            train_loop_config={
                "shards": _share(examples, workers) if workers else [examples],
                "parameters": grown,
                "segments": plan,
                "scratch": None if scratch is None else str(scratch),
            },
            scaling_config=ScalingConfig(num_workers=workers, placement_strategy="SPREAD"),
            run_config=RunConfig(
                name=f"ranker-{_fingerprint(examples, grown, plan, workers)}",
                storage_path=kept.path if isinstance(kept, Prefix) else str(kept),
                storage_filesystem=kept.filesystem if isinstance(kept, Prefix) else None,
                failure_config=FailureConfig(max_failures=MAX_FAILURES if workers else 0),
                checkpoint_config=CheckpointConfig(num_to_keep=None),
            ),
        )
        result = trainer.fit()
        if result.checkpoint is None:
            raise UnavailableError("training ended without a checkpoint", todo="read the workers' logs")
        with result.checkpoint.as_directory() as folder:
            text = (Path(folder) / MODEL_FILE).read_text()
    return TrainedRanker(text=text, resumed_from=int((result.metrics or {}).get(RESUMED_FROM, 0)))


def parameters(shape: TreeShape, settings: RankingSettings, threads: int) -> dict[str, Any]:
    """LightGBM's parameters; everything that could differ between two runs is pinned."""
    return {
        "objective": "lambdarank",
        "metric": "None",
        "label_gain": [2**label - 1 for label in range(TOP_LABEL + 1)],
        "num_leaves": shape.leaves,
        "learning_rate": shape.learning_rate,
        "feature_fraction": shape.feature_fraction,
        "min_data_in_leaf": shape.least,
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


@contextlib.contextmanager
def _scratch(workers: int) -> Iterator[Path | None]:
    """A folder for what the driver trains itself; None where workers keep their checkpoints in the storage."""
    if workers:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="rolecall-train-") as folder:
        yield Path(folder)


def _fingerprint(examples: TrainingSet, parameters: dict[str, Any], plan: Sequence[Segment], workers: int) -> str:
    """Names a fit by all that its trees follow from: no fit goes on from another one's checkpoint."""
    said = {name: value for name, value in parameters.items() if name != "num_threads"}
    digest = hashlib.sha256(json.dumps([said, str(plan), workers, examples.columns]).encode())
    for array in (examples.features, examples.labels, examples.groups):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:12]


@contextlib.contextmanager
def _quiet_ray() -> Iterator[None]:
    logger = logging.getLogger("ray.train")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)


def _share(examples: TrainingSet, workers: int) -> list[Any]:
    """Whole requests for each rank, in the cluster's object store."""
    import ray

    return [ray.put(examples.shard(rank, workers)) for rank in range(workers)]


def _isotonic(scores: npt.NDArray[np.float64], applied: npt.NDArray[np.float64]) -> Calibrator:
    """With half an application more at the lowest score, and half a refusal at the highest: what never happened yet is
    not impossible. n rows of the lowest block without one then say 1 / (2n + 1), Jeffreys' estimate of a share."""
    from sklearn.isotonic import IsotonicRegression

    ends = np.array([scores.min(), scores.max()])
    weight = np.append(np.ones(len(scores)), [0.5, 0.5])
    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit(
        np.append(scores, ends), np.append(applied, [1.0, 0.0]), sample_weight=weight
    )
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
