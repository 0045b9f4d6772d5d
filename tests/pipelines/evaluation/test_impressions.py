"""Probabilities of what was shown: against scikit-learn, and as a release gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from rolecall.pipelines.evaluation.impressions import (
    collect_impressions,
    grouped_auc,
    impression_quality,
    normalized_entropy,
)
from rolecall.pipelines.evaluation.judge import Judge
from rolecall.pipelines.train import TrainedRankers

if TYPE_CHECKING:
    from conftest import World


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


def test_normalized_entropy_is_scikit_learns_log_loss_over_that_of_the_base_rate(random: np.random.Generator) -> None:
    predicted, outcomes = random.uniform(0.01, 0.99, 200), random.random(200) < 0.2
    constant = np.full(200, outcomes.mean())
    expected = log_loss(outcomes, predicted) / log_loss(outcomes, constant)
    assert normalized_entropy(predicted, outcomes) == pytest.approx(expected)
    assert normalized_entropy(constant, outcomes) == pytest.approx(1)
    assert np.isnan(normalized_entropy(predicted, np.ones(200, np.bool_)))


def test_grouped_auc_is_the_mean_of_each_candidates_by_impressions(random: np.random.Generator) -> None:
    predicted, outcomes, groups = random.random(300), random.random(300) < 0.2, random.integers(0, 30, 300)
    both = [g for g in range(30) if len(set(outcomes[groups == g])) == 2]
    values = [roc_auc_score(outcomes[groups == g], predicted[groups == g]) for g in both]
    expected = np.average(values, weights=[np.sum(groups == g) for g in both])
    assert grouped_auc(predicted, outcomes, groups) == pytest.approx(expected)


def test_grouped_auc_ignores_what_is_the_same_for_a_whole_candidate(random: np.random.Generator) -> None:
    predicted, outcomes, groups = random.random(300), random.random(300) < 0.3, random.integers(0, 20, 300)
    lifted = predicted + random.normal(0, 10, 20)[groups]
    assert grouped_auc(lifted, outcomes, groups) == pytest.approx(grouped_auc(predicted, outcomes, groups))
    assert np.isnan(grouped_auc(predicted, outcomes, np.arange(300)))


def test_the_order_of_impressions_changes_no_quality(random: np.random.Generator) -> None:
    predicted, outcomes, groups = random.random(200).round(1), random.random(200) < 0.3, random.integers(0, 9, 200)
    order = random.permutation(200)
    one = impression_quality(predicted, outcomes, groups).metrics()
    assert impression_quality(predicted[order], outcomes[order], groups[order]).metrics() == pytest.approx(one)


def test_impressions_are_what_one_request_showed_and_what_was_applied_to_under_it(world: World) -> None:
    asked = collect_impressions(world.events, start=world.cutoff, end=world.as_of, limit=20)
    assert len(asked) == 20
    log = world.events.filter(pl.col("actor") == "candidate", pl.col("candidate_id") == asked[0].candidate_id)
    shown = log.filter(pl.col("kind") == "impression", pl.col("job_id").is_in(asked[0].job_ids))
    requests = shown.filter(pl.col("occurred_at") >= asked[0].at)["request_id"].unique().to_list()
    applied = log.filter(pl.col("kind") == "apply", pl.col("request_id").is_in(requests))["job_id"].to_list()
    told = {job for job, came in zip(asked[0].job_ids, asked[0].applied, strict=True) if came}
    assert told <= set(applied)
    assert any(any(one.applied) for one in asked)


def test_a_release_is_asked_about_each_impression_of_jobs_it_holds(world: World, rankers: TrainedRankers) -> None:
    asked = collect_impressions(world.events, start=world.cutoff, end=world.as_of, limit=30)
    found = Judge.prepare((), world.store, impressions=asked).evaluate(world.funnel(rankers)).impressions
    assert found is not None
    assert found.count == sum(len(one.job_ids) for one in asked)
    assert found.base_rate == pytest.approx(np.mean([came for one in asked for came in one.applied]))
    assert sum(one.count for one in found.calibration.bins) == found.count
    assert {"auc", "grouped_auc", "normalized_entropy", "calibration_slope", "ece"} <= set(found.metrics())


def test_a_log_without_impressions_has_no_quality_of_them(world: World, rankers: TrainedRankers) -> None:
    views = world.events.filter(pl.col("kind") == "view")
    asked = collect_impressions(views, start=world.cutoff, end=world.as_of)
    assert asked == ()
    assert Judge.prepare((), world.store, impressions=asked).evaluate(world.funnel(rankers)).impressions is None
