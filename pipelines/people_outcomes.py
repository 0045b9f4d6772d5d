"""What became of people and jobs, both sides considered: the labels that people are recommended by.

Both have to want it. Of everything between an instant and an end, the strongest counts:

    4  they applied (or were invited and came), and the employer shortlisted, replied or hired
    3  the employer invited them, and they then looked, saved or applied
    2  they applied
    1  they viewed, clicked or saved
    0  they were shown it or dismissed it, or the employer rejected them, whatever came before
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from rolecall.features.catalogue import Catalogue, Rows
from rolecall.features.people import People
from rolecall.features.schema import EMPLOYER_EVENTS, ENGAGEMENT_EVENTS

MUTUAL, INVITED, APPLIED, ENGAGED = 4, 3, 2, 1

_KINDS = ("impression", "dismiss", *ENGAGEMENT_EVENTS, *EMPLOYER_EVENTS)
_CODE = {name: place for place, name in enumerate(_KINDS)}
_WANTED = [_CODE[name] for name in ("shortlist", "reply", "hire")]
_ENGAGED = [_CODE[name] for name in ENGAGEMENT_EVENTS]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """People something happened with: `rows` of People, `labels` int8, `shown`: they were shown the job meanwhile."""

    rows: Rows
    labels: npt.NDArray[np.int8]
    shown: npt.NDArray[np.bool_]


class Outcomes:
    """All events between the people and the jobs of a release, by job and time."""

    def __init__(self, events: pl.DataFrame, people: People, catalogue: Catalogue) -> None:
        told = events.filter(pl.col("kind").is_in(_KINDS)).select("job_id", "candidate_id", "kind", "occurred_at")
        jobs = pl.DataFrame({"job_id": list(catalogue.job_ids)}).with_row_index("job")
        who = pl.DataFrame({"candidate_id": list(people.candidate_ids)}).with_row_index("person")
        rows = told.join(jobs, on="job_id").join(who, on="candidate_id").sort("job", "occurred_at", "person", "kind")
        self._people = rows["person"].to_numpy().astype(np.int32)
        self._kinds = rows["kind"].replace_strict(_CODE, return_dtype=pl.Int8).to_numpy()
        self._times = rows["occurred_at"].dt.epoch("us").to_numpy().astype(np.float64)
        self._starts = np.searchsorted(rows["job"].to_numpy(), np.arange(len(catalogue) + 1))

    def jobs(self) -> Rows:
        """Catalogue rows of the jobs anything happened with."""
        return np.flatnonzero(np.diff(self._starts)).astype(np.int32)

    def engaged_before(self, job: int, at_us: float) -> Rows:
        """People who had viewed, clicked, saved or applied before an instant."""
        people, kinds, times = self._of(job)
        return np.unique(people[(times < at_us) & np.isin(kinds, _ENGAGED)])

    def between(self, job: int, start_us: float, end_us: float) -> Outcome:
        """What happened with each person from `start_us` up to `end_us`."""
        people, kinds, times = self._of(job)
        inside = (times >= start_us) & (times < end_us)
        rows, place = np.unique(people[inside], return_inverse=True)
        kinds, times = kinds[inside], times[inside]

        def did(codes: list[int]) -> npt.NDArray[np.bool_]:
            return np.bincount(place, weights=np.isin(kinds, codes), minlength=len(rows)) > 0

        invited, came = np.full(len(rows), np.inf), np.full(len(rows), -np.inf)
        mask = kinds == _CODE["invite"]
        np.minimum.at(invited, place[mask], times[mask])
        mask = np.isin(kinds, _ENGAGED)
        np.maximum.at(came, place[mask], times[mask])
        followed, applied, wanted = came > invited, did([_CODE["apply"]]), did(_WANTED)
        labels = np.select(
            [
                did([_CODE["reject"]]) & ~did([_CODE["hire"]]),
                wanted & (applied | followed),
                followed,
                applied,
                did(_ENGAGED),
            ],
            [0, MUTUAL, INVITED, APPLIED, ENGAGED],
            0,
        )
        return Outcome(rows=rows, labels=labels.astype(np.int8), shown=did([_CODE["impression"]]))

    def _of(self, job: int) -> tuple[Rows, npt.NDArray[np.int8], npt.NDArray[np.float64]]:
        own = slice(self._starts[job], self._starts[job + 1])
        return self._people[own], self._kinds[own], self._times[own]
