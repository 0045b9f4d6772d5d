"""What the re-rank policy promises of every selection."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.features.catalogue import Catalogue
from rolecall.features.context import CandidateContext
from rolecall.features.job_vectors import JobVectors
from rolecall.features.schema import JOBS
from rolecall.platform.settings import PolicySettings
from rolecall.serving.policy import Policy, Selection

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
AT = NOON.timestamp() * 1e6
PLAIN = PolicySettings(diversity=0.0)
SIZE = 30


def policy(over: PolicySettings = PLAIN, *, size: int = SIZE, **columns: list[Any]) -> Policy:
    given_columns = {"employer_id": [f"e{n}" for n in range(size)], "title": [f"t{n}" for n in range(size)]} | columns
    rows = [
        dict.fromkeys(JOBS.columns.names)
        | {"job_id": f"j{n:03}", "updated_at": NOON}
        | {name: values[n] for name, values in given_columns.items()}
        for n in range(size)
    ]
    codes = np.random.default_rng(0).integers(-127, 128, (size, 8)).astype(np.int8)
    vectors = JobVectors(codes, np.ones(size, np.float32))
    return Policy(over, Catalogue.from_table(pa.Table.from_pylist(rows, schema=JOBS.columns)), vectors)


def select(
    rules: Policy, *, limit: int = 10, person: CandidateContext | None = None, request_id: str = "r"
) -> Selection:
    rows = np.arange(len(rules.catalogue), dtype=np.int32)
    scores = np.linspace(1, 0, len(rows)).astype(np.float32)
    return rules.select(rows, scores, person or CandidateContext(), at_us=AT, limit=limit, request_id=request_id)


def test_without_rules_in_the_way_the_order_is_the_score() -> None:
    selection = select(policy())
    assert selection.picks.tolist() == list(range(10))
    assert selection.propensities.tolist() == [1.0] * 10


def test_what_was_seen_applied_for_or_dismissed_is_not_shown() -> None:
    person = CandidateContext(history=("j000",), applied=frozenset({"j001"}), dismissed=frozenset({"j002", "gone"}))
    assert select(policy(), person=person, limit=2).picks.tolist() == [3, 4]
    open_rules = PolicySettings(diversity=0.0, hide_applied=False, hide_dismissed=False)
    assert select(policy(open_rules), person=person, limit=2).picks.tolist() == [1, 2]


def test_what_is_expired_or_not_yet_posted_is_not_shown() -> None:
    hour = timedelta(hours=1)
    expires = [NOON, NOON - hour, NOON + hour, *[None] * (SIZE - 3)]
    posted = [None, None, None, NOON + hour, *[None] * (SIZE - 4)]
    assert select(policy(expires_at=expires, posted_at=posted), limit=3).picks.tolist() == [2, 4, 5]


def test_an_employer_and_a_title_keep_their_caps_while_others_are_left() -> None:
    employers = ["big"] * 20 + [f"e{n}" for n in range(10)]
    assert select(policy(employer_id=employers), limit=6).picks.tolist() == [0, 1, 2, 20, 21, 22]
    titles = ["cook"] * 20 + [f"t{n}" for n in range(10)]
    assert select(policy(title=titles), limit=7).picks.tolist() == [0, 1, 2, 3, 4, 20, 21]


def test_the_same_title_at_the_same_employer_is_shown_once() -> None:
    rules = policy(employer_id=["e", "e", "e"] + ["f"] * 27, title=["Cook", "cook ", "waiter", *map(str, range(27))])
    assert select(rules, limit=3).picks.tolist() == [0, 2, 3]


def test_an_unknown_employer_is_not_one_employer() -> None:
    assert select(policy(employer_id=[None] * SIZE), limit=10).picks.tolist() == list(range(10))


def test_caps_give_way_before_a_slot_stays_empty() -> None:
    rules = policy(employer_id=["e"] * SIZE, title=["cook"] * SIZE)
    assert sorted(select(rules, limit=SIZE).picks) == list(range(SIZE))


def test_freshness_lifts_a_new_job_over_an_old_one_of_nearly_equal_score() -> None:
    posted = [NOON - timedelta(days=30), *[NOON] * (SIZE - 1)]
    fresh = PolicySettings(diversity=0.0, freshness_half_life_days=7)
    assert select(policy(fresh, posted_at=posted), limit=2).picks.tolist() == [1, 2]
    assert select(policy(posted_at=posted), limit=2).picks.tolist() == [0, 1]


def test_diversity_puts_a_different_job_before_a_twin() -> None:
    rules = policy(PolicySettings(diversity=0.5))
    codes = np.zeros((SIZE, 8), np.int8)
    codes[:, 0] = 1
    codes[5] = [0, 1, 0, 0, 0, 0, 0, 0]
    rules.vectors = JobVectors(codes, np.ones(SIZE, np.float32))
    assert select(rules, limit=2).picks.tolist() == [0, 5]


def test_the_same_request_gives_the_same_selection_and_another_one_explores_elsewhere() -> None:
    rules = policy(PolicySettings(exploration=0.5))
    one, again, other = (select(rules, request_id=name) for name in ("a", "a", "b"))
    assert one.picks.tolist() == again.picks.tolist()
    assert one.picks.tolist() != other.picks.tolist()


def test_propensities_are_the_frequencies_with_which_jobs_are_shown() -> None:
    rules = policy(PolicySettings(exploration=0.4, diversity=0.0), size=4)
    first = [select(rules, limit=1, request_id=str(n)) for n in range(4000)]
    shown = Counter(int(s.picks[0]) for s in first)
    promised = {int(s.picks[0]): float(s.propensities[0]) for s in first}
    assert sum(promised.values()) == pytest.approx(1.0)
    for pick, propensity in promised.items():
        assert shown[pick] / 4000 == pytest.approx(propensity, abs=0.03)


@given(
    employers=st.lists(st.sampled_from(["a", "b", None]), min_size=SIZE, max_size=SIZE),
    titles=st.lists(st.sampled_from(["x", "y", "z"]), min_size=SIZE, max_size=SIZE),
    hidden=st.sets(st.integers(0, SIZE - 1)),
    limit=st.integers(1, SIZE + 5),
    exploration=st.sampled_from([0.0, 0.3]),
)
@settings(max_examples=60, deadline=None)
def test_a_selection_is_full_distinct_and_eligible(
    employers: list[str | None], titles: list[str], hidden: set[int], limit: int, exploration: float
) -> None:
    rules = policy(PolicySettings(exploration=exploration), employer_id=employers, title=titles)
    person = CandidateContext(dismissed=frozenset(f"j{n:03}" for n in hidden))
    selection = select(rules, person=person, limit=limit)
    picks = selection.picks.tolist()
    assert len(picks) == len(set(picks)) == min(limit, SIZE - len(hidden))
    assert not hidden & set(picks)
    assert ((selection.propensities > 0) & (selection.propensities <= 1)).all()
