"""Who sees which arm of an experiment: a pure function of the experiment's name and the unit, nothing else.

No table, no state, no clock: every replica, the log's reader and next month's analysis compute the same arm. The name
salts the hash, so arms of different experiments are independent of each other (Kohavi, Tang and Xu 2020, chapter 14).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from rolecall.platform.errors import InputError

_SPACE = 2**64


@dataclass(frozen=True, kw_only=True)
class ArmShare:
    """One arm and its share of the units in the experiment."""

    name: str
    share: float


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An A/B test. `name` is its salt: a second run under the same name gets the same people into the same arms.

    `arms` share out the units that take part, in their order; `traffic` of all units do. Raising `traffic` moves
    nobody who took part already. Raises InputError for shares that do not add up to 1, or names given twice.
    """

    name: str
    arms: tuple[ArmShare, ...]
    traffic: float = 1.0

    def __post_init__(self) -> None:
        names = [arm.name for arm in self.arms]
        shares = [arm.share for arm in self.arms]
        if not self.name or not all(names):
            raise InputError("an experiment or an arm without a name", "a name each")
        if len(set(names)) != len(names) or len(names) < 2:
            raise InputError(f"arms {names}", "two or more arms, each named once")
        if not all(share > 0 for share in shares) or not math.isclose(sum(shares), 1.0, abs_tol=1e-9):
            raise InputError(f"shares {shares}", "positive shares that add up to 1")
        if not 0 < self.traffic <= 1:
            raise InputError(f"traffic {self.traffic}", "above 0, at most 1")


def assign(experiment: Experiment, unit: str) -> str | None:
    """The arm of a unit (a candidate id); None where the unit does not take part."""
    if position(f"{experiment.name}\0traffic", unit) >= experiment.traffic:
        return None
    at, bound = position(experiment.name, unit), 0.0
    for arm in experiment.arms[:-1]:
        bound += arm.share
        if at < bound:
            return arm.name
    return experiment.arms[-1].name


def position(salt: str, unit: str) -> float:
    """Where a unit falls in [0, 1): the 64 bits of BLAKE2b of salt and unit, the salt's length before it, so that no
    two pairs read alike."""
    salted = salt.encode()
    digest = hashlib.blake2b(len(salted).to_bytes(4, "big") + salted + unit.encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / (_SPACE >> 11)
