"""Promotions that are killed, and many at once."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from rolecall.platform.errors import ConflictError, UnavailableError
from rolecall.platform.registry import Registry

if TYPE_CHECKING:
    from conftest import World

OPEN = """
import sys
from pathlib import Path
from rolecall.platform.registry import Registry
from rolecall.platform.settings import load_settings
print(Registry.from_settings(load_settings(environ={}, home=Path(sys.argv[1]))).experiment_id)
"""


class Dying:
    """MLflow's client, killed at its n-th call."""

    def __init__(self, client: Any, calls: int) -> None:
        self.client = client
        self.calls = calls

    def __getattr__(self, name: str) -> Any:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return getattr(self.client, name)


def test_a_promotion_killed_at_any_mlflow_call_is_whole_or_absent_after_reconcile(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    client = world.registry.client
    outcomes = []
    for calls in range(40):
        world.registry.client = Dying(client, calls)
        try:
            world.promote(b)
            finished = True
        except KeyboardInterrupt:
            finished = False
        world.registry.client = client
        champion = world.registry.champion()
        assert world.registry.reconcile() == champion == world.alias("champion")
        assert world.alias("previous") == (a if champion == b else None)
        rows = world.registry.promotions.history()
        assert all(row.mirrored and row.action in ("promote", "rollback") for row in rows)
        outcomes.append((champion == b, finished))
        if finished:
            break
        if champion == b:
            world.registry.rollback("again")
    assert outcomes[0] == (False, False)
    assert (True, False) in outcomes
    assert outcomes[-1] == (True, True)


def test_while_mlflow_cannot_answer_the_table_still_names_the_champion(world: World) -> None:
    a, b = world.build("a"), world.build("bb")
    world.promote(a)
    with sqlite3.connect(world.settings.home / "mlflow.db") as database:
        database.execute("ALTER TABLE registered_models RENAME TO away")
    with pytest.raises(UnavailableError):
        world.registry.reconcile()
    assert world.registry.champion() == a
    with sqlite3.connect(world.settings.home / "mlflow.db") as database:
        database.execute("ALTER TABLE away RENAME TO registered_models")
    world.promote(b)
    assert world.registry.reconcile() == b


@pytest.mark.slow
def test_processes_that_start_on_a_new_home_at_once_all_succeed(tmp_path: Path) -> None:
    children = [
        subprocess.Popen([sys.executable, "-c", OPEN, str(tmp_path / "home")], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    experiments = {child.communicate()[0].strip() for child in children}
    assert [child.returncode for child in children] == [0, 0, 0]
    assert len(experiments) == 1


def test_concurrent_promoters_leave_table_and_aliases_in_agreement(world: World) -> None:
    first = world.build("first")
    rivals = [world.build("x" * n) for n in range(1, 5)]
    world.promote(first)

    def race(release: str) -> bool:
        try:
            world.registry.promote(release, expected=first, why="race")
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(4) as pool:
        won = list(pool.map(race, rivals))
    winner = rivals[won.index(True)]
    assert sum(won) == 1
    assert world.alias("champion") == winner == world.registry.champion()
    assert [row.action for row in world.registry.promotions.history()] == ["promote", "promote"]


def test_pollers_beside_promotions_never_invent_an_outside_move(world: World) -> None:
    releases = [world.build("x" * n) for n in range(1, 4)]
    with ThreadPoolExecutor(3) as pool:
        polls = [pool.submit(_poll, world.registry, 6) for _ in range(2)]
        world.promote(*releases, releases[0])
        seen = {release for poll in polls for release in poll.result()}
    assert seen <= {None, *releases}
    assert [row.action for row in world.registry.promotions.history()] == ["promote"] * 4
    assert world.alias("champion") == releases[0]


def _poll(registry: Registry, times: int) -> list[str | None]:
    return [registry.reconcile() for _ in range(times)]
