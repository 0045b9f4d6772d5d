"""Parts of an evaluation that a mean hides: new candidates, new jobs, places, categories, seniority, employers' size.

A slice is written `kind=value`. Of candidates each target is in one slice of a kind:

    history      none (a new candidate), 1-4, 5+: jobs engaged with before the instant that the release knows
    place        the candidate's country, else region
    seniority    the candidate's

Of jobs a target is in every slice that some of its relevant jobs are in, judged by those alone:

    job          cold (nobody engaged with it in the 30 days before), warm
    posted       day, week, earlier: how long before the instant; later: it was posted only after it
    category     the first of the job's category path
    employer     1-49, 50-249, 250-999, 1000+: people who work there (the EU's classes, the largest one parted)

Of a job that people are recommended for: its category, posted, place (country, else region) and seniority; and of the
people it worked out with, as above:

    person       new (their profile was recorded in the week before), known

A value that fewer than FEWEST targets have is not reported: of so few a mean says nothing but who they are.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from rolecall.features.catalogue import MICROSECONDS_A_DAY, Catalogue, Codes
from rolecall.features.context import CandidateContext

Flags = npt.NDArray[np.bool_]
Columns = Mapping[str, npt.NDArray[np.float32]]

LARGEST = 5
"""Values of a kind that are reported: the most frequent ones."""

FEWEST = 10
"""Targets that a reported slice has at least."""

UNKNOWN = "unknown"
_SIZES = (("1-49", 50.0), ("50-249", 250.0), ("250-999", 1000.0), ("1000+", np.inf))
_AGES = (("later", 0.0), ("day", 1.0), ("week", 7.0), ("earlier", np.inf))
_ENGAGEMENTS, _EMPLOYER_SIZE = "job_engagements_30d", "employer_size"


def candidate_slices(context: CandidateContext, history: int) -> tuple[str, ...]:
    """The slices of one who asks. `history`: jobs engaged with that the release knows."""
    length = "none" if not history else "1-4" if history < 5 else "5+"
    place = context.country or context.region or UNKNOWN
    return (f"history={length}", f"place={place}", f"seniority={context.seniority or UNKNOWN}")


def job_slices(
    catalogue: Catalogue, rows: npt.NDArray[np.int32], columns: Columns, *, at_us: float
) -> dict[str, Flags]:
    """By slice which of some jobs are in it, bool[len(rows)]; slices that hold none of them are left out.

    `rows`: -1 for a job that the release does not hold: it is in no slice. `columns`: feature-view columns of the whole
    catalogue as of the instant.
    """
    held = rows >= 0
    known = rows[held]
    cold = ~(_column(columns, _ENGAGEMENTS, known) > 0)
    age = (at_us - catalogue.posted[known]) / MICROSECONDS_A_DAY
    found = {"job=cold": cold, "job=warm": ~cold}
    found |= _ranges("posted", age, _AGES)
    found |= _ranges("employer", _column(columns, _EMPLOYER_SIZE, known), _SIZES)
    found |= _named("category", catalogue.category_root, known)
    return {name: _spread(held, flags) for name, flags in found.items() if flags.any()}


def people_slices(catalogue: Catalogue, row: int, *, at_us: float) -> tuple[str, ...]:
    """The slices of a job that people are recommended for; `row`: of the release's catalogue."""
    rows = np.array([row], np.int32)
    job = catalogue.table.slice(row, 1).to_pylist()[0]
    age = (at_us - catalogue.posted[rows]) / MICROSECONDS_A_DAY
    found = _ranges("posted", age, _AGES) | _named("category", catalogue.category_root, rows)
    place = job["country"] or job["region"] or UNKNOWN
    return (
        *(name for name, flags in found.items() if flags.any()),
        f"place={place}",
        f"seniority={job['seniority'] or UNKNOWN}",
    )


def person_slices(
    known_since: npt.NDArray[np.float64], rows: npt.NDArray[np.int32], *, at_us: float
) -> dict[str, Flags]:
    """By slice which of some people are in it, bool[len(rows)]. `rows`: -1 for somebody the release does not hold, who
    is in no slice; `known_since`: microseconds since 1970, of everybody."""
    held = rows >= 0
    new = known_since[rows[held]] > at_us - 7 * MICROSECONDS_A_DAY
    found = {"person=new": new, "person=known": ~new}
    return {name: _spread(held, flags) for name, flags in found.items() if flags.any()}


def reported(names: Iterable[Sequence[str]], *, fewest: int = FEWEST) -> list[str]:
    """Of the slices of each target those that are reported: the LARGEST most frequent values of each kind that at least
    `fewest` targets have, by name."""
    counts: Counter[str] = Counter()
    for some in names:
        counts.update(some)
    kinds: dict[str, list[str]] = {}
    for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if count >= fewest:
            kinds.setdefault(name.partition("=")[0], []).append(name)
    return sorted(name for kind in kinds.values() for name in kind[:LARGEST])


def _column(columns: Columns, name: str, rows: npt.NDArray[np.int32]) -> npt.NDArray[np.float64]:
    column = columns.get(name)
    return np.full(len(rows), np.nan) if column is None else column[rows].astype(np.float64)


def _ranges(kind: str, values: npt.NDArray[np.float64], bounds: Sequence[tuple[str, float]]) -> dict[str, Flags]:
    """Each value in the first class whose bound is above it; what is not known in none."""
    place = np.searchsorted([bound for _, bound in bounds], values, side="right")
    return {f"{kind}={name}": ~np.isnan(values) & (place == number) for number, (name, _) in enumerate(bounds)}


def _named(kind: str, codes: Codes, rows: npt.NDArray[np.int32]) -> dict[str, Flags]:
    found = codes.codes[rows]
    return {f"{kind}={codes.names[code]}": found == code for code in np.unique(found).tolist() if code >= 0}


def _spread(held: Flags, flags: Flags) -> Flags:
    """Flags of the held ones as flags of all."""
    out = np.zeros(len(held), np.bool_)
    out[held] = flags
    return out
