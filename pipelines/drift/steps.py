"""The step of the daily run that counts every feature's newest day and says what changed. It warns and stops no run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta
from functools import partial

import polars as pl

from rolecall.features.schema import EVENTS, JOBS
from rolecall.pipelines.daily_steps import TRAINING_SET, VIEWS
from rolecall.pipelines.drift.measure import KEPT_DAYS, measure
from rolecall.pipelines.drift.populations import (
    Population,
    activity_population,
    count_days,
    job_populations,
    people_population,
    request_population,
    view_populations,
)
from rolecall.pipelines.drift.statistics import STATISTICS_FILE, STATISTICS_PART, FeatureStatistics
from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.knowledge import Versions, Windows, midnight_before, read_as_of, recorded
from rolecall.pipelines.materialize import feature_store
from rolecall.pipelines.people_steps import PEOPLE_TRAINING_SET
from rolecall.pipelines.refresh import MODELS_FROM, RefreshSteps
from rolecall.pipelines.steps import StepContext, StepResult
from rolecall.pipelines.training_set import build_training_set
from rolecall.platform.errors import IntegrityError, NotFoundError
from rolecall.platform.registry import Registry
from rolecall.platform.release import Manifest

DRIFT_FILE, DRIFT_PART = "drift.json", "drift"


class DriftSteps(RefreshSteps):
    """The daily steps, and the one that counts their features."""

    def drift(self, step: StepContext) -> StepResult:
        """Statistics of every feature on the last whole day, taken over from the release before for the days before,
        and the largest changes."""
        newest = last_day(step.as_of)
        days = [newest - timedelta(days=back) for back in range(KEPT_DAYS - 1, -1, -1)]
        earlier = statistics_before(self.registry, step.as_of)
        known = earlier.since(days[0], days[-2]) if earlier else FeatureStatistics()
        counted = count_days(self._populations(step, days[0]), days, known)
        champion = self.registry.reconcile()
        report = measure(counted, newest, champion=training_statistics(self.registry, champion) if champion else None)
        (step.folder / STATISTICS_FILE).write_bytes(counted.to_bytes())
        (step.folder / DRIFT_FILE).write_text(json.dumps(report.to_dict(), indent=1))
        return StepResult(values={"warnings": list(report.warnings())}, metrics=report.metrics())

    def _populations(self, step: StepContext, first: date) -> list[Population]:
        versions = step.value("ingest", "versions")
        events = read_as_of(self.tables, EVENTS, versions, step.as_of)
        people = step.inputs["people-rankers"].folder / PEOPLE_TRAINING_SET
        return [
            *view_populations(step.file("features", VIEWS)),
            *job_populations(self._jobs(versions, step.as_of, first)),
            activity_population(events),
            request_population(
                [TrainingSet.load(step.file("training-set", TRAINING_SET)), self._newest_requests(step, events)]
            ),
            *([people_population(TrainingSet.load(people))] if people.exists() else []),
        ]

    def _jobs(self, versions: Versions, as_of: datetime, first: date) -> pl.LazyFrame:
        """Jobs known at the instant that were live on the first of the days or later."""
        if versions.get(JOBS.name) is None:
            return pl.LazyFrame(pl.from_arrow(JOBS.columns.empty_table()))
        late_enough = pl.col("expires_at").is_null() | (pl.col("expires_at").dt.date() >= first)
        return self.tables.scan(JOBS, version=versions[JOBS.name]).filter(recorded(as_of, JOBS), late_enough)

    def _newest_requests(self, step: StepContext, events: pl.DataFrame) -> TrainingSet:
        """Feature rows of the days nothing is learned from, as many a day as of the others; labels are not used."""
        ranking, windows = self.settings.ranking, Windows.of(step.as_of, self.settings.ranking)
        learned, judged = windows.learning, windows.evaluation
        share = (judged.end - judged.start) / max(learned.end - learned.start, timedelta(days=1))
        most = max(10, round(ranking.max_training_requests * share))
        return build_training_set(
            events,
            start=judged.start,
            end=judged.end,
            store=feature_store(self.settings, step.file("features", VIEWS)),
            service=self.settings.features.service,
            pairs=self._pairs(step),
            embed=partial(self._embed, report=step.report),
            settings=ranking.model_copy(update={"max_training_requests": most}),
        )


def last_day(as_of: datetime) -> date:
    """The last whole day before an instant."""
    return midnight_before(as_of).date() - timedelta(days=1)


def statistics_before(registry: Registry, as_of: datetime) -> FeatureStatistics | None:
    """What the newest release of an earlier instant kept of every day, refused ones too; None where none did. Not what
    a tainted one kept: it counted somebody who asked to be forgotten, and its bins may lie at values of theirs."""
    found = [
        manifest
        for info in registry.list()
        if info.taint is None
        for manifest in _manifests(registry, [info.release_id])
        if manifest.as_of < as_of and _holds(manifest)
    ]
    newest = sorted(found, key=lambda one: one.as_of, reverse=True)
    return next((read for one in newest if (read := statistics_of(registry, one.id)) is not None), None)


def training_statistics(registry: Registry, release_id: str) -> FeatureStatistics | None:
    """Of the run that trained a release's rankers: its own, or that of the release they were carried over from."""
    for manifest in _manifests(registry, [release_id]):
        return statistics_of(registry, manifest.notes.get(MODELS_FROM) or release_id)
    return None


def statistics_of(registry: Registry, release_id: str) -> FeatureStatistics | None:
    """What a release kept; None where it kept nothing, is gone, or was written by code that counted otherwise."""
    try:
        return FeatureStatistics.from_bytes(registry.releases.read_part(release_id, STATISTICS_PART))
    except (NotFoundError, IntegrityError):
        return None


def _manifests(registry: Registry, ids: Sequence[str]) -> list[Manifest]:
    found = []
    for release_id in ids:
        try:
            found.append(registry.releases.manifest(release_id))
        except (NotFoundError, IntegrityError):  # damaged or gone: it has nothing to tell
            continue
    return found


def _holds(manifest: Manifest) -> bool:
    return any(part.name == STATISTICS_PART for part in manifest.parts)
