"""What is owed to people who asked to be forgotten, and by when: lines of `rolecall doctor`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from rolecall.platform.forgotten import ForgottenPeople
from rolecall.platform.ledger import open_ledger
from rolecall.platform.settings import Settings
from rolecall.platform.taints import Taints


@dataclass(frozen=True, kw_only=True)
class Duty:
    """One thing that is not done. Overdue where `due_at` has passed."""

    what: str
    due_at: datetime
    fix: str


def open_duties(settings: Settings) -> Iterator[Duty]:
    """Erasures that stopped on the way, and releases that wait to be purged. Nothing is created where no ledger is."""
    url = make_url(settings.ledger_url)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        return
    try:
        engine = open_ledger(settings.ledger_url)
    except OperationalError:  # the check of services says so
        return
    for one in ForgottenPeople(engine).open():
        if one.stage in ("asked", "marked"):
            what = f"the erasure {one.name}, asked for on {one.asked_at:%Y-%m-%d}, has only come to {one.stage!r}"
            yield Duty(what=what, due_at=one.due_at, fix="rolecall forget CANDIDATE_ID, with the same id, finishes it")
    for taint in Taints(engine, settings.registry.model_name).open():
        yield Duty(
            what=f"release {taint.release_id} {taint.reason}",
            due_at=taint.due_at,
            fix="rolecall run daily replaces and purges it",
        )
