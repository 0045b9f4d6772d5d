"""The point-in-time join through Ray Data: the rows of one machine, and none of them on the driver."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq
import pytest
from feast.types import Float64
from hypothesis import HealthCheck, given, settings

from rolecall.features.asof import cluster
from rolecall.features.asof.cluster import cluster_join
from rolecall.features.asof.join import asof_join
from rolecall.features.asof.view import AsofInputError
from rolecall.platform.ray_runtime import ray_session
from rolecall.platform.settings import RaySettings
from tests.features.asof.cases import AT, Case, cases
from tests.features.asof.repository import DRIVER, NOON, feast_store, feature_view, parquet, stats
from tests.features.asof.repository import asked as entity_rows
from tests.features.asof.test_parts import frames, the_view

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", autouse=True)
def _ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with ray_session(RaySettings(), tmp_path_factory.mktemp("ray")):
        yield


@given(cases())
@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_entity_row_sees_through_ray_data_what_the_definition_says(case: Case) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(case.entities, folder / "asked.parquet")
        views = []
        for view in case.views:
            view.rows.collect().write_parquet(folder / f"{view.name}.parquet")
            views.append(replace(view, rows=pl.scan_parquet(folder / f"{view.name}.parquet")))
        paths = cluster_join(
            pl.scan_parquet(folder / "asked.parquet"), views, timestamp=AT, known_only=case.known_only,
            target=folder / "out", scratch=folder / "scratch", workers=3,
        )  # fmt: skip
        names = [name for view in case.views for name in view.columns.values()]
        assert [row for path in paths for row in pl.read_parquet(path).select(names).to_dicts()] == case.expected()
        assert not any((folder / "scratch").iterdir())


def test_a_hot_key_changes_nothing_and_the_driver_is_told_paths_and_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, rows = frames(200_000, 50_000, hot=0.1)
    for name, frame in (("asked", asked), ("rows", rows)):
        frame.write_parquet(tmp_path / f"{name}.parquet")
    view = the_view(pl.scan_parquet(tmp_path / "rows.parquet"))
    told: list[int] = []
    spread = cluster._spread

    def heard(*stage: Any, **options: Any) -> Any:
        answers = spread(*stage, **options)
        told.extend(len(pickle.dumps(answer)) for answer in answers)
        return answers

    monkeypatch.setattr(cluster, "_spread", heard)
    paths = cluster_join(
        pl.scan_parquet(tmp_path / "asked.parquet"), [view], timestamp=AT,
        target=tmp_path / "out", scratch=tmp_path / "scratch", workers=16,
    )  # fmt: skip
    whole = asof_join(asked.to_arrow(), [view], timestamp=AT)
    assert pl.concat([pl.read_parquet(path) for path in paths]).equals(pl.DataFrame(whole))
    assert 0 < sum(told) < (tmp_path / "rows.parquet").stat().st_size / 10


def test_a_retrieval_becomes_a_ray_dataset_without_its_rows_passing_through_the_driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = parquet(tmp_path / "stats.parquet", stats(("a", NOON, NOON, 1.0), ("b", NOON, NOON, 2.0)))
    view = feature_view(source, {"trips": Float64})
    store = feast_store(tmp_path / "repo", [DRIVER, view], staging_location=str(tmp_path / "staging"))
    entities = entity_rows(("b", NOON), ("x", NOON), ("a", NOON))
    job = store.get_historical_features(entities, ["stats:trips"])
    monkeypatch.setattr(job, "to_arrow", None)  # what would bring them here
    rows = {row["driver_id"]: row["trips"] for row in job.to_ray_dataset().take_all()}
    assert rows == {"b": 2.0, "x": None, "a": 1.0}


def test_inputs_that_cannot_be_joined_are_refused_before_any_task_starts(tmp_path: Path) -> None:
    asked, rows = frames(10, 10)
    wrong = replace(the_view(rows.lazy()), timestamp="when")
    with pytest.raises(AsofInputError, match="no column when"):
        cluster_join(asked.lazy(), [wrong], timestamp=AT, target=tmp_path, scratch=tmp_path, workers=2)
