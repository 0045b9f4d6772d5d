"""A registry with its releases, and MLflow as an outsider sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rolecall.platform.registry import Registry
from rolecall.platform.release import ReleaseBuilder
from rolecall.platform.settings import Settings, load_settings
from tests.empty_mlflow import WithMlflow


@pytest.fixture
def settings(tmp_path: Path, with_mlflow: WithMlflow) -> Settings:
    return load_settings(environ={}, home=with_mlflow(tmp_path / "home"))


@dataclass(frozen=True, kw_only=True)
class World:
    """A registry, a folder to build in, and MLflow as an outsider sees it."""

    registry: Registry
    folder: Path
    settings: Settings

    def build(self, model: str, *, passed: bool | None = True) -> str:
        """Build, publish, register and judge a release whose model file holds `model`; returns its id."""
        builder = ReleaseBuilder(self.folder / model)
        builder.path("model.txt").write_text(model)
        builder.add("model", "model.txt")
        manifest = builder.seal(
            as_of=datetime(2026, 3, 1, tzinfo=UTC),
            code_version="1",
            tables={"jobs": len(model)},
            settings={"ranking": {"seed": len(model), "rounds": 3}},
            metrics={"ndcg": 0.1},
        )
        self.registry.releases.publish(builder.folder)
        run_id = self.registry.client.create_run(self.registry.experiment_id).info.run_id
        self.registry.register(manifest.id, run_id=run_id, log_model=lambda: f"runs:/{run_id}/release")
        if passed is not None:
            self.registry.judge(manifest.id, passed=passed, reasons=["ndcg@10 0.1 against 0.2"])
        return manifest.id

    def promote(self, *releases: str) -> None:
        for release in releases:
            self.registry.promote(release, expected=self.registry.champion(), why="better")

    def alias(self, name: str) -> str | None:
        """Release id an alias names, read with a client of its own."""
        found = [info.release_id for info in self.registry.list() if name in info.aliases]
        return found[0] if found else None

    def move_alias(self, name: str, release: str) -> None:
        """What an engineer does in MLflow's own UI or client."""
        self.registry.client.set_registered_model_alias("rolecall", name, self.registry.get(release).version)

    def damage(self, release: str) -> None:
        (self.registry.releases.fetch(release) / "model.txt").write_text("hostile")


@pytest.fixture
def world(settings: Settings, tmp_path: Path) -> World:
    return World(registry=Registry.from_settings(settings, who="ann"), folder=tmp_path / "staging", settings=settings)
