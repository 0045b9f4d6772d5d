"""The rule by which prompts go to replicas, as properties of the plain policy."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.serving.llm.deployment.prefix_routing import PrefixRouting

BLOCK = 4
PROMPTS = st.lists(st.integers(0, 3), max_size=24)
SENT = st.lists(st.tuples(PROMPTS, st.sampled_from(["", "a"]), st.sampled_from("xyz")), max_size=12)
LOADS = st.dictionaries(st.sampled_from("xyz"), st.integers(0, 20).map(float), min_size=1)


def routing(imbalance: int = 4, remembered: int = 1000, seed: int = 0) -> PrefixRouting[str]:
    return PrefixRouting(imbalance=imbalance, block=BLOCK, remembered=remembered, randomness=random.Random(seed))


def common(one: list[int], other: list[int]) -> int:
    """Tokens of whole blocks that both begin with."""
    same = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    return same // BLOCK * BLOCK


@settings(deadline=None)
@given(sent=SENT, prompt=PROMPTS, salt=st.sampled_from(["", "a"]))
def test_what_is_remembered_of_a_replica_is_the_longest_prefix_it_was_sent_under_the_salt(
    sent: list[tuple[list[int], str, str]], prompt: list[int], salt: str
) -> None:
    router = routing()
    for tokens, salted, name in sent:
        router.sent(tokens, salted, name)
    for name in "xyz":
        theirs = [tokens for tokens, salted, to in sent if (salted, to) == (salt, name)]
        assert router.matched(prompt, salt, name) == max((common(prompt, tokens) for tokens in theirs), default=0)


@settings(deadline=None)
@given(sent=SENT, prompt=PROMPTS, loads=LOADS, imbalance=st.integers(0, 20), seed=st.integers(0, 99))
def test_the_longest_prefix_wins_unless_its_replica_is_much_busier(
    sent: list[tuple[list[int], str, str]], prompt: list[int], loads: dict[str, float], imbalance: int, seed: int
) -> None:
    router = routing(imbalance, seed=seed)
    for tokens, salt, name in sent:
        router.sent(tokens, salt, name)
    chosen = router.choose(prompt, "", loads)
    matched = {name: router.matched(prompt, "", name) for name in loads}
    longest = max(matched.values())
    meant = min((name for name in loads if matched[name] == longest), key=loads.__getitem__)
    assert set(chosen) <= loads.keys()
    assert len(chosen) == len(set(chosen)) >= min(2, len(loads))
    if longest and loads[meant] - min(loads.values()) <= imbalance:
        assert (matched[chosen[0]], loads[chosen[0]]) == (longest, loads[meant])
    else:
        assert loads[chosen[0]] <= loads[chosen[-1]]


@settings(deadline=None)
@given(sent=SENT, room=st.integers(1, 6))
def test_no_more_is_remembered_of_a_replica_than_there_is_room_for_and_beginnings_longest(
    sent: list[tuple[list[int], str, str]], room: int
) -> None:
    router = routing(remembered=room)
    for tokens, salt, name in sent:
        router.sent(tokens, salt, name)
    assert all(len(known) <= room for known in router._known.values())
    if sent:
        tokens, salt, name = sent[-1]
        assert router.matched(tokens, salt, name) == min(room, len(tokens) // BLOCK) * BLOCK


def test_replicas_that_are_gone_are_forgotten() -> None:
    router = routing()
    router.sent([1] * 8, "", "x")
    router.keep(["y"])
    assert router.matched([1] * 8, "", "x") == 0
    assert router.choose([1] * 8, "", {"y": 3.0}) == ["y"]
