"""The durable registry is written for Feast's own tools; what somebody else put there is never read, let alone run."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dill
import polars as pl
import pytest
from sqlalchemy import create_engine, select, update

from rolecall.features.activity import TIMESTAMP
from rolecall.features.feast_repository import PROJECT
from rolecall.features.store import FeatureStore
from rolecall.features.views import ALL_VIEWS, VIEWS
from rolecall.platform.settings import FeatureSettings
from tests.features.test_online_store import no_rows
from tests.services import PostgresServer

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)
VICTIM = "job_activity"


class Bomb:
    """Unpickling it leaves a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Callable[..., None], tuple[Path]]:
        return Path.touch, (self.file,)


@pytest.fixture(params=["sqlite", "postgresql"])
def settings(request: pytest.FixtureRequest) -> FeatureSettings:
    if request.param == "sqlite":
        return FeatureSettings()
    database: PostgresServer = request.getfixturevalue("postgresql")
    return FeatureSettings(registry_url=database.database())


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "sources").mkdir()
    for view in VIEWS:
        no_rows(view.name).write_parquet(tmp_path / "sources" / f"{view.name}.parquet")
    return tmp_path


def open_store(home: Path, settings: FeatureSettings) -> FeatureStore:
    return FeatureStore(home / "feast", settings, sources=home / "sources")


def registry_url(home: Path, settings: FeatureSettings) -> str:
    return settings.registry_url or f"sqlite:///{home / 'feast' / 'registry.db'}"


def plant(url: str, *, body: bytes, text: str) -> None:
    """Give a view of the registry a transformation."""
    from feast.infra.registry.sql import feature_views
    from feast.protos.feast.core.FeatureView_pb2 import FeatureView

    with create_engine(url).begin() as connection:
        named = (feature_views.c.feature_view_name == VICTIM) & (feature_views.c.project_id == PROJECT)
        view = FeatureView.FromString(connection.scalar(select(feature_views.c.feature_view_proto).where(named)))
        function = view.spec.feature_transformation.user_defined_function
        function.name, function.body, function.body_text, function.mode = "bomb", body, text, "python"
        connection.execute(update(feature_views).where(named).values(feature_view_proto=view.SerializeToString()))


def feast_itself(home: Path, url: str) -> Any:
    """Feast over the durable registry, as its own tools open it."""
    from feast import FeatureStore as Feast
    from feast import RepoConfig

    registry = {"registry_type": "sql", "path": url}
    online = {"type": "sqlite", "path": str(home / "other.db")}
    return Feast(
        repo_path=str(home),
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry=registry,
            online_store=online,
            entity_key_serialization_version=3,
        ),
    )


@pytest.mark.parametrize("kind", ["pickle", "source"])
def test_code_planted_in_the_durable_registry_is_neither_read_nor_run(
    home: Path, settings: FeatureSettings, kind: str
) -> None:
    url, sign = registry_url(home, settings), home / "exploded"
    body = dill.dumps(Bomb(sign)) if kind == "pickle" else b""
    text = "" if kind == "pickle" else f"open({str(sign)!r}, 'w').close()\ndef bomb(inputs):\n    return inputs\n"
    open_store(home, settings).publish(AS_OF)
    plant(url, body=body, text=text)
    store = open_store(home, settings)  # the daily run's
    assert store.materialize(AS_OF)
    store.publish(AS_OF)
    asked = {"candidate_id": ["c"], "job_id": ["j"], "employer_id": ["e"], "event_timestamp": [AS_OF]}
    store.historical(pl.DataFrame(asked).with_columns(pl.col("event_timestamp").cast(TIMESTAMP)), "ranker_full")
    plant(url, body=body, text=text)
    reader = FeatureStore(home / "feast", settings)  # serving's
    reader.online_candidates(["c"], at=AS_OF)
    reader.online_jobs(["j"], ["e"], at=AS_OF)
    reader.online_consent(["c"], at=AS_OF)
    assert not sign.exists()
    with contextlib.suppress(AttributeError):  # what it unpickled is no function
        feast_itself(home, url).get_feature_view(VICTIM)
    assert sign.exists(), "reading the registry as Feast does runs it: the test would have noticed"


def test_feasts_own_tools_find_the_definitions_and_how_far_they_are_online(
    home: Path, settings: FeatureSettings
) -> None:
    store = open_store(home, settings)
    store.publish(AS_OF)
    store.publish(AS_OF)
    feast = feast_itself(home, registry_url(home, settings))
    assert {view.name for view in feast.list_feature_views()} == {view.name for view in ALL_VIEWS}
    assert feast.get_feature_view(VICTIM).most_recent_end_time == AS_OF
    assert {entity.name for entity in feast.list_entities()} >= {"candidate", "job", "employer"}
