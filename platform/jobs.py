"""Submit a pipeline to a Ray cluster once, whoever asks and however often.

    service = RayJobService("http://127.0.0.1:8265")
    handle = submit_job(service, entrypoint="rolecall run daily", submission_id=submission_id("daily", as_of))
    for text in handle.follow():
        ...
    handle.state()          # "succeeded"

Ray accepts a submission id once, so the id is the idempotency key: it is made from what the job does, and a second
submit of the same id attaches to the first. An id whose job failed or was stopped is followed by `<id>-attempt-2`.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Protocol

from rolecall.platform.errors import ConflictError, InputError, NotFoundError, UnavailableError

JobState = Literal["pending", "running", "succeeded", "failed", "stopped"]
FINISHED: frozenset[JobState] = frozenset({"succeeded", "failed", "stopped"})
IMPORT_ROOT = "infra/import_root"
HTTP = ("http://", "https://")
EXCLUDES = (".git", ".venv", ".rolecall", ".mypy_cache", ".pytest_cache", ".ruff_cache", "dist", "/secret.yaml")
"""Left out when a working folder travels to the cluster."""

_POLL_SECONDS = 1.0
_MAX_ATTEMPTS = 100
_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


class JobService(Protocol):
    """A place that runs jobs by submission id. Every method raises UnavailableError while it cannot be reached."""

    def submit(self, *, entrypoint: str, submission_id: str, runtime_env: Mapping[str, Any]) -> None:
        """Start a job. Raises ConflictError where the id is taken."""
        ...

    def state(self, submission_id: str) -> JobState | None:
        """The job's state, or None where the id was never submitted."""
        ...

    def logs(self, submission_id: str) -> Iterator[str]:
        """The log from its beginning, in pieces, until the job ends. Raises NotFoundError for an unknown id."""
        ...


@dataclass(frozen=True, kw_only=True)
class JobHandle:
    """A submitted job. `attached`: somebody submitted it before; `attempt` starts at 1."""

    service: JobService
    submission_id: str
    attached: bool
    attempt: int

    def state(self) -> JobState:
        """Raises NotFoundError where the cluster has forgotten the job."""
        state = self.service.state(self.submission_id)
        if state is None:
            raise NotFoundError(f"the cluster knows no job {self.submission_id}", "a submitted job", "submit it again")
        return state

    def follow(self) -> Iterator[str]:
        """The log from its beginning, in pieces, until the job ends."""
        return self.service.logs(self.submission_id)

    def result(self, pause: Callable[[float], None] = time.sleep) -> JobState:
        """Wait for the job's end and return its last state."""
        while (state := self.state()) not in FINISHED:
            pause(_POLL_SECONDS)
        return state


def submission_id(pipeline: str, as_of: datetime, scope: Mapping[str, str] | None = None) -> str:
    """The one id of a pipeline's run as of an instant: `rolecall-daily-20261001t000000z-1a2b3c4d`.

    `scope`: what else makes two runs different ones (table URI, settings); equal scopes give equal ids.
    Raises InputError on a time without a zone, or a name that is not lower-case letters, digits and hyphens.
    """
    if as_of.tzinfo is None:
        raise InputError(f"{as_of} has no time zone", "a time with a zone", "append +00:00")
    if not _NAME.fullmatch(pipeline):
        raise InputError(f"pipeline {pipeline!r}", "lower-case letters, digits and hyphens")
    instant = as_of.astimezone(UTC)
    canonical = json.dumps([pipeline, instant.isoformat(), dict(scope or {})], sort_keys=True)
    digest = hashlib.sha256(canonical.encode()).hexdigest()[:8]
    return f"rolecall-{pipeline}-{instant:%Y%m%dt%H%M%Sz}-{digest}"


def submit_job(
    service: JobService,
    *,
    entrypoint: str,
    submission_id: str,
    working_dir: Path | None = None,
    env: Mapping[str, str] | None = None,
    excludes: Sequence[str] = EXCLUDES,
) -> JobHandle:
    """Submit, or attach to the job that has this id already; after a failed or stopped one, submit its next attempt.

    `working_dir` travels to the cluster (None: the cluster's image has the code). Raises UnavailableError where the
    cluster cannot be reached, ConflictError after a hundred failed attempts.
    """
    runtime_env = job_environment(working_dir, env or {}, excludes)
    for attempt in range(1, _MAX_ATTEMPTS + 1):
        name = submission_id if attempt == 1 else f"{submission_id}-attempt-{attempt}"
        state = service.state(name)
        if state is None and _started(service, entrypoint, name, runtime_env):
            return JobHandle(service=service, submission_id=name, attached=False, attempt=attempt)
        if state not in ("failed", "stopped"):
            return JobHandle(service=service, submission_id=name, attached=True, attempt=attempt)
    raise ConflictError(
        f"{submission_id} failed or was stopped {_MAX_ATTEMPTS} times", "an id that may still be tried", "read its logs"
    )


