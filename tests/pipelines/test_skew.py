"""What was served online is what the offline join gives for that instant, events posted in between included."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from rolecall.features.activity import TIMESTAMP
from rolecall.features.context import CandidateContext
from rolecall.features.schema import CANDIDATES, EVENTS, PROFILES, TABLES
from rolecall.pipelines.materialize import feature_store, materialize
from rolecall.pipelines.profiles import remember_profiles
from rolecall.pipelines.skew import REPORT, Late, SkewReport, replay, skew_step
from rolecall.pipelines.steps import Run, Step
from rolecall.platform.event_log import EventLog, drain
from rolecall.platform.ledger import open_ledger
from rolecall.platform.served_log import ServedLog, ServedRequest
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore
from rolecall.serving.funnel import SnapshotJobFeatures
from rolecall.serving.job_features import use_online_job_features
from rolecall.serving.reader import CandidateReader
from rolecall.serving.served import ServedSample

from .conftest import World

MINUTE = timedelta(minutes=1)


@dataclass(kw_only=True)
class Board:
    """A board the morning after its first run: candidates do things, some are answered, then the next run comes."""

    settings: Settings
    world: World
    log: EventLog
    tables: TableStore
    events: int = 0

    @property
    def served(self) -> ServedLog:
        return ServedLog(self.log.engine)

    def at(self, minutes: float) -> datetime:
        return self.world.as_of + minutes * MINUTE

    def post(self, candidate: str, job: str, kind: str, minutes: float, **rest: Any) -> None:
        self.events += 1
        event = {"event_id": f"new-{self.events}", "actor": "candidate", "candidate_id": candidate, "job_id": job}
        self.log.append([event | {"kind": kind, "occurred_at": self.at(minutes), **rest}])

    def run(self, days: int) -> Path:
        """What a daily run does of it. Returns the folder of the views' files."""
        drain(self.log, self.tables, EVENTS)
        versions = {name: self.tables.version(name) for name in (*TABLES, PROFILES.name)}
        folder = self.settings.home / f"views-{days}"
        as_of = self.world.as_of + timedelta(days=days)
        materialize(self.tables, versions, as_of=as_of, settings=self.settings, folder=folder)
        return folder

    def answer(self, asked: Sequence[tuple[str, float]], jobs: Sequence[str]) -> None:
        """Answer candidates at minutes past the run, as serving does, keeping all of it."""
        store = feature_store(self.settings)
        reader = CandidateReader(store, self.log, history_length=self.settings.features.history_length)
        funnel = SimpleNamespace(catalogue=self.world.pairs.catalogue, job_features=SnapshotJobFeatures({}))
        release: Any = SimpleNamespace(manifest=SimpleNamespace(id="r", as_of=self.world.as_of), funnel=funnel)
        use_online_job_features(release, store)
        sample = ServedSample(self.served, self.log, share=1.0)
        shown = [SimpleNamespace(job_id=job) for job in jobs]
        for candidate, minutes in asked:
            begun = sample.begin(f"{candidate}@{minutes}", candidate)
            assert begun is not None
            context = reader.read(candidate, self.at(minutes))
            sample.keep(begun, release, context, shown, at=self.at(minutes))
        sample.close()

    def kept(self) -> list[ServedRequest]:
        return self.served.between(self.at(0), self.at(24 * 60), limit=1_000)

    def replayed(self, served: Sequence[ServedRequest], folder: Path) -> SkewReport:
        return replay(served, store=feature_store(self.settings, folder), events=self.log)


@pytest.fixture
def board(world: World, tmp_path: Path) -> Board:
    home = tmp_path / "home"
    shutil.copytree(world.settings.home / "tables", home / "tables")
    settings = world.settings.model_copy(update={"home": home})
    log = EventLog(open_ledger(settings.ledger_url))
    board = Board(settings=settings, world=world, log=log, tables=TableStore(settings.tables_uri))
    board.run(0)
    return board


