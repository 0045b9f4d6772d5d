"""A scheduled day through Ray Jobs on a Ray that the tick itself starts: executed, recorded, failed, tried again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rolecall.pipelines.demo import fill_tables

from .conftest import AS_OF, SMALL, World, small_market, small_settings

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
AT = ("--at", "00:00", "--zone", "UTC")


def rolecall(home: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rolecall.platform.cli", *arguments]
    environment = {name: text for name, text in os.environ.items() if name != "RAY_ADDRESS"}
    environment |= SMALL | {"ROLECALL_HOME": str(home), "PYTHONPATH": "infra/import_root"} | more
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)


def told(done: subprocess.CompletedProcess[str], code: int) -> Any:
    assert done.returncode == code, done.stdout[-4000:] + done.stderr[-4000:]
    return json.loads(done.stdout)


def happened(report: Any) -> list[str]:
    return [event["what"] for event in report["events"]]


def test_a_tick_executes_the_day_and_ends_in_the_release_a_plain_run_builds(world: World, tmp_path: Path) -> None:
    home = tmp_path / "home"
    fill_tables(small_settings(home), small_market())
    assert rolecall(home, "schedule", "add", "nightly", *AT, "--start", str(AS_OF.date())).returncode == 0

    report = told(rolecall(home, "schedule", "tick", "--json"), 0)
    assert happened(report) == ["entered", "submitted", "succeeded"]
    assert report["schedules"][0]["last_success"] == str(AS_OF.date())
    log = (home / "logs" / f"{report['events'][1]['detail']}.log").read_text()
    assert world.result.release_id in log

    assert happened(told(rolecall(home, "schedule", "tick", "--json"), 0)) == []
    listed = rolecall(home, "schedule", "list", "--metrics")
    assert 'rolecall_schedule_missed_days{schedule="nightly"} 0.0' in listed.stdout


def test_a_failing_day_is_recorded_tried_again_after_its_back_off_and_given_up(tmp_path: Path) -> None:
    home, day = tmp_path / "home", str((AS_OF - timedelta(days=1)).date())
    options = ("--start", day, "--end", day, "--max-attempts", "2", "--backoff-minutes", "0.001")
    assert rolecall(home, "schedule", "add", "empty", *AT, *options).returncode == 0

    first = told(rolecall(home, "schedule", "tick", "--json"), 1)
    assert happened(first) == ["entered", "submitted", "failed"]
    assert first["schedules"][0]["verdict"] == "retrying"
    assert "exit code" in first["events"][-1]["detail"]

    second = told(rolecall(home, "schedule", "tick", "--json"), 1)
    assert happened(second) == ["submitted", "given up"]
    listed = told(rolecall(home, "schedule", "list", "--json"), 1)
    assert (listed[0]["verdict"], listed[0]["failed"]) == ("failed", [day])


def test_on_a_cluster_one_tick_submits_and_the_next_collects(ray_cluster: str, tmp_path: Path) -> None:
    home, day = tmp_path / "home", str((AS_OF - timedelta(days=1)).date())
    cluster = {"ROLECALL_RAY__ADDRESS": ray_cluster}
    assert rolecall(home, "schedule", "add", "empty", *AT, "--start", day, "--end", day).returncode == 0
    tick = ("schedule", "tick", "--no-wait", "--json")
    assert happened(told(rolecall(home, *tick, **cluster), 0)) == ["entered", "submitted"]
    while not (done := rolecall(home, *tick, **cluster)).returncode:
        pass  # how many ticks find the job at work depends on the machine
    assert happened(json.loads(done.stdout)) == ["failed"]  # there is nothing to train on
