"""The daily run as a Ray job on a real local cluster: through `rolecall run --submit` and plain `ray job submit`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from rolecall.pipelines.demo import fill_tables

from .conftest import AS_OF, SMALL, World, small_market, small_settings

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def run(command: list[str], home: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | SMALL | {"ROLECALL_HOME": str(home), "RAY_AUTH_MODE": "disabled"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)


@pytest.mark.timeout(1200)
def test_a_submitted_day_ends_in_the_same_release_and_a_second_submit_attaches(
    world: World, ray_cluster: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    fill_tables(small_settings(home), small_market())
    day = ["run", "daily", "--as-of", AS_OF.isoformat()]
    submit = [sys.executable, "-m", "rolecall.platform.cli", *day, "--submit", ray_cluster]
    first, second = run(submit, home), run(submit, home)
    assert first.returncode == 0, first.stdout[-3000:] + first.stderr[-3000:]
    assert first.stdout.startswith("submitted rolecall-daily-")
    assert world.result.release_id in first.stdout
    assert second.returncode == 0
    assert second.stdout.startswith("attached to rolecall-daily-")

    variables = {"PYTHONPATH": "infra/import_root", "ROLECALL_HOME": str(home), **SMALL}
    plain = run(
        [
            str(Path(sys.executable).parent / "ray"),
            *("job", "submit", "--address", ray_cluster, "--working-dir", "."),
            *("--runtime-env-json", json.dumps({"env_vars": variables})),
            *("--", sys.executable, "-m", "rolecall.pipelines.job", *day[1:], "--json"),
        ],
        home,
    )
    assert plain.returncode == 0, plain.stdout[-3000:] + plain.stderr[-3000:]
    assert f'"release_id": "{world.result.release_id}"' in plain.stdout
