"""A table with a drawing in it: one row a thing, its numbers always written out beside the mark."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from markupsafe import Markup

from rolecall.pipelines.evaluation.report import wording
from rolecall.pipelines.evaluation.report.figures import Estimate

NONE = "\u2013"


@dataclass(frozen=True, kw_only=True)
class Row:
    """`cells` stand under the table's heads, after the drawing."""

    label: str
    note: str = ""
    kind: str = ""
    strip: Markup
    cells: tuple[Markup, ...]


@dataclass(frozen=True, kw_only=True)
class Group:
    name: str
    rows: tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Forest:
    """A table whose second column is drawn. `axis`: the drawing's ticks, below it."""

    caption: str
    meaning: str = ""
    first: str
    heads: tuple[str, ...]
    groups: tuple[Group, ...]
    axis: Markup


def figure(value: float | None, write: Callable[[float | None], str] = wording.number) -> Markup:
    """A number as text that can be selected, with its whole value for a program."""
    if value is None or not math.isfinite(value):
        return Markup(NONE)
    return Markup('<data value="{}">{}</data>').format(repr(float(value)), write(value))


def interval(estimate: Estimate | None, write: Callable[[float | None], str] = wording.number) -> Markup:
    """The mean and its interval."""
    if estimate is None or not estimate.known:
        return Markup(NONE)
    return Markup('<b>{}</b> <span class="ci">[{}, {}]</span>').format(
        figure(estimate.mean, write), figure(estimate.low, write), figure(estimate.high, write)
    )


def evidence(value: float | str | None) -> Markup | str:
    """A number of a verdict in full, a text as it is."""
    if isinstance(value, str):
        return wording.plain(value, 600)
    return figure(value, lambda known: wording.number(known, 4))
