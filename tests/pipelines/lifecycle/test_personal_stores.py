"""What every place that keeps people must do: say that it holds one, lose them and no other, and bear a repetition."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest

from rolecall.pipelines.lifecycle.inventory import find_person, personal_stores
from rolecall.pipelines.lifecycle.personal_store import PersonalStore
from rolecall.pipelines.run_archive import RunArchive
from rolecall.platform.file_tree import FileTree
from rolecall.platform.settings import Settings, StorageSettings, load_settings
from tests.services import S3Bucket
from tests.traces import by_store, traces

from .conftest import CANARY, OTHER, TEXTS, fill

NAMES = ("logs", "quarantine", "ledger", "tables", "online features", "runs", "unfinished releases",
         "cached vectors", "scratch")  # fmt: skip


def named(settings: Settings, name: str) -> PersonalStore:
    return next(store for store in personal_stores(settings) if store.name == name)


def test_the_suite_below_covers_every_store(settings: Settings) -> None:
    assert tuple(store.name for store in personal_stores(settings)) == NAMES


def test_each_store_holds_the_person_until_it_erased_them_and_erasing_again_is_harmless(settings: Settings) -> None:
    person, other = find_person(settings, CANARY), find_person(settings, OTHER)
    stores = personal_stores(settings)
    assert [store.name for store in stores if not store.holds(person)] == []
    for store in stores:
        assert store.erase(person), store.name
        assert not store.holds(person), store.name
        store.erase(person)
        shared = store.name in (
            "runs",
            "scratch",
        )  # a run goes whole; scratch was the canary's alone
        assert shared or store.holds(other), store.name


@pytest.mark.parametrize("similar", ["änary-77", "cänary-777", "cänary"])
def test_nobody_of_a_similar_id_is_mistaken_for_the_person(settings: Settings, similar: str) -> None:
    stranger = replace(find_person(settings, CANARY), candidate_id=similar, texts=())
    stores = personal_stores(settings)
    assert {store.name: store.holds(stranger) for store in stores if store.name != "scratch"} == dict.fromkeys(
        (name for name in NAMES if name != "scratch"), 0
    )


def test_no_byte_below_home_names_the_person_after_every_store_erased(settings: Settings) -> None:
    home, wanted = FileTree(str(settings.home)), [CANARY, TEXTS[CANARY]]
    before = by_store(traces(home, wanted))
    assert {"tables", "ledger.db", "feast", "runs", "ray", "scratch"} <= before
    person = find_person(settings, CANARY)
    for store in personal_stores(settings):
        store.erase(person)
    assert traces(home, wanted) == {}
    assert traces(home, [OTHER])


def test_tables_on_an_object_store_lose_the_person_and_their_history(s3_bucket: S3Bucket, tmp_path: Path) -> None:
    storage = StorageSettings(tables_uri=f"{s3_bucket.uri}/tables", options=s3_bucket.options)
    settings = load_settings(environ={}, home=tmp_path, storage=storage.model_dump())
    fill(settings)
    bucket, wanted = FileTree(s3_bucket.uri, s3_bucket.options), [CANARY, TEXTS[CANARY]]
    assert traces(bucket, wanted)
    person = find_person(settings, CANARY)
    for name in ("quarantine", "tables"):
        named(settings, name).erase(person)
    assert traces(bucket, wanted) == {}
    assert traces(bucket, [OTHER])


@pytest.mark.parametrize("form", [CANARY, json.dumps(CANARY)[1:-1], quote(CANARY, safe="")])
def test_a_log_is_starred_out_in_place_whatever_form_the_id_has(settings: Settings, form: str) -> None:
    log = settings.home / "serve.log"
    log.write_text(f"before {form}, after\n", encoding="utf-8")
    size = log.stat().st_size
    named(settings, "logs").erase(find_person(settings, CANARY))
    text = log.read_text("utf-8")
    assert text.startswith("before ***")
    assert text.endswith(", after\n")
    assert log.stat().st_size == size


def test_steps_kept_in_an_object_store_go_with_the_run_that_names_the_person(
    s3_bucket: S3Bucket, settings: Settings
) -> None:
    storage = StorageSettings(artifacts_uri=f"{s3_bucket.uri}/artifacts", options=s3_bucket.options)
    kept = settings.model_copy(update={"storage": storage})
    for run, step in (("r1", "views"), ("r2", "jobs")):
        archive = RunArchive.of(kept, run)
        assert archive is not None
        (settings.runs_dir / run / step).mkdir(exist_ok=True)
        archive.keep(step, settings.runs_dir / run / step)
    bucket, store = FileTree(s3_bucket.uri, s3_bucket.options), named(kept, "kept steps")
    person = find_person(kept, CANARY)
    assert traces(bucket, [CANARY])
    assert (store.holds(person), store.erase(person), store.holds(person)) == (1, 1, 0)
    assert traces(bucket, [CANARY]) == {}
    assert [name for name in bucket.files() if "/r2/" in name]
