"""Figures are those of the evaluation, whichever way they come."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC, Evaluation
from rolecall.pipelines.evaluation.report.gather import histogram
from rolecall.pipelines.evaluation.report.page import render
from rolecall.pipelines.evaluation.report.recorded import recorded_report, report_of_run
from rolecall.platform.errors import InputError, NotFoundError

if TYPE_CHECKING:
    from conftest import Judged


def test_wins_ties_and_losses_are_all_targets(judged: Judged) -> None:
    for one in judged.report().jobs.comparisons:
        assert one.wins is not None
        assert one.ties is not None
        assert one.losses is not None
        assert one.wins + one.ties + one.losses == one.difference.count == len(judged.evaluation.targets)


def test_samples_are_where_the_lists_differ_most(judged: Judged) -> None:
    assert judged.champion is not None
    samples = judged.report().samples
    assert samples is not None
    gaps = judged.evaluation.systems[FUNNEL][MAIN_METRIC] - judged.champion.systems[FUNNEL][MAIN_METRIC]
    ordered = np.sort(gaps)
    assert [one.ours - one.theirs for one in samples.wins] == list(ordered[::-1][: len(samples.wins)])
    assert [one.ours - one.theirs for one in samples.losses] == list(ordered[: len(samples.losses)])


def test_a_place_is_marked_exactly_where_the_person_did_something(judged: Judged) -> None:
    assert judged.report().samples is not None
    report = replace(judged, titles={job: job for job in judged.titles}).report()
    assert report.samples is not None
    for one in (*report.samples.wins, *report.samples.losses):
        wanted = {ranked.title: ranked.did for ranked in one.wanted}
        assert all(wanted.values())
        for place in (*one.release, *one.other):
            assert place.did == wanted.get(place.title, "")


def test_without_a_champion_samples_are_against_the_best_baseline(judged: Judged) -> None:
    samples = replace(judged, champion=None).report().samples
    systems = judged.evaluation.systems
    best = max((name for name in systems if name != FUNNEL), key=lambda name: systems[name][MAIN_METRIC].mean())
    assert samples is not None
    assert samples.against == best


def test_other_targets_than_the_champions_need_a_rival(judged: Judged, draw: Callable[..., Evaluation]) -> None:
    apart = replace(judged, champion=draw(120, seed=2))
    with pytest.raises(InputError):
        apart.report()
    report = replace(apart, rival=draw(120)).report()
    assert report.jobs.compared_targets == 120
    assert report.jobs.targets == len(judged.evaluation.targets)
    assert report.jobs.against("champion")[0].difference.count == 120


def test_a_histogram_holds_every_request(judged: Judged) -> None:
    taken = judged.evaluation.milliseconds
    assert sum(count for _, _, count in histogram(taken)) == len(taken)
    assert sum(count for _, _, count in histogram(np.full(7, 3.0))) == 7


def test_what_was_recorded_gives_the_figures_that_were_gathered(judged: Judged, tmp_path: Path) -> None:
    alone = replace(judged, champion=None, people=None, fairness=None)
    gathered = alone.report()
    recorded = recorded_report(judged.manifest, *files(alone))
    assert recorded.jobs.systems == gathered.jobs.systems
    assert [one.difference for one in recorded.jobs.comparisons] == [
        one.difference for one in gathered.jobs.comparisons
    ]
    assert recorded.jobs.slices == gathered.jobs.slices
    assert recorded.jobs.stages == gathered.jobs.stages
    assert recorded.jobs.catalogue == gathered.jobs.catalogue
    assert recorded.probability == gathered.probability
    assert (recorded.log, recorded.power) == (gathered.log, gathered.power)
    assert recorded.ruling.checks == gathered.ruling.checks
    assert recorded.ruling.rules == gathered.ruling.rules
    assert recorded.ruling.outcome == gathered.ruling.outcome


def test_the_folder_of_a_finished_run_gives_a_page(judged: Judged, tmp_path: Path) -> None:
    evaluation, verdict = files(judged)
    for name, content in {
        "evaluate/evaluation.json": evaluation,
        "evaluate/verdict.json": verdict,
        "release/release/manifest.json": judged.manifest.to_json(),
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    assert judged.manifest.id in render(report_of_run(tmp_path))
    (tmp_path / "evaluate/verdict.json").unlink()
    with pytest.raises(NotFoundError):
        report_of_run(tmp_path)


def test_a_verdict_without_outcome_is_read_by_its_checks(refused: Judged) -> None:
    evaluation, verdict = files(refused)
    told = json.loads(verdict)
    del told["outcome"], told["rules"]
    assert recorded_report(refused.manifest, evaluation, json.dumps(told).encode()).ruling.outcome == "refused"


def test_files_that_hold_something_else_are_refused(judged: Judged) -> None:
    with pytest.raises(InputError):
        recorded_report(judged.manifest, b"{}", b"{}")


def files(judged: Judged) -> tuple[bytes, bytes]:
    """`evaluation.json` and `verdict.json` as the evaluate step writes them."""
    verdict = judged.verdict
    checks = [{name: getattr(one, name) for name in one.__dataclass_fields__} for one in verdict.checks]
    rules = verdict.rules.model_dump(mode="json")
    said = {"checks": checks, "outcome": verdict.outcome, "rules": rules, "champion": judged.champion_id}
    said["power"] = judged.power.to_dict() if judged.power else None
    told = judged.evaluation.to_dict() | ({"log": judged.log.to_dict()} if judged.log else {})
    return json.dumps(told).encode(), json.dumps(said).encode()
