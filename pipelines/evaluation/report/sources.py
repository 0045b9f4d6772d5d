"""What a report is made from, by shape: the evaluation, the verdict and the fairness audit satisfy these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

Values = npt.NDArray[np.float64]
"""One number a target; NaN where it does not apply."""


class IntervalLike(Protocol):
    """A mean with its 95% interval over `count` values."""

    @property
    def mean(self) -> float: ...
    @property
    def low(self) -> float: ...
    @property
    def high(self) -> float: ...
    @property
    def count(self) -> int: ...


class BinLike(Protocol):
    """Predictions of like size: their mean, the share that came true, how many."""

    @property
    def predicted(self) -> float: ...
    @property
    def observed(self) -> float: ...
    @property
    def count(self) -> int: ...


class CalibrationLike(Protocol):
    """Calibration of a probability, and the expected error of a constant beside its own."""

    @property
    def slope(self) -> float: ...
    @property
    def slope_low(self) -> float: ...
    @property
    def slope_high(self) -> float: ...
    @property
    def intercept(self) -> float: ...
    @property
    def ece(self) -> float: ...
    @property
    def constant_ece(self) -> float: ...
    @property
    def bins(self) -> Sequence[BinLike]: ...


class ImpressionsLike(Protocol):
    """How good the probabilities are that the release gives to logged impressions."""

    @property
    def auc(self) -> float: ...
    @property
    def grouped_auc(self) -> float: ...
    @property
    def normalized_entropy(self) -> float: ...
    @property
    def base_rate(self) -> float: ...
    @property
    def count(self) -> int: ...
    @property
    def calibration(self) -> CalibrationLike: ...


class Judged(Protocol):
    """An evaluation: per-target values of every system, its stages and slices, and the lists it gave."""

    @property
    def targets(self) -> Sequence[Any]: ...
    @property
    def systems(self) -> Mapping[str, Mapping[str, Values]]: ...
    @property
    def stages(self) -> Mapping[str, Values]: ...
    @property
    def slices(self) -> Mapping[str, Values]: ...
    @property
    def reachable(self) -> Values: ...
    @property
    def milliseconds(self) -> Values: ...
    @property
    def lists(self) -> Mapping[str, Sequence[Sequence[str]]]: ...
    @property
    def catalogue(self) -> Mapping[str, Mapping[str, float]]: ...
    @property
    def impressions(self) -> ImpressionsLike | None: ...
    def interval(self, values: Values) -> IntervalLike: ...


class CheckLike(Protocol):
    """One check of the gate."""

    @property
    def name(self) -> str: ...
    @property
    def ok(self) -> bool: ...
    @property
    def detail(self) -> str: ...
    @property
    def evidence(self) -> Mapping[str, float | str | None]: ...


class RulesLike(Protocol):
    """Rules that can be told: a pydantic model."""

    def model_dump(self, *, mode: str) -> dict[str, Any]: ...


class VerdictLike(Protocol):
    """What the gate said, and by which rules."""

    @property
    def checks(self) -> Sequence[CheckLike]: ...
    @property
    def outcome(self) -> str: ...
    @property
    def rules(self) -> RulesLike: ...


class GapLike(Protocol):
    """The exposure one group got over that of the others."""

    @property
    def ratio(self) -> IntervalLike: ...
    @property
    def count(self) -> int: ...


class FairnessLike(Protocol):
    """What the fairness audit found."""

    @property
    def swaps(self) -> int: ...
    @property
    def changed(self) -> int: ...
    @property
    def exposure(self) -> Mapping[str, GapLike]: ...


class SupportLike(Protocol):
    """On how much an estimate from the log stands."""

    @property
    def visits(self) -> int: ...
    @property
    def effective(self) -> float: ...


class LogEstimateLike(Protocol):
    """What the log says of a release by one estimator."""

    @property
    def interval(self) -> IntervalLike: ...
    @property
    def support(self) -> SupportLike: ...
    @property
    def warnings(self) -> tuple[str, ...]: ...


class LogValueLike(Protocol):
    """What the log says of a release, and less the one it is compared with."""

    @property
    def release(self) -> Mapping[str, LogEstimateLike]: ...
    @property
    def differences(self) -> Mapping[str, IntervalLike]: ...
    @property
    def why(self) -> str: ...
