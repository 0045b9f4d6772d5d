"""Which range of a stream of values a quantiser should span: what is outside is clipped, what is inside rounded.

| observer | range | source |
|---|---|---|
| `MinMax` | the extremes seen | |
| `Percentile` | all but a share of the values, taken off in equal parts at either end | |
| `Entropy` | the clipping that changes the distribution least, by Kullback-Leibler divergence | Migacz, GTC 2017 |

Each sees batches of any shape through `observe` and then answers `range()`, (low, high) with low <= 0 <= high so that
zero has a code (Jacob et al., arXiv:1712.05877, section 2.1). The last two keep a histogram whose bins double in width
when a value falls outside, so memory is constant and no batch is kept; the same batches in the same order give the
same range. Values must be finite.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from rolecall.kernels.quantization import Affine, affine, symmetric

BINS = 2048
SMOOTHED = 1e-4


class Observer(Protocol):
    """Sees values, then says which range to span."""

    def observe(self, x: Tensor) -> None:
        """Takes note of finite values of any shape. Raises ValueError for others."""

    def range(self) -> tuple[float, float]:
        """(low, high), low <= 0 <= high. Raises ValueError where nothing was observed."""
        ...


class MinMax:
    """The extremes seen."""

    def __init__(self) -> None:
        self._low, self._high, self._seen = 0.0, 0.0, False

    def observe(self, x: Tensor) -> None:
        """Takes note of finite values of any shape. Raises ValueError for others."""
        x = _finite(x)
        if x.numel():
            self._seen = True
            self._low, self._high = min(self._low, float(x.min())), max(self._high, float(x.max()))

    def range(self) -> tuple[float, float]:
        """(lowest, highest), widened to hold 0. Raises ValueError where nothing was observed."""
        if not self._seen:
            raise ValueError(_NOTHING)
        return self._low, self._high


class Histogram:
    """Counts of values in `BINS` equal bins over [-limit, limit]; `limit` doubles until it holds what comes."""

    def __init__(self) -> None:
        self.limit = 0.0
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def add(self, x: Tensor) -> None:
        """Counts finite values."""
        x = _finite(x)
        peak = float(x.abs().max()) if x.numel() else 0.0
        if self.limit == 0.0:
            self.limit = peak or torch.finfo(torch.float32).tiny
        while peak > self.limit:
            inner = self.counts.view(BINS // 2, 2).sum(dim=1)
            self.counts = torch.nn.functional.pad(inner, (BINS // 4, BINS // 4))
            self.limit *= 2
        places = ((x / self.limit + 1) * (BINS / 2)).long().clamp(0, BINS - 1)
        self.counts += torch.bincount(places, minlength=BINS).double()

    def edges(self) -> Tensor:
        """float64 [BINS + 1]."""
        return torch.linspace(-self.limit, self.limit, BINS + 1, dtype=torch.float64)


class Percentile:
    """All but `1 - kept` of the values. A larger share clips more and rounds less; .999 to .99999 is usual."""

    def __init__(self, kept: float = 0.9999) -> None:
        if not 0 < kept <= 1:
            raise ValueError(f"got kept {kept}; allowed: above 0, at most 1")
        self._kept = kept
        self._histogram = Histogram()

    def observe(self, x: Tensor) -> None:
        """Takes note of finite values of any shape. Raises ValueError for others."""
        self._histogram.add(x)

    def range(self) -> tuple[float, float]:
        """Bin edges with at most half of `1 - kept` beyond each. Raises ValueError where nothing was observed."""
        counts, edges = self._histogram.counts, self._histogram.edges()
        total = float(counts.sum())
        if total == 0:
            raise ValueError(_NOTHING)
        outside = (1 - self._kept) / 2 * total
        below = int((counts.cumsum(0) <= outside).sum())
        above = int((counts.flip(0).cumsum(0) <= outside).sum())
        return min(0.0, float(edges[below])), max(0.0, float(edges[BINS - above]))


class Entropy:
    """The symmetric range (-t, t) whose quantised distribution of |x| diverges least from the distribution seen."""

    def __init__(self, levels: int = 127) -> None:
        if not 1 <= levels <= BINS // 4:
            raise ValueError(f"got levels {levels}; allowed: 1 to {BINS // 4}")
        self._levels = levels
        self._histogram = Histogram()

    def observe(self, x: Tensor) -> None:
        """Takes note of finite values of any shape. Raises ValueError for others."""
        self._histogram.add(x)

    def range(self) -> tuple[float, float]:
        """(-t, t). Raises ValueError where nothing was observed."""
        half = BINS // 2
        counts = self._histogram.counts[half:] + self._histogram.counts[:half].flip(0)
        if float(counts.sum()) == 0:
            raise ValueError(_NOTHING)
        last = int(counts.nonzero().max()) + 1
        sizes = range(min(self._levels + 1, half), max(last, self._levels + 1) + 1)
        best = min(sizes, key=lambda size: divergence(counts, size, self._levels + 1))
        limit = self._histogram.limit * min(best, last if last > self._levels else half) / half
        return -limit, limit


def divergence(counts: Tensor, size: int, levels: int) -> float:
    """KL(p || q): p the first `size` bins, what lies beyond added to the last; q those bins merged into `levels`.

    A merged bin's count is spread evenly over those of its bins that hold anything. A share of `SMOOTHED` of q is
    spread over all bins of p, so that a last bin which holds clipped values only costs what it weighs, not infinity.
    """
    kept = counts[:size]
    p = kept.clone()
    p[-1] += counts[size:].sum()
    group = torch.arange(size) * levels // size
    filled = (kept > 0).double()
    sums = torch.zeros(levels, dtype=torch.float64).index_add_(0, group, kept)
    full = torch.zeros(levels, dtype=torch.float64).index_add_(0, group, filled)
    q = (sums / full.clamp(min=1))[group] * filled
    inside = p > 0
    total = float(q.sum())
    if total == 0:
        return float("inf")
    p, q = p[inside] / p.sum(), q[inside] / total
    q = (1 - SMOOTHED) * q + SMOOTHED / len(q)
    return float((p * (p / q).log()).sum())


def quantiser(observer: Observer, *, bits: int = 8, is_symmetric: bool = True) -> Affine:
    """The scale and zero point that span the observer's range."""
    low, high = observer.range()
    return symmetric(max(-low, high), bits=bits) if is_symmetric else affine(low, high, bits=bits)


_NOTHING = "got no values; allowed: a range after at least one observed value; call observe first"


def _finite(x: Tensor) -> Tensor:
    x = x.detach().double().reshape(-1).cpu()
    if not bool(torch.isfinite(x).all()):
        raise ValueError("got a value that is not finite; allowed: finite numbers; drop or repair such rows first")
    return x
