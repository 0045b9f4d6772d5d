"""Counter-based draws: functions of their keys, uniform, and unlike each other."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rolecall.pipelines.market.luck import Draw, Luck, pick

NUMBERS = np.arange(200_000)


@given(st.integers(0, 2**63), st.integers(0, 2**31), st.integers(1, 50))
def test_a_draw_does_not_depend_on_what_is_drawn_with_it(seed: int, first: int, size: int) -> None:
    luck = Luck(seed)
    together = luck.uniform(Draw.CLICK, np.arange(first, first + size)[:, None], np.arange(3), 7)
    alone = [luck.uniform(Draw.CLICK, n, k, 7)[0] for n in range(first, first + size) for k in range(3)]
    assert together.ravel().tolist() == alone
    assert ((together > 0) & (together < 1)).all()


def test_draws_are_spread_evenly_and_neighbours_are_unrelated() -> None:
    drawn = Luck(1).uniform(Draw.CLICK, NUMBERS)
    counts, _ = np.histogram(drawn, bins=20, range=(0, 1))
    assert abs(counts / len(NUMBERS) - 0.05).max() < 0.003
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.01


def test_every_key_matters() -> None:
    first = Luck(1).uniform(Draw.CLICK, NUMBERS, 3)
    others = [
        Luck(2).uniform(Draw.CLICK, NUMBERS, 3),
        Luck(1).uniform(Draw.APPLY, NUMBERS, 3),
        Luck(1).uniform(Draw.CLICK, NUMBERS, 4),
        Luck(1).uniform(Draw.CLICK, 3, NUMBERS),
    ]
    assert all(abs(np.corrcoef(first, other)[0, 1]) < 0.01 for other in others)


def test_normal_and_gumbel_numbers_have_their_moments() -> None:
    normal, gumbel = Luck(3).normal(Draw.TASTE, NUMBERS), Luck(3).gumbel(Draw.SLOT, NUMBERS)
    assert abs(normal.mean()) < 0.01
    assert abs(normal.std() - 1) < 0.01
    assert abs(gumbel.mean() - 0.5772) < 0.01


def test_a_subset_has_no_repetition_and_begins_as_its_weights_say() -> None:
    weights = np.array([3.0, 1.0, 1.0, 5.0])
    order = Luck(4).subset(Draw.JOB_SKILLS, NUMBERS, weights)
    assert (np.sort(order, axis=1) == np.arange(4)).all()
    first = np.bincount(order[:, 0], minlength=4) / len(order)
    np.testing.assert_allclose(first, weights / weights.sum(), atol=0.005)


def test_picks_follow_their_weights() -> None:
    drawn = pick(Luck(5).uniform(Draw.JOB, NUMBERS), np.cumsum([0.2, 0.0, 0.8]))
    np.testing.assert_allclose(np.bincount(drawn, minlength=3) / len(drawn), [0.2, 0.0, 0.8], atol=0.005)
