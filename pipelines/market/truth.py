"""What no table says: probabilities, groups, true targets, spam, duplicates. To judge by, never to train on.

The truth is written only on request, to a folder of its own. Its files belong to no mapping, so `rolecall ingest`
refuses the folder, and no column of a table is named like one of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq

from rolecall.features.schema import TIMESTAMP
from rolecall.pipelines.market.choice import Floats, sigmoid
from rolecall.pipelines.market.event_rows import candidate_id, job_id
from rolecall.pipelines.market.people import GROUP_B, PHASES, People
from rolecall.pipelines.market.postings import NEVER_US, Postings
from rolecall.pipelines.market.session import examination
from rolecall.pipelines.market.taxonomy import Taxonomy
from rolecall.pipelines.market.world import World

pc: Any = pyarrow.compute  # its functions are made at import, where no type checker sees them

GROUPS = ("A", "B")
Numbers = npt.NDArray[Any]


class Truth:
    """The probabilities behind a World. Candidates [R], jobs [R, P] and instants [R] as numbers.

    All are for a job that was never shown or opened before, and without what a position adds (`examination`, trust).
    """

    def __init__(self, world: World) -> None:
        self._world = world

    def click(self, who_R: Numbers, job_RP: Numbers, at_R: Numbers) -> Floats:
        """Chance that the job is opened once looked at."""
        return sigmoid(self._utility(who_R, job_RP, at_R) - self._world.config.choice.click_at)

    def apply(self, who_R: Numbers, job_RP: Numbers, at_R: Numbers) -> Floats:
        """Chance that the job is opened and applied to once looked at: what an ideal ranking orders by."""
        weights = self._world.config.choice
        utility = self._utility(who_R, job_RP, at_R)
        read = utility + weights.spam * self._world.postings.spam[job_RP]
        return np.asarray(sigmoid(utility - weights.click_at) * sigmoid(read - weights.apply_at), dtype=np.float32)

    def shortlist(self, who_R: Numbers, job_RP: Numbers, at_R: Numbers) -> Floats:
        """Chance that an application within the job's capacity is shortlisted."""
        weights = self._world.config.hiring
        fit = self._world.chooser.fit(who_R, job_RP, at_R)
        return np.asarray(weights.answers * sigmoid(fit - weights.shortlist_at), dtype=np.float32)

    def hire(self, who_R: Numbers, job_RP: Numbers, at_R: Numbers) -> Floats:
        """Chance that an application within the job's capacity ends in a hire while there is an opening."""
        weights = self._world.config.hiring
        fit = self._world.chooser.fit(who_R, job_RP, at_R)
        return np.asarray(self.shortlist(who_R, job_RP, at_R) * sigmoid(fit - weights.hire_at), dtype=np.float32)

    def examination(self, positions: int) -> npt.NDArray[np.float64]:
        """Chance that each position from 1 on is looked at, on the first visit of a day."""
        return examination(self._world.config.choice, np.arange(1, positions + 1), np.zeros(1))[0]

    @property
    def group_b(self) -> npt.NDArray[np.bool_]:
        """Which candidates belong to group B."""
        return np.asarray(self._world.people.group == GROUP_B)

    def of_impressions(self, events: pa.Table) -> pa.Table:
        """The probabilities behind the impressions among `events`, one row each."""
        shown = events.filter(pc.equal(events["kind"], "impression"))
        world = self._world
        who = np.array([world.candidate_number(name) for name in shown["candidate_id"].to_pylist()], dtype=np.int64)
        job = np.array([world.job_number(name) for name in shown["job_id"].to_pylist()], dtype=np.int64)[:, None]
        at_us = shown["occurred_at"].cast(pa.int64()).to_numpy()
        position = shown["position"].to_numpy().astype(np.float64)
        columns = {
            "event_id": shown["event_id"],
            "examined": position**-world.config.choice.position_power,
            "click": self.click(who, job, at_us)[:, 0],
            "apply": self.apply(who, job, at_us)[:, 0],
            "hire": self.hire(who, job, at_us)[:, 0],
        }
        return pa.table(columns)

    def _utility(self, who_R: Numbers, job_RP: Numbers, at_R: Numbers) -> Floats:
        return self._world.chooser.utility(who_R, job_RP, at_R)


def write_truth(world: World, folder: Path) -> None:
    """Everything about people and postings that no table says, the examination curve and the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    slots = world.config.slots
    seen = Truth(world).examination(slots)
    pq.write_table(truth_of_people(world.people, world.taxonomy), folder / "people.truth.parquet")
    pq.write_table(truth_of_postings(world.postings, world.taxonomy), folder / "postings.truth.parquet")
    pq.write_table(
        pa.table({"position": np.arange(1, slots + 1), "examined": seen}), folder / "examination.truth.parquet"
    )
    (folder / "configuration.json").write_text(world.config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def truth_of_people(people: People, taxonomy: Taxonomy) -> pa.Table:
    """A row a candidate: group, and the occupation really looked for in each phase of life."""
    codes = np.array([o.code for o in taxonomy.occupations])
    columns: dict[str, Any] = {
        "candidate_id": [candidate_id(number) for number in people.number.tolist()],
        "group": [GROUPS[number] for number in people.group.tolist()],
        "work": codes[people.work],
    }
    for phase in range(PHASES):
        starts = people.changed_us[:, phase]
        columns[f"phase_{phase}_since"] = pa.array(
            np.where(starts == NEVER_US, 0, starts), TIMESTAMP, mask=starts == NEVER_US
        )
        columns[f"phase_{phase}_target"] = pa.array(codes[people.target[:, phase]], mask=starts == NEVER_US)
    left = people.left_us
    columns["left_at"] = pa.array(np.where(left == NEVER_US, 0, left), TIMESTAMP, mask=left == NEVER_US)
    return pa.table(columns)


def _instants(at_us: npt.NDArray[np.int64]) -> pa.Array:
    """Null for never."""
    return pa.array(np.where(at_us == NEVER_US, 0, at_us), TIMESTAMP, mask=at_us == NEVER_US)


def truth_of_postings(postings: Postings, taxonomy: Taxonomy) -> pa.Table:
    """A row a posting: occupation, whether it is spam, which posting it repeats, and its capacity."""
    codes = np.array([o.code for o in taxonomy.occupations])
    again = postings.origin != postings.number
    return pa.table(
        {
            "job_id": [job_id(number) for number in postings.number.tolist()],
            "work": codes[postings.occupation],
            "spam": postings.spam,
            "duplicate_of": pa.array([job_id(number) for number in postings.origin.tolist()], mask=~again),
            "capacity": postings.capacity,
        }
    )
