"""A LightGBM ranker of a release: model text, the columns it reads, and for the fine one a calibrator.

The text is parsed by native code that trusts it: give it only bytes whose sha256 was verified.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Literal

import lightgbm
import numpy as np

from rolecall.features.catalogue import Floats
from rolecall.features.pairs import check_columns
from rolecall.platform.errors import IntegrityError


@dataclass(frozen=True, kw_only=True)
class Calibrator:
    """Turns a ranking score into a probability; never changes an order.

    `isotonic`: piecewise linear through the knots (x rising, y not falling), flat outside.
    `platt`: 1 / (1 + exp(-(x[0] * score + y[0]))), x[0] >= 0.
    """

    kind: Literal["isotonic", "platt"]
    x: tuple[float, ...]
    y: tuple[float, ...]

    def __post_init__(self) -> None:
        right = {"isotonic": self._is_isotonic, "platt": self._is_platt}.get(self.kind)
        if not self.x or len(self.x) != len(self.y) or right is None or not right():
            raise IntegrityError(
                f"a {self.kind} calibrator with x {self.x[:5]}, y {self.y[:5]}",
                "isotonic: x rising, y not falling and within [0, 1]; platt: one x >= 0 and one y",
                "fit it again",
            )

    def _is_isotonic(self) -> bool:
        return all(a < b for a, b in pairwise(self.x)) and all(a <= b for a, b in pairwise((0.0, *self.y, 1.0)))

    def _is_platt(self) -> bool:
        return len(self.x) == 1 and self.x[0] >= 0 and math.isfinite(self.x[0] + self.y[0])

    def probability(self, scores: Floats) -> Floats:
        if self.kind == "isotonic":
            return np.interp(scores, self.x, self.y).astype(np.float32)
        return np.asarray(1 / (1 + np.exp(-(self.x[0] * scores + self.y[0]))), np.float32)

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Calibrator:
        """Raises IntegrityError where the text is not a calibrator."""
        try:
            read = json.loads(text)
            return cls(kind=read["kind"], x=tuple(map(float, read["x"])), y=tuple(map(float, read["y"])))
        except (KeyError, TypeError, ValueError) as error:
            raise IntegrityError(f"calibrator {text[:80]!r}", '{"kind": .., "x": [..], "y": [..]}') from error


class Ranker:
    """Scores feature rows with one booster. `columns`: the names it was trained on, in order."""

    def __init__(
        self,
        model: str,
        columns: Sequence[str],
        *,
        calibrator: Calibrator | None = None,
        threads: int = 1,
        check: Callable[[Sequence[str]], None] = check_columns,
    ) -> None:
        """`check`: raises InputError on an unknown column. IntegrityError where the model reads another number."""
        check(columns)
        self.columns = tuple(columns)
        self.calibrator = calibrator
        self._threads = threads
        self._booster = lightgbm.Booster(model_str=model)
        if self._booster.num_feature() != len(self.columns):
            raise IntegrityError(
                f"a model of {self._booster.num_feature()} columns with {len(self.columns)} names",
                "the columns it was trained on",
                "build the release again",
            )

    def score(self, matrix: Floats) -> Floats:
        """Raw scores float32[n] of matrix float32[n, len(columns)], larger is better."""
        if not len(matrix):
            return np.zeros(0, np.float32)
        return np.asarray(self._booster.predict(matrix, num_threads=self._threads), np.float32)

    def probability(self, scores: Floats) -> Floats:
        """Calibrated probabilities of raw scores; without a calibrator the logistic function of the score."""
        if self.calibrator is None:
            return np.asarray(1 / (1 + np.exp(-scores)), np.float32)
        return self.calibrator.probability(scores)


class ColumnSum:
    """What ranks where there was nothing to learn from: the sum of some columns that lie in [0, 1], unknown as 0."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)

    def score(self, matrix: Floats) -> Floats:
        """float32[n] of matrix float32[n, len(columns)], larger is better."""
        return np.asarray(np.nan_to_num(matrix, nan=0.0).sum(axis=1), np.float32)

    def probability(self, scores: Floats) -> Floats:
        """The mean of the columns: good for order alone."""
        return np.asarray(np.clip(scores / len(self.columns), 0, 1), np.float32)
