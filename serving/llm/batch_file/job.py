"""A batch file answered by a pool of engines: Ray Data moves places and answers, the texts are read by the actors.

summary = answer_batch(BatchJob(source="in.jsonl", target="out.jsonl", llm=settings.llm), settings, print)
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow as pa

from rolecall.platform.errors import InputError, RoleCallError, UnavailableError
from rolecall.platform.ray_runtime import actor_env, ray_session
from rolecall.platform.settings import LLMSettings, Settings
from rolecall.serving.llm.batch_file.output import answer_file
from rolecall.serving.llm.batch_file.source import PLACES, FoundLine, Source, open_source
from rolecall.serving.llm.batch_file.worker import LineAnswerer

if TYPE_CHECKING:
    import ray.exceptions

CALLS = 3
"""Tables an actor works at together: each has as many lines as run at once, so the engine is full until the end."""


@dataclass(frozen=True, kw_only=True)
class BatchJob:
    """`source`, `target`: paths or URIs. `engines`: how many, an actor each; `threads`: of each, 0 for a share of this
    machine's cores. `resume`: keep what `target` has, and answer the rest."""

    source: str
    target: str
    llm: LLMSettings
    engines: int = 1
    threads: int = 0
    resume: bool = False


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Lines and tokens so far. `kept`: lines that an earlier run had answered."""

    lines: int
    kept: int
    answered: int = 0
    failed: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens_per_second(self) -> float:
        """Tokens made a second, the loading of the model included."""
        return self.completion_tokens / self.seconds if self.seconds else 0.0


def answer_batch(job: BatchJob, settings: Settings, told: Callable[[Progress], None]) -> Progress:
    """Answer every line of a file, in order; `told` hears of it as it goes. A line that cannot be answered has its
    reason as its answer.

    Raises InputError before anything is computed: for a file that cannot be read, a custom_id that stands in it twice,
    a target that exists, or more engines than Ray has room for.
    """
    source = open_source(job.source, settings.storage.options)
    unfinished = settings.home / "batches"
    with answer_file(job.target, settings.storage.options, unfinished=unfinished, resume=job.resume) as target:
        tables, kept = find_lines(source, target.answered, rows=job.llm.max_sequences)
        progress = Progress(lines=kept + sum(map(len, tables)), kept=kept)
        told(progress)
        if not tables:
            return progress
        started = time.monotonic()
        with ray_session(settings.ray, settings.home):
            for replies in _answers(tables, source, job):
                target.append(replies["line"].to_pylist())
                answered = sum(replies["answered"].to_pylist())
                progress = replace(
                    progress,
                    answered=progress.answered + answered,
                    failed=progress.failed + len(replies) - answered,
                    prompt_tokens=progress.prompt_tokens + sum(replies["prompt_tokens"].to_pylist()),
                    completion_tokens=progress.completion_tokens + sum(replies["completion_tokens"].to_pylist()),
                    seconds=time.monotonic() - started,
                )
                told(progress)
    return progress


def find_lines(source: Source, answered: Set[str | int], *, rows: int) -> tuple[list[pa.Table], int]:
    """The places of the lines to answer, PLACES of at most `rows`, and how many are answered already.

    Raises InputError for a custom_id of two lines, for answers to lines that the file does not have, and for a file
    without lines.
    """
    seen: dict[str | int, int] = {}
    open_lines: list[FoundLine] = []
    tables: list[pa.Table] = []
    for found in source.scan():
        if (before := seen.setdefault(found.key, found.number)) != found.number:
            raise InputError(
                f"custom_id {found.key!r} is of line {before} and of line {found.number}",
                "one that no other line has: answers are told by it",
            )
        if found.key in answered:
            continue
        if open_lines and (len(open_lines) == rows or open_lines[0].part != found.part):
            tables.append(_table(open_lines))
            open_lines = []
        open_lines.append(found)
    tables += [_table(open_lines)] if open_lines else []
    if not seen:
        raise InputError("the file has no lines", "at least one request")
    if strangers := answered - seen.keys():
        raise InputError(
            f"OUTPUT answers {min(map(str, strangers))!r}, which INPUT does not ask", "answers to this INPUT"
        )
    return tables, len(answered)


def _table(lines: Iterable[FoundLine]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"number": x.number, "part": x.part, "start": x.start, "stop": x.stop} for x in lines], schema=PLACES
    )


def _answers(tables: list[pa.Table], source: Source, job: BatchJob) -> Iterator[pa.Table]:
    """REPLIES to each table, in order."""
    import ray.data
    import ray.exceptions

    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # progress and errors are ours to show
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.raise_original_map_exception = True
    context.execution_options.preserve_order = True
    engines = min(job.engines, len(tables))
    threads = job.threads or max(1, (os.cpu_count() or 1) // engines)
    gpus = 0 if job.llm.device == "cpu" else 1
    _check_room(ray.cluster_resources(), engines, CPU=threads, GPU=gpus)
    replies = ray.data.from_arrow(tables).map_batches(
        LineAnswerer,
        fn_constructor_kwargs={"source": source, "settings": job.llm},
        batch_size=None,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(
            size=engines, max_concurrent_calls_per_actor=CALLS, max_tasks_in_flight_per_actor=2 * CALLS
        ),
        num_cpus=threads,
        num_gpus=gpus,
        runtime_env=actor_env(threads),
    )
    try:
        yield from replies.iter_batches(batch_size=None, batch_format="pyarrow")
    except ray.exceptions.RayError as error:
        raise _ours(error) from error


def _check_room(has: Mapping[str, float], engines: int, **each: int) -> None:
    for name, count in each.items():
        if engines * count > has.get(name, 0):
            raise InputError(
                f"{engines} engines of {count} {name} each",
                f"{has.get(name, 0):g} {name} in all: so many has Ray",
                "ask for fewer engines or threads",
            )


def _ours(error: ray.exceptions.RayError) -> RoleCallError:
    """What an actor said, without Ray's frames around it."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, RoleCallError):
        return cause
    told = str(cause or error).strip().splitlines()[0]
    return UnavailableError(told, todo="see Ray's logs, then go on with --resume")
