"""`rolecall retention`: what is older than the settings allow goes. Called by hand, from cron, or by a schedule.

    report = apply_retention(settings, at=now)

Each rule may be repeated; a rule whose setting is 0 keeps everything. Rows that go leave the tables' history too, so
earlier table versions are gone afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from sqlalchemy import delete, func, select

from rolecall.features.schema import EVENTS, QUARANTINE
from rolecall.pipelines.lifecycle.home_stores import log_files, refuse_running
from rolecall.pipelines.lifecycle.inventory import table_store
from rolecall.platform.database_erasure import compact
from rolecall.platform.event_log import EventLog, watermark_name
from rolecall.platform.file_tree import FileTree
from rolecall.platform.ledger import EVENT_LOG, SERVED_FEATURES, open_ledger, write
from rolecall.platform.registry import BUILT, CHALLENGER, CHAMPION, PREVIOUS, Registry
from rolecall.platform.served_log import ServedLog
from rolecall.platform.settings import Settings
from rolecall.platform.table_erasure import erase_before, erase_history

_KEPT_ALIASES = {BUILT, CHALLENGER, CHAMPION, PREVIOUS}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Expired:
    """What one rule removed, or with `dry_run` would. `rule`: its setting."""

    rule: str
    keep: int
    removed: int


@dataclass(frozen=True, kw_only=True)
class RetentionReport:
    """What each rule in force came to."""

    expired: tuple[Expired, ...]
    dry_run: bool

    def rows(self) -> list[dict[str, Any]]:
        """A line a rule, for people."""
        verb = "would go" if self.dry_run else "went"
        return [{"rule": one.rule, "keep": one.keep, verb: one.removed} for one in self.expired]

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def apply_retention(settings: Settings, *, at: datetime, dry_run: bool = False) -> RetentionReport:
    """Apply every rule whose setting is not 0. `at`: the wall clock, from which days are counted back.

    Raises ConflictError where a run that should go is being executed, or beside another writer of a table.
    """
    rules: dict[str, Callable[[Settings, int, datetime, bool], int]] = {
        "events_days": _events,
        "quarantine_days": _quarantine,
        "served_days": _served,
        "logs_days": _logs,
        "runs_keep": _runs,
        "releases_keep": _releases,
    }
    told = []
    for rule, apply in rules.items():
        keep = getattr(settings.retention, rule)
        if keep:
            told.append(Expired(rule=rule, keep=keep, removed=apply(settings, keep, at, dry_run)))
    return RetentionReport(expired=tuple(told), dry_run=dry_run)


def _events(settings: Settings, days: int, at: datetime, dry_run: bool) -> int:
    """Events by when they occurred, in the table and in the log where the table has them."""
    before, store = at - timedelta(days=days), table_store(settings)
    old = store.scan(EVENTS).filter(pl.col(EVENTS.time) < before).select(pl.len()).collect().item()
    log = EventLog(open_ledger(settings.ledger_url))
    row = EVENT_LOG.c
    drained = row.sequence <= log.watermark(watermark_name(EVENTS))
    expired = drained & (row.occurred_at_us < (before - _EPOCH) // timedelta(microseconds=1))
    if dry_run:
        with log.engine.connect() as connection:
            return int(old) + (connection.scalar(select(func.count()).select_from(EVENT_LOG).where(expired)) or 0)
    if old:
        erase_before(store, EVENTS.name, EVENTS.time, before)
        erase_history(store, EVENTS.name)
    with write(log.engine, EVENT_LOG) as connection:
        posted = connection.execute(delete(EVENT_LOG).where(expired)).rowcount
    if posted:
        compact(log.engine, [EVENT_LOG])
    return int(old) + posted


def _quarantine(settings: Settings, days: int, at: datetime, dry_run: bool) -> int:
    """Refused rows by when they were first refused; a row from before that was noted goes with the first clean-up."""
    before, store = at - timedelta(days=days), table_store(settings)
    rows = pl.DataFrame(store.read(QUARANTINE))
    kept = rows.filter(pl.col("refused_at") >= before)
    gone = rows.height - kept.height
    if gone and not dry_run:
        store.replace(QUARANTINE, kept.to_arrow().cast(QUARANTINE.columns))
        erase_history(store, QUARANTINE.name)
    return gone


def _served(settings: Settings, days: int, at: datetime, dry_run: bool) -> int:
    """What requests were answered from, by when they were answered."""
    log = ServedLog(open_ledger(settings.ledger_url))
    gone = log.remove_before(at - timedelta(days=days), dry_run=dry_run)
    if gone and not dry_run:
        compact(log.engine, [SERVED_FEATURES])
    return gone


def _logs(settings: Settings, days: int, at: datetime, dry_run: bool) -> int:
    """Log files nobody wrote to for so long."""
    before = (at - timedelta(days=days)).timestamp()
    old = [file for file in log_files(settings.home) if file.stat().st_mtime < before]
    if not dry_run:
        for file in old:
            file.unlink(missing_ok=True)
    return len(old)


def _runs(settings: Settings, keep: int, at: datetime, dry_run: bool) -> int:
    """Run folders beyond the newest."""
    old = sorted(_run_folders(settings.runs_dir), key=lambda run: run.stat().st_mtime, reverse=True)[keep:]
    if not dry_run:
        for run in old:
            refuse_running(run / "lock")
            FileTree(str(run)).delete_folder("")
    return len(old)


def _run_folders(root: Path) -> Iterator[Path]:
    return (folder for folder in root.glob("*") if folder.is_dir()) if root.is_dir() else iter(())


def _releases(settings: Settings, keep: int, at: datetime, dry_run: bool) -> int:
    """Releases beyond the newest, but never one that an alias names: the champion and the way back stay."""
    registry = Registry.from_settings(settings)
    champion = registry.reconcile()
    kept = [info for info in registry.list() if info.taint is None]
    old = [info.release_id for info in kept[keep:] if not _KEPT_ALIASES & {*info.aliases}]
    if not dry_run:
        for release_id in old:
            reason = f"older than the {keep} releases that are kept"
            registry.taint(release_id, reason, at=at, due_at=at)
            registry.purge(release_id, at=at)
    return len([name for name in old if name != champion])
