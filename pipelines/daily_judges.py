"""What the releases of a daily run are asked, and what one of them answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import polars as pl

from rolecall.features.schema import EVENTS
from rolecall.pipelines.daily_steps import VIEWS
from rolecall.pipelines.evaluation.counterfactual.estimators import Estimate
from rolecall.pipelines.evaluation.counterfactual.log_value import LogWindow
from rolecall.pipelines.evaluation.impressions import collect_impressions
from rolecall.pipelines.evaluation.judge import Evaluation, Judge
from rolecall.pipelines.evaluation.people_judge import PeopleJudge
from rolecall.pipelines.evaluation.people_targets import collect_people_targets
from rolecall.pipelines.evaluation.targets import collect_targets, fair_targets
from rolecall.pipelines.knowledge import Windows, known_jobs, newest_profiles, read_as_of
from rolecall.pipelines.materialize import feature_store
from rolecall.pipelines.people import people_as_of
from rolecall.pipelines.steps import StepContext
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore
from rolecall.serving.loader import LoadedRelease


@dataclass(frozen=True, kw_only=True)
class Answers:
    """One release on the targets that releases are compared on; `people`: None where it recommends nobody; `log`: what
    it would have brought the logged visits, by estimator."""

    rivals: Evaluation
    people: Evaluation | None
    log: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Judges:
    """One for each direction, the one that champion and challenger are compared by, and the log they are put to;
    `events`: what they know of."""

    jobs: Judge
    rivals: Judge
    people: PeopleJudge
    log: LogWindow
    events: pl.DataFrame

    @classmethod
    def prepare(cls, step: StepContext, tables: TableStore, settings: Settings) -> Judges:
        """Champion and challenger are compared on jobs that candidates found without being shown them, else the
        champion would be asked about nothing but its own choices; on all targets where too few were found."""
        versions, ranking = step.value("ingest", "versions"), settings.ranking
        events = read_as_of(tables, EVENTS, versions, step.as_of)
        windows, seed = Windows.of(step.as_of, ranking), ranking.seed
        start, end = windows.evaluation.start, windows.evaluation.end
        collect = partial(collect_targets, events, start=start, end=end, limit=settings.gate.targets.most, seed=seed)
        targets, unprompted = collect(), collect(unprompted=True)
        store = feature_store(settings, step.file("features", VIEWS))
        visible = people_as_of(
            newest_profiles(tables, versions, step.as_of), events.clear(), known_jobs(tables, versions, step.as_of)
        )
        people = collect_people_targets(
            events,
            visible["candidate_id"].to_pylist(),
            start=windows.people_evaluation.start,
            end=windows.people_evaluation.end,
            seed=seed,
        )
        rounds = settings.gate.statistics.bootstrap_rounds
        shown = collect_impressions(events, start=start, end=end, seed=seed)
        jobs = Judge.prepare(targets, store, impressions=shown, rounds=rounds)
        fair = fair_targets(targets, unprompted, least=settings.gate.targets.least)
        return cls(
            jobs=jobs,
            rivals=jobs if fair is targets else Judge.prepare(fair, store, rounds=rounds),
            people=PeopleJudge(targets=people, rounds=rounds),
            log=LogWindow.read(events, store, start=start, end=end, seed=seed),
            events=events,
        )

    @property
    def apart(self) -> bool:
        """Whether releases are compared on other targets than the new one is measured on."""
        return self.rivals is not self.jobs

    def answers(self, step: StepContext, release: LoadedRelease) -> Answers:
        """What a release other than today's answers: no baselines, and how well it knew what came of impressions."""
        judge = replace(
            self.rivals, impressions=self.jobs.impressions, impression_contexts=self.jobs.impression_contexts
        )
        rivals, people = ask(step, release, judge, self.people, baselines=())
        step.report("logged visits")
        return Answers(rivals=rivals, people=people, log=self.log.estimates(release.funnel))


def ask(
    step: StepContext, release: LoadedRelease, jobs: Judge, people: PeopleJudge | None, **options: Any
) -> tuple[Evaluation, Evaluation | None]:
    """Jobs for people, and where the release recommends them (and `people` asks) people for jobs."""

    def told(done: int, total: int) -> None:
        step.report(f"{done:,}/{total:,} targets")

    found = jobs.evaluate(release.funnel, progress=told, **options)
    if people is None or release.people is None:
        return found, None
    return found, people.evaluate(release.people, progress=told, **options)
