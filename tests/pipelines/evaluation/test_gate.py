"""What the gate lets through and what it says when it does not."""

from __future__ import annotations

import pickle
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from rolecall.pipelines.evaluation.gate import Verdict, judge_release
from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC, Evaluation
from rolecall.pipelines.evaluation.targets import Target
from rolecall.platform.errors import GateRefusedError, InputError
from rolecall.platform.settings import GateSettings

TARGETS = tuple(
    Target(candidate_id=f"c{n}", at=datetime(2026, 3, 1, tzinfo=UTC), job_ids=("j",), labels=(1,)) for n in range(200)
)
NOISE = np.random.default_rng(0).normal(0, 0.1, 200)


def evaluation(quality: float, *, baseline: float = 0.1, slice_quality: float | None = None) -> Evaluation:
    part = np.where(np.arange(200) < 100, (quality if slice_quality is None else slice_quality) + NOISE, np.nan)
    return Evaluation(
        targets=TARGETS,
        systems={FUNNEL: {MAIN_METRIC: quality + NOISE}, "tfidf": {MAIN_METRIC: baseline + NOISE[::-1]}},
        stages={},
        slices={"history=none": part},
        milliseconds=np.full(200, 12.0),
        rounds=200,
    )


def judged(challenger: Evaluation, champion: Evaluation | None = None, **over: object) -> Verdict:
    asked: dict[str, object] = {"settings": GateSettings(), "size_bytes": 1 << 20} | over
    return judge_release(challenger, champion, **asked)  # type: ignore[arg-type]


def test_the_first_good_release_passes() -> None:
    verdict = judged(evaluation(0.3))
    assert verdict.passed
    assert verdict.reasons == ()
    verdict.require()


def test_a_release_as_good_as_the_champion_passes() -> None:
    assert judged(evaluation(0.3), evaluation(0.3)).passed


@pytest.mark.parametrize(
    ("challenger", "champion", "over", "reason"),
    [
        (evaluation(0.2, slice_quality=0.3), evaluation(0.3), {}, "against champion"),
        (evaluation(0.05), None, {}, "against tfidf"),
        (evaluation(0.3, slice_quality=0.2), evaluation(0.3), {}, "slice history=none"),
        (replace(evaluation(0.3), milliseconds=np.full(200, 900.0)), None, {}, "p99"),
        (evaluation(0.3), None, {"size_bytes": 1 << 40}, "size"),
        (evaluation(0.3), None, {"schema_errors": ["column x is unknown"]}, "column x is unknown"),
        (evaluation(0.3), None, {"settings": GateSettings(min_targets=201)}, "targets: 200, at least 201"),
    ],
)
def test_each_loss_is_refused_with_its_reason(
    challenger: Evaluation, champion: Evaluation | None, over: dict[str, object], reason: str
) -> None:
    verdict = judged(challenger, champion, **over)
    assert not verdict.passed
    assert len(verdict.reasons) == 1
    assert reason in verdict.reasons[0]
    with pytest.raises(GateRefusedError) as caught:
        verdict.require()
    assert reason in str(pickle.loads(pickle.dumps(caught.value)))


def test_a_loss_within_what_is_allowed_passes() -> None:
    assert judged(evaluation(0.29), evaluation(0.3), settings=GateSettings(max_quality_loss=0.02)).passed


def test_a_loss_that_may_be_chance_passes() -> None:
    worse = evaluation(0.3)
    noisy = worse.systems[FUNNEL][MAIN_METRIC] - 0.001 + np.random.default_rng(1).normal(0, 0.5, 200)
    assert judged(replace(worse, systems={FUNNEL: {MAIN_METRIC: noisy}}), evaluation(0.3)).passed


def test_other_targets_are_no_comparison() -> None:
    with pytest.raises(InputError, match="different targets"):
        judged(evaluation(0.3), replace(evaluation(0.3), targets=TARGETS[:5]))


def test_champion_and_challenger_may_be_compared_on_targets_of_their_own() -> None:
    own = replace(evaluation(0.3), targets=TARGETS[::-1])
    worse = replace(evaluation(0.2), targets=TARGETS[::-1])
    assert judged(evaluation(0.05, baseline=0.0), own, rival=own).passed
    assert "against champion" in judged(evaluation(0.3), own, rival=worse).reasons[0]
    with pytest.raises(InputError, match="different targets"):
        judged(evaluation(0.3), own)
