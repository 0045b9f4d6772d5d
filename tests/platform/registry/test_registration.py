"""What a registered release is, and what its entry says of it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest

from rolecall.platform.errors import IntegrityError, NotFoundError
from rolecall.platform.registry import Registry
from rolecall.platform.release import ReleaseBuilder

if TYPE_CHECKING:
    from conftest import World


def test_without_a_promotion_there_is_no_champion(world: World) -> None:
    assert world.registry.reconcile() is None
    world.build("a")
    assert world.registry.reconcile() is None
    assert world.alias("champion") is None


def test_registering_again_changes_nothing(world: World) -> None:
    release = world.build("a")
    before = world.registry.list()

    def unwanted() -> str:
        raise AssertionError

    assert world.registry.register(release, run_id="other", log_model=unwanted) == before[0].version
    assert world.registry.list() == before


def test_registering_at_once_makes_one_version(world: World) -> None:
    release = world.build("a")
    builder = ReleaseBuilder(world.folder / "b")
    builder.path("model.txt").write_text("b")
    builder.add("model", "model.txt")
    other = builder.seal(as_of=datetime(2026, 3, 1, tzinfo=UTC), code_version="1", tables={}, settings={})
    world.registry.releases.publish(builder.folder)
    run_id = world.registry.get(release).run_id or ""

    def register(_: int) -> str:
        return world.registry.register(other.id, run_id=run_id, log_model=lambda: "runs:/x/y")

    with ThreadPoolExecutor(4) as pool:
        versions = set(pool.map(register, range(4)))
    assert len(versions) == 1
    assert [info.release_id for info in world.registry.list()] == [other.id, release]


def test_an_unpublished_release_is_not_registered(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.registry.register("0" * 16, run_id="r", log_model=lambda: "runs:/r/x")


def test_a_registration_killed_while_logging_is_done_again(world: World) -> None:
    builder = ReleaseBuilder(world.folder / "a")
    builder.path("model.txt").write_text("a")
    builder.add("model", "model.txt")
    release = builder.seal(as_of=datetime(2026, 3, 1, tzinfo=UTC), code_version="1", tables={}, settings={}).id
    world.registry.releases.publish(builder.folder)
    run_id = world.registry.client.create_run(world.registry.experiment_id).info.run_id

    def killed() -> str:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        world.registry.register(release, run_id=run_id, log_model=killed)
    assert world.registry.list() == []
    world.registry.register(release, run_id=run_id, log_model=lambda: "runs:/x/y")
    assert world.alias("built") == release


def test_a_diff_names_what_changed_and_nothing_else(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    assert world.registry.diff(a, a) == ()
    changes = {change.where: (change.before, change.after) for change in world.registry.diff(a, b)}
    assert changes.pop("parts.model")
    assert changes == {"tables.jobs": (1, 2), "settings.ranking.seed": (1, 2)}


def test_publishing_a_repaired_release_renews_its_seal(world: World) -> None:
    a = world.build("a")
    world.promote(a)
    world.damage(a)
    with pytest.raises(IntegrityError):
        world.registry.releases.fetch(a)
    assert world.build("a") == a
    assert world.registry.releases.fetch(a)


def test_a_second_registry_on_the_same_home_sees_the_same(world: World) -> None:
    a = world.build("a")
    world.promote(a)
    other = Registry.from_settings(world.settings)
    assert other.list() == world.registry.list()
    assert (other.reconcile(), other.experiment_id) == (a, world.registry.experiment_id)
