"""Small SVG drawings for a page that is read at any width.

Positions are percentages, so that a drawing stretches with its column while strokes, marks and letters keep their
size: a picture scaled down to a phone could not be read. Every drawing stands beside its numbers in a table.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from rolecall.pipelines.evaluation.report.figures import Bin, Estimate, Kind

_EDGE = 2.0
"""Percent left free on both sides, for marks and letters at the ends."""

_STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)
_LARGEST_DOT = 9.0
_SPREAD = 15.0
"""The largest over the lowest quarter's end, from which probabilities are drawn on a logarithmic axis."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """From `low` to `high`, linear or logarithmic. `at` gives percent of the width."""

    low: float
    high: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """Values beyond the ends stand at the ends."""
        low, high, here = self.low, self.high, min(max(value, self.low), self.high)
        if self.log:
            low, high, here = math.log(low), math.log(high), math.log(here)
        return _EDGE + (100 - 2 * _EDGE) * (here - low) / (high - low)

    def label(self, tick: float) -> str:
        """As many places as tell two ticks apart."""
        if self.log:
            return f"{tick:g}"
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else abs(tick)
        places = max(0, -math.floor(math.log10(step) + 1e-9)) if step > 0 else 0
        places += step > 0 and abs(round(step, places) - step) > step * 1e-6
        return f"{tick + 0.0:,.{places}f}".replace("-", "\u2212")


