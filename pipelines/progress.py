"""Progress bars of a pipeline run on a terminal, one plain line a step elsewhere."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from rolecall.pipelines.steps import Observer, Silent, Step, StepRecord
from rolecall.platform.console import errors


class Bars:
    """A bar over the steps and what the running step says of itself."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("starting", total=None, note="")

    def started(self, step: Step, number: int, total: int) -> None:
        self._progress.update(self._task, description=step.name, completed=number - 1, total=total, note="")

    def reported(self, step: Step, message: str) -> None:
        self._progress.update(self._task, note=message)

    def finished(self, record: StepRecord) -> None:
        self._progress.advance(self._task)
        figures = ", ".join(f"{name.split('.')[-1]} {value:,.4g}" for name, value in list(record.metrics.items())[:4])
        took = "already done" if record.skipped else f"{record.seconds:6.1f} s"
        self._progress.console.print(f"[green]✓[/] {record.name:<14} {took:>12}  [dim]{figures}[/]")


@contextlib.contextmanager
def progress_bars(*, quiet: bool = False) -> Iterator[Observer]:
    """An observer that draws; with `quiet` one that does not."""
    if quiet:
        yield Silent()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, TimeElapsedColumn(), console=errors, transient=True) as progress:
        yield Bars(progress)
