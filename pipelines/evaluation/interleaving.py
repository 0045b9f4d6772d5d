"""Two rankings in one list: team-draft interleaving, what each team earned, and which one people prefer.

Radlinski, Kurup and Joachims 2008, "How does clickthrough data reflect retrieval quality?": as captains pick players,
the rankings take turns in adding their best job that is not yet in the list; a coin decides who picks first in every
round of two. Each visitor sees both, so a preference shows with a small fraction of the visits an A/B test needs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.stats import beta, binomtest

from rolecall.platform.errors import InputError

Team = Literal["first", "second"]


@dataclass(frozen=True, kw_only=True)
class Interleaved:
    """One list for one visit. `teams`: whose pick each job was."""

    job_ids: tuple[str, ...]
    teams: tuple[Team, ...]

    def credit(self, wanted: AbstractSet[str]) -> int:
        """Picks of the first team among the `wanted` jobs (clicked, applied to) minus those of the second."""
        earned = [team for job, team in zip(self.job_ids, self.teams, strict=True) if job in wanted]
        return earned.count("first") - earned.count("second")


@dataclass(frozen=True, kw_only=True)
class Preference:
    """What the visits of an interleaving test say. `share`: of the first ranking among decided visits, ties counted
    half (Chapelle et al. 2012, delta + 1/2), with the exact 95% interval `low`, `high` of wins among decided visits;
    `p_value`: two-sided sign test of no preference."""

    wins: int
    losses: int
    ties: int
    share: float
    low: float
    high: float
    p_value: float

    def preferred(self, level: float = 0.05) -> Team | None:
        """The ranking that people prefer, None where that is not shown at this level. Look at it once, at the end of
        a test whose length was set before it."""
        if self.p_value > level:
            return None
        return "first" if self.wins > self.losses else "second"


def team_draft(first: Sequence[str], second: Sequence[str], *, limit: int, seed: str) -> Interleaved:
    """Interleave two rankings to at most `limit` jobs. The same `seed` (an experiment's salt and the request id) gives
    the same list. Each team's picks keep the order of its ranking, and a ranking that has run out passes.

    Raises InputError for a ranking that names a job twice, or a limit below 1.
    """
    for ranking in (first, second):
        if len(set(ranking)) != len(ranking):
            raise InputError("a ranking that names a job twice", "each job once")
    if limit < 1:
        raise InputError(f"limit {limit}", "at least 1")
    digest = hashlib.blake2b(seed.encode(), digest_size=8, person=b"team draft").digest()
    random = np.random.default_rng(int.from_bytes(digest, "big"))
    left: dict[Team, list[str]] = {"first": list(reversed(first)), "second": list(reversed(second))}
    picked: dict[str, Team] = {}
    while len(picked) < limit and any(left.values()):
        order: tuple[Team, Team] = ("first", "second") if random.random() < 0.5 else ("second", "first")
        for team in order:
            job = _best(left[team], picked)
            if job is not None and len(picked) < limit:
                picked[job] = team
    return Interleaved(job_ids=tuple(picked), teams=tuple(picked.values()))


def _best(ranking: list[str], picked: dict[str, Team]) -> str | None:
    """Take the next job that is not in the list yet off a ranking that has its best at the end."""
    while ranking:
        job = ranking.pop()
        if job not in picked:
            return job
    return None


def preference(credits: Sequence[int], candidate_ids: Sequence[str]) -> Preference:
    """Which ranking won, a vote a candidate: the sign of the sum of `credits` of all their visits, since visits of one
    person are not independent. Raises InputError where the two are not of one length."""
    if len(credits) != len(candidate_ids):
        raise InputError(f"{len(credits)} credits, {len(candidate_ids)} candidates", "one a visit")
    sums: dict[str, int] = {}
    for credit, who in zip(credits, candidate_ids, strict=True):
        sums[who] = sums.get(who, 0) + credit
    votes = np.sign(list(sums.values()))
    wins, losses, ties = (int((votes == sign).sum()) for sign in (1, -1, 0))
    decided, told = wins + losses, max(len(votes), 1)
    return Preference(
        wins=wins,
        losses=losses,
        ties=ties,
        share=(wins + ties / 2) / told if len(votes) else float("nan"),
        low=float(beta.ppf(0.025, wins, losses + 1)) if wins else 0.0,
        high=float(beta.ppf(0.975, wins + 1, losses)) if losses else 1.0,
        p_value=float(binomtest(wins, decided).pvalue) if decided else 1.0,
    )
