"""`rolecall llm batch`: a file of requests answered, its progress and speed told."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from rolecall.platform.console import Json, console, emit, errors
from rolecall.platform.errors import InputError
from rolecall.platform.settings import LLMSettings, load_settings

if TYPE_CHECKING:
    from rolecall.serving.llm.batch_file.job import Progress


def batch(
    source: Annotated[str, typer.Argument(metavar="INPUT", help="Requests: lines of JSON, or Parquet. A path or URI.")],
    target: Annotated[str, typer.Argument(metavar="OUTPUT", help="Their answers, a line each. A path or URI.")],
    model: Annotated[str | None, typer.Option(help="A folder, .gguf file or package; else the settings'.")] = None,
    name: Annotated[str | None, typer.Option(help="What the lines call the model.")] = None,
    compute: Annotated[Literal["exact", "fast"] | None, typer.Option(help="fast: activations in 8 bits.")] = None,
    device: Annotated[str | None, typer.Option(help="cpu or cuda.")] = None,
    engines: Annotated[int, typer.Option(min=1, help="How many, each an actor of Ray Data.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="Of each engine; 0: a share of this machine's cores.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep the answers that OUTPUT has; answer the rest.")
    ] = False,
    json: Json = False,
) -> None:
    """Answer a file of requests, in order, in the shapes of OpenAI's Batch API.

    A line is `{"custom_id": .., "method": "POST", "url": "/v1/chat/completions", "body": {..}}` (or /v1/completions),
    or a body alone: `{"prompt": ..}`, `{"messages": ..}`. One that cannot be answered has its reason as its answer.
    """
    from rolecall.serving.llm.batch_file.job import BatchJob, answer_batch

    settings = load_settings()
    given = {"model": model, "name": name, "compute": compute, "device": device}
    llm = _with(settings.llm, {key: value for key, value in given.items() if value is not None})
    job = BatchJob(source=source, target=target, llm=llm, engines=engines, threads=threads, resume=resume)
    with _bar(quiet=json) as told:
        progress = answer_batch(job, settings, told)
    emit(_document(progress), json, lambda: console.print(_summary(progress, target), markup=False))


def _with(settings: LLMSettings, given: dict[str, Any]) -> LLMSettings:
    try:
        return LLMSettings.model_validate(settings.model_dump() | given)
    except ValueError as error:
        raise InputError(str(error), "what the settings below llm take") from error


@contextlib.contextmanager
def _bar(*, quiet: bool) -> Iterator[Callable[[Progress], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (SpinnerColumn(), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    with Bar(*columns, TimeElapsedColumn(), console=errors, transient=True, disable=quiet) as bar:
        task = bar.add_task("lines", total=None, note="opening the model")

        def told(progress: Progress) -> None:
            done = progress.kept + progress.answered + progress.failed
            note = f"{progress.tokens_per_second:,.0f} tokens/s" if progress.seconds else "opening the model"
            bar.update(task, total=progress.lines, completed=done, note=note)

        yield told


def _document(progress: Progress) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(progress) | {"tokens_per_second": progress.tokens_per_second}


def _summary(progress: Progress, target: str) -> str:
    kept = f", {progress.kept:,} kept" if progress.kept else ""
    return (
        f"{progress.answered:,} of {progress.lines:,} lines answered{kept}, {progress.failed:,} refused: {target}\n"
        f"{progress.completion_tokens:,} tokens made from {progress.prompt_tokens:,} in {progress.seconds:,.1f} s, "
        f"{progress.tokens_per_second:,.1f} a second with the model's loading"
    )
