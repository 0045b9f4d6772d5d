"""What the figures hold against a release is said, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rolecall.pipelines.evaluation.judge import FUNNEL, Evaluation
from rolecall.pipelines.evaluation.report.figures import Report
from rolecall.pipelines.evaluation.report.weaknesses import Severity, weaknesses

if TYPE_CHECKING:
    from conftest import Judged

ORDER = ("worse", "weak", "thin")


def said(report: Report, severity: Severity) -> str:
    return "\n".join(one.text for one in weaknesses(report) if one.severity == severity)


def with_main(evaluation: Evaluation, system: str, values: np.ndarray) -> Evaluation:
    table = dict(evaluation.systems[system]) | {"ndcg@10": values}
    return replace(evaluation, systems={**evaluation.systems, system: table})


def test_the_worst_comes_first(judged: Judged) -> None:
    places = [ORDER.index(one.severity) for one in weaknesses(judged.report())]
    assert places == sorted(places)


def test_a_baseline_that_is_surely_better_is_named(judged: Judged) -> None:
    ours = judged.evaluation.systems[FUNNEL]["ndcg@10"]
    assert "TF-IDF" not in said(judged.report(), "worse")
    beaten = replace(judged, evaluation=with_main(judged.evaluation, "tfidf", ours + 0.1))
    assert "Surely worse than \u201cTF-IDF\u201d" in said(beaten.report(), "worse")


def test_a_difference_that_could_be_none_is_not_called_sure(judged: Judged) -> None:
    assert judged.champion is not None
    noise = np.random.default_rng(1).normal(0, 0.3, len(judged.evaluation.targets))
    ours = judged.evaluation.systems[FUNNEL]["ndcg@10"]
    even = replace(judged, champion=with_main(judged.champion, FUNNEL, ours + noise - noise.mean()))
    assert "ot surely better than the champion" in said(even.report(), "weak")
    assert "Surely worse than the champion:" not in said(even.report(), "worse")


def test_a_slice_that_surely_loses_to_the_champion_is_named(judged: Judged) -> None:
    assert judged.champion is not None
    slices = dict(judged.champion.slices)
    slices["candidate=new"] = np.asarray(judged.evaluation.slices["candidate=new"]) + 0.2
    report = replace(judged, champion=replace(judged.champion, slices=slices)).report()
    assert "Surely worse than the champion for candidate \u201cnew\u201d" in said(report, "worse")


def test_the_worst_slice_and_those_with_few_targets_are_named(judged: Judged) -> None:
    report = judged.report()
    assert "candidate \u201cnew\u201d" in said(report, "weak")
    small = [one for one in report.jobs.slices if one.release.count < 30]
    assert small
    assert all(f"\u201c{one.value}\u201d ({one.release.count})" in said(report, "thin") for one in small)


@pytest.mark.parametrize(("count", "warned"), [(60, True), (240, False)])
def test_few_targets_are_warned_of(judged: Judged, draw: Callable[..., Evaluation], count: int, warned: bool) -> None:
    report = replace(judged, evaluation=draw(count), champion=None, people=None).report()
    assert (f"Only {count} targets" in said(report, "thin")) == warned


def test_probabilities_no_better_than_a_constant_are_said_to_be(judged: Judged) -> None:
    quality = judged.evaluation.impressions
    assert quality is not None
    useless = replace(quality, normalized_entropy=1.0, calibration=replace(quality.calibration, ece=0.04))
    report = replace(judged, evaluation=replace(judged.evaluation, impressions=useless)).report()
    assert "say no more than the base rate" in said(report, "worse")
    assert "further off than a constant" in said(report, "worse")
    assert "base rate" not in said(judged.report(), "worse")


def test_changed_answers_and_less_exposure_are_said(judged: Judged) -> None:
    told = said(judged.report(), "worse")
    assert "3 of 640 answers changed" in told
    assert "age 50 and over" in told
    assert "women" not in told


def test_what_recall_loses_is_said_in_percent_of_what_was_wanted(judged: Judged) -> None:
    report = judged.report()
    held, recall = report.jobs.stages[0].release.mean, report.jobs.stages[1].release.mean
    assert f"{100 * (held - recall):.1f}% in \u201cRecall, best 1,000\u201d" in said(report, "weak")
