"""The steps of the daily run that build the other direction: people for jobs.

Where nobody agreed to be recommended they leave nothing behind, and the release recommends jobs alone. Where there is
no outcome to learn from, people come in the order of their content.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from rolecall.features.people_columns import PEOPLE_COARSE_COLUMNS
from rolecall.features.people_pairs import PeoplePairs
from rolecall.features.schema import EVENTS
from rolecall.pipelines.daily_steps import DailySteps
from rolecall.pipelines.evaluation.people_targets import collect_people_targets
from rolecall.pipelines.examples import RECORDED, TrainingSet, recorded
from rolecall.pipelines.knowledge import Windows, known_jobs, newest_profiles, read_as_of
from rolecall.pipelines.leaks import Finding, LeakDetector, PeopleLeakAudit
from rolecall.pipelines.leaks.findings import keep_findings
from rolecall.pipelines.people import build_people, open_people, people_as_of
from rolecall.pipelines.people_outcomes import APPLIED, MUTUAL, Outcomes
from rolecall.pipelines.people_training import JobRequest, job_requests, people_training_set
from rolecall.pipelines.steps import StepContext, StepResult
from rolecall.pipelines.train import fit_calibrator, people_shapes
from rolecall.serving import parts
from rolecall.serving.people_loader import trained_part, untrained_part
from rolecall.serving.people_policy import PeoplePolicy

PEOPLE_TRAINING_SET = "people_training_set.npz"
"""Of the step `people-rankers`."""

AUDITED = 2
"""Requests whose columns the leak audit computes again."""


class PeopleSteps(DailySteps):
    """The daily steps up to the release's folder, both directions."""

    def people(self, step: StepContext) -> StepResult:
        """Who may be recommended, with their vectors and index."""
        versions = step.value("ingest", "versions")
        candidates = newest_profiles(self.tables, versions, step.as_of)
        events = read_as_of(self.tables, EVENTS, versions, step.as_of)
        jobs = known_jobs(self.tables, versions, step.as_of)
        table = people_as_of(candidates, events, jobs, since=self._since(step))
        if not table.num_rows:
            return StepResult(values={"digest": ""}, metrics={"people.visible": 0})
        embed = partial(self._embed, report=step.report)
        built = build_people(table, self._pairs(step), embed, self.settings.vectors, step.folder)
        return StepResult(values={"digest": built.content_digest}, metrics={"people.visible": built.people})

    def people_rankers(self, step: StepContext) -> StepResult:
        """The people rankers, learned from what both sides wanted; what the leak audits find goes on to the gate."""
        if not step.value("people", "digest"):
            return StepResult()
        examples, leaks = self._examples(step)
        values: dict[str, Any] = {**keep_findings(step.folder, leaks)}
        learn = examples.learnable()
        examples.save(step.folder / PEOPLE_TRAINING_SET)
        values[RECORDED] = recorded(examples, step.value("ingest", "versions"))
        metrics = {"people.requests": float(examples.requests), "people.rows": float(len(examples.features))}
        metrics["people.leaks"] = float(len(leaks))
        if not learn.requests:
            untrained_part().write(step.folder)
            return StepResult(values=values, metrics=metrics)
        trained_part().write(step.folder)
        coarse, fine = people_shapes(self.settings.ranking)
        self._train(step, learn.columns_only(PEOPLE_COARSE_COLUMNS), coarse, parts.PEOPLE_COARSE)
        self._train(step, learn, fine, parts.PEOPLE_FINE)
        model = (step.folder / parts.PEOPLE_FINE).read_text()
        calibrator = fit_calibrator(model, examples.calibration(), wanted=MUTUAL)
        if calibrator is not None:
            (step.folder / parts.PEOPLE_CALIBRATOR).write_text(calibrator.to_json())
        return StepResult(values=values, metrics=metrics | {"people.learned": float(learn.requests)})

    def _examples(self, step: StepContext) -> tuple[TrainingSet, tuple[Finding, ...]]:
        versions, ranking = step.value("ingest", "versions"), self.settings.ranking
        events = read_as_of(self.tables, EVENTS, versions, step.as_of)
        pairs = self._people_pairs(step, step.inputs["people"].folder)
        policy = PeoplePolicy(self.settings.policy, pairs.people, pairs.vectors)
        outcomes = Outcomes(events, pairs.people, pairs.jobs.catalogue)
        window = Windows.of(step.as_of, ranking).people_learning
        requests = job_requests(outcomes, pairs, policy, start=window.start, end=window.end, seed=ranking.seed)
        replayed = self._audit(step, pairs, events, requests)
        examples = people_training_set(
            requests, pairs, progress=lambda done, total: step.report(f"{done:,}/{total:,} requests")
        )
        judged = self._judged(step, pairs, events)
        found = LeakDetector().findings(examples, window=window, judged=judged, label=APPLIED)
        return examples, (*replayed, *found)

    def _judged(self, step: StepContext, pairs: PeoplePairs, events: pl.DataFrame) -> set[tuple[str, int]]:
        """The job and the row of each person that evaluation asks about: people who had not applied before."""
        ranking, people = self.settings.ranking, pairs.people
        window = Windows.of(step.as_of, ranking).people_evaluation
        targets = collect_people_targets(
            events, people.candidate_ids, start=window.start, end=window.end, seed=ranking.seed
        )
        asked = ((target.job_id, people.row_of(name)) for target in targets for name in target.candidate_ids)
        return {(job_id, row) for job_id, row in asked if row is not None}

    def _audit(
        self, step: StepContext, pairs: PeoplePairs, events: pl.DataFrame, requests: list[JobRequest]
    ) -> tuple[Finding, ...]:
        step.report("leak audit")
        versions = step.value("ingest", "versions")
        audit = PeopleLeakAudit(
            candidates=newest_profiles(self.tables, versions, step.as_of),
            jobs=known_jobs(self.tables, versions, step.as_of),
            pairs=pairs,
            make_people=partial(people_as_of, since=self._since(step)),
        )
        return audit.findings(events, requests[:: max(len(requests) // AUDITED, 1)][:AUDITED])

    def _since(self, step: StepContext) -> datetime:
        """The earliest instant that training or evaluation asks about."""
        return Windows.of(step.as_of, self.settings.ranking).earliest

    def _people_pairs(self, step: StepContext, folder: Path) -> PeoplePairs:
        jobs = self._pairs(step)
        people, words, vectors = open_people(folder, jobs)
        return PeoplePairs(people, words, vectors, jobs)
