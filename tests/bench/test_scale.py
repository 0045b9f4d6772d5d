"""How scale.py adds up what a process and its children need, and what it calls growth."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def scale() -> ModuleType:
    folder = Path(__file__).parent
    spec = importlib.util.spec_from_file_location("scale", folder / "scale.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(folder))
    sys.modules["scale"] = module  # its dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(folder))
    return module


def measured(scale: ModuleType, jobs: int, **seconds: float) -> object:
    steps = {name: scale.Cost(seconds=taken, cpu=2 * taken, peak=10**9) for name, taken in seconds.items()}
    return scale.Measured(jobs=jobs, steps=steps, facts={"bytes.release.jobs": 100.0 * jobs})


def test_a_cost_that_grows_with_a_power_has_that_power_as_its_growth(scale: ModuleType) -> None:
    sizes = [10_000, 30_000, 100_000]
    assert scale.slope(sizes, [1e-4 * size**1.3 for size in sizes]) == pytest.approx(1.3)


def test_only_steps_that_take_long_enough_count(scale: ModuleType) -> None:
    runs = [measured(scale, size, embed=size / 1000, gate=0.01 * size / 1000) for size in (10_000, 100_000)]
    assert {step: grown["seconds"] for step, grown in scale.growth(runs).items()} == {"embed": pytest.approx(1.0)}
    assert scale.growth(runs[:1]) == {}


def test_bytes_a_job_are_told_for_each_part(scale: ModuleType) -> None:
    assert scale.storage_rows([measured(scale, 10_000, embed=3.0)])[1:] == [["release.jobs", "100"]]


def test_memory_of_children_counts_on_the_step_that_runs(scale: ModuleType) -> None:
    child = "import time; held = bytearray(200_000_000); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    run = scale.Measured(jobs=1)
    with subprocess.Popen([sys.executable, "-c", parent]) as process:
        watch = scale.Watch(process.pid, run)
        watch.begin("hold")
        while run.steps["hold"].peak < 200_000_000:
            watch._ended.wait(0.05)
        for below in watch._processes()[::-1]:
            below.kill()
        watch.end()
    assert run.steps["hold"].cpu >= 0
    assert run.steps["hold"].seconds > 0
