"""`forget` as a whole, on releases made by hand: marks, erases, bears a kill after any step, tells what is due."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from rolecall.features.mapping import load_mapping
from rolecall.features.quarantine import keep, unread_rows
from rolecall.features.schema import CANDIDATES, EVENTS, QUARANTINE
from rolecall.pipelines.daily import begin_anew_where_tainted, daily_run
from rolecall.pipelines.ingest import ingest
from rolecall.pipelines.lifecycle.export import export_person
from rolecall.pipelines.lifecycle.forget import forget, readmit
from rolecall.platform.errors import ConflictError, InputError, NotFoundError
from rolecall.platform.event_log import EventLog
from rolecall.platform.file_tree import FileTree
from rolecall.platform.forgotten import ForgottenPeople
from rolecall.platform.ledger import claimed, open_ledger
from rolecall.platform.registry import Registry
from rolecall.platform.release import ReleaseBuilder
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore
from tests.traces import traces

from .conftest import CANARY, DAY, OTHER, TEXTS, profile, rows

NOW = DAY + timedelta(days=2)
WANTED = (CANARY, TEXTS[CANARY])
Release = Callable[[str], str]


@pytest.fixture
def registry(settings: Settings) -> Registry:
    return Registry.from_settings(settings)


@pytest.fixture
def release(settings: Settings, registry: Registry, tmp_path: Path) -> Release:
    """Publishes, registers and promotes a release of the tables as they are."""

    def built(name: str) -> str:
        store = TableStore(settings.tables_uri)
        tables = {table: store.version(table) or 0 for table in ("jobs", "candidates", "events")}
        builder = ReleaseBuilder(tmp_path / name)
        builder.path("model.txt").write_text(f"trained on {CANARY}" if name != "clean" else "clean", encoding="utf-8")
        builder.add("model", "model.txt")
        made = builder.seal(as_of=DAY, code_version="1", tables=tables, settings={"name": name}).id
        registry.releases.publish(builder.folder)
        run_id = registry.client.create_run(registry.experiment_id).info.run_id
        registry.register(made, run_id=run_id, log_model=lambda: f"runs:/{run_id}/release")
        registry.judge(made, passed=True)
        registry.promote(made, expected=registry.reconcile(), why=name)
        return made

    return built


def forgotten(settings: Settings, **options: object) -> object:
    return forget(settings, CANARY, at=NOW, rebuild=False, **options)  # type: ignore[arg-type]


def left(settings: Settings) -> dict[str, str]:
    return traces(FileTree(str(settings.home)), WANTED)


def test_a_dry_run_says_what_is_held_and_changes_nothing(settings: Settings, release: Release) -> None:
    champion = release("first")
    report = forget(settings, CANARY, at=NOW, dry_run=True)
    assert all(found.entries for found in report.stores)
    assert (report.tainted, report.serving_tainted, report.stage) == ((champion,), True, None)
    assert left(settings)
    assert ForgottenPeople(open_ledger(settings.ledger_url)).open() == []


def test_the_champion_that_learned_from_them_is_due_until_a_clean_one_serves(
    settings: Settings, registry: Registry, release: Release
) -> None:
    before, champion = release("first"), release("second")
    report = forget(settings, CANARY, at=NOW, rebuild=False)
    assert (report.stage, report.serving_tainted, report.purged) == ("erased", True, (before,))
    assert set(report.tainted) == {before, champion}
    assert report.due_at == NOW + timedelta(days=30)
    assert "rolecall run daily" in report.todo
    release("clean")
    done = forget(settings, CANARY, at=NOW, rebuild=False)
    assert (done.stage, done.serving_tainted, done.purged) == ("done", False, (champion,))
    assert left(settings) == {}
    assert [info.state.partition(":")[0] for info in registry.list()] == ["", "purged", "purged"]
    assert registry.releases.manifest(before).id == before


def test_what_mlflow_keeps_of_a_purged_releases_evaluation_goes(
    settings: Settings, registry: Registry, release: Release, tmp_path: Path
) -> None:
    """Its samples say what people did. A run that built its day again has logged another one over it, which stays."""
    report = tmp_path / "report.html"
    report.write_text(f"wanted by {CANARY}")
    first, again = (registry.get(release(name)).run_id or "" for name in ("first", "again"))
    for run in (first, again):
        registry.client.log_artifact(run, str(report), "evaluation")
    forgotten(settings)
    clean = release("clean")
    report.write_text("clean")
    registry.client.log_artifact(again, str(report), "evaluation")
    version = registry.get(clean).version
    known = registry.client.get_model_version("rolecall", version)
    registry.client.delete_model_version("rolecall", version)
    registry.client.create_model_version("rolecall", source=known.source, run_id=again, tags=known.tags)
    registry.reconcile()
    assert forget(settings, CANARY, at=NOW, rebuild=False).stage == "done"
    assert left(settings) == {}
    assert [len(registry.client.list_artifacts(run, "evaluation")) for run in (first, again)] == [0, 1]


def test_no_way_leads_back_to_a_purged_release(settings: Settings, registry: Registry, release: Release) -> None:
    before = release("first")
    release("clean")  # built while the tables had them: tainted as well
    forget(settings, CANARY, at=NOW, rebuild=False)
    clean = release("third")
    with pytest.raises(ConflictError, match="asked to be forgotten"):
        registry.promote(before, expected=clean, why="back", gated=False)
    with pytest.raises(NotFoundError, match="asked to be forgotten"):
        registry.rollback("it was better")
    with pytest.raises(NotFoundError, match="was purged on 2026-03-03"):
        registry.releases.fetch(before)
    assert "previous" not in {alias for info in registry.list() for alias in info.aliases}


def test_a_command_that_dies_after_any_step_is_finished_by_the_next(settings: Settings, release: Release) -> None:
    class Killed(BaseException):
        pass

    release("first")
    release("second")
    done: set[str] = set()
    for _ in range(30):

        def die_once(step: str) -> None:
            if step not in done:
                done.add(step)
                raise Killed

        try:
            forgotten(settings, told=die_once)
            break
        except Killed:
            continue
    assert {"asked", "marked", "erased tables", "erased", "settled"} <= done
    release("clean")
    assert forget(settings, CANARY, at=NOW, rebuild=False).stage == "done"
    assert left(settings) == {}
    assert traces(FileTree(str(settings.home)), [OTHER])


def test_a_later_release_without_them_is_not_marked(settings: Settings, registry: Registry, release: Release) -> None:
    forgotten(settings)
    clean = release("clean")
    forgotten(settings)
    assert registry.taints.find(clean) is None


def test_an_id_nothing_is_held_of_is_refused(settings: Settings) -> None:
    with pytest.raises(InputError, match="nothing is held"):
        forget(settings, "nobody", at=NOW)
    with pytest.raises(InputError, match="nothing is held"):
        export_person(settings, "nobody", at=NOW)


def test_an_old_export_does_not_bring_them_back_until_they_are_readmitted(settings: Settings, tmp_path: Path) -> None:
    forgotten(settings)
    store, people = TableStore(settings.tables_uri), ForgottenPeople(open_ledger(settings.ledger_url), poll_s=0)
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "candidates.jsonl").write_text(
        "".join(f'{{"candidate_id": {name!r}, "updated_at": "2026-03-05T00:00:00Z"}}\n' for name in ("new-1", "cx"))
        .replace("'", '"')
        .replace('"cx"', CANARY_JSON),
        encoding="utf-8",
    )
    report = ingest(folder / "candidates.jsonl", load_mapping("native"), store, people=people, at=NOW).tables[0]
    assert (report.rows_read, report.inserted, report.forgotten) == (1, 1, 1)
    assert left(settings) == {}
    assert readmit(settings, CANARY)
    again = ingest(folder / "candidates.jsonl", load_mapping("native"), store, people=people, at=NOW).tables[0]
    assert (again.rows_read, again.inserted, again.forgotten) == (2, 1, 0)


def test_a_refused_row_of_a_forgotten_person_leaves_no_text(settings: Settings, tmp_path: Path) -> None:
    forgotten(settings)
    people = ForgottenPeople(open_ledger(settings.ledger_url), poll_s=0)
    people.add("c-99", at=NOW, due_at=NOW)
    file = tmp_path / "events.csv"
    head = "event_id,actor,candidate_id,job_id,kind,occurred_at"
    file.write_text(f"{head}\ne9,candidate,c-99,j1,view,yesterday\ne8,candidate,c-99\n", encoding="utf-8")
    report = ingest(file, load_mapping("native"), TableStore(settings.tables_uri), people=people, at=NOW).tables[0]
    assert (report.forgotten, report.quarantined) == (1, 1)
    assert traces(FileTree(f"{settings.home}/tables"), ["c-99"]) == {}


def test_the_export_has_every_row_about_the_person_and_none_about_others(settings: Settings, release: Release) -> None:
    champion = release("first")
    document = export_person(settings, CANARY, at=NOW)
    assert {name: len(rows) for name, rows in document.tables.items()} == {"candidates": 1, "events": 2}
    assert [one["event"]["event_id"] for one in document.posted_events] == [f"e-{CANARY}-3"]
    assert [one["request_id"] for one in document.served_features] == [f"asked-by-{CANARY}"]
    assert (len(document.quarantine), document.releases, document.forgotten) == (1, [champion], False)
    assert document.online_features["resume_text"] == TEXTS[CANARY]
    assert OTHER not in document.to_json()


def test_rows_of_others_that_quote_the_id_are_counted_and_left_alone(settings: Settings) -> None:
    store = TableStore(settings.tables_uri)
    quoting = profile(OTHER) | {"resume_text": f"I know {CANARY}", "updated_at": NOW}
    store.upsert(CANDIDATES, rows(CANDIDATES, [quoting]))
    assert forget(settings, CANARY, at=NOW, rebuild=False).mentions == 1
    assert store.read(CANDIDATES)["candidate_id"].to_pylist() == [OTHER]


def test_a_readmission_waits_for_the_erasure(settings: Settings) -> None:
    people = ForgottenPeople(open_ledger(settings.ledger_url))
    people.add(CANARY, at=NOW, due_at=NOW)
    with pytest.raises(ConflictError, match="finish it first"):
        readmit(settings, CANARY)


def test_the_events_of_others_stay(settings: Settings) -> None:
    forgotten(settings)
    assert TableStore(settings.tables_uri).read(EVENTS)["candidate_id"].to_pylist() == [OTHER, OTHER]
    assert len(EventLog(open_ledger(settings.ledger_url)).of_candidate(OTHER)) == 1


CANARY_JSON = '"c\\u00e4nary-7\'x\\"y \\u732b"'


def test_a_release_of_a_run_that_was_under_way_is_marked_too(settings: Settings, release: Release) -> None:
    """It has read the tables already: only the mark, made once it is through, finds what it publishes."""
    with (settings.runs_dir / "r1" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="is being executed"):
            forgotten(settings)
        champion = release("first")
    report = forget(settings, CANARY, at=NOW, rebuild=False)
    assert (report.tainted, report.serving_tainted) == ((champion,), True)


def test_a_run_on_another_machine_is_waited_for(settings: Settings) -> None:
    with (
        claimed(open_ledger(settings.ledger_url), "r1"),
        pytest.raises(ConflictError, match="being executed by another process"),
    ):
        forgotten(settings)
    assert left(settings)


def test_a_file_that_a_kill_cut_short_stops_nobody(settings: Settings) -> None:
    cut = settings.runs_dir / "r3" / "features.partial" / "view.parquet"
    cut.parent.mkdir(parents=True)
    cut.write_bytes((settings.runs_dir / "r2" / "jobs.parquet").read_bytes()[:50])
    forgotten(settings)
    assert not cut.exists()
    with pytest.raises(InputError, match="nothing is held"):
        forget(settings, "nobody", at=NOW)


@pytest.mark.parametrize("blank", ["", " "])
def test_a_blank_id_is_refused(settings: Settings, blank: str) -> None:
    for call in (forget, export_person):
        with pytest.raises(InputError, match="blank"):
            call(settings, blank, at=NOW)
    assert TableStore(settings.tables_uri).read(QUARANTINE).num_rows == 2


def test_a_word_of_a_log_is_nobody(settings: Settings) -> None:
    log = next((settings.home / "ray").rglob("worker.out"))
    before = log.read_bytes()
    with pytest.raises(InputError, match="nothing is held"):
        forget(settings, "scored", at=NOW)
    assert log.read_bytes() == before


def test_an_export_has_no_refused_row_of_others_in_which_the_id_is_a_word(settings: Settings) -> None:
    store = TableStore(settings.tables_uri)
    store.upsert(CANDIDATES, rows(CANDIDATES, [{"candidate_id": "17", "updated_at": DAY}]))
    texts = ['{"id":"18","resume":"for 17 years"}', '{"id":"17","resume":"long"}', '{"id":17}']
    refused = [(at, "bad_time", "...", text) for at, text in enumerate(texts)]
    keep(store, [("b.csv", "candidates")], unread_rows("b.csv", "candidates", refused), at=DAY)
    assert [row["row"] for row in export_person(settings, "17", at=NOW).quarantine] == texts[1:]


def test_a_day_is_built_anew_where_its_release_must_go(
    settings: Settings, registry: Registry, release: Release
) -> None:
    """Somebody who came after the day's first moment is in its tables and in no file of its run: steps that are
    finished would be skipped, and end in the marked release again."""
    champion, run = release("first"), daily_run(settings, DAY)
    step = run.folder / "assemble" / "step.json"
    step.parent.mkdir(parents=True)
    told = {"name": "assemble", "values": {"release": champion}, "metrics": {}, "files": {}, "seconds": 1.0}
    step.write_text(json.dumps(told), encoding="utf-8")
    begin_anew_where_tainted(run, registry, settings)
    assert step.exists()
    forgotten(settings)
    with (run.folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConflictError, match="is being executed"):
            begin_anew_where_tainted(run, registry, settings)
    begin_anew_where_tainted(run, registry, settings)
    assert not run.folder.exists()
