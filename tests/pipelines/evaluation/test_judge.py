"""Targets and the evaluation of a funnel on them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from rolecall.pipelines.evaluation.baselines import BASELINES, fair_baselines
from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC, Evaluation, Judge
from rolecall.pipelines.evaluation.targets import Target, collect_targets, fair_targets
from rolecall.pipelines.train import TrainedRankers
from rolecall.pipelines.training_set import training_columns

if TYPE_CHECKING:
    from conftest import World


AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def judge(world: World) -> Judge:
    targets = collect_targets(world.events, start=world.cutoff, end=world.as_of, limit=60)
    return Judge.prepare(targets, world.store, rounds=200)


@pytest.fixture(scope="module")
def evaluation(world: World, judge: Judge, rankers: TrainedRankers) -> Evaluation:
    return judge.evaluate(world.funnel(rankers))


def test_a_target_holds_only_jobs_engaged_with_in_the_window_and_never_before(world: World) -> None:
    targets = collect_targets(world.events, start=world.cutoff, end=world.as_of)
    assert len(targets) > 15
    told = world.events.filter(pl.col("actor") == "candidate")
    for target in targets:
        mine = told.filter(pl.col("candidate_id") == target.candidate_id)
        window = mine.filter(pl.col("occurred_at") >= world.cutoff)
        assert target.at == window["occurred_at"].min()
        for job_id in target.job_ids:
            acts = mine.filter(pl.col("job_id") == job_id, ~pl.col("kind").is_in(["impression", "dismiss"]))
            assert acts["occurred_at"].min() >= world.cutoff


def test_in_a_view_log_the_target_is_the_newest_job_given_all_before(world: World) -> None:
    log = world.events.filter(pl.col("kind") == "view", pl.col("actor") == "candidate")
    targets = collect_targets(log, start=world.cutoff, end=world.as_of)
    assert len(targets) > 10
    first = log.group_by("candidate_id", "job_id").agg(pl.col("occurred_at").min())
    for target in targets:
        mine = first.filter(pl.col("candidate_id") == target.candidate_id)
        assert target.at == mine["occurred_at"].max()
        assert set(target.job_ids) == set(mine.filter(pl.col("occurred_at") == target.at)["job_id"])


def test_a_ranker_that_may_not_use_other_candidates_is_not_held_against_popularity() -> None:
    assert set(fair_baselines(training_columns("ranker_full"))) == set(BASELINES)
    assert set(BASELINES) - set(fair_baselines(training_columns("ranker_content"))) == {"popularity"}


def test_which_candidates_are_asked_about_does_not_depend_on_the_others(world: World) -> None:
    few = collect_targets(world.events, start=world.cutoff, end=world.as_of, limit=10)
    gone = world.events.filter(pl.col("candidate_id") != few[0].candidate_id)
    assert set(few[1:]) <= set(collect_targets(gone, start=world.cutoff, end=world.as_of, limit=10))


def test_contexts_are_what_was_known_before_the_targets_instant(world: World, judge: Judge) -> None:
    for target, context in zip(judge.targets, judge.contexts, strict=True):
        known = world.events.filter(pl.col("occurred_at") < target.at, pl.col("candidate_id") == target.candidate_id)
        assert set(context.history) <= set(known["job_id"])
        assert not set(context.history) & set(target.job_ids)


def test_the_trained_funnel_beats_chance_and_popularity(evaluation: Evaluation) -> None:
    assert evaluation.difference("random").low > 0
    assert evaluation.difference("popularity").low > 0
    assert set(evaluation.systems) == {FUNNEL, *BASELINES}


def test_equal_releases_give_equal_reports(
    world: World, judge: Judge, rankers: TrainedRankers, evaluation: Evaluation
) -> None:
    again = judge.evaluate(world.funnel(rankers))
    assert json.dumps(again.to_dict(), sort_keys=True) == json.dumps(evaluation.to_dict(), sort_keys=True)
    assert again.metrics() == evaluation.metrics()


def test_no_stage_finds_what_the_one_before_lost(evaluation: Evaluation) -> None:
    recall, coarse = evaluation.stages.values()
    assert (coarse <= recall).all()
    assert (evaluation.systems[FUNNEL]["recall@500"] <= coarse + 1e-9).all()


def test_jobs_the_catalogue_does_not_hold_are_missed_and_not_an_error(
    world: World, judge: Judge, rankers: TrainedRankers
) -> None:
    lost = tuple(replace(target, job_ids=("gone",) * len(target.job_ids)) for target in judge.targets)
    found = replace(judge, targets=lost).evaluate(world.funnel(rankers), baselines=["tfidf"])
    assert found.metrics()[MAIN_METRIC] == 0
    assert found.metrics()["mrr"] == 0


def test_slices_part_the_targets(evaluation: Evaluation) -> None:
    history = [values for name, values in evaluation.slices.items() if name.startswith("history=")]
    assert (sum(~np.isnan(values) for values in history) == 1).all()


def test_no_targets_give_a_report_that_says_so(world: World, rankers: TrainedRankers) -> None:
    none = collect_targets(world.events, start=world.as_of, end=world.as_of + timedelta(days=1))
    report = Judge.prepare(none, world.store).evaluate(world.funnel(rankers))
    assert report.to_dict()["targets"] == 0
    assert json.dumps(report.to_dict(), allow_nan=False)


def test_unprompted_targets_are_jobs_nobody_had_shown_the_candidate(world: World) -> None:
    told = world.events.filter(pl.col("actor") == "candidate")
    shown = told.filter(pl.col("kind") == "impression", pl.col("occurred_at") >= world.cutoff)
    whole = collect_targets(world.events, start=world.cutoff, end=world.as_of)
    own = collect_targets(world.events, start=world.cutoff, end=world.as_of, unprompted=True)
    assert 0 < len(own) < len(whole)
    engaged = {(one.candidate_id, job) for one in own for job in one.job_ids}
    assert engaged < {(one.candidate_id, job) for one in whole for job in one.job_ids}
    acted = told.filter(pl.col("kind").is_in(["view", "click", "save", "apply"]))
    for who, job in engaged:
        pair = (pl.col("candidate_id") == who) & (pl.col("job_id") == job)
        first = acted.filter(pair)["occurred_at"].min()
        assert shown.filter(pair & (pl.col("occurred_at") <= first)).is_empty()


def test_a_log_in_which_nothing_was_shown_is_asked_once() -> None:
    """The same targets are the same object: what compares champion and challenger evaluates nothing twice."""
    one, two = (Target(candidate_id=who, at=AT, job_ids=("j",), labels=(1,)) for who in "ab")
    every = (one, two)
    assert fair_targets(every, (replace(one), replace(two)), least=1) is every
    assert fair_targets(every, (two,), least=2) is every
    assert fair_targets(every, (two,), least=1) == (two,)
