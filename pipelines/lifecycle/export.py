"""`rolecall export`: everything held about a person, as one JSON document.

    {"schema": "rolecall.export/1",
     "candidate_id": "c-17",
     "exported_at": "2026-11-22T09:00:00Z",
     "tables": {"candidates": [row, ...], "events": [row, ...]},     every table that names candidates, rows as stored:
                                                                     the profile; what the person and employers did;
                                                                     impressions are what was recommended, where logged
     "posted_events": [{"sequence": 7, "received_at": ..., "event": {...}}],   the event log, drained or not
     "quarantine": [row, ...],                                       refused rows that name the person
     "online_features": {"engagement_count": 3.0, ...},              what serving reads, values known now
     "served_features": [{"request_id": ..., "at": ..., "candidate": {...}, "jobs": {...}}],   the share of answers of
                                                                     which was kept what they were computed from
     "releases": ["79ea1f92883d39f3"],                               releases built from tables that had the person
     "forgotten": false}                                             whether their erasure was asked for

Times are ISO 8601 in UTC. Vectors and scores computed from these rows are not listed: they follow from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import orjson

from rolecall.features.schema import QUARANTINE
from rolecall.features.store import FeatureStore
from rolecall.pipelines.lifecycle.inventory import table_store
from rolecall.pipelines.lifecycle.person import Person, person_of
from rolecall.pipelines.lifecycle.releases import learned_from
from rolecall.pipelines.lifecycle.table_stores import stored_rows
from rolecall.platform.errors import InputError
from rolecall.platform.event_log import EventLog
from rolecall.platform.forgotten import ForgottenPeople
from rolecall.platform.ledger import open_ledger
from rolecall.platform.registry import Registry
from rolecall.platform.served_log import ServedLog
from rolecall.platform.settings import Settings

SCHEMA = "rolecall.export/1"
_MOST_POSTED = 1_000_000


@dataclass(frozen=True, kw_only=True)
class PersonalData:
    """The document, field by field as the module describes it."""

    schema: str
    candidate_id: str
    exported_at: datetime
    tables: Mapping[str, list[dict[str, Any]]]
    posted_events: list[dict[str, Any]]
    quarantine: list[dict[str, Any]]
    online_features: Mapping[str, object]
    served_features: list[dict[str, Any]]
    releases: list[str]
    forgotten: bool

    def to_json(self) -> str:
        """Indented, keys in the order above."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2 | orjson.OPT_UTC_Z, default=str).decode()


def export_person(settings: Settings, candidate_id: str, *, at: datetime) -> PersonalData:
    """Collect the document at `at`. Raises InputError where nothing is held of such an id."""
    store, engine = table_store(settings), open_ledger(settings.ledger_url)
    tables = stored_rows(store, candidate_id)
    person = person_of(candidate_id, [row for rows in tables.values() for row in rows])
    posted = EventLog(engine).of_candidate(candidate_id, limit=_MOST_POSTED)
    refused = [row for row in store.read(QUARANTINE).to_pylist() if _about(row, person)]
    online = FeatureStore(settings.home / "feast", settings.features).online_candidates([candidate_id], at=at)[0]
    known = {name: value for name, value in online.items() if value is not None}
    served = ServedLog(engine).of_candidate(candidate_id)
    if not (tables or posted or refused or known or served):
        raise InputError(
            "nothing is held of a candidate with this id", "the id as the tables name it", "check the spelling"
        )
    return PersonalData(
        schema=SCHEMA,
        candidate_id=candidate_id,
        exported_at=at,
        tables=tables,
        posted_events=[
            {"sequence": one.sequence, "received_at": one.received_at, "event": dict(one.event)} for one in posted
        ],
        quarantine=refused,
        online_features=known,
        served_features=[asdict(one) for one in served],
        releases=learned_from(Registry.from_settings(settings), store, person, marked=True),
        forgotten=ForgottenPeople(engine).find(candidate_id) is not None,
    )


def _about(refused: Mapping[str, Any], person: Person) -> bool:
    """Whether a refused row is theirs. One that was read names them in a field of its own: to be quoted in somebody
    else's text, or to have an id that is a word of it, gives nobody a right to that row."""
    try:
        fields = orjson.loads(refused["row"] or "")
    except orjson.JSONDecodeError:
        fields = None
    if isinstance(fields, dict):
        return any(person.is_them(str(value)) for value in fields.values())
    return any(person.named_in(text) for text in refused.values() if isinstance(text, str))
