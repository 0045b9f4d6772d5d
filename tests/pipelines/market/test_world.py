"""Days that go by: the same however they are cut, in season, within the lives of jobs and people."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
import polars as pl
import pytest

from rolecall.pipelines.market import MarketConfig, Memory, World, configurations, named
from rolecall.pipelines.market.answers import SEARCHED
from rolecall.pipelines.market.config import DAY_US
from rolecall.pipelines.market.event_rows import ordered
from rolecall.pipelines.market.memory import Interest
from rolecall.pipelines.market.postings import NEVER_US, take
from rolecall.pipelines.market.world import day_start
from rolecall.platform.errors import InputError

from .conftest import SMALL, Lived


def test_blocks_of_visits_do_not_change_a_day(world: World) -> None:
    day = world.days()[9]
    tables = {}
    for size in (1, 7, 10_000):
        memory, parts = Memory(), []
        visits = world.visits(day)
        for block in visits.blocks(size):
            shown, propensity = world.show(block, memory)
            parts += [world.respond(block, shown, propensity, memory).events, world.browse(block, memory)]
        tables[size] = ordered([*parts, world.answers(day, memory)])
    assert tables[1].equals(tables[7])
    assert tables[1].equals(tables[10_000])


def test_postings_and_people_drawn_alone_are_those_drawn_together(world: World) -> None:
    some = np.array([599, 3, 250])
    alone, together = world.posting_source.draw(some), take(world.postings, some)
    for name in ("origin", "occupation", "employer", "place", "pay_log", "posted_us", "expires_us", "skills", "spam"):
        np.testing.assert_array_equal(getattr(alone, name), getattr(together, name))
    assert world.job_table.rows(alone).equals(world.job_table.rows(together))
    people = world.people_source.draw(some % 500)
    np.testing.assert_array_equal(people.target, world.people.target[some % 500])
    np.testing.assert_array_equal(people.told_us, world.people.told_us[some % 500])


def test_a_horizon_adds_days_and_changes_none_before_the_end(lived: Lived) -> None:
    longer = World(SMALL.model_copy(update={"horizon": 10}))
    assert len(longer.postings) > len(lived.world.postings)
    assert len(longer.people) > len(lived.world.people)
    for name, rows in lived.world.tables().items():
        assert longer.tables()[name].equals(rows)
    assert longer.live(longer.days()[0], Memory()).equals(lived.world.live(lived.world.days()[0], Memory()))


def test_what_becomes_known_day_by_day_adds_up(lived: Lived) -> None:
    world = World(SMALL.model_copy(update={"horizon": 6}))
    end = SMALL.end
    known = [world.known_on(end + timedelta(days=n)) for n in range(6)]
    later = world.tables(end + timedelta(days=6))
    before = world.tables(end)
    for table, key in (("jobs", ["job_id"]), ("employers", ["employer_id", "observed_at"])):
        rows = pl.concat([pl.DataFrame(before[table]), *(pl.DataFrame(day[table]) for day in known)])
        assert rows.sort(key).equals(pl.DataFrame(later[table]).sort(key))
    rows = pl.concat([pl.DataFrame(before["candidates"]), *(pl.DataFrame(day["candidates"]) for day in known)])
    newest = rows.unique("candidate_id", keep="last")
    assert newest.sort("candidate_id").equals(pl.DataFrame(later["candidates"]).sort("candidate_id"))
    assert any(day["candidates"].num_rows for day in known)


def test_arms_that_go_on_from_a_copy_leave_the_original_alone(lived: Lived) -> None:
    world = World(SMALL.model_copy(update={"horizon": 3}))
    one, other = lived.memory.copy(), lived.memory.copy()
    first = world.live(SMALL.end, one)
    world.live(SMALL.end + timedelta(days=1), one)
    assert world.live(SMALL.end, other).equals(first)
    assert first.num_rows > 0


def test_weekdays_bring_more_visits_and_postings_than_weekends() -> None:
    config = MarketConfig(jobs=20_000, candidates=3000, occupations=60, days=28, seed=2)
    world = World(config)
    per_day = np.zeros(7)
    for day in world.days():
        per_day[day.weekday()] += len(world.visits(day))
    assert per_day[:3].min() > 1.15 * per_day[5:].max()
    posted = np.bincount((world.postings.posted_us // DAY_US + 3) % 7, minlength=7)
    assert posted[:5].min() > 1.8 * posted[5:].max()
    flat = World(config.model_copy(update={"seasons": False}))
    even = np.bincount((flat.postings.posted_us // DAY_US + 3) % 7, minlength=7)
    assert even.max() < 1.3 * even.min()


def test_nobody_comes_by_night_and_everybody_within_the_day_they_live(world: World) -> None:
    """In UTC all year, so no change of clocks moves anything."""
    for day in world.days()[::5]:
        visits = world.visits(day)
        hour = (visits.at_us - day_start(day)) // 3_600_000_000
        assert ((hour >= 6) & (hour < 23)).all()
        assert (world.people.joined_us[visits.candidate] < visits.at_us).all()
        assert (world.people.left_us[visits.candidate] > visits.at_us).all()


def test_a_repost_has_another_id_and_nearly_the_same_text(world: World) -> None:
    jobs = pl.DataFrame(world.tables()["jobs"])
    again = np.flatnonzero(world.postings.origin != world.postings.number)
    assert 0.02 < len(again) / len(world.postings) < 0.1
    moved = 0
    for row in again.tolist():
        one, first = jobs.row(row, named=True), jobs.row(int(world.postings.origin[row]), named=True)
        assert one["title"] == first["title"]
        assert one["skills"] == first["skills"]
        assert one["posted_at"] > first["posted_at"]
        words = set(first["description"].split())
        assert len(words & set(one["description"].split())) > 0.6 * len(words)
        moved += one["city"] != first["city"]
    assert 0.2 < moved / len(again) < 0.9


def test_spam_comes_from_badly_rated_employers_with_too_good_pay(world: World) -> None:
    noisy = World(SMALL.model_copy(update={"bad_employers": 0.2}))
    spam = noisy.postings.spam
    assert 0.05 < spam.mean() < 0.25
    assert noisy.employers.bad[noisy.postings.employer[spam]].all()
    assert noisy.postings.pay_log[spam].mean() > noisy.postings.pay_log[~spam].mean() + 0.4
    bad = noisy.employers.bad
    assert noisy.employers.ratings[bad].mean() < noisy.employers.ratings[~bad].mean() - 0.8
    skills = pl.DataFrame(noisy.tables()["jobs"])["skills"].list.len().to_numpy()
    assert skills[spam].mean() > skills[~spam].mean() + 3


def test_wishes_drift_and_few_profiles_say_so() -> None:
    world = World(SMALL.model_copy(update={"candidates": 4000, "drift": 0.5, "told": 0.2}))
    people, config = world.people, world.config
    month = people.joined_us < config.start_us
    changed = (people.changed_us[month, 1] < config.start_us + 30 * DAY_US).mean()
    assert abs(changed - 0.5) < 0.04
    told = people.told_us[month, 1] != NEVER_US
    assert 0.1 < told.mean() < 0.25
    assert (people.told_us[month, 1][told] > people.changed_us[month, 1][told]).all()
    rows = pl.DataFrame(world.profiles.known(people, config.end_us))
    edited = rows.filter(pl.col("updated_at") >= config.starts_at).height
    assert 0.05 < edited / 4000 < 0.45


def test_ratings_are_observed_again_and_again(world: World) -> None:
    table = pl.DataFrame(world.tables()["employers"])
    seen = table.group_by("employer_id").agg(pl.len(), pl.col("rating").n_unique().alias("ratings"))
    assert seen["len"].min() >= 2  # type: ignore[operator]
    assert (seen["ratings"] > 1).mean() > 0.5  # type: ignore[operator]
    assert table["observed_at"].max() < SMALL.ends_at  # type: ignore[operator]


def test_an_employer_looks_at_no_more_applications_than_its_capacity(world: World) -> None:
    day = world.days()[4]
    job = int(np.flatnonzero(world.postings.expires_us == NEVER_US)[0])
    crowd = np.arange(200)
    memory = Memory()
    ones = np.ones(200, dtype=np.int64)
    interest = Interest(
        candidate=crowd,
        job=ones * job,
        at_us=day_start(day) - 200 + crowd,
        visit=ones,
        position=ones,
        applied=ones.astype(bool),
    )
    memory.interest.append(interest)
    answers = [world.answers(day + timedelta(days=n), memory) for n in range(12)]
    events = pl.concat([pl.DataFrame(table) for table in answers]).filter(pl.col("job_id") == f"job-{job:06d}")
    decided = events.filter(pl.col("kind").is_in(["shortlist", "reject"]))
    capacity = int(world.postings.capacity[job])
    assert 0 < decided.height <= capacity
    assert max(int(name[-6:]) for name in decided["candidate_id"]) < capacity
    assert events.filter(pl.col("kind") == "hire").height <= 2


def test_only_those_who_agreed_are_found_by_an_employers_own_search(lived: Lived) -> None:
    world = World(SMALL.model_copy(update={"hiring": SMALL.hiring.model_copy(update={"searches": 0.5})}))
    events = pl.concat([pl.DataFrame(world.answers(day, Memory())) for day in world.days()[:6]])
    invited = events.filter(pl.col("kind") == "invite")
    people = pl.DataFrame(world.tables()["candidates"]).select("candidate_id", "consent", "visibility", "hidden_from")
    jobs = pl.DataFrame(world.tables()["jobs"]).select("job_id", "employer_id")
    rows = invited.join(people, on="candidate_id").join(jobs, on="job_id")
    assert rows.height == invited.height > 100
    assert rows["consent"].all()
    assert set(rows["visibility"]) <= {None, "all"}
    assert (
        not rows.select(pl.col("hidden_from").list.contains(pl.col("employer_id")).fill_null(False)).to_series().any()
    )
    shares = people["consent"].value_counts()
    assert shares.height == 3
    assert SEARCHED < 0


def test_named_configurations_all_load_and_unknown_names_are_refused() -> None:
    for name in configurations():
        assert named(name).jobs >= 50
    assert named("biased", jobs=100).bias.employer > 0
    with pytest.raises(InputError, match="demo"):
        named("nowhere")
