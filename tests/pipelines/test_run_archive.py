"""A run's finished steps outside its machine: whole or absent, and found by a machine that has nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from rolecall.pipelines.run_archive import RunArchive
from rolecall.pipelines.steps import Run, Step, StepContext, StepResult
from rolecall.platform.errors import ConflictError
from rolecall.platform.ledger import claimed, open_ledger
from rolecall.platform.object_store import prefix
from rolecall.platform.settings import Settings
from tests.services import S3Bucket

AS_OF = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def archive(s3_bucket: S3Bucket) -> RunArchive:
    return RunArchive(place=prefix(f"{s3_bucket.uri}/artifacts", s3_bucket.options).below("runs", "r1"))


def steps(log: list[str], *, dies_in: str = "") -> list[Step]:
    def step(name: str, *inputs: str) -> Step:
        def run(context: StepContext) -> StepResult:
            if name == dies_in:
                raise RuntimeError("the node is gone")
            log.append(name)
            read = [context.file(step, "deep/out.txt").read_text() for step in inputs]
            (context.folder / "deep").mkdir()
            (context.folder / "deep/out.txt").write_text("".join([*read, name]))
            return StepResult(values={"name": name})

        return Step(name=name, run=run, inputs=inputs)

    return [step("a"), step("b", "a"), step("c", "a", "b")]


def test_a_run_that_loses_its_machine_goes_on_elsewhere_from_its_last_finished_step(
    archive: RunArchive, tmp_path: Path
) -> None:
    log: list[str] = []
    with pytest.raises(RuntimeError, match="gone"):
        Run(tmp_path / "first", "daily", AS_OF, {}).execute(steps(log, dies_in="c"), archive=archive)
    elsewhere = Run(tmp_path / "second", "daily", AS_OF, {})
    records = elsewhere.execute(steps(log), archive=archive)
    assert log == ["a", "b", "c"]
    assert (records["c"].folder / "deep/out.txt").read_text() == "aabc"
    assert records["b"].skipped
    assert records["b"].values == {"name": "b"}


def test_a_step_that_was_not_kept_whole_is_executed_again(
    archive: RunArchive, s3_bucket: S3Bucket, tmp_path: Path
) -> None:
    log: list[str] = []
    Run(tmp_path / "first", "daily", AS_OF, {}).execute(steps(log), archive=archive)
    files = s3_bucket.filesystem
    damaged, absent, unnamed = (
        next(f"{s3_bucket.name}/{key}" for key in s3_bucket.keys(f"artifacts/runs/r1/{step}") if key.endswith(end))
        for step, end in (("a", ".tar"), ("b", ".tar"), ("c", ".json"))
    )
    with files.open_output_stream(damaged) as stream:
        stream.write(b"half of it")
    files.delete_file(absent)
    files.delete_file(unnamed)
    log.clear()
    Run(tmp_path / "second", "daily", AS_OF, {}).execute(steps(log), archive=archive)
    assert log == ["a", "b", "c"]
    log.clear()
    Run(tmp_path / "third", "daily", AS_OF, {}).execute(steps(log), archive=archive)
    assert log == []


def test_a_step_that_finished_before_it_was_kept_is_kept_by_the_next_attempt(
    archive: RunArchive, tmp_path: Path
) -> None:
    log: list[str] = []
    Run(tmp_path, "daily", AS_OF, {}).execute(steps(log))
    assert not archive.holds("a")
    Run(tmp_path, "daily", AS_OF, {}).execute(steps(log), archive=archive)
    assert log == ["a", "b", "c"]
    assert all(archive.holds(step) for step in "abc")


def test_artifacts_in_a_folder_need_no_archive(tmp_path: Path) -> None:
    assert RunArchive.of(Settings(home=tmp_path), "r1") is None


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_two_machines_do_not_execute_one_run(
    database: str, request: pytest.FixtureRequest, archive: RunArchive, tmp_path: Path
) -> None:
    """They share the ledger and no folder; whoever comes second is told, and may come again later."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if database == "postgresql":
        url = str(request.getfixturevalue("ledger_database"))
    ledger = open_ledger(url)
    first, second = (Run(tmp_path / name, "daily", AS_OF, {}) for name in ("first", "second"))

    def nested(context: StepContext) -> StepResult:
        with pytest.raises(ConflictError, match="another process"):
            second.execute(steps([]), archive=archive, claim=claimed(ledger, second.id))
        return StepResult()

    first.execute([Step(name="a", run=nested)], claim=claimed(ledger, first.id))
    log: list[str] = []
    second.execute(steps(log), archive=archive, claim=claimed(ledger, second.id))
    assert log == ["a", "b", "c"]
    ledger.dispose()
