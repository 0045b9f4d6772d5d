"""A lane runs work in order, one at a time, and gives up what nobody waits for."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rolecall.serving.lanes import Lane
from rolecall.serving.problems import ApiError


def test_work_runs_in_order_of_arrival_and_never_two_at_once() -> None:
    order: list[int] = []
    running = 0
    most = 0

    def work(n: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        order.append(n)
        running -= 1
        return n * n

    async def scenario() -> list[int]:
        lane = Lane("test", most_inside=100, deadline_s=5)
        results = await asyncio.gather(*(lane.run(lambda n=n: work(n)) for n in range(50)))
        lane.close()
        return results

    assert asyncio.run(scenario()) == [n * n for n in range(50)]
    assert order == list(range(50))
    assert most == 1


def test_the_loop_stays_free_while_work_blocks() -> None:
    async def scenario() -> bool:
        lane = Lane("test", most_inside=2, deadline_s=5)
        gate = threading.Event()
        waiting = asyncio.create_task(lane.run(lambda: gate.wait(5)))
        await asyncio.sleep(0)
        gate.set()  # reached only if the loop was not held
        return await waiting

    assert asyncio.run(scenario())


def test_an_error_reaches_the_caller_and_leaves_the_lane_usable() -> None:
    async def scenario() -> int:
        lane = Lane("test", most_inside=1, deadline_s=5)
        with pytest.raises(ZeroDivisionError):
            await lane.run(lambda: 1 // 0)
        return await lane.run(lambda: 7)

    assert asyncio.run(scenario()) == 7


def test_a_timeout_of_the_work_itself_is_not_mistaken_for_the_deadline() -> None:
    def work() -> None:
        raise TimeoutError("the work's own")

    async def scenario() -> None:
        with pytest.raises(TimeoutError, match="the work's own"):
            await Lane("test", most_inside=1, deadline_s=5).run(work)

    asyncio.run(scenario())


def test_work_whose_deadline_passed_before_it_began_never_begins() -> None:
    begun: list[str] = []

    async def scenario() -> None:
        lane = Lane("test", most_inside=2, deadline_s=0.02)
        gate = threading.Event()
        first = asyncio.create_task(lane.run(lambda: gate.wait(5)))
        second = asyncio.create_task(lane.run(lambda: begun.append("second")))
        for task in (first, second):
            with pytest.raises(ApiError) as refused:
                await task
            assert refused.value.status == 504
        gate.set()
        lane.close()
        assert lane.inside == 0

    asyncio.run(scenario())
    assert begun == []


def test_a_wedged_lane_shows_how_long_it_has_been_busy() -> None:
    now = [100.0]

    async def scenario() -> tuple[float, float]:
        lane = Lane("test", most_inside=1, deadline_s=5, clock=lambda: now[0])
        gate, began = threading.Event(), threading.Event()

        def work() -> None:
            began.set()
            gate.wait(5)

        task = asyncio.create_task(lane.run(work))
        await asyncio.to_thread(began.wait, 5)
        now[0] = 140.0
        busy = lane.busy_s()
        gate.set()
        await task
        lane.close()
        return busy, lane.busy_s()

    assert asyncio.run(scenario()) == (40.0, 0.0)
