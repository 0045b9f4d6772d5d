"""MLflow mirrors the promotions table, whatever hand moves an alias."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from rolecall.platform.errors import ConflictError

if TYPE_CHECKING:
    from conftest import World


def test_an_interrupted_mirroring_is_finished(world: World) -> None:
    """Killed after the transaction, before the first alias was written."""
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    world.registry.promotions.promote(b, expected=a, who="ann", why="better")
    assert world.alias("champion") == a
    assert world.registry.reconcile() == b
    assert (world.alias("champion"), world.alias("previous")) == (b, a)
    row = world.registry.promotions.current()
    assert row is not None
    assert (row.mirrored, row.action) == (True, "promote")


def test_a_half_written_mirroring_is_finished_not_taken_for_an_outside_move(world: World) -> None:
    """Killed after the champion alias, before `previous` and the mark."""
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    world.registry.promotions.promote(b, expected=a, who="ann", why="better")
    world.move_alias("champion", b)
    assert world.registry.reconcile() == b
    assert world.alias("previous") == a
    assert [row.action for row in world.registry.promotions.history()] == ["promote", "promote"]


def test_an_interrupted_mirroring_goes_before_an_outside_move(world: World) -> None:
    a, b, c = world.build("a"), world.build("bb"), world.build("ccc")
    world.promote(a)
    world.registry.promotions.promote(b, expected=a, who="ann", why="better")
    world.move_alias("champion", c)
    assert world.registry.reconcile() == b
    assert world.alias("champion") == b


def test_an_outside_move_is_followed_and_recorded_as_ungated(world: World) -> None:
    a, b = world.build("a"), world.build("bb", passed=False)
    world.promote(a)
    world.move_alias("champion", b)
    assert world.registry.reconcile() == b
    row = world.registry.promotions.current()
    assert row is not None
    assert (row.action, row.who, row.from_release, row.to_release, row.gated) == ("follow", "mlflow", a, b, False)
    assert world.alias("previous") == a
    assert world.registry.reconcile() == b
    assert len(world.registry.promotions.history()) == 2


def test_a_first_champion_set_from_outside_is_followed(world: World) -> None:
    release = world.build("a")
    world.move_alias("champion", release)
    assert world.registry.reconcile() == release
    assert [row.action for row in world.registry.promotions.history()] == ["follow"]


def test_a_promotion_judged_before_an_outside_move_loses(world: World) -> None:
    a, b, c = world.build("a"), world.build("bb"), world.build("ccc")
    world.promote(a)
    world.move_alias("champion", b)
    with pytest.raises(ConflictError):
        world.registry.promote(c, expected=a, why="better than a")
    assert world.registry.champion() == b


def test_a_missing_alias_is_repaired(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    world.promote(a, b)
    world.registry.client.delete_registered_model_alias("rolecall", "champion")
    assert world.registry.reconcile() == b
    assert world.alias("champion") == b
    assert len(world.registry.promotions.history()) == 2


def test_an_alias_on_a_damaged_release_is_repaired(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    world.damage(b)
    world.move_alias("champion", b)
    assert world.registry.reconcile() == a
    assert world.alias("champion") == a
    assert len(world.registry.promotions.history()) == 1


def test_an_alias_on_a_release_swapped_whole_is_repaired(world: World) -> None:
    """Files and manifest agree with each other, but not with what was registered."""
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    manifest = world.registry.releases.fetch(b) / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"ndcg":0.1', b'"ndcg":0.9'))
    world.move_alias("champion", b)
    assert world.registry.reconcile() == a


@pytest.mark.parametrize("tag", [None, "../../../etc", "0" * 16])
def test_an_alias_on_a_version_that_is_no_release_is_repaired(world: World, tag: str | None) -> None:
    a = world.build("a")
    world.promote(a)
    client = world.registry.client
    version = client.create_model_version("rolecall", source="runs:/x/y", tags={"release_id": tag} if tag else {})
    client.set_registered_model_alias("rolecall", "champion", version.version)
    assert world.registry.reconcile() == a
    assert world.alias("champion") == a


def test_a_version_deleted_in_mlflow_does_not_stop_serving(world: World) -> None:
    a = world.build("a")
    world.promote(a)
    world.registry.client.delete_model_version("rolecall", world.registry.get(a).version)
    assert world.registry.reconcile() == a
    assert world.registry.champion() == a