def job_environment(working_dir: Path | None, env: Mapping[str, str], excludes: Sequence[str]) -> dict[str, Any]:
    """Ray's runtime environment. A source tree is made importable; an installed package needs nothing."""
    variables = dict(env)
    if working_dir is None:
        return {"env_vars": variables}
    if not working_dir.is_dir():
        raise InputError(f"working folder {working_dir} is not there", "an existing folder", "correct the path")
    if (working_dir / IMPORT_ROOT).is_dir():
        variables.setdefault("PYTHONPATH", IMPORT_ROOT)
    return {"working_dir": str(working_dir), "excludes": list(excludes), "env_vars": variables}


def _started(service: JobService, entrypoint: str, name: str, runtime_env: Mapping[str, Any]) -> bool:
    """False where somebody else took the id between the look and the submit."""
    try:
        service.submit(entrypoint=entrypoint, submission_id=name, runtime_env=runtime_env)
    except ConflictError:
        return False
    return True


class RayJobService:
    """Ray's job server, by the address of its dashboard (`http://127.0.0.1:8265`)."""

    def __init__(self, address: str) -> None:
        if not address.startswith(HTTP):
            raise InputError(f"cluster address {address!r}", "http://host:port of the Ray dashboard", "give that URL")
        from ray.exceptions import AuthenticationError
        from ray.job_submission import JobSubmissionClient

        self.address = address
        self._refused = (OSError, RuntimeError, AuthenticationError)
        try:
            self._client = JobSubmissionClient(address)
        except self._refused as error:
            raise self._unavailable(error) from error

    def submit(self, *, entrypoint: str, submission_id: str, runtime_env: Mapping[str, Any]) -> None:
        try:
            self._client.submit_job(entrypoint=entrypoint, submission_id=submission_id, runtime_env=dict(runtime_env))
        except RuntimeError as error:
            if "already exists" in str(error):
                raise ConflictError(f"submission id {submission_id} is taken", "", "attach to it") from error
            raise self._unavailable(error) from error
        except self._refused as error:
            raise self._unavailable(error) from error

    def state(self, submission_id: str) -> JobState | None:
        try:
            status = self._client.get_job_status(submission_id)
        except RuntimeError as error:
            if _is_not_found(error):
                return None
            raise self._unavailable(error) from error
        except self._refused as error:
            raise self._unavailable(error) from error
        return _state(str(status.value))

    def logs(self, submission_id: str) -> Iterator[str]:
        if self.state(submission_id) is None:
            raise NotFoundError(f"the cluster knows no job {submission_id}", "a submitted job", "submit it first")
        loop = asyncio.new_event_loop()
        pieces: Any = self._client.tail_job_logs(submission_id)
        try:
            while (piece := loop.run_until_complete(_next(pieces))) is not None:
                yield piece
        except self._refused as error:
            raise self._unavailable(error) from error
        finally:
            loop.run_until_complete(pieces.aclose())
            loop.close()

    def why_failed(self, submission_id: str) -> str:
        """What Ray says of a job that failed, with the last lines of its log."""
        try:
            return str(self._client.get_job_info(submission_id).message or "")
        except self._refused as error:
            raise self._unavailable(error) from error

    def _unavailable(self, error: Exception) -> UnavailableError:
        return UnavailableError(
            f"the Ray cluster at {self.address} did not take the call: {error}",
            "the address of a running cluster's dashboard",
            "start it with `ray start --head`, or correct the address",
        )


async def _next(pieces: Any) -> str | None:
    return await anext(pieces, None)


def _is_not_found(error: RuntimeError) -> bool:
    return "status code 404" in str(error)


def _state(status: str) -> JobState:
    known: dict[str, JobState] = {
        "PENDING": "pending",
        "RUNNING": "running",
        "SUCCEEDED": "succeeded",
        "FAILED": "failed",
        "STOPPED": "stopped",
    }
    return known[status]
