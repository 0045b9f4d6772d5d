"""Training of the two rankers and the calibrator."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rolecall.features.pairs import COARSE_COLUMNS
from rolecall.pipelines.evaluation.metrics import auc
from rolecall.pipelines.examples import APPLY_LABEL, TrainingSet
from rolecall.pipelines.train import (
    MIN_ISOTONIC_POSITIVES,
    TrainedRankers,
    fit_calibrator,
    shapes,
    train_ranker,
    train_rankers,
)
from rolecall.platform.errors import InputError
from rolecall.serving.ranker import Ranker

if TYPE_CHECKING:
    from conftest import World


def test_the_same_examples_give_the_same_texts_whatever_the_threads(
    world: World, examples: TrainingSet, rankers: TrainedRankers, tmp_path: Path
) -> None:
    again = train_rankers(
        examples, coarse_columns=COARSE_COLUMNS, settings=world.settings.ranking, storage=tmp_path, threads=2
    )
    assert again == rankers


def test_a_model_text_names_nothing_of_the_machine_it_was_trained_on(rankers: TrainedRankers) -> None:
    for word in ("num_threads", "machines", "local_listen_port", "parameters:"):
        assert word not in rankers.fine


def test_rankers_prefer_what_held_out_candidates_engaged_with(examples: TrainingSet, rankers: TrainedRankers) -> None:
    held = examples.calibration()
    fine = Ranker(rankers.fine, rankers.fine_columns).score(held.features)
    coarse = Ranker(rankers.coarse, rankers.coarse_columns).score(held.columns_only(rankers.coarse_columns).features)
    assert auc(fine, held.labels > 0) > 0.75
    assert auc(coarse, held.labels > 0) > 0.7


def test_no_request_with_a_response_is_refused(world: World, examples: TrainingSet, tmp_path: Path) -> None:
    silent = replace(examples, labels=np.zeros_like(examples.labels))
    with pytest.raises(InputError, match=r"widen ranking\.train_days"):
        train_rankers(silent, coarse_columns=COARSE_COLUMNS, settings=world.settings.ranking, storage=tmp_path)


def repeated(examples: TrainingSet, times: int) -> TrainingSet:
    """The same requests so many times over."""
    many = {
        name: np.concatenate([getattr(examples, name)] * times)
        for name in ("features", "labels", "shown", "groups", "times", "held_out")
    }
    return replace(examples, **many)


@pytest.mark.parametrize("repeats", [1, MIN_ISOTONIC_POSITIVES])
def test_calibrated_scores_add_up_to_the_applications_and_keep_the_order(
    examples: TrainingSet, rankers: TrainedRankers, repeats: int
) -> None:
    """Repeating the fold crosses from Platt's sigmoid to isotonic regression."""
    held = examples.calibration()
    many = repeated(held, repeats)
    calibrator = fit_calibrator(rankers.fine, many)
    assert calibrator is not None
    assert calibrator.kind == ("platt" if repeats == 1 else "isotonic")
    scores = Ranker(rankers.fine, rankers.fine_columns).score(held.features[held.shown])
    chances = calibrator.probability(scores)
    applied = (held.labels[held.shown] == APPLY_LABEL).mean()
    assert chances.mean() == pytest.approx(applied, rel=0.25)
    assert (np.diff(chances[np.argsort(scores)]) >= -1e-7).all()


def test_what_never_happened_yet_is_not_called_impossible(examples: TrainingSet, rankers: TrainedRankers) -> None:
    """The rows of the lowest scores have no application among them, those of the highest nothing else."""
    held = examples.calibration()
    scores = Ranker(rankers.fine, rankers.fine_columns).score(held.features)
    low, high = np.quantile(scores, [0.3, 0.9])
    labels = np.where(scores > high, APPLY_LABEL, np.where(scores < low, 0, held.labels)).astype(np.int8)
    wide = replace(held, labels=labels, shown=np.ones_like(held.shown))
    many = repeated(wide, MIN_ISOTONIC_POSITIVES)
    calibrator = fit_calibrator(rankers.fine, many)
    assert calibrator is not None
    assert calibrator.kind == "isotonic"
    chances = calibrator.probability(scores)
    assert 0 < chances.min() < 1 / len(many.labels) ** 0.5
    assert 1 - 1 / len(many.labels) ** 0.5 < chances.max() < 1


def test_without_applications_there_is_no_calibrator(examples: TrainingSet, rankers: TrainedRankers) -> None:
    held = examples.calibration()
    assert fit_calibrator(rankers.fine, replace(held, labels=np.minimum(held.labels, 2).astype(np.int8))) is None


@pytest.mark.slow
def test_two_ray_workers_train_one_model_that_ranks_as_well(
    world: World, examples: TrainingSet, tmp_path: Path
) -> None:
    from rolecall.platform.ray_runtime import ray_session

    learn, held = examples.learnable(), examples.calibration()
    settings = world.settings.ranking.model_copy(update={"workers": 2})
    with ray_session(world.settings.ray, tmp_path):
        model = train_ranker(learn, shapes(settings)[1], settings, tmp_path / "storage")
    alone = train_ranker(learn, shapes(settings)[1], world.settings.ranking, tmp_path / "alone")
    both = [auc(Ranker(grown.text, learn.columns).score(held.features), held.labels > 0) for grown in (model, alone)]
    assert both[0] == pytest.approx(both[1], abs=0.05)
