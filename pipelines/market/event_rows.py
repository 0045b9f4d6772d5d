"""Rows of the events table and the ids in them."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import pyarrow as pa

from rolecall.features.schema import EVENTS

Numbers = npt.NDArray[Any]
_TYPES = {field.name: field.type for field in EVENTS.columns}


def job_id(number: int) -> str:
    """The id of posting `number`."""
    return f"job-{number:06d}"


def candidate_id(number: int) -> str:
    """The id of candidate `number`."""
    return f"cand-{number:06d}"


def no_events() -> pa.Table:
    """An empty events table."""
    return EVENTS.columns.empty_table()


def request_names(candidate: Numbers, visit: Numbers) -> list[str]:
    """What names a visit in ids: the candidate's number and the visit's."""
    return [f"{c:06d}-{v:04d}" for c, v in zip(candidate.tolist(), visit.tolist(), strict=True)]


def event_rows(
    kind: str,
    names: list[str],
    candidate: Numbers,
    job: Numbers,
    at_us: Numbers,
    *,
    actor: str = "candidate",
    **rest: object,
) -> pa.Table:
    """One row an event; `rest` are further columns of the table, null where left out. `names` end the event ids."""
    size = len(names)
    columns = {
        "event_id": [f"{kind}-{name}" for name in names],
        "actor": [actor] * size,
        "candidate_id": [candidate_id(number) for number in candidate.tolist()],
        "job_id": [job_id(number) for number in job.tolist()],
        "kind": [kind] * size,
        "occurred_at": at_us,
        **rest,
    }
    arrays = [
        pa.nulls(size, type_) if columns.get(name) is None else pa.array(columns[name], type_)
        for name, type_ in _TYPES.items()
    ]
    return pa.Table.from_arrays(arrays, schema=EVENTS.columns)


def ordered(tables: list[pa.Table]) -> pa.Table:
    """All rows in order of time, ties by id."""
    table = pa.concat_tables([no_events(), *tables])
    return table.sort_by([("occurred_at", "ascending"), ("event_id", "ascending")])
