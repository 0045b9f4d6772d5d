"""What candidates find by themselves, outside of any recommendation: position-free evidence of what they want."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from rolecall.pipelines.market.choice import Chooser
from rolecall.pipelines.market.config import MINUTE_US
from rolecall.pipelines.market.event_rows import event_rows, no_events, request_names
from rolecall.pipelines.market.luck import Draw, Luck
from rolecall.pipelines.market.memory import Memory, pair_key
from rolecall.pipelines.market.policy import Shelf, Shelves, draw_slots
from rolecall.pipelines.market.session import dwell_seconds
from rolecall.pipelines.market.visits import Visits

_OFTEN = 0.45
_KEENNESS = 1.5


def browse(luck: Luck, chooser: Chooser, shelves: Shelves, shelf: Shelf, visits: Visits, memory: Memory) -> pa.Table:
    """After some visits a candidate opens a job they looked for: a `view`, without request or position."""
    visits = visits.take(luck.uniform(Draw.BROWSE, visits.candidate, visits.visit, 0) < _OFTEN)
    if not len(visits):
        return no_events()
    people, who, at_us = chooser.people, visits.candidate, visits.at_us
    phase = people.phase(who, at_us)
    job_RP = shelves.pool(shelf, people.target[who, phase], people.place[who, phase])
    open_RP = shelves.open(job_RP, at_us) & (memory.applied.get(pair_key(who[:, None], job_RP)) == 0)
    utility_RP = chooser.utility(who, job_RP, at_us)
    gumbel = luck.gumbel(Draw.BROWSE, who[:, None], np.maximum(job_RP, 0), visits.visit[:, None], 1)
    slot_R1, _ = draw_slots(_KEENNESS * utility_RP, open_RP, 1, gumbel)
    found = np.flatnonzero(open_RP.any(axis=1))
    rows = visits.take(found)
    job, utility = job_RP[found, slot_R1[found, 0]], utility_RP[found, slot_R1[found, 0]]
    late = (20 + 30 * luck.uniform(Draw.BROWSE, rows.candidate, rows.visit, 2)) * MINUTE_US
    dwell = dwell_seconds(luck.uniform(Draw.BROWSE, rows.candidate, rows.visit, 3), utility)
    names = request_names(rows.candidate, rows.visit)
    return event_rows("view", names, rows.candidate, job, rows.at_us + late.astype(np.int64), dwell_seconds=dwell)
