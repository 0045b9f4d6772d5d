"""The daily run as a whole: real tables, Feast, Qdrant Edge, LightGBM and MLflow."""

from __future__ import annotations

import io
import json
import math
import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rolecall.features.schema import JOBS
from rolecall.features.views import VIEWS
from rolecall.pipelines import daily_steps
from rolecall.pipelines.assemble import TRAINED_ON
from rolecall.pipelines.daily import assembly_plan, daily_run, run_daily
from rolecall.pipelines.daily_release import ReleaseSteps
from rolecall.pipelines.daily_steps import TRAINING_SET
from rolecall.pipelines.demo import fill_tables
from rolecall.pipelines.drift.measure import DriftReport
from rolecall.pipelines.drift.steps import last_day, statistics_before, statistics_of
from rolecall.pipelines.evaluation.gate import judge
from rolecall.pipelines.evaluation.gate.evidence import Evidence
from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.refresh import models_tables
from rolecall.pipelines.training_set import build_training_set
from rolecall.platform.registry import Registry
from rolecall.platform.release import verify
from rolecall.platform.tables import TableStore
from rolecall.serving import parts

from .conftest import AS_OF, World, small_market, small_settings

LEAKING = "dense_recent"


def test_a_run_ends_in_a_verified_registered_release(world: World) -> None:
    registry = Registry.from_settings(world.settings)
    info = registry.get(world.result.release_id)
    assert "built" in info.aliases
    assert info.gate in ("passed", "refused")
    assert verify(registry.releases.fetch(world.result.release_id)).id == world.result.release_id


def test_the_run_is_recorded_with_parameters_metrics_and_table_versions(world: World) -> None:
    client = Registry.from_settings(world.settings).client
    run = client.get_run(world.result.mlflow_run)
    assert run.info.status == "FINISHED"
    assert run.data.params["as_of"].startswith(str(AS_OF.date()))
    assert all(math.isfinite(value) for value in run.data.metrics.values())
    assert {"seconds.embed", "seconds.fine"} <= set(run.data.metrics)
    assert world.result.metrics["people.visible"] > 0
    assert world.result.tables.keys() == {"jobs", "candidates", "profiles", "employers", "events"}


def test_each_training_set_says_which_table_versions_it_was_read_from(world: World) -> None:
    registry = Registry.from_settings(world.settings)
    run = registry.client.get_run(world.result.mlflow_run)
    told = json.loads(registry.releases.manifest(world.result.release_id).notes[TRAINED_ON])
    assert told.keys() == {"training-set", "people-rankers"}
    logged = {one.dataset.name: one.dataset for one in run.inputs.dataset_inputs}
    for step, recorded in told.items():
        assert recorded["tables"] == world.result.tables
        assert json.loads(run.data.tags[f"rolecall.{step}.tables"]) == world.result.tables
        assert logged[step].digest == recorded["sha256"][:32]
    stored = world.settings.runs_dir / world.result.run_id / "training-set" / TRAINING_SET
    assert TrainingSet.load(stored).digest() == told["training-set"]["sha256"]


def test_every_features_days_are_kept_with_the_release_and_a_quiet_run_warns_of_nothing(world: World) -> None:
    registry = Registry.from_settings(world.settings)
    kept = statistics_of(registry, world.result.release_id)
    assert kept is not None
    sources = {"jobs", "postings", "activity", "requests", "people", *(f"view.{shape.name}" for shape in VIEWS)}
    assert set(kept.sources()) == sources
    assert all(kept.has(last_day(AS_OF), source) for source in sources)
    report = DriftReport.from_dict(registry.releases.read_json(world.result.release_id, "drift") or {})
    assert (report.day, report.warnings()) == (last_day(AS_OF), [])
    assert world.result.metrics["drift.columns"] == len(report.shifts)
    assert statistics_before(registry, AS_OF) is None
    again = statistics_before(registry, AS_OF + timedelta(days=1))
    assert again is not None
    assert again.to_bytes() == kept.to_bytes()


