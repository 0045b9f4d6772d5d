"""A pipeline is a list of steps with declared inputs and outputs; a run of it is a folder.

    runs/daily-20261122T000000-1f2e3d4c/
        run.json                 what was asked for
        embed/                   a finished step: its files and step.json
        index.partial/           a step that was running when the process died; thrown away on rerun

A step writes into a `.partial` folder that is renamed when it returns, so a finished step is either
whole or absent. Rerunning a run skips finished steps, but those that say `again` and those that read a step which had
to be executed anew; nothing of a run depends on the clock. With an `archive` a finished step is also kept outside this
machine, and a rerun elsewhere finds it there.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from rolecall.platform.errors import ConflictError, InputError, IntegrityError, NotFoundError
from rolecall.platform.files import sync, sync_tree

STEP_FILE = "step.json"
RUN_FILE = "run.json"
PARTIAL = ".partial"


@dataclass(frozen=True, kw_only=True)
class StepResult:
    """What a finished step left behind: small values for later steps, and metrics for the run's record."""

    values: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class StepRecord:
    """A finished step as read back from disk."""

    name: str
    folder: Path
    values: dict[str, Any]
    metrics: dict[str, float]
    files: dict[str, str]
    seconds: float
    skipped: bool = False


@dataclass(frozen=True, kw_only=True)
class StepContext:
    """What a step is given: its run's id, the instant, its own output folder and the steps it declared as inputs."""

    name: str
    run: str
    as_of: datetime
    folder: Path
    inputs: Mapping[str, StepRecord]
    report: Callable[[str], None]

    def file(self, step: str, name: str) -> Path:
        """A file that the input step `step` wrote."""
        return self.inputs[step].folder / name

    def value(self, step: str, name: str) -> Any:
        return self.inputs[step].values[name]


@dataclass(frozen=True, kw_only=True)
class Step:
    """`run` writes files below the context's folder and returns a result. `inputs` names earlier steps.

    `again`: executed on every rerun, because what it ends in depends on what others did meanwhile.
    """

    name: str
    run: Callable[[StepContext], StepResult]
    inputs: tuple[str, ...] = ()
    again: bool = False


class Observer(Protocol):
    """Told of progress; the command line's progress bars and the MLflow record are observers."""

    def started(self, step: Step, number: int, total: int) -> None: ...
    def reported(self, step: Step, message: str) -> None: ...
    def finished(self, record: StepRecord) -> None: ...


class Silent:
    """An observer that keeps quiet."""

    def started(self, step: Step, number: int, total: int) -> None: ...
    def reported(self, step: Step, message: str) -> None: ...
    def finished(self, record: StepRecord) -> None: ...


class Archive(Protocol):
    """Where finished steps are kept outside this machine."""

    def holds(self, step: str) -> bool: ...
    def keep(self, step: str, folder: Path) -> None: ...
    def fetch(self, step: str, folder: Path) -> bool: ...


