"""A clean process loads what is served through MLflow alone."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rolecall.platform.mlflow_setup import configure_mlflow, log_release_model
from rolecall.platform.release import ReleaseBuilder
from rolecall.platform.settings import Settings

if TYPE_CHECKING:
    from conftest import World

MODEL_CODE = '''
from pathlib import Path
import mlflow

class Echo(mlflow.pyfunc.PythonModel):
    """Answers with what the release's model file says."""

    def load_context(self, context):
        self.text = (Path(context.artifacts["release"]) / "model.txt").read_text()

    def predict(self, context, model_input: list[str], params=None) -> list[str]:
        return [self.text for _ in model_input]

mlflow.models.set_model(Echo())
'''

ASK = """
import mlflow
print(mlflow.pyfunc.load_model("models:/rolecall@champion").predict(["x"]))
"""


def test_mlflow_is_told_to_load_no_pickle_and_report_nothing(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "true")
    configure_mlflow(settings.tracking_uri)
    assert os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] == "false"
    assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == "true"


def test_a_clean_process_loads_the_champion_through_mlflow_alone(world: World, tmp_path: Path) -> None:
    code = tmp_path / "echo_model.py"
    code.write_text(MODEL_CODE)
    first = world.build("a")
    builder = ReleaseBuilder(tmp_path / "release")
    builder.path("model.txt").write_text("hello from the champion")
    builder.add("model", "model.txt")
    manifest = builder.seal(as_of=datetime(2026, 3, 1, tzinfo=UTC), code_version="1", tables={}, settings={})
    world.registry.releases.publish(builder.folder)
    run_id = world.registry.get(first).run_id or ""
    folder = world.registry.releases.fetch(manifest.id)
    world.registry.register(
        manifest.id,
        run_id=run_id,
        log_model=lambda: log_release_model(run_id=run_id, release_folder=folder, code_file=code),
    )
    world.registry.promote(manifest.id, expected=None, why="test", gated=False)
    environment = {**os.environ, "MLFLOW_TRACKING_URI": world.settings.tracking_uri, "PYTHONPATH": ""}
    answer = subprocess.run(
        [sys.executable, "-c", ASK], capture_output=True, text=True, env=environment, cwd=tmp_path, check=True
    )
    assert "hello from the champion" in answer.stdout
    assert not (tmp_path / "mlruns").exists()