def test_the_same_day_twice_is_the_same_release(world: World) -> None:
    again = run_daily(world.settings, AS_OF)
    assert again.release_id == world.result.release_id
    assert len(Registry.from_settings(world.settings).list()) == 1


@pytest.mark.slow
def test_the_same_day_built_anew_elsewhere_is_the_same_release(world: World, tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "other")
    fill_tables(settings, small_market())
    assert run_daily(settings, AS_OF).release_id == world.result.release_id


def test_later_rows_do_not_change_a_past_day(world: World, tmp_path: Path) -> None:
    settings = world.copy(tmp_path / "home")
    store = TableStore(settings.tables_uri)
    rows = store.read(JOBS).to_pylist()[:5]
    for step in (settings.runs_dir / world.result.run_id).iterdir():
        if step.is_dir() and step.name != "ingest":  # what was pinned stays; everything else is built again
            shutil.rmtree(step)
    changed = [row | {"title": "renamed later"} for row in rows]
    store.upsert(JOBS, pa.Table.from_pylist(changed, schema=JOBS.columns))
    work = ReleaseSteps(settings=settings, registry=Registry.from_settings(settings), mlflow_run="")
    built = daily_run(settings, AS_OF).execute(assembly_plan(work))["assemble"]  # an id says all that a release is
    work.close()
    assert built.values["release"] == world.result.release_id


def labels_for_a_column(*given: Any, **named: Any) -> TrainingSet:
    """Planted: a column of the training set is what should be learned."""
    examples = build_training_set(*given, **named)
    features = examples.features.copy()
    features[:, examples.columns.index(LEAKING)] = examples.labels
    return replace(examples, features=features)


def test_a_day_whose_rankers_learned_from_a_leak_serves_the_champions_over_its_new_postings(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = world.copy(tmp_path / "home")
    registry, first, store = Registry.from_settings(settings), world.result.release_id, TableStore(settings.tables_uri)
    if registry.reconcile() is None:
        registry.promote(first, expected=None, why="test", gated=False)
    posting = store.read(JOBS).to_pylist()[0] | {"job_id": "new", "posted_at": AS_OF, "updated_at": AS_OF}
    posting["expires_at"] = AS_OF + timedelta(days=30)
    store.upsert(JOBS, pa.Table.from_pylist([posting], schema=JOBS.columns))
    monkeypatch.setattr(daily_steps, "build_training_set", labels_for_a_column)

    result = run_daily(settings, AS_OF + timedelta(days=1))

    assert (result.passed, result.promoted, registry.reconcile()) == (False, True, result.refreshed_id)
    before, after = (registry.releases.fetch(name) for name in (first, result.refreshed_id))
    assert all((before / file).read_bytes() == (after / file).read_bytes() for file in (parts.COARSE, parts.FINE))
    assert "new" in pq.read_table(after / parts.JOBS)["job_id"].to_pylist()
    manifest = registry.releases.manifest(result.refreshed_id)
    assert models_tables(manifest) == registry.releases.manifest(first).tables != manifest.tables
    assert registry.get(result.release_id).gate == "refused"
    assert any(reason.startswith("leaks:") and LEAKING in reason for reason in result.reasons)
    refused, kept = (registry.releases.read_json(name, "verdict") for name in (result.release_id, result.refreshed_id))
    assert refused is not None
    assert kept is not None
    assert "against refreshed champion" in {check["name"] for check in refused["checks"]}
    assert (refused["champion"], refused["against"]) == (first, result.refreshed_id)
    assert (kept["outcome"], kept["against"]) == ("equal", first)
    evidence = Evidence.load(io.BytesIO(registry.releases.read_part(result.refreshed_id, "evidence")))
    assert judge(evidence, settings.gate).to_dict()["checks"] == kept["checks"]
    assert b"</html>" in registry.releases.read_part(result.refreshed_id, "report")
