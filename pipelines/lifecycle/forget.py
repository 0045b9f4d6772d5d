"""`rolecall forget`: a person leaves every store, and every release that learned from them.

    asked    the id's digest is on the list: ingest, /v1/events and serving take no notice of them any more
    marked   releases built from tables that had them are tainted: none of them is ever promoted again
    erased   no store holds them, and the tables have no history
    done     a release without them serves, and the tainted ones are purged

Every step may be repeated and the stage is kept in the ledger, so a command that died is finished by running it again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from typing import Any

import polars as pl

from rolecall.pipelines.daily import run_daily
from rolecall.pipelines.lifecycle.home_stores import Logs, Runs, Scratch
from rolecall.pipelines.lifecycle.inventory import find_person, personal_stores, table_store
from rolecall.pipelines.lifecycle.person import Person
from rolecall.pipelines.lifecycle.releases import REASON, learned_from, settle
from rolecall.pipelines.steps import Observer
from rolecall.platform.errors import ConflictError, InputError
from rolecall.platform.forgotten import STAGES, ForgottenPeople, Stage
from rolecall.platform.ledger import exclusive, open_ledger
from rolecall.platform.registry import Registry
from rolecall.platform.settings import Settings
from rolecall.platform.table_erasure import scan_rows, table_names

Progress = Callable[[str], None]
"""Told of each step when it is through."""

SHORTEST_ID = 6
"""Shorter ids occur in other people's texts by chance."""

_ANY_WORD = (Logs.name, Scratch.name)
"""Stores in which a mistyped id may stand as an ordinary word: they prove nobody."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What one place holds, or gave up."""

    store: str
    entries: int


@dataclass(frozen=True, kw_only=True)
class ForgetReport:
    """What an erasure did, or with `dry_run` would do. `name` stands for the person: no id is in here.

    `tainted`: releases marked by now; `purged`: those whose bytes went; `rebuilt`: the release without the person;
    `serving_tainted`: the champion still is one of them; `mentions`: rows of others that quote the id in a text.
    """

    name: str
    stage: Stage | None
    stores: tuple[Found, ...]
    tainted: tuple[str, ...]
    purged: tuple[str, ...] = ()
    rebuilt: str | None = None
    serving_tainted: bool = False
    due_at: datetime | None = None
    mentions: int = 0
    todo: str = ""
    dry_run: bool = False

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(kw_only=True)
class Erasure:
    """One `forget` under way."""

    settings: Settings
    candidate_id: str
    at: datetime
    registry: Registry
    told: Progress = lambda step: None
    people: ForgottenPeople = field(init=False)

    def __post_init__(self) -> None:
        self.people = ForgottenPeople(open_ledger(self.settings.ledger_url))

    def survey(self) -> ForgetReport:
        """What is held, without changing anything."""
        person, standing = self._person(), self.people.find(self.candidate_id)
        found = [Found(store=one.name, entries=one.holds(person)) for one in personal_stores(self.settings)]
        tainted = learned_from(self.registry, table_store(self.settings), person, marked=self._past("marked"))
        return ForgetReport(
            name=standing.name if standing else "",
            stage=standing.stage if standing else None,
            stores=tuple(found),
            tainted=tuple(tainted),
            serving_tainted=self.registry.champion() in tainted,
            mentions=self.mentions(),
            dry_run=True,
        )

    def ask(self) -> None:
        """Put the person on the list. Raises InputError where nothing is held of such an id and nothing was asked."""
        if self.people.find(self.candidate_id) is None:
            self._refuse_unknown()
        due = self.at + timedelta(days=self.settings.retention.forget_days)
        self.people.add(self.candidate_id, at=self.at, due_at=due)
        self.told("asked")

    def mark(self) -> None:
        """Taint every release that learned from the person.

        Raises ConflictError while a run holds them: its release would come after the mark, from table versions that
        nobody can ask any more by then.
        """
        for store in personal_stores(self.settings):
            if isinstance(store, Runs):
                store.refuse_running(self._person(), self.people.engine)
        standing = self.people.find(self.candidate_id)
        if standing is None:
            raise ConflictError("the erasure was taken off the list", todo="run the command again")
        tables, marked = table_store(self.settings), self._past("marked")
        for release_id in learned_from(self.registry, tables, self._person(), marked=marked):
            reason = REASON.format(name=standing.name)
            self.registry.taint(release_id, reason, at=self.at, due_at=standing.due_at)
            self.told(f"tainted {release_id}")
        self.people.advance(self.candidate_id, "marked")
        self.told("marked")

    def erase(self) -> tuple[Found, ...]:
        """Take the person out of every store, and look again: somebody may have written meanwhile."""
        person = self._person()
        gone: dict[str, int] = {}
        for store in personal_stores(self.settings):
            gone[store.name] = store.erase(person)
            self.told(f"erased {store.name}")
        for store in personal_stores(self.settings):
            if store.holds(person):
                gone[store.name] += store.erase(person)
            if left := store.holds(person):
                raise ConflictError(
                    f"{store.name} holds {left} entries of the person again: somebody writes there",
                    "nobody who ingests or runs the person's rows meanwhile",
                    "run the same command again",
                )
        self.people.advance(self.candidate_id, "erased")
        self.told("erased")
        return tuple(Found(store=name, entries=count) for name, count in gone.items())

    def rebuild(self, *, ungated: bool, observers: Sequence[Observer]) -> tuple[str | None, str]:
        """A release without the person in place of a tainted champion: its id, and what to do where it does not serve.

        It is the daily run of the champion's own instant on the cleaned tables, judged by the gate as ever.
        """
        champion = self.registry.reconcile()
        if champion is None or self.registry.taints.find(champion) is None:
            return None, ""
        result = run_daily(self.settings, self.registry.releases.manifest(champion).as_of, observers=observers)
        self.told(f"rebuilt {result.release_id}")
        if not result.promoted and ungated:
            why = "a tainted release must not be served on: promoted past the gate"
            self.registry.promote(result.release_id, expected=champion, why=why, gated=False)
        elif not result.promoted:
            return result.release_id, _REFUSED.format(why="; ".join(result.reasons) or "it was not promoted")
        return result.release_id, ""

    def _person(self) -> Person:
        return find_person(self.settings, self.candidate_id)

    def _past(self, stage: Stage) -> bool:
        standing = self.people.find(self.candidate_id)
        return standing is not None and STAGES.index(standing.stage) >= STAGES.index(stage)

    def _refuse_unknown(self) -> None:
        person = self._person()
        asked = (store for store in personal_stores(self.settings) if store.name not in _ANY_WORD)
        if not any(store.holds(person) for store in asked):
            raise InputError(
                "nothing is held of a candidate with this id",
                "the id as the tables and events name it",
                "check the spelling: ids are case-sensitive",
            )

    def mentions(self) -> int:
        """Rows of others that quote the id in a text: told, not chased."""
        if len(self.candidate_id) < SHORTEST_ID:
            return 0
        tables, quoted = table_store(self.settings), 0
        for name in table_names(tables):
            rows = scan_rows(tables, name)
            texts = [column for column, kind in rows.collect_schema().items() if kind == pl.String]
            quoting = [pl.col(column).str.contains(self.candidate_id, literal=True) for column in texts]
            others = pl.col("candidate_id") != self.candidate_id if "candidate_id" in texts else pl.lit(True)
            quoted += rows.filter(others, pl.any_horizontal(quoting)).select(pl.len()).collect().item()
        return int(quoted)


