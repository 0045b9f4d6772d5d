"""One visit: what of the shown jobs a candidate looks at, opens, saves, applies to or dismisses.

The probabilities stand in `choice.py`. Every draw is keyed by (candidate, job, visit), so what happens with a job
does not depend on which other jobs are shown beside it, nor on who else comes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from rolecall.pipelines.market.choice import Chooser, Floats, sigmoid
from rolecall.pipelines.market.config import DAY_US, MINUTE_US, Choice, MarketConfig
from rolecall.pipelines.market.event_rows import event_rows, request_names
from rolecall.pipelines.market.luck import Draw, Luck
from rolecall.pipelines.market.memory import Interest, Memory, pair_key
from rolecall.pipelines.market.visits import Visits

_SECOND_US = 1_000_000
_READING_US = 15 * MINUTE_US
_SPAM_SEEN_THROUGH = 0.35
Numbers = npt.NDArray[Any]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Responses:
    """`events`: rows of the events table, impressions included; the others say the same as [R, K] marks."""

    events: pa.Table
    clicked: Marks
    saved: Marks
    applied: Marks
    dismissed: Marks

    @classmethod
    def joined(cls, parts: list[tuple[Numbers, Responses]], shape: tuple[int, ...]) -> Responses:
        """Responses to some rows each, as those to all rows; events in the order of the parts."""
        marks = {name: np.zeros(shape, dtype=bool) for name in ("clicked", "saved", "applied", "dismissed")}
        for rows, part in parts:
            for name, marked in marks.items():
                marked[rows] = getattr(part, name)
        return cls(events=pa.concat_tables([part.events for _, part in parts]), **marks)


def examination(weights: Choice, position_K: Numbers, again_R: Numbers) -> npt.NDArray[np.float64]:
    """Chance that a position is looked at [R, K], on a visit after `again_R` others of the same day."""
    seen_K = np.asarray(position_K, dtype=np.float64) ** -weights.position_power
    return np.asarray(np.exp(-weights.session * np.asarray(again_R))[:, None] * seen_K)


def trust(weights: Choice, position_K: Numbers) -> npt.NDArray[np.float64]:
    """What standing at a position adds to the wish to click."""
    return np.asarray(weights.trust * np.exp(-(np.asarray(position_K, dtype=np.float64) - 1) / 3))


def respond(
    config: MarketConfig,
    luck: Luck,
    chooser: Chooser,
    visits: Visits,
    shown_RK: Numbers,
    propensity_RK: Numbers,
    memory: Memory,
) -> Responses:
    """What the visitors do with the jobs shown to them; -1 is an empty slot. `memory` learns of it.

    Nobody may come twice within `visits`. A job that is not open when it is shown counts as an empty slot.
    """
    jobs, weights = chooser.postings, config.choice
    job_RK, at_R = np.maximum(shown_RK, 0), visits.at_us
    keys_RK = pair_key(visits.candidate[:, None], job_RK)
    real_RK = (shown_RK >= 0) & (jobs.posted_us[job_RK] <= at_R[:, None]) & (jobs.expires_us[job_RK] > at_R[:, None])
    able_RK = real_RK & (jobs.expires_us[job_RK] > at_R[:, None] + _READING_US) & (memory.applied.get(keys_RK) == 0)
    utility_RK = chooser.utility(visits.candidate, job_RK, at_R)
    position_K = np.arange(1, shown_RK.shape[1] + 1)
    wish_RK = utility_RK + trust(weights, position_K)
    wish_RK += weights.repeated * np.minimum(memory.shown.get(keys_RK), 6)
    wish_RK += weights.clicked_before * np.minimum(memory.clicked.get(keys_RK), 2)
    examined_RK = _drawn(luck, Draw.EXAMINE, visits, job_RK) < examination(weights, position_K, visits.again)
    marks = _marks(weights, luck, visits, job_RK, examined_RK & able_RK, utility_RK, wish_RK, jobs.spam[job_RK])
    _remember(memory, visits, keys_RK, job_RK, real_RK, marks)
    events = _events(luck, visits, job_RK, propensity_RK, real_RK, utility_RK, marks)
    return Responses(events=events, **marks)


def _drawn(luck: Luck, draw: Draw, visits: Visits, job_RK: Numbers) -> npt.NDArray[np.float64]:
    return luck.uniform(draw, visits.candidate[:, None], job_RK, visits.visit[:, None])


def _marks(
    weights: Choice,
    luck: Luck,
    visits: Visits,
    job_RK: Numbers,
    examined_RK: Marks,
    utility_RK: Floats,
    wish_RK: Numbers,
    spam_RK: Marks,
) -> dict[str, Marks]:
    read_RK = utility_RK + weights.spam * spam_RK
    clicked = examined_RK & (_drawn(luck, Draw.CLICK, visits, job_RK) < sigmoid(wish_RK - weights.click_at))
    saved = clicked & (_drawn(luck, Draw.SAVE, visits, job_RK) < sigmoid(read_RK - weights.save_at))
    applied = clicked & (_drawn(luck, Draw.APPLY, visits, job_RK) < sigmoid(read_RK - weights.apply_at))
    annoyed = np.where(clicked, _SPAM_SEEN_THROUGH * spam_RK, 0.03 * sigmoid(1.0 - utility_RK))
    dismissed = examined_RK & ~applied & ~saved & (_drawn(luck, Draw.DISMISS, visits, job_RK) < annoyed)
    return {"clicked": clicked, "saved": saved, "applied": applied, "dismissed": dismissed}


def _remember(
    memory: Memory,
    visits: Visits,
    keys_RK: npt.NDArray[np.int64],
    job_RK: Numbers,
    real_RK: Marks,
    marks: dict[str, Marks],
) -> None:
    if not len(visits):
        return
    today = int(visits.at_us[0] // DAY_US)
    memory.shown.add(keys_RK[real_RK], today)
    memory.clicked.add(keys_RK[marks["clicked"]], today)
    memory.applied.add(keys_RK[marks["applied"]], today)
    row, slot = np.nonzero(marks["clicked"])
    memory.interest.append(
        Interest(
            candidate=visits.candidate[row],
            job=job_RK[row, slot],
            at_us=visits.at_us[row],
            visit=visits.visit[row],
            position=slot + 1,
            applied=marks["applied"][row, slot],
        )
    )


def _events(
    luck: Luck,
    visits: Visits,
    job_RK: Numbers,
    propensity_RK: Numbers,
    real_RK: Marks,
    utility_RK: Floats,
    marks: dict[str, Marks],
) -> pa.Table:
    """Impressions at the visit; responses within the quarter of an hour after it, in the order they must have."""
    request = request_names(visits.candidate, visits.visit)

    def rows(kind: str, marked_RK: Marks, late_us: Numbers, dwell_RK: Numbers | None = None) -> pa.Table:
        row, slot = np.nonzero(marked_RK)
        return event_rows(
            kind,
            [f"{request[r]}-{s + 1:02d}" for r, s in zip(row.tolist(), slot.tolist(), strict=True)],
            visits.candidate[row],
            job_RK[row, slot],
            visits.at_us[row] + late_us[row, slot],
            request_id=[f"req-{request[r]}" for r in row.tolist()],
            position=slot + 1,
            propensity=propensity_RK[row, slot],
            dwell_seconds=None if dwell_RK is None else dwell_RK[row, slot],
        )

    slot_K = np.arange(1, job_RK.shape[1] + 1)
    opened_us = ((2 + 88 * _drawn(luck, Draw.DELAY, visits, job_RK)).astype(np.int64) + 5 * slot_K) * _SECOND_US
    dwell = dwell_seconds(_drawn(luck, Draw.DWELL, visits, job_RK), utility_RK)
    return pa.concat_tables(
        [
            rows("impression", real_RK, np.zeros_like(opened_us)),
            rows("click", marks["clicked"], opened_us, dwell),
            rows("save", marks["saved"], opened_us + 30 * _SECOND_US),
            rows("apply", marks["applied"], opened_us + 300 * _SECOND_US),
            rows("dismiss", marks["dismissed"], opened_us + 20 * _SECOND_US),
        ]
    )


def dwell_seconds(uniform: npt.NDArray[np.float64], utility: Floats) -> npt.NDArray[np.float64]:
    """Reading time, longer for a job that is liked: a Weibull of shape 1.4."""
    return np.round((27.0 + 66.0 * sigmoid(utility - 4.0)) * (-np.log(uniform)) ** (1 / 1.4), 1)
