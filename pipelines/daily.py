"""The daily run: from the tables to a gated, registered, promoted release.

    ingest -> catalogue -> features -> embed -> index -> training-set -> coarse -> fine
           -> people -> people-rankers -> assemble -> skew -> refresh -> drift -> evaluate -> release -> gate -> promote

Everything a run depends on is pinned by its first step (table versions) or by the run's identity (instant, code,
settings), so a run that was killed resumes where it stopped and ends in the same release.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from rolecall.pipelines.assemble import published_settings
from rolecall.pipelines.daily_release import ReleaseSteps
from rolecall.pipelines.lifecycle.home_stores import refuse_running
from rolecall.pipelines.lifecycle.releases import settle
from rolecall.pipelines.people_steps import PeopleSteps
from rolecall.pipelines.run_archive import RunArchive
from rolecall.pipelines.skew import skew_step
from rolecall.pipelines.steps import Observer, Run, Step, StepRecord
from rolecall.pipelines.tracking import MlflowRecord
from rolecall.platform.errors import ConflictError
from rolecall.platform.file_tree import FileTree
from rolecall.platform.ledger import claimed
from rolecall.platform.registry import Registry
from rolecall.platform.release import code_version
from rolecall.platform.settings import Settings


@dataclass(frozen=True, kw_only=True)
class DailyResult:
    """What a daily run ended in. `tables`: the Delta versions it read; `rows`: one line a metric and baseline.

    `release_id`: the release with today's rankers, `passed`: whether the gate let it pass; `refreshed_id`: the
    champion's rankers over today's catalogue, published where the gate refused today's, else empty; `promoted`: whether
    either of them is served now.
    """

    run_id: str
    release_id: str
    refreshed_id: str
    passed: bool
    promoted: bool
    reasons: tuple[str, ...]
    tables: Mapping[str, int]
    metrics: Mapping[str, float]
    rows: tuple[Mapping[str, Any], ...]
    mlflow_run: str

    def evaluation_rows(self) -> list[Mapping[str, Any]]:
        return list(self.rows)

    def to_json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def daily_run(settings: Settings, as_of: datetime) -> Run:
    """The run of one instant: the same instant, code and settings are the same run.

    The gate's rules and what fairness is audited by are no part of a release, but of its verdict: with others the
    release is judged anew.
    """
    determinants = {
        "code": code_version(),
        "settings": published_settings(settings),
        "gate": settings.gate.model_dump(mode="json"),
        "fairness": settings.fairness.model_dump(mode="json"),
    }
    return Run(settings.runs_dir, "daily", as_of, determinants)


def run_daily(
    settings: Settings, as_of: datetime, *, promote: bool = True, observers: Sequence[Observer] = ()
) -> DailyResult:
    """Execute what is not finished of the daily run of `as_of`; tainted releases it replaced are purged after.

    Raises InputError where the tables hold nothing to train on, ConflictError where another process executes the run
    or the champion changed meanwhile.
    """
    run = daily_run(settings, as_of)
    registry = Registry.from_settings(settings)
    begin_anew_where_tainted(run, registry, settings)
    record = MlflowRecord(registry.client, registry.experiment_id, run, {"as_of": run.as_of, **run.determinants})
    work = ReleaseSteps(settings=settings, registry=registry, mlflow_run=record.run_id)
    try:
        steps = daily_plan(work, promote=promote)
        records = run.execute(
            steps,
            [*observers, record],
            archive=RunArchive.of(settings, run.id),
            claim=claimed(registry.promotions.engine, run.id),
        )
    except ConflictError:  # whoever executes the run says how it ended
        raise
    except BaseException:
        record.close("FAILED")
        raise
    finally:
        work.close()
    record.close("FINISHED")
    if promote:
        settle(registry, at=datetime.now(UTC))
    return _result(run, records, record)


def begin_anew_where_tainted(run: Run, registry: Registry, settings: Settings) -> None:
    """Drop the finished steps of a run that came to a release which must go: they would end in it again.

    Raises ConflictError while another process executes the run.
    """
    archive = RunArchive.of(settings, run.id)
    if archive is not None and run.finished("assemble") is None:
        run.folder.mkdir(parents=True, exist_ok=True)
        archive.fetch("assemble", run.folder / "assemble")
    built = run.finished("assemble")
    if built is None or registry.taints.find(built.values["release"]) is None:
        return
    refuse_running(run.folder / "lock")
    if archive is not None:
        FileTree(f"{settings.artifacts_uri}/runs", settings.storage.options).delete_folder(run.id)
    FileTree(str(settings.runs_dir)).delete_folder(run.id)


def daily_plan(work: ReleaseSteps, *, promote: bool = True) -> list[Step]:
    """The steps in order, with what each reads."""
    judged = ("ingest", "features", "training-set", "people-rankers", "assemble", "refresh", "drift")
    counted = ("ingest", "catalogue", "features", "index", "training-set", "people-rankers")
    plan = [
        *assembly_plan(work),
        Step(name="skew", run=partial(skew_step, work.settings), inputs=("features",)),
        Step(name="refresh", run=work.refresh, inputs=("assemble",)),
        Step(name="drift", run=work.drift, inputs=counted),
        Step(name="evaluate", run=work.evaluate, inputs=judged),
        Step(name="release", run=work.release, inputs=("assemble", "refresh", "drift", "evaluate")),
        Step(name="gate", run=work.gate, inputs=("evaluate", "release")),
    ]
    if promote:
        plan.append(Step(name="promote", run=work.promote, inputs=("evaluate", "release", "gate"), again=True))
    return plan


def assembly_plan(work: PeopleSteps) -> list[Step]:
    """The first steps: from the tables to a sealed release folder that nobody has judged yet."""
    history = ("ingest", "catalogue", "features", "index")
    content = ("ingest", "catalogue", "index")
    parts = (*history, "training-set", "coarse", "fine", "people", "people-rankers")
    return [
        Step(name="ingest", run=work.ingest),
        Step(name="catalogue", run=work.catalogue, inputs=("ingest",)),
        Step(name="features", run=work.features, inputs=("ingest",)),
        Step(name="embed", run=work.embed, inputs=("ingest", "catalogue")),
        Step(name="index", run=work.index, inputs=("catalogue", "embed")),
        Step(name="training-set", run=work.training_set, inputs=history),
        Step(name="coarse", run=work.coarse, inputs=("training-set",)),
        Step(name="fine", run=work.fine, inputs=("training-set",)),
        Step(name="people", run=work.people, inputs=content),
        Step(name="people-rankers", run=work.people_rankers, inputs=(*content, "people")),
        Step(name="assemble", run=work.assemble, inputs=parts),
    ]


def _result(run: Run, records: Mapping[str, StepRecord], record: MlflowRecord) -> DailyResult:
    judged, promoted = records["evaluate"].values, records.get("promote")
    metrics = {name: value for step in records.values() for name, value in step.metrics.items()}
    return DailyResult(
        run_id=run.id,
        release_id=records["release"].values["release"],
        refreshed_id=records["release"].values["refreshed"],
        passed=judged["passed"],
        promoted=bool(promoted and promoted.values["promoted"]),
        reasons=tuple(judged["reasons"]) + ((promoted.values["why"],) if promoted else ()),
        tables=records["ingest"].values["versions"],
        metrics=metrics,
        rows=tuple(judged["rows"]),
        mlflow_run=record.run_id,
    )
