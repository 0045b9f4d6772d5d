"""Which release may be promoted, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rolecall.platform.errors import ConflictError, GateRefusedError, IntegrityError, NotFoundError

if TYPE_CHECKING:
    from conftest import World


def test_the_aliases_tell_the_story(world: World) -> None:
    a, b, c = world.build("a"), world.build("bb"), world.build("ccc", passed=False)
    assert (world.alias("built"), world.alias("challenger")) == (c, b)
    world.promote(a)
    assert (world.alias("champion"), world.alias("previous")) == (a, None)
    world.promote(b)
    assert (world.alias("champion"), world.alias("previous"), world.alias("challenger")) == (b, a, None)
    assert [row.mirrored for row in world.registry.promotions.history()] == [True, True]


def test_a_refused_release_is_kept_with_its_reasons_and_not_promoted(world: World) -> None:
    release = world.build("a", passed=False)
    info = world.registry.get(release)
    assert (info.gate, info.reasons, info.run_id is not None) == ("refused", ("ndcg@10 0.1 against 0.2",), True)
    with pytest.raises(GateRefusedError, match=r"0\.1 against 0\.2"):
        world.promote(release)
    world.registry.promote(release, expected=None, why="we know better", gated=False)
    row = world.registry.promotions.current()
    assert row is not None
    assert not row.gated
    assert world.alias("champion") == release


def test_an_unjudged_release_is_not_promoted(world: World) -> None:
    release = world.build("a", passed=None)
    with pytest.raises(GateRefusedError, match="missing"):
        world.promote(release)


def test_many_long_reasons_still_fit(world: World) -> None:
    release = world.build("a", passed=None)
    world.registry.judge(release, passed=False, reasons=[f"{n} " + "ü" * 1000 for n in range(50)])
    reasons = world.registry.get(release).reasons
    assert len(reasons) > 3
    assert all(len(reason) == 300 for reason in reasons)


def test_a_promotion_against_another_champion_is_refused(world: World) -> None:
    a, b, c = world.build("a"), world.build("bb"), world.build("ccc")
    world.promote(a, b)
    with pytest.raises(ConflictError):
        world.registry.promote(c, expected=a, why="judged yesterday")
    assert world.alias("champion") == b


def test_a_damaged_release_is_not_promoted(world: World) -> None:
    release = world.build("a")
    world.damage(release)
    with pytest.raises(IntegrityError):
        world.promote(release)
    assert world.registry.champion() is None


def test_unknown_releases_are_named_in_the_error(world: World) -> None:
    known = world.build("a")
    for unknown in ("0" * 16, "x' or name='rolecall", ""):
        with pytest.raises(NotFoundError, match=known):
            world.registry.get(unknown)


def test_rolling_back_walks_back_and_holds(world: World) -> None:
    a, b, c, d = (world.build(name) for name in ("a", "bb", "ccc", "dddd"))
    world.promote(a, b, c)
    assert world.registry.rollback("slow").to_release == b
    assert (world.alias("champion"), world.alias("previous")) == (b, a)
    assert world.registry.rollback("slow as well").to_release == a
    assert (world.alias("champion"), world.alias("previous")) == (a, None)
    with pytest.raises(NotFoundError):
        world.registry.rollback("further")
    with pytest.raises(ConflictError, match="held"):
        world.registry.promote(d, expected=a, why="daily", automatic=True)
    assert world.registry.resume("repaired")
    world.registry.promote(d, expected=a, why="daily", automatic=True)
    assert world.alias("champion") == d


def test_a_rollback_passes_over_a_damaged_release(world: World) -> None:
    a, b, c = world.build("a"), world.build("bb"), world.build("ccc")
    world.promote(a, b, c)
    world.damage(b)
    assert world.registry.rollback("c is slow").to_release == a
    assert world.alias("champion") == a


def test_a_rollback_undoes_an_outside_move(world: World) -> None:
    a, b = world.build("a"), world.build("bb", passed=False)
    world.promote(a)
    world.move_alias("champion", b)
    assert world.registry.rollback("nobody asked").to_release == a


def test_an_interrupted_rollback_is_finished(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    world.promote(a, b)
    world.registry.promotions.roll_back(a, expected=b, who="ann", why="slow")
    assert world.registry.reconcile() == a
    assert (world.alias("champion"), world.alias("previous")) == (a, None)
