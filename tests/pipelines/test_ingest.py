"""Ingest: every row is accounted for, again changes nothing, and a crash leaves tables as they were."""

from __future__ import annotations

import csv
import gzip
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rolecall.features.mapping import Mapping, load_mapping
from rolecall.features.schema import CANDIDATES, EMPLOYERS, EVENTS, JOBS, QUARANTINE, TABLES
from rolecall.pipelines.ingest import IngestReport, TableReport, ingest
from rolecall.platform.errors import InputError, SchemaError
from rolecall.platform.tables import TableSchema, TableStore

PATHS = {"PYTHONPATH": str(Path(__file__).parents[2] / "infra" / "import_root")}
NOON = "2026-03-01T12:00:00Z"
EVENT = {"event_id": "e", "actor": "candidate", "candidate_id": "c", "job_id": "j", "kind": "view", "occurred_at": NOON}
JOB = {"job_id": "j", "title": "Cook", "updated_at": NOON}


@pytest.fixture
def store(tmp_path: Path) -> TableStore:
    return TableStore(str(tmp_path / "tables"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "export"
    path.mkdir()
    return path


def csv_file(path: Path, *rows: dict[str, Any]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


def native(source: Path, store: TableStore, **options: Any) -> IngestReport:
    return ingest(source, load_mapping("native"), store, **options)


def counts(report: TableReport) -> tuple[int, int, int, int]:
    return report.rows_read, report.accepted, report.duplicate, report.quarantined


def state(store: TableStore) -> dict[str, int | None]:
    return {name: store.version(name) for name in [*TABLES, QUARANTINE.name]}


def test_good_duplicate_and_bad_rows_add_up_and_each_bad_row_is_kept_with_its_reason(
    folder: Path, store: TableStore
) -> None:
    bad = EVENT | {"event_id": "b", "occurred_at": "2026-03-01 12:00"}
    csv_file(folder / "events.csv", EVENT, EVENT, bad, EVENT | {"event_id": "f"})
    report = native(folder, store)
    assert counts(report.tables[0]) == (4, 2, 1, 1)
    kept = store.read(QUARANTINE).to_pylist()[0]
    assert (kept["row_number"], kept["reason"], json.loads(kept["row"])["event_id"]) == (3, "no_zone", "b")
    assert kept["source"].startswith("events.csv#")
    assert any("row 3: no_zone" in line for line in report.lines())
    assert json.loads(json.dumps(report.as_dict()))["tables"][0]["quarantined"] == 1


def test_ingesting_again_changes_no_table_and_accepts_nothing(folder: Path, store: TableStore) -> None:
    csv_file(folder / "events.csv", EVENT, EVENT | {"event_id": "x", "kind": "?"}, EVENT | {"event_id": "f"})
    csv_file(folder / "jobs.csv", JOB | {"city": "Berlin", "country": "DE"}, JOB | {"title": "Chef"})
    native(folder, store)
    before = state(store)
    again = native(folder, store)
    assert state(store) == before
    assert [counts(one) for one in again.tables] == [(2, 0, 2, 0), (3, 0, 2, 1)]


def test_the_same_rows_in_any_file_format_make_the_same_table(folder: Path, store: TableStore) -> None:
    rows = [JOB | {"job_id": f"j{n}", "skills": ["sql", "x"], "salary_min": n / 3, "remote": True} for n in range(5)]
    texts = [row | {"skills": json.dumps(row["skills"])} for row in rows]
    made = []
    for name in ("jobs.csv", "jobs.tsv.gz", "jobs.jsonl", "jobs.parquet"):
        path = folder / name
        if name.endswith(".csv"):
            csv_file(path, *texts)
        elif name.endswith(".gz"):
            plain = csv_file(folder / "plain", *[{k: str(v).replace(",", ";") for k, v in t.items()} for t in texts])
            lines = plain.read_text().replace(",", "\t").replace(";", ",")
            path.write_bytes(gzip.compress(lines.encode()))
        elif name.endswith(".jsonl"):
            path.write_text("\n".join(map(json.dumps, rows)))
        else:
            pq.write_table(pa.Table.from_pylist(rows), path)
        own = TableStore(f"{store.uri}/{name}")
        assert counts(native(path, own).tables[0]) == (5, 5, 0, 0)
        made.append(own.read(JOBS).sort_by("job_id"))
    assert all(table.equals(made[0]) for table in made)


def test_chunks_of_any_size_give_the_same_tables(folder: Path, store: TableStore) -> None:
    csv_file(folder / "events.csv", *[EVENT | {"event_id": f"e{n % 7}", "position": n} for n in range(20)])
    made = []
    for size in (1, 3, 1000):
        own = TableStore(f"{store.uri}/{size}")
        report = native(folder, own, chunk_rows=size)
        assert counts(report.tables[0]) == (20, 7, 13, 0)
        made.append(own.read(EVENTS).sort_by("event_id"))
    assert made[0].equals(made[1])
    assert made[0].equals(made[2])
    assert sorted(made[0]["position"].to_pylist()) == list(range(13, 20))


def test_an_older_export_does_not_undo_a_newer_one(folder: Path, tmp_path: Path, store: TableStore) -> None:
    native(csv_file(folder / "jobs.csv", JOB | {"title": "New", "updated_at": "2026-03-05T00:00:00Z"}), store)
    report = native(csv_file(folder / "jobs.csv", JOB | {"title": "Old"}), store)
    assert counts(report.tables[0]) == (1, 0, 1, 0)
    assert store.read(JOBS)["title"].to_pylist() == ["New"]


def test_a_changed_row_is_accepted_and_replaces_what_was_there(folder: Path, store: TableStore) -> None:
    native(csv_file(folder / "jobs.csv", JOB), store)
    report = native(csv_file(folder / "jobs.csv", JOB | {"title": "Chef"}, JOB | {"job_id": "k"}), store).tables[0]
    assert (counts(report), report.inserted, report.updated) == ((2, 2, 0, 0), 1, 1)


def test_files_without_rows_make_empty_tables(folder: Path, store: TableStore) -> None:
    csv_file(folder / "jobs.csv", JOB).write_text("job_id,title,updated_at\n")
    pq.write_table(EVENTS.columns.empty_table(), folder / "events.parquet")
    assert [counts(one) for one in native(folder, store).tables] == [(0, 0, 0, 0), (0, 0, 0, 0)]
    assert store.read(JOBS).num_rows == store.read(EVENTS).num_rows == 0


def test_rows_that_are_no_rows_of_the_table_are_passed_over_and_not_counted(folder: Path, store: TableStore) -> None:
    lines = [{"Id": "1", "Firm": "X"}, {"Id": "2", "Firm": "NA"}, {"Id": "3"}]
    (folder / "posts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    columns = {"employer_id": "Firm", "name": "Firm", "observed_at": {"constant": NOON}}
    section = {"target": "employers", "files": ["*"], "only_with": ["Firm"], "columns": columns}
    mapping = Mapping.model_validate({"name": "own", "nulls": ["NA"], "table": [section]})
    for size in (1, 10):
        report = ingest(folder, mapping, TableStore(f"{store.uri}/{size}"), chunk_rows=size).tables[0]
        assert (counts(report), report.passed_over) == ((1, 1, 0, 0), 2)


def test_a_wrong_file_is_refused_whole_with_its_reasons_and_nothing_of_any_file_is_written(
    folder: Path, store: TableStore
) -> None:
    csv_file(folder / "events.csv", EVENT)
    csv_file(folder / "jobs.csv", {"job_id": "j"} | {f"extra{n}": 1 for n in range(20)})
    with pytest.raises(SchemaError, match=r"jobs.csv has no column title; .*unknown column extra") as refused:
        native(folder, store)
    assert refused.value.got.count("jobs.csv has") == 10
    assert set(state(store).values()) == {None}


def test_nothing_to_ingest_is_told_with_what_was_expected(folder: Path, store: TableStore) -> None:
    (folder / "jobs.xlsx").write_bytes(b"x")
    with pytest.raises(InputError, match=r"end in \.csv"):
        native(folder, store)
    (folder / "jobs.xlsx").unlink()
    with pytest.raises(InputError, match="nothing in"):
        native(folder, store)
    with pytest.raises(InputError, match="no file for jobs, candidates"):
        ingest(csv_file(folder / "apps.tsv", EVENT).parent, load_mapping("careerbuilder"), store)


def test_a_crash_while_writing_leaves_each_table_at_its_last_version(
    folder: Path, store: TableStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    native(csv_file(folder / "jobs.csv", JOB), store)
    before = state(store)
    csv_file(folder / "jobs.csv", JOB | {"title": "Chef"}, JOB | {"job_id": "k", "title": ""})
    with monkeypatch.context() as patch:
        patch.setattr("deltalake.table.TableMerger.execute", _power_cut)
        with pytest.raises(KeyboardInterrupt):
            native(folder, store)
    assert state(store) == before
    assert store.read(JOBS)["title"].to_pylist() == ["Cook"]
    assert counts(native(folder, store).tables[0]) == (2, 1, 0, 1)


def _power_cut(_merger: object) -> None:
    raise KeyboardInterrupt


KILLED = """
import os, signal, sys
from pathlib import Path
from rolecall.features.mapping import load_mapping
from rolecall.pipelines import ingest as module
from rolecall.platform.tables import TableStore

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

where, folder, tables = sys.argv[1:]
if where == "before":
    TableStore._append = die
else:
    module.keep = die
module.ingest(Path(folder), load_mapping("native"), TableStore(tables))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("where", "committed"), [("before", None), ("after", 0)])
def test_a_killed_ingest_is_finished_by_running_it_again(
    folder: Path, store: TableStore, where: str, committed: int | None
) -> None:
    csv_file(folder / "events.csv", EVENT, EVENT | {"event_id": ""})
    child = subprocess.run([sys.executable, "-c", KILLED, where, str(folder), store.uri], env=os.environ | PATHS)
    assert child.returncode == -signal.SIGKILL
    assert (store.version(EVENTS.name), store.version(QUARANTINE.name)) == (committed, None)
    report = native(folder, store).tables[0]
    assert (report.accepted + report.duplicate, report.quarantined) == (1, 1)
    assert (store.read(EVENTS).num_rows, store.read(QUARANTINE).num_rows) == (1, 1)


def test_what_could_not_be_published_is_not_in_the_table_and_is_published_by_ingesting_again(
    folder: Path, store: TableStore
) -> None:
    """Else a consent that was taken back would wait for the next daily run: the table knows it, nobody is told."""
    csv_file(folder / "jobs.csv", JOB)
    told: list[int] = []

    def unreachable(schema: TableSchema, rows: pl.DataFrame) -> None:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        ingest(folder, load_mapping("native"), store, publish=unreachable)
    assert store.version(JOBS.name) is None
    for _ in range(2):
        ingest(folder, load_mapping("native"), store, publish=lambda _schema, rows: told.append(rows.height))
    assert (told, store.read(JOBS).num_rows) == ([1, 0], 1)


def test_a_mended_mapping_takes_rows_out_of_quarantine(folder: Path, store: TableStore) -> None:
    csv_file(folder / "jobs.csv", JOB | {"updated_at": "2026-03-01 12:00"})
    assert counts(native(folder, store).tables[0]) == (1, 0, 0, 1)
    mended = load_mapping("native").model_copy(update={"zone": "UTC"})
    assert counts(ingest(folder, mended, store).tables[0]) == (1, 1, 0, 0)
    assert store.read(QUARANTINE).num_rows == 0


def test_a_second_file_is_joined_as_one_value_or_as_a_list(folder: Path, store: TableStore) -> None:
    csv_file(folder / "posts.csv", {"Id": 1, "Firm": 7}, {"Id": 2, "Firm": 9})
    csv_file(folder / "firms.csv", {"Key": 7, "Town": "Berlin"})
    csv_file(folder / "skills.csv", {"Post": 1, "Skill": "sql"}, {"Post": 1, "Skill": "python"})
    jobs = {
        "target": "jobs",
        "files": ["posts.csv"],
        "join": [
            {"name": "firm", "file": "firms.csv", "on": {"Firm": "Key"}},
            {"name": "skill", "file": "skills.csv", "on": {"Id": "Post"}, "take": "list"},
        ],
        "columns": {
            "job_id": "Id",
            "title": {"constant": "Cook"},
            "updated_at": {"constant": NOON},
            "city": "firm.Town",
            "skills": "skill.Skill",
        },
    }
    ingest(folder, Mapping.model_validate({"name": "own", "table": [jobs]}), store)
    made = {row["job_id"]: (row["city"], row["skills"]) for row in store.read(JOBS).to_pylist()}
    assert made == {"1": ("Berlin", ["sql", "python"]), "2": (None, None)}


CAREERBUILDER = {
    "jobs.tsv": "JobID\tWindowID\tTitle\tDescription\tRequirements\tCity\tState\tCountry\tZip5\tStartDate\tEndDate\n"
    '1\t1\tCook "PM"\t<p>Soup &amp; salad\\r</p>\tNone\tChicago\tIL\tUS\t60601\t'
    "2012-03-07 13:17:01.643\t2012-04-06 23:59:59\n"
    "2\t1\tWaiter\tx\ty\tChicago\tIL\tUS\t\t2012-04-07 13:17:01\t2012-04-06 23:59:59\n"
    "3\t1\tShort row\n",
    "users.tsv": "UserID\tWindowID\tSplit\tCity\tState\tCountry\tMajor\tGraduationDate\n"
    "47\t1\tTrain\tParamount\tCA\tUS\tNot Applicable\t1999-06-01 00:00:00\n"
    "72\t1\tTrain\tLa Mesa\tCA\tUS\tAnthropology\t2011-01-01 00:00:00\n",
    "user_history.tsv": "UserID\tWindowID\tSplit\tSequence\tJobTitle\n"
    "47\t1\tTrain\t1\tNewest\n47\t1\tTrain\t2\tOldest\n",
    "apps.tsv": "UserID\tWindowID\tSplit\tApplicationDate\tJobID\n47\t1\tTrain\t2012-04-04 15:56:23.537\t1\n",
}


def test_the_careerbuilder_layout_becomes_jobs_candidates_and_applications(folder: Path, store: TableStore) -> None:
    for name, text in CAREERBUILDER.items():
        (folder / name).write_text(text)
    report = {one.table: counts(one) for one in ingest(folder, load_mapping("careerbuilder"), store).tables}
    assert report == {"jobs": (3, 1, 0, 2), "candidates": (4, 4, 0, 0), "events": (1, 1, 0, 0)}
    assert sorted(store.read(QUARANTINE)["reason"].to_pylist()) == ["end_before_start", "ragged_row"]
    job, person = store.read(JOBS).to_pylist()[0], store.read(CANDIDATES).to_pylist()[0]
    assert (job["title"], job["description"]) == ('Cook "PM"', "Soup & salad None")
    assert job["lat"] == pytest.approx(41.85, abs=0.1)
    assert [entry["title"] for entry in person["experience"]] == ["Oldest", "Newest"]
    assert (person["skills"], person["city"]) == ([], "Paramount")


REAL = Path(os.environ.get("BENCH_DATA") or Path(__file__).parents[2].resolve().parent / "shared" / "data") / "sjr"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real job views: {REAL} does not exist (set BENCH_DATA)")
def test_of_the_real_job_views_every_row_is_accounted_for(store: TableStore) -> None:
    report = ingest(REAL, load_mapping("sjr"), store)
    views, jobs, employers, people = report.tables
    assert views.accepted + views.duplicate + views.quarantined == views.rows_read == 5932
    assert (counts(jobs), employers.inserted) == ((5932, 3677, 2255, 0), store.read(EMPLOYERS).num_rows)
    assert people.accepted + people.duplicate + people.quarantined == people.rows_read == 4356 + 3180
    assert store.read(JOBS)["posted_at"].null_count == 3677
    pairs = pl.DataFrame(store.read(EVENTS, columns=["candidate_id", "job_id"])).unique()
    assert (pairs.height, pairs["candidate_id"].n_unique()) == (4283, 1705)
    refused = [line for line in report.lines() if line.startswith("  ")]
    assert len(refused) == sum(one.quarantined for one in report.tables)
    before = state(store)
    assert all(one.accepted == 0 for one in ingest(REAL, load_mapping("sjr"), store).tables)
    assert state(store) == before


CELL = st.one_of(
    st.sampled_from(["", "a", "b", NOON, "2026-03-02", "-1", "view", "candidate", '"', ","]), st.text(max_size=4)
)
RANDOM = st.fixed_dictionaries(
    {name: st.one_of(st.just(value), CELL) for name, value in EVENT.items()} | {"position": CELL}
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(RANDOM, min_size=1, max_size=8), st.integers(1, 4))
def test_whatever_a_file_holds_its_rows_add_up_and_again_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, str]], size: int
) -> None:
    folder = tmp_path_factory.mktemp("random")
    path = folder / "events.csv"
    with path.open("w", newline="", encoding="utf-8", errors="surrogatepass") as stream:
        writer = csv.DictWriter(stream, list(rows[0]), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(rows)
    store = TableStore(str(folder / "tables"))
    first = native(path, store, chunk_rows=size).tables[0]
    assert first.accepted + first.duplicate + first.quarantined == first.rows_read == len(rows)
    assert first.accepted == store.read(EVENTS).num_rows
    assert first.quarantined == store.read(QUARANTINE).num_rows
    before = state(store)
    again = native(path, store).tables[0]
    assert (again.accepted, again.quarantined, state(store)) == (0, first.quarantined, before)