class Run:
    """One run of a pipeline: identified by pipeline, instant and the digest of what determines its result."""

    def __init__(self, root: Path, pipeline: str, as_of: datetime, determinants: Mapping[str, Any]) -> None:
        if as_of.tzinfo is None:
            raise InputError(f"as_of {as_of} has no time zone", "an instant with a zone, for example 2026-11-22T00:00Z")
        self.as_of = as_of.astimezone(UTC)
        self.pipeline = pipeline
        self.determinants = dict(determinants)
        canonical = json.dumps([self.as_of.isoformat(), self.determinants], sort_keys=True, default=str)
        self.digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
        self.id = f"{pipeline}-{self.as_of:%Y%m%dT%H%M%S}-{self.digest}"
        self.folder = root / self.id

    def execute(
        self,
        steps: Sequence[Step],
        observers: Sequence[Observer] = (),
        *,
        archive: Archive | None = None,
        claim: AbstractContextManager[object] | None = None,
    ) -> dict[str, StepRecord]:
        """Run what is not finished yet, in order. Returns every step's record.

        `claim` keeps other machines from the run, as a lock in its folder keeps this one's other processes. Raises
        ConflictError while another process runs the same run.
        """
        _check_order(steps)
        self.folder.mkdir(parents=True, exist_ok=True)
        with _Lock(self.folder / "lock"), claim or nullcontext():
            self._write_header()
            records: dict[str, StepRecord] = {}
            for number, step in enumerate(steps, start=1):
                for observer in observers:
                    observer.started(step, number, len(steps))
                stale = step.again or any(not records[name].skipped for name in step.inputs)
                finished = None if stale else self._found(step.name, archive)
                record = finished or self._run(step, records, observers)
                if archive is not None and not step.again and not (finished and archive.holds(step.name)):
                    archive.keep(step.name, record.folder)
                records[step.name] = record
                for observer in observers:
                    observer.finished(record)
        return records

    def _found(self, name: str, archive: Archive | None) -> StepRecord | None:
        """A finished step of this machine, else one that another machine kept."""
        if not (self.folder / name / STEP_FILE).exists() and archive is not None:
            shutil.rmtree(self.folder / name, ignore_errors=True)
            archive.fetch(name, self.folder / name)
        return self.finished(name)

    def finished(self, name: str) -> StepRecord | None:
        """The record of a finished step, its files checked against their sizes; None where it has not finished."""
        folder = self.folder / name
        if not (folder / STEP_FILE).exists():
            return None
        stored = json.loads((folder / STEP_FILE).read_text())
        missing = [file for file in stored["files"] if not (folder / file).exists()]
        if missing:
            raise IntegrityError(f"step {name} of run {self.id} lost {missing}", todo=f"delete {folder} and run again")
        return StepRecord(folder=folder, skipped=True, **stored)

    def record(self, name: str) -> StepRecord:
        """Like `finished`, but raises NotFoundError where the step has not finished."""
        found = self.finished(name)
        if found is None:
            raise NotFoundError(f"step {name} of run {self.id} has not finished", todo="run the pipeline")
        return found

    def _run(self, step: Step, records: Mapping[str, StepRecord], observers: Sequence[Observer]) -> StepRecord:
        partial = self.folder / (step.name + PARTIAL)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()

        def report(message: str) -> None:
            for observer in observers:
                observer.reported(step, message)

        started = time.monotonic()
        context = StepContext(
            name=step.name,
            run=self.id,
            as_of=self.as_of,
            folder=partial,
            inputs={name: records[name] for name in step.inputs},
            report=report,
        )
        result = step.run(context)
        record = StepRecord(
            name=step.name,
            folder=self.folder / step.name,
            values=result.values,
            metrics=result.metrics,
            files={
                path.relative_to(partial).as_posix(): str(path.stat().st_size)
                for path in sorted(partial.rglob("*"))
                if path.is_file()
            },
            seconds=round(time.monotonic() - started, 3),
        )
        stored = {key: value for key, value in asdict(record).items() if key not in ("folder", "skipped")}
        (partial / STEP_FILE).write_text(json.dumps(stored, indent=1, default=str))
        sync_tree(partial)
        shutil.rmtree(record.folder, ignore_errors=True)  # of a step that is executed again
        partial.rename(record.folder)
        sync(self.folder)
        return record

    def _write_header(self) -> None:
        header = {"id": self.id, "pipeline": self.pipeline, "as_of": self.as_of, "determinants": self.determinants}
        temporary = self.folder / (RUN_FILE + PARTIAL)
        temporary.write_text(json.dumps(header, indent=1, default=str))
        temporary.rename(self.folder / RUN_FILE)


def _check_order(steps: Sequence[Step]) -> None:
    seen: set[str] = set()
    for step in steps:
        unknown = [name for name in step.inputs if name not in seen]
        if unknown or step.name in seen:
            raise InputError(f"step {step.name} needs {unknown} or is named twice", f"inputs among {sorted(seen)}")
        seen.add(step.name)


class _Lock:
    """An advisory lock on a run; the kernel gives it back when its holder dies."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        import fcntl

        self._file = self._path.open("w")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise ConflictError(
                f"run {self._path.parent.name} is being executed by another process", todo="wait for it to end"
            ) from error

    def __exit__(self, *_: object) -> None:
        self._file.close()
