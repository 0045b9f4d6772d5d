"""From a judged release to its page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rolecall.pipelines.evaluation.gate.evidence import CHAMPION
from rolecall.pipelines.evaluation.gate.power import Power
from rolecall.pipelines.evaluation.judge import MAIN_METRIC
from rolecall.pipelines.evaluation.report import gather
from rolecall.pipelines.evaluation.report.figures import Check, Report, Ruling, Samples
from rolecall.pipelines.evaluation.report.page import render
from rolecall.pipelines.evaluation.report.samples import choose_samples
from rolecall.pipelines.evaluation.report.sources import FairnessLike, Judged, LogValueLike, VerdictLike
from rolecall.pipelines.evaluation.report.wording import rule_lines
from rolecall.platform.files import write_atomic
from rolecall.platform.release import Manifest

REPORT = "report.html"


def write_report(file: Path, report: Report) -> None:
    """Write the page."""
    write_atomic(file, render(report).encode("utf-8"))


def gather_report(
    *,
    manifest: Manifest,
    evaluation: Judged,
    champion: Judged | None,
    verdict: VerdictLike,
    titles: Mapping[str, str],
    wishes: Mapping[str, str] | None = None,
    rival: Judged | None = None,
    people: tuple[Judged, Judged | None] | None = None,
    fairness: FairnessLike | None = None,
    log: LogValueLike | None = None,
    power: Power | None = None,
    champion_id: str = "",
    opponent: str = CHAMPION,
    drift: Sequence[str] = (),
) -> Report:
    """What stands in the page.

    `titles`: title of each job by id, for the samples; a job that is not in it is shown without one. `wishes`: the
    same of people: a title that they look for; without it no samples of people are shown.
    `rival`: the release on the champion's targets, where these are others than `evaluation`'s.
    `people`: the release and the champion (None where it recommends nobody) asked for people.
    `log`, `power`: what logged visits say of it, and what so many targets can tell.
    `champion_id`: the release it was compared with; `opponent`: what that is, CHAMPION or REFRESHED.
    `drift`: what the newest day of its features warns of.
    Raises InputError where release and champion were not asked the same.
    """
    return Report(
        manifest=manifest,
        ruling=_ruling(verdict, champion_id, opponent),
        main_metric=MAIN_METRIC,
        jobs=gather.direction(evaluation, champion, rival, opponent=opponent),
        people=gather.direction(*people, opponent=opponent) if people and people[0].targets else None,
        probability=gather.probability(evaluation.impressions, champion.impressions if champion else None),
        fairness=gather.fairness(fairness),
        latency=gather.latency(evaluation, champion),
        log=gather.log(log),
        power=power,
        drift=tuple(drift),
        samples=choose_samples(rival or evaluation, champion, titles, opponent=opponent),
        people_samples=_people_samples(people, titles, wishes, opponent),
    )


def _people_samples(
    people: tuple[Judged, Judged | None] | None,
    titles: Mapping[str, str],
    wishes: Mapping[str, str] | None,
    opponent: str,
) -> Samples | None:
    if people is None or wishes is None or not people[0].targets:
        return None
    return choose_samples(*people, wishes, opponent=opponent, subjects=titles)


def _ruling(verdict: VerdictLike, champion: str, opponent: str) -> Ruling:
    checks = tuple(
        Check(name=check.name, ok=check.ok, detail=check.detail, evidence=dict(check.evidence))
        for check in verdict.checks
    )
    lines = rule_lines(verdict.rules.model_dump(mode="json"))
    return Ruling(outcome=verdict.outcome, checks=checks, rules=lines, champion=champion, opponent=opponent)
