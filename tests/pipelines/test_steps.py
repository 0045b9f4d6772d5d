"""A run resumes where it died and never repeats what is finished."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from rolecall.pipelines.steps import Run, Step, StepContext, StepResult
from rolecall.platform.errors import ConflictError, InputError, IntegrityError

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)


def make_run(tmp_path: Path, **determinants: object) -> Run:
    return Run(tmp_path, "daily", AS_OF, determinants)


def counting(name: str, log: list[str], inputs: tuple[str, ...] = ()) -> Step:
    def run(context: StepContext) -> StepResult:
        log.append(name)
        (context.folder / "out.txt").write_text(name)
        return StepResult(values={"seen": sorted(context.inputs)})

    return Step(name=name, run=run, inputs=inputs)


def test_a_finished_step_is_skipped_on_rerun(tmp_path: Path) -> None:
    log: list[str] = []
    steps = [counting("a", log), counting("b", log, ("a",))]
    first = make_run(tmp_path).execute(steps)
    again = make_run(tmp_path).execute(steps)
    assert log == ["a", "b"]
    assert again["b"].skipped
    assert again["b"].values == first["b"].values == {"seen": ["a"]}


def test_a_step_that_says_so_is_executed_again(tmp_path: Path) -> None:
    log: list[str] = []
    steps = [counting("a", log), replace(counting("b", log, ("a",)), again=True)]
    make_run(tmp_path).execute(steps)
    again = make_run(tmp_path).execute(steps)
    assert log == ["a", "b", "b"]
    assert not again["b"].skipped
    assert make_run(tmp_path).record("b").values == {"seen": ["a"]}


def test_two_instants_are_two_runs_however_close(tmp_path: Path) -> None:
    later = Run(tmp_path, "daily", AS_OF + timedelta(microseconds=1), {})
    assert later.id != make_run(tmp_path).id


def test_what_reads_a_step_that_is_executed_anew_is_executed_anew_too(tmp_path: Path) -> None:
    """A first step that is lost pins newer tables: what was made of the older ones must not be mixed with it."""
    log: list[str] = []
    steps = [counting("a", log), counting("b", log, ("a",)), counting("other", log), counting("c", log, ("b",))]
    records = make_run(tmp_path).execute(steps)
    shutil.rmtree(records["a"].folder)
    log.clear()
    make_run(tmp_path).execute(steps)
    assert log == ["a", "b", "c"]


def test_a_failed_step_leaves_nothing_and_runs_again(tmp_path: Path) -> None:
    log: list[str] = []

    def fails(context: StepContext) -> StepResult:
        (context.folder / "half.txt").write_text("half")
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        make_run(tmp_path).execute([counting("a", log), Step(name="b", run=fails)])
    records = make_run(tmp_path).execute([counting("a", log), counting("b", log)])
    assert log == ["a", "b"]
    assert list(records["b"].files) == ["out.txt"]


def test_other_determinants_are_another_run(tmp_path: Path) -> None:
    assert make_run(tmp_path, code="1").id != make_run(tmp_path, code="2").id
    assert make_run(tmp_path, code="1").id == make_run(tmp_path, code="1").id


def test_a_step_may_only_need_earlier_steps(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="needs"):
        make_run(tmp_path).execute([counting("a", [], ("b",)), counting("b", [])])


def test_an_instant_without_zone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no time zone"):
        Run(tmp_path, "daily", AS_OF.replace(tzinfo=None), {})


def test_a_lost_file_is_noticed(tmp_path: Path) -> None:
    records = make_run(tmp_path).execute([counting("a", [])])
    (records["a"].folder / "out.txt").unlink()
    with pytest.raises(IntegrityError, match=r"lost \['out.txt'\]"):
        make_run(tmp_path).execute([counting("a", [])])


def test_two_processes_do_not_execute_one_run(tmp_path: Path) -> None:
    def nested(context: StepContext) -> StepResult:
        with pytest.raises(ConflictError, match="another process"):
            make_run(tmp_path).execute([counting("b", [])])
        return StepResult(values={"refused": True})

    records = make_run(tmp_path).execute([Step(name="a", run=nested)])
    assert records["a"].values == {"refused": True}


def test_a_process_killed_in_a_step_resumes_at_that_step(tmp_path: Path) -> None:
    program = f"""
import os, signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from rolecall.pipelines.steps import Run, Step, StepResult
def first(context):
    (context.folder / "pid.txt").write_text(str(os.getpid()))
    return StepResult()
def second(context):
    (context.folder / "half.txt").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
Run(Path({str(tmp_path)!r}), "daily", datetime(2026, 3, 1, tzinfo=UTC), {{}}).execute(
    [Step(name="a", run=first), Step(name="b", run=second)])
"""
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root / "infra/import_root")}
    done = subprocess.run([sys.executable, "-c", program], env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    log: list[str] = []
    records = make_run(tmp_path).execute([counting("a", log), counting("b", log)])
    assert log == ["b"]
    assert list(records["b"].files) == ["out.txt"]
