"""Real rankers of the small world, judged by the real judge, put to the gate."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rolecall.features.pairs import COARSE_COLUMNS
from rolecall.pipelines.evaluation.gate import judge_release
from rolecall.pipelines.evaluation.judge import Evaluation, Judge
from rolecall.pipelines.evaluation.targets import collect_targets
from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.train import TrainedRankers, train_rankers
from rolecall.platform.gate_rules import GateRules

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import World

RULES = GateRules.model_validate({})


@pytest.fixture(scope="module")
def judge(world: World) -> Judge:
    targets = collect_targets(world.events, start=world.cutoff, end=world.as_of)
    return Judge.prepare(targets, world.store, rounds=100)


@pytest.fixture(scope="module")
def good(world: World, judge: Judge, rankers: TrainedRankers) -> Evaluation:
    return judge.evaluate(world.funnel(rankers), baselines=["random", "popularity"])


def test_a_trained_release_passes_as_the_first(good: Evaluation) -> None:
    assert judge_release(good, None, rules=RULES, size_bytes=1).outcome == "first"


def test_a_release_that_learned_shuffled_labels_is_refused_for_its_quality(
    world: World, judge: Judge, good: Evaluation, examples: TrainingSet, tmp_path: Path
) -> None:
    shuffled = replace(examples, labels=np.random.default_rng(1).permutation(examples.labels))
    rankers = train_rankers(shuffled, coarse_columns=COARSE_COLUMNS, settings=world.settings.ranking, storage=tmp_path)
    bad = judge.evaluate(world.funnel(rankers), baselines=())
    verdict = judge_release(bad, good, rules=RULES, size_bytes=1, champion_must_go=True)
    assert verdict.outcome == "refused"
    check = next(check for check in verdict.checks if check.name == "against champion")
    assert "surely losing more" in check.detail
    assert judge_release(good, bad, rules=RULES, size_bytes=1).outcome == "better"


def test_a_release_whose_answers_take_a_second_is_refused(world: World, judge: Judge, rankers: TrainedRankers) -> None:
    slow = replace(judge, clock=lambda ticks=itertools.count(): float(next(ticks)))
    found = slow.evaluate(world.funnel(rankers), baselines=())
    verdict = judge_release(found, None, rules=RULES, size_bytes=1)
    assert [reason.split(":")[0] for reason in verdict.reasons] == ["p99"]
