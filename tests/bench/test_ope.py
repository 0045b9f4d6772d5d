"""The bench of the off-policy estimators: its truth is what visitors do, and it ends in its figures."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rolecall.pipelines.market import MarketConfig, Memory, World
from rolecall.pipelines.market.config import Choice
from rolecall.pipelines.market.luck import Luck
from rolecall.pipelines.market.session import respond

BENCH = Path(__file__).parent


@pytest.fixture(scope="module")
def lab() -> ModuleType:
    sys.path.insert(0, str(BENCH))
    try:
        import ope_lab
    finally:
        sys.path.remove(str(BENCH))
    return ope_lab


@pytest.mark.parametrize("trust", [0.0, 0.4])
def test_the_truth_is_what_visitors_do(lab: ModuleType, trust: float) -> None:
    choice = Choice(trust=trust)
    world = World(MarketConfig(jobs=300, candidates=250, employers=20, occupations=20, days=7, seed=2, choice=choice))
    day = lab.Day(world, 5)
    best = day.greedy(day.score + 0.5 * day.utility)
    shown, sure = np.take_along_axis(day.job, best, axis=1), np.ones(best.shape)
    applied = [
        respond(world.config, Luck(seed), world.chooser, day.visits, shown, sure, Memory()).applied.sum(axis=1).mean()
        for seed in range(60)
    ]
    assert abs(np.mean(applied) - day.value(best)) < 4 * np.std(applied) / np.sqrt(len(applied))


def test_a_log_holds_what_its_events_say(lab: ModuleType) -> None:
    day = lab.Day(World(MarketConfig(jobs=300, candidates=250, employers=20, occupations=20, days=7, seed=2)), 5)
    log = day.log(3, 40)
    events = log.events.to_pylist()
    assert len({event["event_id"] for event in events}) == len(events)
    assert sum(event["kind"] == "apply" for event in events) == log.applied.sum()
    assert len(set(log.cluster.tolist())) == 40


@pytest.mark.slow
def test_the_benchmark_ends_in_its_figures() -> None:
    command = [sys.executable, str(BENCH / "ope.py"), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    metrics = json.loads(done.stdout.splitlines()[-1])["metrics"]
    assert 0 <= metrics["coverage_min"] <= metrics["coverage"] <= metrics["coverage_max"] <= 1