def forget(
    settings: Settings,
    candidate_id: str,
    *,
    at: datetime,
    rebuild: bool = True,
    ungated: bool = False,
    dry_run: bool = False,
    told: Progress = lambda step: None,
    observers: Sequence[Observer] = (),
) -> ForgetReport:
    """Forget a person, or finish doing so. `at`: the wall clock.

    Without `rebuild` the next daily run replaces a tainted champion. `ungated`: the rebuilt release serves even where
    the gate refuses it. Raises InputError for an id nothing is held of; ConflictError while a run that reads
    the person is under way, or somebody goes on writing; UnavailableError where a file cannot be rewritten.
    """
    registry = Registry.from_settings(settings)
    erasure = Erasure(settings=settings, candidate_id=candidate_id, at=at, registry=registry, told=told)
    if dry_run:
        return erasure.survey()
    with exclusive(registry.promotions.engine, "forget"):
        erasure.ask()
        erasure.mark()
        gone = erasure.erase()
    waiting = {taint.release_id for taint in registry.taints.open()}
    rebuilt, todo = erasure.rebuild(ungated=ungated, observers=observers) if rebuild else (None, _LATER)
    settle(registry, at=at)
    told("settled")
    purged = waiting - {taint.release_id for taint in registry.taints.open()}  # the rebuild settles as every run does
    return _report(erasure, gone, rebuilt, todo, sorted(purged))


def readmit(settings: Settings, candidate_id: str) -> bool:
    """Take a person off the list, so that new rows of theirs are taken in again. False where they were not on it.

    Raises ConflictError while their erasure has not come through all stores.
    """
    people = ForgottenPeople(open_ledger(settings.ledger_url))
    standing = people.find(candidate_id)
    if standing is not None and standing.stage in ("asked", "marked"):
        raise ConflictError(
            f"the erasure {standing.name} has only come to {standing.stage!r}", "one that is through", "finish it first"
        )
    return people.remove(candidate_id)


def _report(
    erasure: Erasure, gone: tuple[Found, ...], rebuilt: str | None, todo: str, purged: Sequence[str]
) -> ForgetReport:
    standing = erasure.people.find(erasure.candidate_id)
    taints = erasure.registry.taints
    champion = erasure.registry.champion()
    serving = any(taint.release_id == champion for taint in taints.open())
    return ForgetReport(
        name=standing.name if standing else "",
        stage=standing.stage if standing else None,
        stores=gone,
        tainted=tuple(taint.release_id for taint in taints.all()),
        purged=tuple(purged),
        rebuilt=rebuilt,
        serving_tainted=serving,
        due_at=standing.due_at if standing else None,
        mentions=erasure.mentions(),
        todo=todo if serving else "",
    )


_LATER = "the champion learned from the person: the next `rolecall run daily` replaces it, or run this with --rebuild"
_REFUSED = (
    "the release without the person does not serve ({why}), so the champion that learned from them does. Mend what the "
    "gate names and run `rolecall run daily`, or run the same command with --ungated, which is recorded"
)
