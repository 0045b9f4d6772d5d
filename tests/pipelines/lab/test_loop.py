"""The closed loop without a daily run: arms that need no release, in a tiny world."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from rolecall.features.schema import CANDIDATES, EVENTS, JOBS
from rolecall.pipelines.lab.arms import Arm
from rolecall.pipelines.lab.config import LabConfig
from rolecall.pipelines.lab.home import Home
from rolecall.pipelines.lab.loop import SeedLoop
from rolecall.pipelines.lab.outcome import Outcome
from rolecall.pipelines.lab.policies import Policy, Slate, Visit
from rolecall.pipelines.lab.simulate import arms_of, first_home
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.memory import Memory
from rolecall.pipelines.market.world import World
from rolecall.platform.settings import Settings

DAYS = 3
MARKET = MarketConfig(
    jobs=300,
    candidates=200,
    employers=30,
    occupations=30,
    days=5,
    requests_per_candidate=3,
    seed=5,
    end=date(2026, 9, 1),
)
CONFIG = LabConfig(market=MARKET, days=DAYS, seeds=(5,), arms=("tfidf", "popularity", "random", "oracle"))


@dataclass(frozen=True, kw_only=True)
class Start:
    """A world at its end, with the home all arms begin with."""

    world: World
    memory: Memory
    base: Home

    def loop(self, folder: Path, arms: dict[str, Arm]) -> SeedLoop:
        return SeedLoop(self.world, self.memory, self.base, arms, folder)

    def arms(self, *names: str) -> dict[str, Arm]:
        config = CONFIG.model_copy(update={"arms": names})
        return arms_of(config, self.world, self.base.settings)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Start:
    world = World(CONFIG.world(5))
    events, memory = world.history()
    settings = CONFIG.settings(Settings(), tmp_path_factory.mktemp("lab") / "base")
    base = first_home(world, events, settings, releases=False, say=lambda line: None)
    return Start(world=world, memory=memory, base=base)


@dataclass(frozen=True)
class Lived:
    """A finished loop: its folder, and each arm's outcome by name."""

    folder: Path
    outcomes: dict[str, Outcome]


@pytest.fixture(scope="module")
def lived(start: Start, tmp_path_factory: pytest.TempPathFactory) -> Lived:
    folder = tmp_path_factory.mktemp("lived")
    outcomes = start.loop(folder, start.arms(*CONFIG.arms)).run(DAYS)
    return Lived(folder, {one.arm: one for one in outcomes})


def posted(home: Path, settings: Settings) -> pl.DataFrame:
    """Every event an arm's log holds."""
    log = Home(settings.model_copy(update={"home": home})).log
    return pl.DataFrame([one.event for one in log.read_after(0, 10**9)], infer_schema_length=None)


def same(one: Outcome, other: Outcome) -> bool:
    counts = all(np.array_equal(one.counts[name], other.counts[name]) for name in one.counts)
    return counts and np.array_equal(one.exposure, other.exposure) and np.array_equal(one.daily, other.daily)


def test_the_same_seed_gives_the_same_loop(start: Start, lived: Lived, tmp_path: Path) -> None:
    again = start.loop(tmp_path, start.arms("tfidf")).run(DAYS)[0]
    assert same(again, lived.outcomes["tfidf"])


def test_two_arms_with_one_policy_share_their_luck(start: Start, tmp_path: Path) -> None:
    arm = start.arms("random")["random"]
    one, other = start.loop(tmp_path, {"one": arm, "other": arm}).run(DAYS)
    assert same(one, other)
    assert one.total("impressions") > 0


def test_who_knows_the_truth_beats_chance_and_a_profile_helps(lived: Lived) -> None:
    applications = {name: one.total("applications") for name, one in lived.outcomes.items()}
    assert applications["oracle"] > 2 * applications["tfidf"] > 0
    assert applications["tfidf"] > applications["random"]


def test_every_arm_is_visited_by_the_same_people_at_the_same_times(lived: Lived) -> None:
    visits = [one.counts["visits"] for one in lived.outcomes.values()]
    assert all(np.array_equal(visits[0], others) for others in visits[1:])
    assert visits[0].sum() > 50


def test_the_log_holds_exactly_what_was_counted(start: Start, lived: Lived) -> None:
    kinds = {
        "impression": "impressions",
        "click": "clicks",
        "save": "saves",
        "apply": "applications",
        "dismiss": "dismissals",
    }
    for name, one in lived.outcomes.items():
        events = posted(lived.folder / name, start.base.settings)
        answered = events.filter(pl.col("request_id").is_not_null() & pl.col("position").is_not_null())
        found = {kind: answered.filter(pl.col("kind") == kind).height for kind in kinds}
        assert found == {kind: one.total(counted) for kind, counted in kinds.items()}
        assert events.filter(pl.col("kind") == "hire").height == one.total("hires")
        assert events["event_id"].is_unique().all()


