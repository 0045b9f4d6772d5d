"""How many replicas a load calls for: properties of the plain function, and its reading of Serve's numbers."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.serving.llm.deployment.autoscaling import Load, QueueAndCache, Targets, loads_of, replicas_for

SHARES = st.floats(0, 1)
LOAD = st.builds(Load, cache_use=SHARES, slot_use=SHARES, waiting_tokens=st.floats(0, 1e5))
LOADS = st.lists(LOAD, max_size=8)
TARGETS = Targets(cache_use=0.5, waiting_tokens=1000.0)


def wanted(loads: list[Load], current: int, least: int = 1, most: int = 1000) -> int:
    return replicas_for(loads, current=current, targets=TARGETS, least=least, most=most)


@settings(deadline=None)
@given(loads=LOADS, current=st.integers(0, 50), least=st.integers(0, 20), more=st.integers(0, 20))
def test_bounds_hold(loads: list[Load], current: int, least: int, more: int) -> None:
    assert least <= wanted(loads, current, least, least + more) <= least + more


@settings(deadline=None)
@given(loads=LOADS, current=st.integers(0, 50), number=st.integers(0, 7), more=LOAD)
def test_more_load_never_wants_fewer_replicas(loads: list[Load], current: int, number: int, more: Load) -> None:
    if number < len(loads):
        old = loads[number]
        heavier = Load(
            cache_use=max(old.cache_use, more.cache_use),
            slot_use=max(old.slot_use, more.slot_use),
            waiting_tokens=old.waiting_tokens + more.waiting_tokens,
        )
        assert wanted([*loads[:number], heavier, *loads[number + 1 :]], current) >= wanted(loads, current)
    assert wanted([*loads, more], current) >= wanted(loads, current)


@settings(deadline=None)
@given(loads=LOADS, current=st.integers(1, 50))
def test_replicas_leave_one_at_a_time_and_all_but_the_least_leave_an_idle_service(
    loads: list[Load], current: int
) -> None:
    assert wanted(loads, current) >= current - 1
    steps = [current]
    while (now := wanted([Load()] * steps[-1], steps[-1], least=1)) != steps[-1]:
        steps.append(now)
    assert steps == list(range(current, 0, -1))


@settings(deadline=None)
@given(count=st.integers(1, 20), waiting=st.floats(0, 1e5))
def test_replicas_on_target_are_enough_and_what_waits_calls_for_more(count: int, waiting: float) -> None:
    full = [Load(cache_use=0.5, slot_use=0.9)] * count
    assert wanted(full, count) == count
    queued = [*full[1:], Load(cache_use=0.5, slot_use=0.9, waiting_tokens=waiting)]
    assert count + waiting / 1000 - 1e-6 <= wanted(queued, count) <= count + waiting / 1000 + 1


def test_serves_numbers_are_read_by_replica_and_a_new_one_counts_as_idle() -> None:
    metrics = {
        "cache_use": {"r1": 0.7, "r2": 0.35},
        "slot_use": {"r1": 0.1, "r2": 0.1},
        "waiting_tokens": {"r1": 8000.0},
        "running_requests": {"r1": 3.0},
    }
    assert sorted(loads_of(metrics), key=lambda load: -load.cache_use) == [
        Load(cache_use=0.7, slot_use=0.1, waiting_tokens=8000.0),
        Load(cache_use=0.35, slot_use=0.1),
    ]
    context = SimpleNamespace(
        aggregated_metrics=metrics,
        target_num_replicas=3,
        capacity_adjusted_min_replicas=1,
        capacity_adjusted_max_replicas=9,
    )
    assert QueueAndCache(cache_use=0.7, waiting_tokens=4000.0)(context) == (4, {})
