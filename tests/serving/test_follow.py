"""Swapping releases under load, and following a champion that is sometimes broken."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import pytest

from rolecall.platform.errors import IntegrityError, UnavailableError
from rolecall.serving.follow import Follower, ReleaseSlot


@dataclass
class Opened:
    """A release that knows whether it is open."""

    name: str
    closed: int = 0

    def close(self) -> None:
        self.closed += 1


@dataclass
class Shelf:
    """Releases by id; an id in `broken` cannot be loaded."""

    champion: str | None = None
    broken: set[str] = field(default_factory=set)
    loads: list[str] = field(default_factory=list)

    def load(self, release_id: str) -> Opened:
        self.loads.append(release_id)
        if release_id in self.broken:
            raise IntegrityError(f"release {release_id} is damaged")
        return Opened(release_id)


def following(shelf: Shelf, now: list[float] | None = None) -> tuple[Follower[Opened], ReleaseSlot[Opened]]:
    slot: ReleaseSlot[Opened] = ReleaseSlot()
    clock = now or [0.0]
    follower = Follower(
        champion=lambda: shelf.champion, load=shelf.load, slot=slot, interval_s=2.0, clock=lambda: clock[0]
    )
    return follower, slot


def test_an_empty_slot_says_what_to_do() -> None:
    with pytest.raises(UnavailableError, match="rolecall run daily"), ReleaseSlot[Opened]().lease():
        pass


def test_a_lease_keeps_its_release_open_through_a_swap() -> None:
    slot: ReleaseSlot[Opened] = ReleaseSlot()
    old, new = Opened("old"), Opened("new")
    slot.swap("old", old)
    with slot.lease() as leased:
        slot.swap("new", new)
        assert leased is old
        assert (old.closed, slot.open_releases) == (0, 2)
        with slot.lease() as later:
            assert later is new
    assert (old.closed, new.closed, slot.open_releases) == (1, 0, 1)
    assert (slot.release_id, slot.previous_id) == ("new", "old")


def test_an_error_inside_a_lease_ends_it() -> None:
    slot: ReleaseSlot[Opened] = ReleaseSlot()
    opened = Opened("only")
    slot.swap("only", opened)
    with pytest.raises(ZeroDivisionError), slot.lease():
        raise ZeroDivisionError
    slot.close()
    assert opened.closed == 1


def test_no_lease_ever_sees_a_closed_release_under_concurrent_swaps() -> None:
    slot: ReleaseSlot[Opened] = ReleaseSlot()
    slot.swap("0", Opened("0"))
    every: list[Opened] = []
    seen_closed: list[str] = []
    done = threading.Event()

    def serve() -> None:
        while not done.is_set():
            with slot.lease() as release:
                if release.closed:
                    seen_closed.append(release.name)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    for n in range(1, 300):
        every.append(Opened(str(n)))
        slot.swap(str(n), every[-1])
    done.set()
    for thread in threads:
        thread.join()
    slot.close()
    assert seen_closed == []
    assert {release.closed for release in every} == {1}
    assert slot.open_releases == 0


def test_a_promoted_release_is_loaded_once_and_followed() -> None:
    shelf = Shelf(champion="a")
    follower, slot = following(shelf)
    assert [follower.step() for _ in range(3)] == [True, False, False]
    shelf.champion = "b"
    assert follower.step()
    assert shelf.loads == ["a", "b"]
    assert slot.release_id == "b"
    assert follower.problem is None


def test_without_a_champion_the_slot_stays_empty_and_says_why() -> None:
    follower, slot = following(Shelf())
    assert not follower.step()
    assert slot.release_id is None
    assert "no release is promoted" in (follower.problem or "")


def test_a_damaged_champion_leaves_the_old_release_serving_and_is_tried_ever_more_rarely() -> None:
    now = [0.0]
    shelf = Shelf(champion="a", broken={"b"})
    follower, slot = following(shelf, now)
    follower.step()
    shelf.champion = "b"
    for second in range(0, 60, 2):
        now[0] = float(second)
        follower.step()
    assert slot.release_id == "a"
    assert "damaged" in (follower.problem or "")
    assert shelf.loads.count("b") == 4  # at 0, 4, 12, 28 seconds
    shelf.broken.clear()
    now[0] = 1_000.0
    assert follower.step()
    assert (slot.release_id, follower.problem) == ("b", None)


def test_a_way_back_is_taken_at_once_even_after_failures() -> None:
    shelf = Shelf(champion="a", broken={"b"})
    follower, slot = following(shelf)
    follower.step()
    shelf.champion = "b"
    follower.step()
    shelf.champion = "c"
    assert follower.step()
    assert slot.release_id == "c"


def test_a_registry_that_cannot_be_reached_is_reported_and_survived() -> None:
    answers = iter(["a", None, "b"])

    def champion() -> str:
        name = next(answers)
        if name is None:
            raise ConnectionError("registry is away")
        return name

    slot: ReleaseSlot[Opened] = ReleaseSlot()
    follower = Follower(champion=champion, load=Opened, slot=slot, interval_s=2.0)
    follower.step()
    assert not follower.step()
    assert "registry is away" in (follower.problem or "")
    assert slot.release_id == "a"
    assert follower.step()


def test_the_thread_follows_and_ends() -> None:
    shelf = Shelf(champion="a")
    slot: ReleaseSlot[Opened] = ReleaseSlot()
    loaded = threading.Event()

    def load(release_id: str) -> Opened:
        loaded.set()
        return shelf.load(release_id)

    follower = Follower(champion=lambda: shelf.champion, load=load, slot=slot, interval_s=0.001)
    follower.start()
    assert loaded.wait(5)
    follower.close()
    assert slot.release_id == "a"
    assert not follower.alive()