def axis_over(values: Iterable[float], *, most: int = 6) -> Axis:
    """A linear axis over all finite values that ends on round numbers, with at most `most` ticks."""
    known = [value for value in values if math.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    step = _step((high - low) / max(most - 1, 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    while last - first + 1 > most:
        step = _step(step * 1.01)
        first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(place * step, 12) for place in range(first, last + 1))
    return Axis(low=ticks[0], high=ticks[-1], ticks=ticks)


def log_axis(low: float, high: float, *, most: int = 6) -> Axis:
    """A logarithmic axis over positive values; its ticks are 1, 2 and 5 times powers of ten, or powers alone."""
    high = max(high, low * 1.01)
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        ticks = [factor * 10.0**power for power in powers for factor in factors]
        inside = tuple(tick for tick in ticks if low <= tick <= high)
        if len(inside) <= most:
            break
    return Axis(low=low, high=high, ticks=inside[:: math.ceil(len(inside) / most) or 1], log=True)


def axis_strip(axis: Axis) -> Markup:
    """The ticks of an axis with their numbers."""
    marks = (
        f'<text x="{_p(axis.at(tick))}" y="16" text-anchor="middle">{axis.label(tick)}</text>' for tick in axis.ticks
    )
    return _svg("axis", "".join(marks))


def interval_strip(
    axis: Axis, estimate: Estimate, kind: Kind, *, beside: Estimate | None = None, reference: float | None = None
) -> Markup:
    """A dot with its interval; `beside`: the champion's, below it; `reference`: a line to compare with."""
    shared = beside is not None and beside.known
    drawn = [_grid(axis)]
    if reference is not None:
        drawn.append(_vertical(axis.at(reference), "reference"))
    if estimate.known:
        drawn.append(_whisker(axis, estimate, kind, "36%" if shared else "50%"))
    if beside is not None and beside.known:
        drawn.append(_whisker(axis, beside, "champion", "70%"))
    return _svg("strip", "".join(drawn))


def bar_strip(axis: Axis, value: float, kind: Kind, *, beside: float | None = None) -> Markup:
    """A bar from zero; `beside`: the champion's mark."""
    drawn = [_grid(axis)]
    if math.isfinite(value):
        start, end = sorted((axis.at(0.0), axis.at(value)))
        drawn.append(
            f'<rect class="{kind} bar" x="{_p(start)}" y="25%" width="{_p(end - start)}" height="50%" rx="2"/>'
        )
    if beside is not None and math.isfinite(beside):
        drawn.append(_diamond(_p(axis.at(beside)), "50%"))
    return _svg("strip", "".join(drawn))


def shares_strip(wins: int, ties: int, losses: int) -> Markup:
    """Wins, ties and losses as parts of one bar."""
    total, begun, drawn = max(wins + ties + losses, 1), 0.0, []
    for name, count in (("win", wins), ("tie", ties), ("loss", losses)):
        width = 100 * count / total
        drawn.append(f'<rect class="{name}" x="{_p(begun)}" y="25%" width="{_p(width)}" height="50%"/>')
        begun += width
    return _svg("strip", "".join(drawn))


@dataclass(frozen=True, kw_only=True)
class Plot:
    """A plot with both axes: drawings for the upright axis, the field and the level axis."""

    upright: Markup
    field: Markup
    level: Markup
    log: bool = False


def calibration_plot(bins: Sequence[Bin]) -> Plot | None:
    """Predicted against observed; the dot's area is the number of impressions. None without a bin."""
    if not bins:
        return None
    axis = _probabilities([value for one in bins for value in (one.predicted, one.observed)])
    most = max(one.count for one in bins)
    points = [(axis.at(one.predicted), 100 - axis.at(one.observed), one) for one in bins]
    ends = (axis.at(axis.low), axis.at(axis.high))
    drawn = [_grid(axis), _level_grid(axis), _segment(ends[0], 100 - ends[0], ends[1], 100 - ends[1], "reference")]
    drawn += [_segment(a[0], a[1], b[0], b[1], "release curve") for a, b in pairwise(points)]
    drawn += [
        f'<circle class="release dot" cx="{_p(x)}" cy="{_p(y)}" r="{_radius(one.count, most):.1f}"/>'
        for x, y, one in points
    ]
    return Plot(upright=_upright(axis), field=_svg("field", "".join(drawn)), level=axis_strip(axis), log=axis.log)


def histogram_plot(bins: Sequence[tuple[float, float, int]], marks: Sequence[tuple[str, float]]) -> Plot | None:
    """Counts by duration on a logarithmic axis, with named marks. None without a bin."""
    if not bins:
        return None
    axis = log_axis(bins[0][0], bins[-1][1])
    counts = axis_over([0.0, *(float(count) for _, _, count in bins)], most=4)
    drawn = [_level_grid(counts)]
    for low, high, count in bins:
        start, width, top = axis.at(low), axis.at(high) - axis.at(low), 100 - counts.at(count)
        drawn.append(
            f'<rect class="release bar" x="{_p(start)}" y="{_p(top)}" width="{_p(max(width - 0.3, 0.3))}" '
            f'height="{_p(100 - counts.at(0) - top)}"/>'
        )
    for row, (name, value) in enumerate(marks):
        x = axis.at(value)
        anchor = "end" if x > 50 else "start"
        drawn.append(_vertical(x, "reference"))
        drawn.append(
            f'<text x="{_p(x)}" y="{14 + 16 * row}" dx="{-5 if x > 50 else 5}" text-anchor="{anchor}">{name}</text>'
        )
    return Plot(upright=_upright(counts), field=_svg("field", "".join(drawn)), level=axis_strip(axis))


def _probabilities(values: Sequence[float]) -> Axis:
    """From nought; logarithmic where most of them would lie on one another. A nought then stands at the lower end."""
    known = [value for value in values if math.isfinite(value)]
    positive = [value for value in known if value > 0]
    if positive and max(positive) > _SPREAD * sorted(positive)[len(positive) // 4]:
        return log_axis(min(positive) / 1.2, max(positive) * 1.2)
    return axis_over([0.0, *known])


def _step(least: float) -> float:
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in _STEPS if factor * power >= least * (1 - 1e-9))


def _svg(name: str, drawn: str) -> Markup:
    return Markup(f'<svg class="{name}" aria-hidden="true" focusable="false">{drawn}</svg>')  # numbers only


def _p(percent: float) -> str:
    return f"{percent:.2f}%"


def _radius(count: int, most: int) -> float:
    return 2.5 + (_LARGEST_DOT - 2.5) * math.sqrt(count / most) if most else 2.5


def _vertical(x: float, name: str) -> str:
    return f'<line class="{name}" x1="{_p(x)}" x2="{_p(x)}" y1="0" y2="100%"/>'


def _segment(x1: float, y1: float, x2: float, y2: float, name: str) -> str:
    return f'<line class="{name}" x1="{_p(x1)}" y1="{_p(y1)}" x2="{_p(x2)}" y2="{_p(y2)}"/>'


def _grid(axis: Axis) -> str:
    return "".join(_vertical(axis.at(tick), "grid") for tick in axis.ticks)


def _level_grid(axis: Axis) -> str:
    heights = (100 - axis.at(tick) for tick in axis.ticks)
    return "".join(f'<line class="grid" x1="0" x2="100%" y1="{_p(y)}" y2="{_p(y)}"/>' for y in heights)


def _upright(axis: Axis) -> Markup:
    marks = (
        f'<text x="100%" y="{_p(100 - axis.at(tick))}" dy="4" dx="-6" text-anchor="end">{axis.label(tick)}</text>'
        for tick in axis.ticks
    )
    return _svg("upright", "".join(marks))


def _whisker(axis: Axis, estimate: Estimate, kind: Kind, y: str) -> str:
    low, mean, high = (_p(axis.at(value)) for value in (estimate.low, estimate.mean, estimate.high))
    line = f'<line class="{kind} whisker" x1="{low}" x2="{high}" y1="{y}" y2="{y}"/>'
    return line + (
        _diamond(mean, y) if kind == "champion" else f'<circle class="{kind} dot" cx="{mean}" cy="{y}" r="4.5"/>'
    )


def _diamond(x: str, y: str) -> str:
    return f'<svg x="{x}" y="{y}" overflow="visible"><path class="champion dot" d="M0-6 6 0 0 6-6 0z"/></svg>'
