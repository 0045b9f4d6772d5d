"""A consent taken back, and an erasure asked for, count at once, whatever the release says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from rolecall.platform.forgotten import ForgottenPeople
from rolecall.platform.ledger import open_ledger
from rolecall.serving.people_policy import Permission
from rolecall.serving.permissions import FORGOTTEN, OnlinePermissions

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
ROWS: dict[str, Mapping[str, Any]] = {
    "agrees": {"consent": 1.0, "visibility": "applied", "hidden_from": ["e1"]},
    "agreed once": {"consent": 0.0, "visibility": "all", "hidden_from": []},
}


class StoredConsents:
    """The newest stored row of each person."""

    def online_consent(self, candidate_ids: Sequence[str], *, at: datetime) -> list[Mapping[str, Any]]:
        return [ROWS.get(name, {"consent": None, "visibility": None, "hidden_from": None}) for name in candidate_ids]


def test_the_newest_knowledge_of_each_person_is_given_in_order(tmp_path: Path) -> None:
    people = ForgottenPeople(open_ledger(f"sqlite:///{tmp_path / 'ledger.db'}"), poll_s=0.0)
    source = OnlinePermissions(StoredConsents(), lambda: NOON, forgotten=people)
    asked = ["stranger", "agrees", "agreed once"]
    given = Permission(consent=True, visibility="applied", hidden_from=("e1",))
    assert source.permissions(asked) == [None, given, Permission(consent=False)]
    people.add("agrees", at=NOON, due_at=NOON + timedelta(days=30))
    assert source.permissions(asked) == [None, FORGOTTEN, Permission(consent=False)]
    assert source.permissions([]) == []
