"""A home with two people in every store, made without a daily run."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from rolecall.features.candidates import candidate_context
from rolecall.features.quarantine import keep, unread_rows
from rolecall.features.schema import CANDIDATES, EVENTS, JOBS
from rolecall.features.text import candidate_text, text_hash
from rolecall.features.vector_cache import VectorCache
from rolecall.pipelines.lifecycle.inventory import vectors_file
from rolecall.pipelines.materialize import materialize
from rolecall.platform.event_log import EventLog
from rolecall.platform.ledger import open_ledger
from rolecall.platform.registry import Registry
from rolecall.platform.served_log import ServedLog, ServedRequest
from rolecall.platform.settings import Settings, load_settings
from rolecall.platform.tables import TableStore
from rolecall.serving.scratch import process_scratch
from tests.empty_mlflow import WithMlflow

DAY = datetime(2026, 3, 1, tzinfo=UTC)
CANARY = "cänary-7'x\"y 猫"
OTHER = "cänary-77"
TEXTS = {
    CANARY: "Zwölf Jahre Erfahrung als Glockengießer in Nürnberg",
    OTHER: "Eleven years of beekeeping on rooftops in Lisbon",
}
JOB = {"job_id": "j1", "title": "Bell founder", "updated_at": DAY}


def profile(candidate_id: str) -> dict[str, object]:
    return {"candidate_id": candidate_id, "resume_text": TEXTS[candidate_id], "updated_at": DAY}


def event(candidate_id: str, number: int) -> dict[str, object]:
    return {
        "event_id": f"e-{candidate_id}-{number}",
        "actor": "candidate",
        "candidate_id": candidate_id,
        "job_id": "j1",
        "kind": "view",
        "occurred_at": DAY + timedelta(hours=number),
    }


def served(candidate_id: str) -> ServedRequest:
    return ServedRequest(
        request_id=f"asked-by-{candidate_id}",
        candidate_id=candidate_id,
        at=DAY,
        release_id="r",
        events=1,
        counted=0,
        jobs_through=DAY,
        candidate={"desired_titles": [TEXTS[candidate_id]]},
        jobs={"job_id": ["j1"], "employer_id": [None]},
    )


def rows(schema: object, dicts: list[dict[str, object]]) -> pa.Table:
    return pa.Table.from_pylist(dicts, schema=schema.columns)  # type: ignore[attr-defined]


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory, with_mlflow: WithMlflow) -> Path:
    home = with_mlflow(tmp_path_factory.mktemp("people") / "höme")
    settings = load_settings(environ={}, home=home)
    Registry.from_settings(settings)
    fill(settings)
    return home


@pytest.fixture
def settings(filled: Path, tmp_path: Path) -> Settings:
    """Every store of this home holds both people, in a present and in a past version."""
    return load_settings(environ={}, home=shutil.copytree(filled, tmp_path / "höme"))


def fill(settings: Settings) -> None:
    people = [CANARY, OTHER]
    tables = TableStore(settings.tables_uri, settings.storage.options)
    tables.upsert(JOBS, rows(JOBS, [JOB]))
    tables.upsert(CANDIDATES, rows(CANDIDATES, [profile(name) | {"city": "Fürth"} for name in people]))
    tables.upsert(CANDIDATES, rows(CANDIDATES, [profile(name) for name in people]))
    tables.upsert(EVENTS, rows(EVENTS, [event(name, 1) for name in people]))
    tables.upsert(EVENTS, rows(EVENTS, [event(name, 2) for name in people]))
    broken = [(at, "ragged_row", "5 fields", f"x;{name};y") for at, name in enumerate(people)]
    keep(tables, [("a.csv", "events")], unread_rows("a.csv", "events", broken), at=DAY)
    EventLog(open_ledger(settings.ledger_url)).append([event(name, 3) for name in people], received_at=DAY)
    for name in people:
        ServedLog(open_ledger(settings.ledger_url)).append(served(name))
    versions = {name: tables.version(name) for name in ("jobs", "candidates", "events")}
    materialize(
        tables, versions, as_of=DAY + timedelta(days=1), settings=settings, folder=settings.runs_dir / "r1" / "views"
    )
    (settings.runs_dir / "r2").mkdir()
    pl.DataFrame({"job_id": ["j1"]}).write_parquet(settings.runs_dir / "r2" / "jobs.parquet")
    releases = Path(settings.artifacts_uri) / "releases"
    killed = {"0" * 16: CANARY, "1" * 16: OTHER, ".publishing-0": CANARY}  # publications: before a manifest, and after
    for folder, name in killed.items():
        (releases / folder).mkdir(parents=True)
        pl.DataFrame({"candidate_id": [name]}).write_parquet(releases / folder / "people.parquet")
    (releases / ".publishing-0" / "manifest.json").write_bytes(b"{}")
    texts = [candidate_text(candidate_context(name, {"resume_text": TEXTS[name]}, at=DAY)) for name in people]
    VectorCache(vectors_file(settings)).store("embedder", [text_hash(text) for text in texts], np.eye(2, dtype="f4"))
    log = settings.home / "ray" / "session_1" / "logs" / "worker.out"
    log.parent.mkdir(parents=True)
    log.write_text("".join(f"scored {name} at 12:00\n" for name in people), encoding="utf-8")
    dead = process_scratch(settings.scratch_dir, pid=2**22 + 1)
    (dead / "payload").write_text(CANARY, encoding="utf-8")
