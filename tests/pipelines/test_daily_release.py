"""What a daily run does with a release that was judged, against a real registry."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest

from rolecall.features.schema import CANDIDATES
from rolecall.pipelines.daily import daily_plan, daily_run, run_daily
from rolecall.pipelines.daily_release import ReleaseSteps
from rolecall.pipelines.steps import StepContext, StepRecord, StepResult
from rolecall.pipelines.tracking import MlflowRecord
from rolecall.platform.errors import ConflictError, InputError
from rolecall.platform.ledger import claimed
from rolecall.platform.registry import Registry
from rolecall.platform.release import ReleaseBuilder
from rolecall.platform.settings import Settings, load_settings
from tests.empty_mlflow import WithMlflow

DAY = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, with_mlflow: WithMlflow) -> Settings:
    return load_settings(environ={}, home=with_mlflow(tmp_path_factory.mktemp("home")))


@pytest.fixture
def registry(settings: Settings, request: pytest.FixtureRequest) -> Registry:
    """A model name of its own for each test."""
    named = settings.registry.model_copy(update={"model_name": request.node.name})
    return Registry.from_settings(settings.model_copy(update={"registry": named}))


Build = Callable[[str, datetime], str]


@pytest.fixture
def build(registry: Registry, tmp_path: Path) -> Build:
    """Publishes and registers a release that passed the gate."""

    def built(name: str, as_of: datetime) -> str:
        builder = ReleaseBuilder(tmp_path / name)
        builder.path("model.txt").write_text(name)
        builder.add("model", "model.txt")
        release = builder.seal(as_of=as_of, code_version="1", tables={}, settings={}).id
        registry.releases.publish(builder.folder)
        run_id = registry.client.create_run(registry.experiment_id).info.run_id
        registry.register(release, run_id=run_id, log_model=lambda: f"runs:/{run_id}/release")
        registry.judge(release, passed=True)
        return release

    return built


def promote(
    settings: Settings, registry: Registry, release: str, as_of: datetime, champion: str | None, *, refreshed: str = ""
) -> StepResult:
    """The promote step of a run that judged `release` against `champion`; with `refreshed` the gate refused it."""
    values: dict[str, dict[str, Any]] = {
        "evaluate": {"champion": champion},
        "release": {"release": release, "refreshed": refreshed},
        "gate": {"passed": not refreshed},
    }
    inputs = {
        name: StepRecord(name=name, folder=Path(), values=value, metrics={}, files={}, seconds=0.0)
        for name, value in values.items()
    }
    work = ReleaseSteps(settings=settings, registry=registry, mlflow_run="")
    return work.promote(
        StepContext(name="promote", run="r", as_of=as_of, folder=Path(), inputs=inputs, report=lambda _message: None)
    )


def test_a_better_release_of_a_later_day_becomes_champion(settings: Settings, registry: Registry, build: Build) -> None:
    first, second = build("first", DAY), build("second", DAY + timedelta(days=1))
    assert promote(settings, registry, first, DAY, None).values["promoted"]
    assert promote(settings, registry, second, DAY + timedelta(days=1), first).values["promoted"]
    assert registry.champion() == second


def test_where_the_new_rankers_are_refused_the_refreshed_release_is_served(
    settings: Settings, registry: Registry, build: Build
) -> None:
    first, refused, refreshed = build("first", DAY), build("refused", DAY), build("refreshed", DAY)
    promote(settings, registry, first, DAY, None)
    done = promote(settings, registry, refused, DAY + timedelta(days=1), first, refreshed=refreshed)
    assert (done.values["promoted"], registry.champion()) == (True, refreshed)
    assert "refused" in registry.promotions.history()[-1].why


def test_the_rankers_of_a_champion_that_must_go_are_not_asked_anew(
    settings: Settings, registry: Registry, build: Build
) -> None:
    """It was marked after the refreshed release was assembled."""
    champion = build("champion", DAY)
    registry.taints.mark(champion, "holds a person", at=DAY, due_at=DAY)
    told = StepRecord(
        name="refresh",
        folder=Path(),
        values={"champion": champion, "release": "0" * 16},
        metrics={},
        files={},
        seconds=0.0,
    )
    step = StepContext(
        name="evaluate", run="r", as_of=DAY, folder=Path(), inputs={"refresh": told}, report=lambda _message: None
    )
    work = ReleaseSteps(settings=settings, registry=registry, mlflow_run="")
    assert work._refreshed(step, None, champion) is None  # type: ignore[arg-type]


def test_a_champion_of_other_code_or_another_embedder_refuses_the_new_release_and_ends_no_run(
    settings: Settings, registry: Registry, build: Build, tmp_path: Path
) -> None:
    """The release is kept with the reason, so that somebody can promote it."""
    champion, today = build("champion", DAY), build("today", DAY)
    promote(settings, registry, champion, DAY, None)
    work = ReleaseSteps(settings=settings, registry=registry, mlflow_run="")
    (tmp_path / "assemble").mkdir()
    shutil.copytree(registry.releases.fetch(today), tmp_path / "assemble" / "release")
    told = StepRecord(
        name="assemble",
        folder=tmp_path / "assemble",
        values={"release": today},
        metrics={},
        files={},
        seconds=0.0,
    )
    step = StepContext(
        name="refresh", run="r", as_of=DAY, folder=tmp_path, inputs={"assemble": told}, report=lambda _message: None
    )
    done = work.refresh(step)
    assert done.values["release"] == ""
    assert "cannot be read" in done.values["why"]
    judges = SimpleNamespace(rivals=None, people=None)
    answers, why = work._served(step, judges, champion)  # type: ignore[arg-type]
    assert answers is None
    assert f"champion {champion} cannot be loaded" in why[0]


def test_a_damaged_champion_ends_no_run(settings: Settings, registry: Registry, build: Build, tmp_path: Path) -> None:
    champion, today = build("champion", DAY), build("today", DAY)
    promote(settings, registry, champion, DAY, None)
    (registry.releases.fetch(champion) / "model.txt").write_text("damaged")
    work = ReleaseSteps(settings=settings, registry=registry, mlflow_run="")
    told = StepRecord(name="assemble", folder=tmp_path, values={"release": today}, metrics={}, files={}, seconds=0.0)
    shutil.copytree(registry.releases.fetch(today), tmp_path / "release")
    step = StepContext(
        name="evaluate", run="r", as_of=DAY, folder=tmp_path, inputs={"assemble": told}, report=lambda _message: None
    )
    judges = SimpleNamespace(rivals=None, people=None)
    found = work._champion(step, judges)  # type: ignore[arg-type]
    assert (found.served, found.live) == (None, (None, None))
    assert f"champion {champion} cannot be loaded" in found.unread[0]


def test_a_backfilled_day_never_replaces_a_later_champion(settings: Settings, registry: Registry, build: Build) -> None:
    champion, past = build("today", DAY), build("past", DAY - timedelta(days=30))
    promote(settings, registry, champion, DAY, None)
    done = promote(settings, registry, past, DAY - timedelta(days=30), champion)
    assert (done.values["promoted"], registry.champion()) == (False, champion)
    assert "later day" in done.values["why"]


def test_a_rerun_after_a_rollback_does_not_say_it_was_promoted(
    settings: Settings, registry: Registry, build: Build
) -> None:
    first, second = build("first", DAY), build("second", DAY)
    promote(settings, registry, first, DAY, None)
    promote(settings, registry, second, DAY, first)
    registry.rollback("it was worse")
    assert not promote(settings, registry, second, DAY, first).values["promoted"]
    assert registry.champion() == first


def test_promotion_is_asked_again_on_every_rerun(settings: Settings, registry: Registry) -> None:
    plan = daily_plan(ReleaseSteps(settings=settings, registry=registry, mlflow_run=""))
    assert [step.name for step in plan if step.again] == ["promote"]


def test_a_second_process_leaves_the_record_of_the_first_alone(settings: Settings, registry: Registry) -> None:
    run = daily_run(settings, DAY)
    parameters = {"as_of": run.as_of, **run.determinants}
    experiment = Registry.from_settings(settings).experiment_id
    first = MlflowRecord(registry.client, experiment, run, parameters)
    with claimed(registry.promotions.engine, run.id), pytest.raises(ConflictError, match="another process"):
        run_daily(settings, DAY)
    assert registry.client.get_run(first.run_id).info.status == "RUNNING"


@pytest.mark.parametrize(("rows", "wrong"), [(None, "does not exist"), ("candidate_id,group\n17,a\n", "none of them")])
def test_a_wrong_file_of_groups_ends_the_run_in_its_first_step(
    settings: Settings, registry: Registry, tmp_path: Path, rows: str | None, wrong: str
) -> None:
    file = tmp_path / "groups.csv"
    if rows:
        file.write_text(rows)
    fairness = settings.fairness.model_copy(update={"candidate_groups": str(file)})
    asked = settings.model_copy(update={"fairness": fairness, "home": tmp_path})
    work = ReleaseSteps(settings=asked, registry=registry, mlflow_run="")
    one = {"candidate_id": "c-17", "updated_at": DAY, "desired_titles": ["Nurse"]}
    work.tables.upsert(CANDIDATES, pa.Table.from_pylist([one], schema=CANDIDATES.columns))
    step = StepContext(name="ingest", run="r", as_of=DAY, folder=tmp_path, inputs={}, report=lambda _message: None)
    with pytest.raises(InputError, match=wrong):
        work.ingest(step)


def test_another_gate_judges_the_same_day_anew(settings: Settings) -> None:
    gate = settings.gate.changed(targets={"least": settings.gate.targets.least + 1})
    assert daily_run(settings, DAY).id != daily_run(settings.model_copy(update={"gate": gate}), DAY).id
    assert daily_run(settings, DAY).id == daily_run(settings.model_copy(update={"log_level": "debug"}), DAY).id
