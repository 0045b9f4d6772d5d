"""One policy's own job board: tables, event log, feature store and releases below one folder.

Policies that are compared live in the same world but never share a home: what one of them showed is in its own log
alone, and its models learn from nothing else.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import polars as pl
import pyarrow as pa

from rolecall.features.schema import EVENTS, TABLES
from rolecall.features.store import FeatureStore
from rolecall.features.validation import validate_events
from rolecall.platform.errors import InputError
from rolecall.platform.event_log import EventLog, drain
from rolecall.platform.ledger import open_ledger
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore
from rolecall.serving.reader import CandidateReader
from rolecall.serving.state import online_features

_NOT_COPIED = shutil.ignore_patterns("ray", "scratch")


@dataclass(frozen=True)
class Home:
    """The stores below `settings.home`."""

    settings: Settings

    @cached_property
    def tables(self) -> TableStore:
        return TableStore(self.settings.tables_uri, self.settings.storage.options)

    @cached_property
    def log(self) -> EventLog:
        """The event log that serving reads and the daily run drains."""
        return EventLog(open_ledger(self.settings.ledger_url))

    @cached_property
    def features(self) -> FeatureStore:
        """The online features, held open as a server holds them."""
        return online_features(self.settings)

    @property
    def reader(self) -> CandidateReader:
        """Contexts as serving reads them: stored features, and the events posted since."""
        return CandidateReader(self.features, self.log, history_length=self.settings.features.history_length)

    def copy(self, folder: Path) -> Home:
        """The same stores below another folder; left alone where that folder is there already."""
        if not folder.exists():
            partial = folder.with_name(folder.name + ".partial")
            shutil.rmtree(partial, ignore_errors=True)
            shutil.copytree(self.settings.home, partial, ignore=_NOT_COPIED)
            partial.rename(folder)
        return Home(self.settings.model_copy(update={"home": folder}))

    def learn(self, rows: Mapping[str, pa.Table]) -> None:
        """Bring new and changed rows of some tables in; of several with one key the last one stays."""
        for name, table in rows.items():
            schema = TABLES[name]
            newest = pl.DataFrame(table).unique(subset=list(schema.key), keep="last", maintain_order=True)
            if newest.height:
                self.tables.upsert(schema, newest.to_arrow().cast(schema.columns))

    def post(self, events: pa.Table, *, received_at: datetime) -> int:
        """Commit events to the log as `POST /v1/events` does. Returns how many were new.

        Raises InputError, and keeps none, where the schema refuses one.
        """
        checked = validate_events(events.to_pylist())
        if checked.refused:
            told = "; ".join(refusal.message for refusal in checked.refused[:3])
            raise InputError(f"{len(checked.refused)} simulated events: {told}", "events of the schema")
        return self.log.append(checked.accepted, received_at=received_at).accepted

    def drain(self) -> None:
        """Move posted events into the events table, as the daily run's first step does."""
        drain(self.log, self.tables, EVENTS)
