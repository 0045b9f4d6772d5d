"""Counter-based randomness: a draw is a function of (seed, what it is for, which thing), never of who asked before.

`luck.uniform(Draw.CLICK, candidate, job, visit)` is the same number in every process, block and order of calls. So
blocks of a stream can be made in any order, and two policies tried on the same people share their luck (common
random numbers): where they show the same job at the same visit, the same thing happens.

The generator chains the finaliser of SplitMix64 (Steele, Lea and Flood 2014, "Fast splittable pseudorandom number
generators") over the keys.
"""

from __future__ import annotations

from enum import IntEnum, auto, unique
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

Key = int | npt.NDArray[Any]
Uniform = npt.NDArray[np.float64]

_GOLDEN = 0x9E3779B97F4A7C15
_MASK = 0xFFFFFFFFFFFFFFFF


@unique
class Draw(IntEnum):
    """What a draw is for. Adding one at the end changes no other draw."""

    DEMAND = auto()
    EMPLOYER = auto()
    RATING = auto()
    JOB = auto()
    JOB_SKILLS = auto()
    JOB_TEXT = auto()
    REPOST = auto()
    PERSON = auto()
    PERSON_SKILLS = auto()
    PERSON_TEXT = auto()
    DRIFT = auto()
    VISIT = auto()
    SHELF = auto()
    SLOT = auto()
    TASTE = auto()
    EXAMINE = auto()
    CLICK = auto()
    SAVE = auto()
    APPLY = auto()
    DISMISS = auto()
    DELAY = auto()
    BROWSE = auto()
    DWELL = auto()
    FIT = auto()
    ANSWER = auto()
    INVITE = auto()


def _mixed(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    x = x ^ (x >> np.uint64(30))
    x *= np.uint64(0xBF58476D1CE4E5B9)
    x ^= x >> np.uint64(27)
    x *= np.uint64(0x94D049BB133111EB)
    x ^= x >> np.uint64(31)
    return x


class Luck:
    """All draws of one seed."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def bits(self, draw: Draw, *keys: Key) -> npt.NDArray[np.uint64]:
        """64 random bits for every combination of the keys, which broadcast against each other."""
        start = (self._seed * _GOLDEN + int(draw) * 0xD1B54A32D192ED03) & _MASK
        state = _mixed(np.array([start], dtype=np.uint64))
        for key in keys:
            number = np.atleast_1d(np.asarray(key)).astype(np.uint64) + np.uint64(1)
            state = _mixed(state + number * np.uint64(_GOLDEN))
        return state

    def uniform(self, draw: Draw, *keys: Key) -> Uniform:
        """Numbers in (0, 1), never 0 nor 1."""
        shifted = (self.bits(draw, *keys) >> np.uint64(11)).astype(np.float64)
        return (shifted + 0.5) * 2.0**-53

    def normal(self, draw: Draw, *keys: Key) -> npt.NDArray[np.float64]:
        """Standard normal numbers, by inversion."""
        return np.asarray(ndtri(self.uniform(draw, *keys)))

    def gumbel(self, draw: Draw, *keys: Key) -> npt.NDArray[np.float64]:
        """Standard Gumbel numbers, by inversion."""
        return np.asarray(-np.log(-np.log(self.uniform(draw, *keys))))

    def exponential(self, draw: Draw, *keys: Key) -> npt.NDArray[np.float64]:
        """Exponential numbers of mean 1, by inversion."""
        return np.asarray(-np.log(self.uniform(draw, *keys)))

    def subset(
        self, draw: Draw, numbers: npt.NDArray[Any], weights: npt.NDArray[np.float64], *keys: int
    ) -> npt.NDArray[np.intp]:
        """A random order of the `weights` for each number [N, size]: its first k are k draws without replacement, each
        with probability proportional to its weight among those left (Efraimidis and Spirakis 2006)."""
        clocks = self.exponential(draw, numbers[:, None], np.arange(len(weights)), *keys) / weights
        return np.argsort(clocks, axis=1, kind="stable")


def pick(uniform: npt.NDArray[np.float64], cumulated: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Positions drawn with the weights whose running sum is `cumulated`, by inversion."""
    found = np.searchsorted(cumulated, uniform * cumulated[-1], side="right")
    return np.minimum(found, len(cumulated) - 1)
