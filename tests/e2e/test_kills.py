"""A daily run killed at any step, then run again, ends in the same release as one that was never killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rolecall.pipelines.daily import run_daily
from rolecall.pipelines.demo import fill_tables
from rolecall.platform.registry import Registry

from .conftest import AS_OF, SMALL, World, small_market, small_settings

pytestmark = pytest.mark.slow

STEPS = (
    "ingest",
    "catalogue",
    "features",
    "embed",
    "index",
    "training-set",
    "coarse",
    "fine",
    "people",
    "people-rankers",
    "assemble",
    "refresh",
    "drift",
    "evaluate",
    "release",
    "gate",
    "promote",
)
# The worst moment: everything a step does has happened, and nothing says so yet.
KILLED_RUN = """
import os, signal, sys
from dataclasses import replace
from datetime import datetime
from rolecall.pipelines import daily
from rolecall.platform.settings import load_settings

def dies_after(step):
    def run(context):
        step.run(context)
        os.kill(os.getpid(), signal.SIGKILL)
    return replace(step, run=run)

plan = daily.daily_plan
daily.daily_plan = lambda work, **options: [
    dies_after(step) if step.name == sys.argv[1] else step for step in plan(work, **options)
]
daily.run_daily(load_settings(), datetime.fromisoformat(sys.argv[2]))
"""


@pytest.mark.timeout(1500)
def test_killed_at_every_step_in_turn_a_run_ends_in_the_same_release(world: World, tmp_path: Path) -> None:
    settings = small_settings(tmp_path / "home")
    fill_tables(settings, small_market())
    environment = os.environ | SMALL | {"ROLECALL_HOME": str(settings.home)}
    for step in STEPS:
        died = subprocess.run(
            [sys.executable, "-c", KILLED_RUN, step, AS_OF.isoformat()],
            env=environment,
            capture_output=True,
            check=False,
        )
        assert died.returncode == -signal.SIGKILL, died.stderr.decode()[-2000:]
    result = run_daily(settings, AS_OF)
    registry = Registry.from_settings(settings)
    assert result.release_id == world.result.release_id
    assert [info.release_id for info in registry.list()] == [result.release_id]
    assert registry.reconcile() == result.release_id
    assert len(registry.promotions.history()) == 1
