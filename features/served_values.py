"""What is compared between an answer and its replay: one function tells it of a context, online and offline alike."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from rolecall.features.context import CandidateContext

_LISTS = ("desired_titles", "skills", "past_employers", "history")
_TEXTS = (*_LISTS, "seniority", "city", "region", "country", "lat", "lon")
_RELATIVE = 1e-6
"""Job features are served as float32."""


def candidate_values(context: CandidateContext) -> dict[str, Any]:
    """Features of a candidate by name, as JSON has them. Of the résumé a digest: the text itself is kept in one place.

    A number that is not known is absent.
    """
    values: dict[str, Any] = {name: _plain(getattr(context, name)) for name in _TEXTS}
    values["resume"] = hashlib.blake2b(context.resume_text.encode(), digest_size=8).hexdigest()
    values["applied"], values["dismissed"] = sorted(context.applied), sorted(context.dismissed)
    return values | {f"activity.{name}": value for name, value in sorted(context.activity.items())}


def equal(served: object, replayed: object) -> bool:
    """Whether two values are one; numbers up to the rounding of float32, unknown equal to unknown."""
    if isinstance(served, int | float) and isinstance(replayed, int | float):
        if math.isnan(served) or math.isnan(replayed):
            return math.isnan(served) and math.isnan(replayed)
        return math.isclose(served, replayed, rel_tol=_RELATIVE, abs_tol=1e-9)
    return served == replayed


def unequal(served: Mapping[str, Any], replayed: Mapping[str, Any]) -> list[str]:
    """Names whose values differ, or that one side alone has."""
    names = sorted({*served, *replayed})
    return [name for name in names if not equal(served.get(name), replayed.get(name))]


def _plain(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value
