"""MLflow's tables, made once for every test that needs a registry: creating them runs every migration it ever had."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from rolecall.platform.mlflow_setup import configure_mlflow
from rolecall.platform.settings import load_settings

WithMlflow = Callable[[Path], Path]


@pytest.fixture(scope="session")
def with_mlflow(tmp_path_factory: pytest.TempPathFactory) -> WithMlflow:
    """Gives a home, made where it is missing, MLflow's empty tables; returns the home."""
    made = tmp_path_factory.mktemp("mlflow")
    configure_mlflow(load_settings(environ={}, home=made).tracking_uri).search_experiments()

    def give(home: Path) -> Path:
        home.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made / "mlflow.db", home / "mlflow.db")
        return home

    return give