def test_what_was_served_equals_what_the_offline_join_gives_for_that_instant(board: Board, tmp_path: Path) -> None:
    catalogue = board.world.pairs.catalogue
    active, quiet = board.world.events["candidate_id"].unique(maintain_order=True).to_list()[:2]
    one, two, three = catalogue.job_ids[:3]
    board.post(active, one, "view", 10, dwell_seconds=12.0)
    board.answer([(active, 20), (quiet, 20)], [one, two, three])
    board.post(active, two, "impression", 25)
    board.post(active, one, "apply", 30)
    board.post(active, three, "dismiss", 31)
    board.answer([(active, 40), (active, 90)], [two])
    board.post(quiet, two, "click", 35)
    board.answer([(quiet, 36)], [one])
    board.post(quiet, three, "view", 15)  # a phone that was offline: known after both answers, before them by the clock
    views = board.run(1)
    kept = board.kept()
    report = board.replayed(kept, views)
    assert report.shares == dict.fromkeys(report.shares, 1.0)
    assert (report.requests, report.late_requests) == (3, 2)
    assert (report.jobs, report.late_jobs) == (9, 0)
    assert {"activity.engagement_count", "history", "resume", "job_applies_total", "employer_rating"} <= set(
        report.shares
    )
    wrong = [replace(kept[0], candidate={**kept[0].candidate, "activity.engagement_count": -1.0})]
    assert board.replayed(wrong, views).different == {"activity.engagement_count": 1}
    step = Run(tmp_path / "runs", "daily", board.at(24 * 60), {}).execute(
        [
            Step(name="features", run=lambda step: shutil.copytree(views, step.folder / "views") and _nothing()),
            Step(name="skew", run=lambda step: skew_step(board.settings, step), inputs=("features",)),
        ]
    )["skew"]
    assert (step.metrics["skew.requests"], step.metrics["skew.equal_share"]) == (3.0, 1.0)
    told = (step.folder / REPORT).read_text(encoding="utf-8")
    assert json.loads(told)["columns"]["history"] == 1.0
    assert active not in told


def _nothing() -> Any:
    from rolecall.pipelines.steps import StepResult

    return StepResult()


def test_a_job_whose_day_was_not_complete_when_it_went_online_is_not_compared(board: Board) -> None:
    job, other = board.world.pairs.catalogue.job_ids[:2]
    candidate = board.world.events["candidate_id"][0]
    board.answer([(candidate, 20)], [job, other])
    board.post("someone", job, "apply", -60)
    report = board.replayed(board.kept(), board.run(1))
    assert (report.jobs, report.late_jobs) == (1, 1)
    assert report.equal_share == 1.0


def test_a_profile_changed_after_the_run_is_told_apart_and_is_no_difference(board: Board) -> None:
    rows = board.world.candidates.sort("candidate_id").head(2).with_columns(city=pl.lit("Elsewhere"))
    changed, unchanged = rows["candidate_id"]
    board.answer([(changed, 5), (unchanged, 5)], [board.world.pairs.catalogue.job_ids[0]])
    later = rows.head(1).with_columns(
        pl.lit(board.at(10) + timedelta(microseconds=123_456)).cast(TIMESTAMP).alias("updated_at")
    )
    remember_profiles(board.tables)
    board.tables.upsert(CANDIDATES, later.select(CANDIDATES.columns.names).to_arrow().cast(CANDIDATES.columns))
    board.answer([(changed, 20), (unchanged, 20)], [])
    views = board.run(1)
    report = board.replayed(board.kept(), views)
    assert (report.requests, report.older_profiles, report.equal_share) == (4, 1, 1.0)
    board.answer([(changed, 24 * 60 - 1)], [])  # read after the next run: the new one
    assert board.replayed(board.kept()[-1:], views).older_profiles == 0
    wrong = [replace(one, candidate={**one.candidate, "city": "Nowhere"}) for one in board.kept()]
    assert board.replayed(wrong, views).different == {"city": 5}


def test_of_the_log_only_what_the_answers_are_about_is_held(board: Board) -> None:
    job = board.world.pairs.catalogue.job_ids[0]
    candidate = board.world.events["candidate_id"][0]
    board.answer([(candidate, 20)], [job])
    for number in range(50):
        board.post(f"other-{number}", f"job-{number}", "view", number)
    board.post(candidate, "elsewhere", "view", 10)
    held = Late.after(board.log, board.kept())
    assert {who: len(events) for who, events in held.candidates.items()} == {candidate: 1}
    assert held.shown == {job: []}


def test_where_nothing_was_served_the_log_is_not_read(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(EventLog, "read_after")
    assert board.replayed([], board.settings.home / "views-0").equal_share == 1.0


def test_where_nothing_was_served_nothing_differs(board: Board) -> None:
    report = board.replayed([], board.settings.home / "views-0")
    assert (report.requests, report.jobs, report.equal_share) == (0, 0, 1.0)


def test_what_cannot_be_kept_costs_no_answer(board: Board) -> None:
    sample, known = (
        ServedSample(board.served, board.log, share=1.0),
        CandidateContext(candidate_id="c", known=True),
    )
    begun = sample.begin("r", "c")
    assert begun is not None
    broken: Any = SimpleNamespace(manifest=SimpleNamespace(id="r", as_of=board.at(0)))
    funnel = SimpleNamespace(catalogue=board.world.pairs.catalogue, job_features=SnapshotJobFeatures({}))
    intact: Any = SimpleNamespace(manifest=broken.manifest, funnel=funnel)
    for _ in range(1_001):  # more than may wait: none of them takes a place for ever
        sample.keep(begun, broken, known, [], at=board.at(1))
    sample.keep(begun, intact, known, [], at=board.at(2))
    sample.close()
    sample.keep(begun, intact, known, [], at=board.at(3))  # a request that ends after the writer
    assert [one.at for one in board.kept()] == [board.at(2)]