def test_impressions_carry_what_off_policy_learning_needs(start: Start, lived: Lived) -> None:
    shown = posted(lived.folder / "random", start.base.settings).filter(pl.col("kind") == "impression")
    assert shown["propensity"].is_between(0, 1, closed="right").all()
    assert (shown["position"] >= 1).all()
    assert (shown["propensity"] < 0.5).all()


def test_a_visit_sees_only_jobs_known_at_midnight_and_live_at_its_instant(start: Start, lived: Lived) -> None:
    postings, first = start.world.postings, datetime(2026, 9, 1, tzinfo=UTC)
    for name in lived.outcomes:
        shown = posted(lived.folder / name, start.base.settings).filter(pl.col("kind") == "impression")
        jobs = np.array([start.world.job_number(job_id) for job_id in shown["job_id"]])
        at = shown["occurred_at"].dt.epoch("us").to_numpy()
        midnight = shown["occurred_at"].dt.truncate("1d").dt.epoch("us").to_numpy()
        assert (postings.posted_us[jobs] <= midnight).all()
        assert (postings.expires_us[jobs] > at).all()
        assert (shown["occurred_at"] >= first).all()


def test_new_postings_reach_visitors_the_day_after(start: Start, lived: Lived) -> None:
    ends = start.world.config.end_us
    shown = posted(lived.folder / "tfidf", start.base.settings).filter(pl.col("kind") == "impression")
    jobs = np.array([start.world.job_number(job_id) for job_id in shown["job_id"]])
    assert (start.world.postings.posted_us[jobs] >= ends).any()


def test_a_candidate_is_not_shown_what_they_engaged_with_that_day(start: Start, lived: Lived) -> None:
    events = posted(lived.folder / "tfidf", start.base.settings)
    engaged = (
        events.filter(pl.col("kind").is_in(["click", "dismiss"]))
        .group_by("candidate_id", "job_id")
        .agg(pl.col("occurred_at").min().alias("since"))
    )
    shown = events.filter(pl.col("kind") == "impression").join(engaged, on=["candidate_id", "job_id"])
    assert shown.height > 0
    assert (shown["occurred_at"] <= shown["since"]).all()


def test_no_arm_can_read_the_truth(start: Start, lived: Lived) -> None:
    known = {*JOBS.columns.names, *CANDIDATES.columns.names, *EVENTS.columns.names}
    home = Home(start.base.settings.model_copy(update={"home": lived.folder / "tfidf"}))
    columns = {name for schema in (JOBS, CANDIDATES, EVENTS) for name in home.tables.read(schema).column_names}
    assert columns <= known
    held = {name for arm in start.arms("tfidf", "popularity", "random").values() for name in vars(arm)}
    assert held <= {"slots", "columns"}


@dataclass(frozen=True, kw_only=True)
class Mortal:
    """An arm whose process dies in the middle of its second day."""

    arm: Arm
    last: date

    @contextlib.contextmanager
    def open(self, home: Home, midnight: datetime) -> Iterator[Policy]:
        with self.arm.open(home, midnight) as policy:
            yield _Mortal(policy, answers=10 if midnight.date() == self.last else 10**9)


class _Mortal:
    def __init__(self, policy: Policy, *, answers: int) -> None:
        self._policy, self._left = policy, answers

    def slate(self, visit: Visit) -> Slate:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt
        return self._policy.slate(visit)


def test_a_loop_that_was_killed_goes_on_to_the_same_end(start: Start, lived: Lived, tmp_path: Path) -> None:
    arms = start.arms("tfidf")
    with pytest.raises(KeyboardInterrupt):
        start.loop(tmp_path, {"tfidf": Mortal(arm=arms["tfidf"], last=MARKET.end + timedelta(days=1))}).run(DAYS)
    assert [file.stem for file in (tmp_path / "days" / "tfidf").iterdir()] == [str(MARKET.end)]
    assert same(start.loop(tmp_path, arms).run(DAYS)[0], lived.outcomes["tfidf"])


def test_a_finished_loop_is_played_again_without_asking_anybody(start: Start, lived: Lived, tmp_path: Path) -> None:
    shutil.copytree(lived.folder, tmp_path / "copy")
    again = start.loop(tmp_path / "copy", {"tfidf": Unasked()}).run(DAYS)
    assert same(again[0], lived.outcomes["tfidf"])


class Unasked:
    """An arm that must not be opened."""

    def open(self, home: Home, midnight: datetime) -> contextlib.AbstractContextManager[Policy]:
        raise AssertionError(f"opened at {midnight}")


def test_of_two_rows_with_one_key_the_last_is_learnt(tmp_path: Path) -> None:
    home = Home(Settings(home=tmp_path))
    rows = [{"candidate_id": "c1", "skills": [skill], "updated_at": datetime(2026, 9, 1, tzinfo=UTC)} for skill in "ab"]
    home.learn({"candidates": pa.Table.from_pylist(rows, schema=CANDIDATES.columns)})
    assert home.tables.read(CANDIDATES)["skills"].to_pylist() == [["b"]]
