"""The page of a release that a judge asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rolecall.pipelines.evaluation.judge import Judge
from rolecall.pipelines.evaluation.report.page import render
from rolecall.pipelines.evaluation.report.write import gather_report
from rolecall.pipelines.evaluation.targets import collect_targets
from rolecall.pipelines.train import TrainedRankers

if TYPE_CHECKING:
    from conftest import Judged, World


def test_a_judged_funnel_gives_a_page_with_its_lists_and_nobodys_name(
    world: World, rankers: TrainedRankers, judged: Judged
) -> None:
    targets = collect_targets(world.events, start=world.cutoff, end=world.as_of, limit=40)
    evaluation = Judge.prepare(targets, world.store, rounds=100).evaluate(world.funnel(rankers))
    jobs = world.pairs.catalogue.table
    titles = dict(zip(jobs["job_id"].to_pylist(), jobs["title"].to_pylist(), strict=True))
    report = gather_report(
        manifest=judged.manifest, evaluation=evaluation, champion=None, verdict=judged.verdict, titles=titles
    )
    page = render(report)
    assert report.samples is not None
    assert report.samples.wins
    for sample in report.samples.wins:
        assert all(place.title in titles.values() for place in (*sample.release, *sample.other))
    people = world.candidates
    for who in people["candidate_id"].to_list():
        assert who not in page
    for resume in people["resume_text"].drop_nulls().to_list():
        assert not resume or resume[:40] not in page
