"""The choice model does what its documentation says: each term alone, with its sign and size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from rolecall.pipelines.market import World
from rolecall.pipelines.market.choice import MONTH_US, Chooser, sigmoid
from rolecall.pipelines.market.config import Bias

from .conftest import Pairs

Weigh = Callable[[Chooser], npt.NDArray[Any]]


def chooser(world: World, *, postings: Any = None, people: Any = None, config: Any = None) -> Chooser:
    """The world's choice model with other postings or people."""
    return Chooser(
        config or world.config,
        world.luck,
        world.taxonomy,
        postings or world.postings,
        people or world.people,
        world.employers,
        world.places,
    )


@pytest.fixture(scope="module")
def utility(pairs: Pairs) -> Weigh:
    return lambda model: model.utility(pairs.who, pairs.job, pairs.at_us)


@pytest.fixture(scope="module")
def fit(pairs: Pairs) -> Weigh:
    return lambda model: model.fit(pairs.who, pairs.job, pairs.at_us)


def test_better_pay_is_worth_two_a_log_unit_to_candidates_and_nothing_to_employers(
    world: World, utility: Weigh, fit: Weigh
) -> None:
    richer = chooser(world, postings=replace(world.postings, pay_log=world.postings.pay_log + 0.5))
    np.testing.assert_allclose(utility(richer) - utility(world.chooser), 1.0, atol=1e-4)
    np.testing.assert_array_equal(fit(richer), fit(world.chooser))


def test_a_month_of_age_costs_six_tenths(world: World, utility: Weigh) -> None:
    older = chooser(world, postings=replace(world.postings, posted_us=world.postings.posted_us - MONTH_US))
    np.testing.assert_allclose(utility(older) - utility(world.chooser), -0.6, atol=1e-4)


def test_a_star_more_of_rating_is_worth_six_tenths(world: World, utility: Weigh) -> None:
    better = chooser(world)
    better.employers = replace(world.employers, ratings=world.employers.ratings + 1)
    np.testing.assert_allclose(utility(better) - utility(world.chooser), 0.6, atol=1e-4)


def test_only_a_rating_known_by_then_counts(world: World) -> None:
    employers, far = world.employers, np.iinfo(np.int64).max
    number = np.arange(len(employers))
    for column in range(employers.observed_us.shape[1]):
        at = employers.observed_us[:, column]
        np.testing.assert_array_equal(employers.rating_at(number, at), employers.ratings[:, column])
        if column:
            np.testing.assert_array_equal(employers.rating_at(number, at - 1), employers.ratings[:, column - 1])
    assert (employers.rating_at(number, np.full(len(employers), far)) == employers.ratings[:, -1]).all()


def test_seniority_costs_by_the_step_and_half_for_one_up(world: World, pairs: Pairs, utility: Weigh) -> None:
    level = world.people.seniority[pairs.who, world.people.phase(pairs.who, pairs.at_us)].astype(int)
    same = replace(world.postings, seniority=np.full(len(world.postings), 2, dtype=np.int8))
    up = replace(world.postings, seniority=np.full(len(world.postings), 3, dtype=np.int8))
    change = utility(chooser(world, postings=up)) - utility(chooser(world, postings=same))
    expected = {0: -0.7, 1: -0.7 * 1.5, 2: -0.35, 3: 0.7, 4: 0.7, 5: 0.7}
    expected[3] = 0.7  # from one step down, which costs all of it, to none
    for rank, size in expected.items():
        np.testing.assert_allclose(change[level == rank], size, atol=1e-4)


def test_distance_and_borders_cost_and_only_a_third_for_a_remote_job(world: World, pairs: Pairs) -> None:
    on_site = replace(world.postings, remote=np.zeros(len(world.postings), dtype=bool))
    remote = replace(world.postings, remote=np.ones(len(world.postings), dtype=bool))
    people = replace(world.people, likes_remote=np.zeros(len(world.people), dtype=np.float32))
    weigh = [chooser(world, postings=p, people=people) for p in (on_site, remote)]
    site, home = (model.utility(pairs.who, pairs.job, pairs.at_us) for model in weigh)
    here = world.people.place[pairs.who, world.people.phase(pairs.who, pairs.at_us)]
    there = world.postings.place[pairs.job]
    km = world.places.distance_km()[here[:, None], there]
    abroad = world.places.country_number[here][:, None] != world.places.country_number[there]
    np.testing.assert_allclose(home - site, (1.5 * np.tanh(km / 80) + 2.0 * abroad) * 2 / 3, atol=1e-4)


