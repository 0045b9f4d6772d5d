"""What happened in the month, written down as rows of the events table."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rolecall.features.schema import EVENTS
from rolecall.pipelines.market.choice import sigmoid
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.month import Found, Shown
from rolecall.pipelines.market.postings import microseconds

_SECOND_US = 1_000_000
_DAY_US = 86_400 * _SECOND_US
_TYPES = {field.name: field.type for field in EVENTS.columns}


def event_table(config: MarketConfig, shown: Shown, found: Found) -> pa.Table:
    """All events of both sides in order of time (ties by id)."""
    random = config.random(6)
    table = pa.concat_tables(
        [*_candidate_events(random, shown), _views(random, found), *_answers(config, random, shown)]
    )
    return table.sort_by([("occurred_at", "ascending"), ("event_id", "ascending")])


def _candidate_events(random: np.random.Generator, shown: Shown) -> Iterable[pa.Table]:
    """Impressions at the request; responses within the quarter of an hour after it, in the order they must have."""
    seconds = random.integers(2, 90, len(shown.job)) + 5 * shown.position
    yield _shown_rows("impression", shown, np.ones(len(shown.job), dtype=bool), shown.at_us)
    clicked_at = shown.at_us + seconds * _SECOND_US
    dwell = np.round(random.gamma(2.0, 12.0 + 30.0 * sigmoid(shown.wanted - 4.0)), 1)
    yield _shown_rows("click", shown, shown.clicked, clicked_at, dwell)
    yield _shown_rows("save", shown, shown.saved, clicked_at + 30 * _SECOND_US)
    yield _shown_rows("apply", shown, shown.applied, clicked_at + 300 * _SECOND_US)
    yield _shown_rows("dismiss", shown, shown.dismissed, clicked_at)


def _shown_rows(
    kind: str,
    shown: Shown,
    rows: npt.NDArray[np.bool_],
    at_us: npt.NDArray[np.int64],
    dwell: npt.NDArray[np.float64] | None = None,
) -> pa.Table:
    candidate, visit, position = shown.candidate[rows], shown.visit[rows], shown.position[rows]
    request = [f"{c:06d}-{v:03d}" for c, v in zip(candidate.tolist(), visit.tolist(), strict=True)]
    return _table(
        kind,
        [f"{kind}-{r}-{p:02d}" for r, p in zip(request, position.tolist(), strict=True)],
        candidate,
        shown.job[rows],
        at_us[rows],
        request_id=[f"req-{r}" for r in request],
        position=position,
        propensity=shown.propensity[rows],
        dwell_seconds=None if dwell is None else dwell[rows],
    )


def _views(random: np.random.Generator, found: Found) -> pa.Table:
    """Jobs a candidate opened without being shown them."""
    names = [f"view-{c:06d}-{v:03d}" for c, v in zip(found.candidate.tolist(), found.visit.tolist(), strict=True)]
    dwell = np.round(random.gamma(2.0, 12.0 + 30.0 * sigmoid(found.wanted - 4.0)), 1)
    return _table("view", names, found.candidate, found.job, found.at_us, dwell_seconds=dwell)


def _answers(config: MarketConfig, random: np.random.Generator, shown: Shown) -> Iterable[pa.Table]:
    """Employers answer applications within days, invite some who only looked, and hire a few."""
    count, end = len(shown.job), microseconds(config.ends_at)
    luck = random.random((5, count))
    answered_at = shown.at_us + random.integers(_DAY_US, 6 * _DAY_US, count)
    good = luck[0] < sigmoid(shown.wanted - 6.5)
    answered = shown.applied & (luck[1] < 0.7)
    cases = {
        "shortlist": (answered & good, answered_at),
        "reject": (answered & ~good, answered_at),
        "reply": (answered & good & (luck[2] < 0.6), answered_at + _DAY_US // 2),
        "hire": (answered & good & (luck[3] < 0.25), answered_at + 5 * _DAY_US),
        "invite": (shown.clicked & ~shown.applied & (luck[4] < 0.03), answered_at),
    }
    for kind, (rows, at_us) in cases.items():
        kept = rows & (at_us < end)
        parts = zip(
            shown.candidate[kept].tolist(), shown.visit[kept].tolist(), shown.position[kept].tolist(), strict=True
        )
        names = [f"{kind}-{c:06d}-{v:03d}-{p:02d}" for c, v, p in parts]
        yield _table(kind, names, shown.candidate[kept], shown.job[kept], at_us[kept], actor="employer")


def _table(
    kind: str,
    names: list[str],
    candidate: npt.NDArray[np.intp],
    job: npt.NDArray[np.intp],
    at_us: npt.NDArray[np.int64],
    *,
    actor: str = "candidate",
    **rest: object,
) -> pa.Table:
    size = len(names)
    columns = {
        "event_id": names,
        "actor": [actor] * size,
        "candidate_id": [f"cand-{number:06d}" for number in candidate.tolist()],
        "job_id": [f"job-{number:06d}" for number in job.tolist()],
        "kind": [kind] * size,
        "occurred_at": at_us,
        **rest,
    }
    arrays = [
        pa.nulls(size, type_) if columns.get(name) is None else pa.array(columns[name], type_)
        for name, type_ in _TYPES.items()
    ]
    return pa.Table.from_arrays(arrays, schema=EVENTS.columns)
