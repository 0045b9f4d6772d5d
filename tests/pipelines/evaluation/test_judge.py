"""Targets and the evaluation of a funnel on them."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pytest

from rolecall.features.catalogue import Catalogue
from rolecall.features.lexicon import Lexicon
from rolecall.features.pairs import PairFeatures, PreparedCandidate
from rolecall.pipelines.evaluation.baselines import BASELINES, fair_baselines
from rolecall.pipelines.evaluation.judge import FUNNEL, LISTED, MAIN_METRIC, Evaluation, Judge
from rolecall.pipelines.evaluation.slices import FEWEST
from rolecall.pipelines.evaluation.targets import Target, collect_targets, fair_targets
from rolecall.pipelines.train import TrainedRankers
from rolecall.pipelines.training_set import training_columns
from rolecall.platform.vectors.protocol import SearchFilter
from rolecall.serving.recall import Recall, Retrieved

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


def test_every_list_holds_only_jobs_that_were_live_at_the_instant_and_new_to_the_candidate(
    world: World, judge: Judge, evaluation: Evaluation
) -> None:
    catalogue = world.pairs.catalogue
    for system, lists in evaluation.lists.items():
        for target, context, names in zip(judge.targets, judge.contexts, lists, strict=True):
            rows = catalogue.rows_of(names)
            assert len(rows) == len(set(names)) > 0
            assert catalogue.live(rows, target.at.timestamp() * 1e6).all(), system
            assert not set(names) & set(context.history)
            assert len(names) <= LISTED


class StaleRecall:
    """A recall stage that forgets to ask for live jobs, and gives its rows in an order of its own."""

    def __init__(self, recall: Recall, *, live: bool, seed: int) -> None:
        self.recall, self.live, self.random = recall, live, np.random.default_rng(seed)

    def retrieve(self, prepared: PreparedCandidate, conditions: SearchFilter, limit: int) -> Retrieved:
        asked = conditions if self.live else replace(conditions, at=None)
        found = self.recall.retrieve(prepared, asked, limit)
        order = self.random.permutation(len(found.rows))
        return replace(found, rows=found.rows[order], scores=found.scores[order], sources=found.sources[order])


def test_the_order_in_which_recall_gives_its_rows_changes_nothing(
    world: World, judge: Judge, rankers: TrainedRankers, evaluation: Evaluation
) -> None:
    funnel = world.funnel(rankers)
    funnel.recall = StaleRecall(world.recall, live=True, seed=1)
    again = judge.evaluate(funnel)
    assert again.lists == evaluation.lists
    assert again.to_dict() == evaluation.to_dict()


def test_a_release_gains_nothing_by_retrieving_what_is_not_live(
    world: World, judge: Judge, rankers: TrainedRankers
) -> None:
    funnel = world.funnel(rankers)
    funnel.recall = StaleRecall(world.recall, live=False, seed=1)
    found = judge.evaluate(funnel, baselines=())
    for target, names in zip(judge.targets, found.lists[FUNNEL], strict=True):
        rows = world.pairs.catalogue.rows_of(names)
        assert world.pairs.catalogue.live(rows, target.at.timestamp() * 1e6).all()
    assert (found.systems[FUNNEL]["recall@500"] <= found.reachable + 1e-9).all()


def test_the_order_of_the_jobs_table_changes_nothing(world: World, judge: Judge, rankers: TrainedRankers) -> None:
    """A list's best that tie stand in order of id, wherever their rows lay in the table."""
    table = world.pairs.catalogue.table
    mixed = Catalogue.from_table(table.take(np.random.default_rng(5).permutation(table.num_rows)))
    moved = replace(world, pairs=PairFeatures(mixed, Lexicon.fit(mixed), world.pairs.vectors))
    few = replace(judge, targets=judge.targets[:15], contexts=judge.contexts[:15])
    one, other = (few.evaluate(some.funnel(rankers)) for some in (world, moved))
    assert one.lists == other.lists
    assert one.to_dict() == other.to_dict()


def test_what_lists_do_to_the_catalogue_is_told_of_every_system(evaluation: Evaluation) -> None:
    assert set(evaluation.catalogue) == {FUNNEL, *BASELINES}
    for system, table in evaluation.catalogue.items():
        assert 0 < table["coverage@10"] <= 1, system
        assert 0 <= table["gini_exposure@10"] <= 1
        assert 0 <= table["diversity@10"] <= 2
    shares = {name: table["popularity_bias@10"] for name, table in evaluation.catalogue.items()}
    assert max(shares, key=lambda name: shares[name]) == "popularity"
    assert evaluation.catalogue["random"]["coverage@10"] > evaluation.catalogue["popularity"]["coverage@10"]


def test_slices_of_every_kind_are_reported(evaluation: Evaluation) -> None:
    kinds = {name.partition("=")[0] for name in evaluation.slices}
    assert kinds >= {"history", "place", "seniority", "job", "posted", "category", "employer"}


def test_slices_part_the_targets(evaluation: Evaluation) -> None:
    history = [values for name, values in evaluation.slices.items() if name.startswith("history=")]
    assert (sum(~np.isnan(values) for values in history) <= 1).all()  # those of too few targets are not reported
    assert all((~np.isnan(values)).sum() >= FEWEST for values in evaluation.slices.values())


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
