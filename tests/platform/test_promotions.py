"""The promotions table: compare-and-set, a history that explains itself, and the hold after a rollback."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Engine

from rolecall.platform.errors import ConflictError, InputError
from rolecall.platform.ledger import open_ledger
from rolecall.platform.promotions import Promotion, Promotions

PROMOTE = """
import sys
from rolecall.platform.errors import ConflictError
from rolecall.platform.ledger import open_ledger
from rolecall.platform.promotions import Promotions
promotions = Promotions(open_ledger(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
try:
    promotions.promote(sys.argv[2], expected="a", who="child", why="race")
    print("won")
except ConflictError:
    print("lost")
"""


@pytest.fixture
def promotions(ledger: Engine) -> Promotions:
    return Promotions(ledger)


def promote(promotions: Promotions, *releases: str) -> list[Promotion]:
    return [promotions.promote(r, expected=champion(promotions), who="ann", why="better") for r in releases]


def champion(promotions: Promotions) -> str | None:
    row = promotions.current()
    return row.to_release if row else None


def test_a_promotion_is_recorded_with_who_when_from_to_and_why(promotions: Promotions) -> None:
    at = datetime(2026, 3, 1, 12, 0, 0, 5, tzinfo=UTC)
    promotions.promote("a", expected=None, who="ann", why="first", at=at)
    row = promotions.promote("b", expected="a", who="bob", why="better", gated=False, at=at)
    wanted = Promotion(
        sequence=2, at=at, action="promote", who="bob", from_release="a", to_release="b", why="better", gated=False,
        mirrored=False,
    )  # fmt: skip
    assert row == wanted == promotions.current() == promotions.history()[-1]


@pytest.mark.parametrize("expected", [None, "b"])
def test_a_promotion_judged_against_another_champion_is_refused(promotions: Promotions, expected: str | None) -> None:
    promote(promotions, "a")
    with pytest.raises(ConflictError, match="champion is a"):
        promotions.promote("c", expected=expected, who="ann", why="better")
    assert champion(promotions) == "a"
    assert len(promotions.history()) == 1


def test_promoting_the_champion_again_changes_nothing(promotions: Promotions) -> None:
    promote(promotions, "a", "b")
    again = promotions.promote("b", expected="a", who="ann", why="the step ran twice", automatic=True)
    assert (again.sequence, again.why) == (2, "better")
    assert len(promotions.history()) == 2


def test_of_concurrent_promoters_exactly_one_wins(promotions: Promotions) -> None:
    promote(promotions, "a")

    def race(release: str) -> bool:
        try:
            promotions.promote(release, expected="a", who=release, why="race")
        except ConflictError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        won = list(pool.map(race, "bcdefghi"))
    assert sum(won) == 1
    assert champion(promotions) == "bcdefghi"[won.index(True)]
    assert [row.sequence for row in promotions.history()] == [1, 2]


def test_of_concurrent_processes_exactly_one_wins(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    promotions = Promotions(open_ledger(url))
    promote(promotions, "a")
    children = {
        release: subprocess.Popen(
            [sys.executable, "-c", PROMOTE, url, release], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for release in "bcd"
    }
    for child in children.values():
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children.values():
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    outcome = {release: child.communicate()[0].strip() for release, child in children.items()}
    assert sorted(outcome.values()) == ["lost", "lost", "won"]
    assert outcome[champion(promotions) or ""] == "won"


def test_a_rollback_holds_automatic_promotion_until_someone_resumes(promotions: Promotions) -> None:
    promote(promotions, "a", "b")
    promotions.roll_back("a", expected="b", who="ann", why="complaints")
    with pytest.raises(ConflictError, match="complaints"):
        promotions.promote("c", expected="a", who="daily", why="gate passed", automatic=True)
    held = promotions.held()
    assert held is not None
    assert (held.who, held.to_release) == ("ann", "a")
    assert promotions.resume(who="ann", why="fixed")
    assert promotions.held() is None
    assert champion(promotions) == "a"
    promotions.promote("c", expected="a", who="daily", why="gate passed", automatic=True)
    assert champion(promotions) == "c"


def test_a_person_may_promote_during_a_hold_and_the_hold_stays(promotions: Promotions) -> None:
    promote(promotions, "a", "b")
    promotions.roll_back("a", expected="b", who="ann", why="complaints")
    promotions.promote("c", expected="a", who="ann", why="the repaired one")
    assert champion(promotions) == "c"
    assert promotions.held() is not None


def test_resuming_without_a_hold_changes_nothing(promotions: Promotions) -> None:
    assert not promotions.resume(who="ann", why="nothing")
    promote(promotions, "a")
    assert not promotions.resume(who="ann", why="nothing")
    assert len(promotions.history()) == 1


def test_resuming_does_not_hide_an_unfinished_mirroring(promotions: Promotions) -> None:
    promote(promotions, "a", "b")
    promotions.roll_back("a", expected="b", who="ann", why="complaints")
    promotions.resume(who="ann", why="fixed")
    row = promotions.current()
    assert row is not None
    assert not row.mirrored


@pytest.mark.parametrize("why", ["", "  "])
def test_every_change_has_a_reason(promotions: Promotions, why: str) -> None:
    with pytest.raises(InputError):
        promotions.promote("a", expected=None, who="ann", why=why)
    assert promotions.history() == []


def test_mirroring_marks_a_row_and_all_before_it(promotions: Promotions) -> None:
    first, second, third = promote(promotions, "a", "b", "c")
    promotions.mark_mirrored(second.sequence)
    assert promotions.history() == [replace(first, mirrored=True), replace(second, mirrored=True), third]


def test_two_models_do_not_meet(promotions: Promotions) -> None:
    other = Promotions(promotions.engine, "other")
    promote(promotions, "a")
    promote(other, "z")
    assert (champion(promotions), champion(other)) == ("a", "z")
    other.mark_mirrored(1)
    assert [row.mirrored for row in promotions.history()] == [False]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sampled_from("abcd-"), max_size=10))
def test_the_trail_is_a_stack_of_champions(tmp_path_factory: pytest.TempPathFactory, steps: list[str]) -> None:
    """`-` rolls back one step, a letter promotes; a list is the model."""
    promotions = Promotions(open_ledger(f"sqlite:///{tmp_path_factory.mktemp('p') / 'ledger.db'}"))
    model: list[str] = []
    for step in steps:
        if step != "-":
            if model[-1:] != [step]:
                model.append(step)
            promotions.promote(step, expected=champion(promotions), who="ann", why="better")
        elif len(model) > 1:
            left = model.pop()
            promotions.roll_back(model[-1], expected=left, who="ann", why="worse")
        assert promotions.trail() == tuple(model)
        assert champion(promotions) == (model[-1] if model else None)
