"""What a feature is, in words a page can print: name, kind, meaning, unit, window; and where its values come from.

Definitions only: nothing here computes. The views are put together in `features/views.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["number", "text", "list"]
"""A float64 (NULL where unknown), a string, or a list of strings."""

AS_RECORDED = "the newest record"
EVER = "all time"


@dataclass(frozen=True, kw_only=True)
class Feature:
    """One column of a feature view, or one value computed at a request.

    `meaning`: one sentence without a full stop. `unit`: what one of it is ("jobs", "share", "km", "seconds"; "" for
    texts). `window`: the time it looks at ("7 days", `EVER`, `AS_RECORDED`). `internal`: no ranker reads it as it
    is; others are computed from it, or nothing shows that it ranks better.
    """

    name: str
    kind: Kind = "number"
    meaning: str
    unit: str = ""
    window: str = AS_RECORDED
    internal: bool = False


@dataclass(frozen=True, kw_only=True)
class Source:
    """The table a view's rows are computed from, and the columns of it that are read."""

    table: str
    columns: tuple[str, ...]


def names(features: Iterable[Feature], kind: Kind | None = None) -> tuple[str, ...]:
    """Names of the features, of one kind where one is given, in order."""
    return tuple(feature.name for feature in features if kind is None or feature.kind == kind)
