"""Hand a pipeline run to a Ray cluster: one submission id a run, so submitting twice attaches."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from rolecall.pipelines.daily import daily_run
from rolecall.platform.jobs import HTTP, JobState, RayJobService, submission_id, submit_job
from rolecall.platform.settings import CONFIG_VARIABLE, ENV_PREFIX, SETTINGS_FILE, Settings

IMPORT_ROOT = Path("infra/import_root")

CREDENTIALS = tuple(
    ENV_PREFIX + name
    for name in (
        "STORAGE__OPTIONS",
        "REGISTRY__TRACKING_URI",
        "REGISTRY__LEDGER_URL",
        "FEATURES__REGISTRY_URL",
        "FEATURES__REDIS_URL",
        "VECTORS__API_KEY",
        "SERVE__API_KEYS",
    )
)
"""Variables that may hold a password or a key."""


@dataclass(frozen=True, kw_only=True)
class PipelineJob:
    """What a cluster must be told to run a pipeline. `working_dir` None: its image has the code."""

    entrypoint: str
    working_dir: Path | None
    env: Mapping[str, str]


def pipeline_job(
    settings: Settings, pipeline: str, as_of: datetime, address: str, *, promote: bool = True
) -> PipelineJob:
    """The job that runs `pipeline` as of an instant, under these settings, on the cluster at `address`."""
    entrypoint = f"{_interpreter(address)} -m rolecall.pipelines.job {pipeline} --as-of {as_of.isoformat()}"
    return PipelineJob(
        entrypoint=entrypoint if promote else f"{entrypoint} --no-promote",
        working_dir=Path.cwd() if IMPORT_ROOT.is_dir() else None,
        env=_environment(settings),
    )


def submit_pipeline(
    settings: Settings,
    pipeline: str,
    as_of: datetime,
    address: str,
    *,
    promote: bool = True,
    on_log: Callable[[str], None],
) -> JobState:
    """Submit or attach, hand every piece of the log to `on_log`, return the job's last state.

    Raises UnavailableError where no dashboard answers at `address`.
    """
    scope = {"run": daily_run(settings, as_of).id, "home": _world(settings)}
    job = pipeline_job(settings, pipeline, as_of, address, promote=promote)
    handle = submit_job(
        RayJobService(address),
        entrypoint=job.entrypoint,
        submission_id=submission_id(pipeline, as_of, scope),
        working_dir=job.working_dir,
        env=job.env,
    )
    verb = "attached to" if handle.attached else "submitted"
    on_log(f"{verb} {handle.submission_id} (attempt {handle.attempt}) at {address}\n")
    for text in handle.follow():
        on_log(text)
    return handle.result()


def _environment(settings: Settings) -> dict[str, str]:
    """Our own variables, with every folder made absolute: a job runs in a temporary copy of the working folder, or,
    with an installed wheel, in none. There the settings file of this folder is named. In cluster mode each node has a
    home of its own, and knows it."""
    env = {name: text for name, text in os.environ.items() if name.startswith(ENV_PREFIX) and name != CONFIG_VARIABLE}
    here = SETTINGS_FILE if SETTINGS_FILE.exists() and not IMPORT_ROOT.is_dir() else None
    file = os.environ.get(CONFIG_VARIABLE) or here
    if file:
        env[CONFIG_VARIABLE] = str(Path(file).absolute())
    for name in ("tables_uri", "artifacts_uri"):
        if uri := getattr(settings.storage, name):
            env[f"{ENV_PREFIX}STORAGE__{name.upper()}"] = uri
    if settings.ray.address.startswith(HTTP):
        env[f"{ENV_PREFIX}RAY__ADDRESS"] = "auto"  # a dashboard's address is for submitting; a job is inside
    home = f"{ENV_PREFIX}HOME"
    env.pop(home, None)
    if settings.mode != "cluster":
        return env | {home: str(settings.home)}
    kept = settings.ray.send_credentials
    return {name: text for name, text in env.items() if kept or not _may_hold_credentials(name)}


def _may_hold_credentials(name: str) -> bool:
    """Also of a variable that sets a whole table with a credential in it; case is as free as settings leave it."""
    upper = name.upper()
    return upper.startswith(CREDENTIALS) or any(credential.startswith(f"{upper}__") for credential in CREDENTIALS)


def _world(settings: Settings) -> str:
    """What a day's run works on, wherever it is submitted from."""
    return settings.tables_uri if settings.mode == "cluster" else str(settings.home)


def _interpreter(address: str) -> str:
    """This environment's Python for a cluster on this machine, whatever PATH it was started with."""
    return sys.executable if urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1") else "python"
