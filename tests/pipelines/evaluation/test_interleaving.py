"""Team-draft interleaving: fair to equal rankings, faithful to each order, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.pipelines.evaluation.interleaving import Interleaved, preference, team_draft
from rolecall.platform.errors import InputError

RANKINGS = st.lists(st.sampled_from("abcdefghij"), unique=True, max_size=10)


@given(RANKINGS, RANKINGS, st.integers(1, 12), st.text(max_size=5))
@settings(deadline=None)
def test_each_teams_picks_keep_its_order_and_nothing_is_shown_twice(
    first: list[str], second: list[str], limit: int, seed: str
) -> None:
    mixed = team_draft(first, second, limit=limit, seed=seed)
    assert len(set(mixed.job_ids)) == len(mixed.job_ids) == min(limit, len({*first, *second}))
    for team, ranking in (("first", first), ("second", second)):
        places = [ranking.index(job) for job, of in zip(mixed.job_ids, mixed.teams, strict=True) if of == team]
        assert places == sorted(places)
    assert mixed == team_draft(first, second, limit=limit, seed=seed)


@given(RANKINGS, RANKINGS, st.integers(1, 12), st.text(max_size=5))
@settings(deadline=None)
def test_a_pick_is_the_best_its_team_had_left(first: list[str], second: list[str], limit: int, seed: str) -> None:
    mixed = team_draft(first, second, limit=limit, seed=seed)
    ranking = {"first": first, "second": second}
    for slot, (job, team) in enumerate(zip(mixed.job_ids, mixed.teams, strict=True)):
        assert job == next(one for one in ranking[team] if one not in mixed.job_ids[:slot])


@given(st.lists(st.sampled_from("abcdefghijkl"), unique=True, min_size=12), st.integers(1, 6), st.text(max_size=5))
@settings(deadline=None)
def test_teams_are_even_after_every_round(jobs: list[str], rounds: int, seed: str) -> None:
    mixed = team_draft(jobs, jobs[::-1], limit=2 * rounds, seed=seed)
    for at in range(0, 2 * rounds, 2):
        assert sorted(mixed.teams[at : at + 2]) == ["first", "second"]


def test_equal_rankings_earn_the_same_whatever_is_clicked() -> None:
    """Every slot belongs to either team half the time, so no click model can favour one."""
    rounds, jobs = 4000, list("abcde")
    mine = np.array(
        [[team == "first" for team in team_draft(jobs, jobs, limit=5, seed=f"r{n}").teams] for n in range(rounds)]
    )
    assert mine.mean(axis=0) == pytest.approx([0.5] * 5, abs=0.03)


def test_the_better_ranking_wins_with_few_visits() -> None:
    random = np.random.default_rng(3)
    good, bad = list("abcdef"), list("fedcba")
    appeal = dict(zip(good, [0.5, 0.4, 0.3, 0.2, 0.1, 0.05], strict=True))
    credits = []
    for visit in range(400):
        mixed = team_draft(good, bad, limit=3, seed=f"test/{visit}")
        credits.append(mixed.credit({job for job in mixed.job_ids if random.random() < appeal[job]}))
    told = preference(credits, [f"c{n}" for n in range(400)])
    assert told.preferred() == "first"
    assert told.low > 0.5
    assert 0.5 < told.share < told.wins / (told.wins + told.losses)


def test_equal_rankings_are_called_different_as_rarely_as_the_level_says() -> None:
    random = np.random.default_rng(4)
    called = [
        preference(random.choice([-1, 0, 1], 80).tolist(), [str(n) for n in range(80)]).preferred() for _ in range(800)
    ]
    assert np.mean([team is not None for team in called]) < 0.065


def test_credit_counts_what_was_wanted_for_the_team_that_picked_it() -> None:
    mixed = Interleaved(job_ids=("a", "b", "c"), teams=("first", "second", "second"))
    assert [mixed.credit(wanted) for wanted in (set(), {"a"}, {"b", "c"}, {"a", "b", "elsewhere"})] == [0, 1, -2, 0]


def test_a_candidate_has_one_vote_however_often_they_come() -> None:
    told = preference([1, 1, 1, 1, -1, 0], ["often", "often", "often", "often", "once", "never"])
    assert (told.wins, told.losses, told.ties, told.share, told.p_value) == (1, 1, 1, 0.5, 1.0)
    assert preference([1] * 20, ["often"] * 20).preferred() is None


def test_nothing_decided_decides_nothing() -> None:
    for told in (preference([], []), preference([0, 0], ["a", "b"])):
        assert (told.preferred(), told.p_value, told.low, told.high) == (None, 1.0, 0.0, 1.0)


def test_rankings_and_votes_are_checked() -> None:
    with pytest.raises(InputError, match="twice"):
        team_draft(["a", "a"], [], limit=2, seed="")
    with pytest.raises(InputError, match="limit 0"):
        team_draft(["a"], [], limit=0, seed="")
    with pytest.raises(InputError, match="2 credits"):
        preference([1, 1], ["a"])