def test_skills_and_kinship_move_both_sides_upwards(world: World, pairs: Pairs, utility: Weigh, fit: Weigh) -> None:
    none = replace(world.people, able=np.full_like(world.people.able, -1))
    for weigh, most in ((utility, 2.0), (fit, 3.0)):
        loss = weigh(world.chooser) - weigh(chooser(world, people=none))
        assert (loss >= -1e-4).all()
        assert loss.max() == pytest.approx(most, abs=1e-4)
    own = replace(world.people, target=np.broadcast_to(world.people.work[:, None], world.people.target.shape))
    kin = world.taxonomy.kinship
    target = world.people.target[pairs.who, world.people.phase(pairs.who, pairs.at_us)]
    occupation = world.postings.occupation[pairs.job]
    change = 4.0 * (kin[world.people.work[pairs.who][:, None], occupation] - kin[target[:, None], occupation])
    np.testing.assert_allclose(utility(chooser(world, people=own)) - utility(world.chooser), change, atol=1e-4)


def test_an_employer_does_not_know_what_the_candidate_wishes(world: World, fit: Weigh) -> None:
    wishful = replace(
        world.people,
        target=(world.people.target + 1) % len(world.taxonomy.occupations),
        liked=np.full_like(world.people.liked, -1),
        likes_remote=world.people.likes_remote + 3,
    )
    np.testing.assert_array_equal(fit(chooser(world, people=wishful)), fit(world.chooser))


def test_planted_bias_takes_its_strength_from_group_b_and_nothing_from_group_a(
    world: World, pairs: Pairs, fit: Weigh, utility: Weigh
) -> None:
    config = world.config.model_copy(update={"bias": Bias(employer=1.25, exposure=0.5)})
    biased = chooser(world, config=config)
    in_b = world.people.group[pairs.who] == 1
    change = fit(biased) - fit(world.chooser)
    np.testing.assert_allclose(change[in_b], -1.25, atol=1e-4)
    np.testing.assert_array_equal(change[~in_b], 0)
    np.testing.assert_array_equal(utility(biased), utility(world.chooser))
    less = biased.score(pairs.who, pairs.job, pairs.at_us) - world.chooser.score(pairs.who, pairs.job, pairs.at_us)
    well_paid = world.postings.pay_log[pairs.job] > 0.05
    np.testing.assert_allclose(less, -0.5 * (in_b[:, None] & well_paid), atol=1e-4)


def test_the_logging_policy_knows_nothing_of_the_truth(world: World, pairs: Pairs) -> None:
    people = replace(
        world.people,
        target=(world.people.target + 1) % len(world.taxonomy.occupations),
        able=np.full_like(world.people.able, -1),
        group=1 - world.people.group,
    )
    postings = replace(world.postings, spam=~world.postings.spam, capacity=world.postings.capacity * 0)
    ours = world.chooser.score(pairs.who, pairs.job, pairs.at_us)
    np.testing.assert_array_equal(
        chooser(world, people=people, postings=postings).score(pairs.who, pairs.job, pairs.at_us), ours
    )


def test_weighing_a_pair_alone_gives_the_same(world: World, pairs: Pairs) -> None:
    whole = world.chooser.utility(pairs.who, pairs.job, pairs.at_us)
    for row, column in ((0, 0), (3, 17), (len(whole) - 1, -1)):
        one = world.chooser.utility(
            pairs.who[row : row + 1], pairs.job[row : row + 1, column][:, None], pairs.at_us[row : row + 1]
        )
        assert one[0, 0] == whole[row, column]


def test_sigmoid_is_symmetric_and_monotone() -> None:
    x = np.linspace(-8, 8, 33, dtype=np.float32)
    np.testing.assert_allclose(sigmoid(x) + sigmoid(-x), 1.0, rtol=1e-6)
    assert (np.diff(sigmoid(x)) > 0).all()
