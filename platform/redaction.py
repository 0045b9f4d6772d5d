"""No person in a log: the one place where records lose what must not be written.

    with personal_scope():                  # around the work for one person (a request)
        note_personal("c-17", resume)       # whatever is logged inside, by whomever, loses these
        ...

Three rules, on the finished record, tracebacks included:

- a key that names something personal loses its value (`candidate_id`, `resume_text`, `profile`, ...);
- a text loses every value that was noted in the scope it was written in;
- a text loses what stands behind such a key in it: `candidate_id='c-17'`, `"resume_text": "..."`, `input_value=...`.

Local variables of stack frames are never written. A request id is written as the client gave it: it must not be made
of a person's id.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

REDACTED = "[personal]"
PERSONAL_KEYS = frozenset(
    {
        "candidate", "candidate_id", "candidate_ids", "desired_titles", "email", "experience", "first_name",
        "full_name", "input_value", "last_name", "person", "phone", "profile", "resume", "resume_text", "skills",
        "user_id",
    }
)  # fmt: skip
LEAST_CHARACTERS = 2
"""Shorter values occur in every text."""

_QUOTED = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|\[[^\]]*\]|\([^)]*\)|\{[^}]*\}|[^\s,;)}\]]+"""
_BEHIND_KEY = re.compile(rf"""\b({"|".join(sorted(PERSONAL_KEYS))})(["']?\s*[=:]\s*)(?:{_QUOTED})""")
_noted: ContextVar[set[str] | None] = ContextVar("rolecall_personal", default=None)


@contextmanager
def personal_scope() -> Iterator[None]:
    """What is noted inside is kept out of every record written inside, in this thread or task."""
    token = _noted.set(set())
    try:
        yield
    finally:
        _noted.reset(token)


def note_personal(*values: str | None) -> None:
    """These texts must not be logged in the present scope; without a scope nothing happens."""
    noted = _noted.get()
    if noted is not None:
        noted.update(value for value in values if value and len(value) >= LEAST_CHARACTERS)


def redact(_logger: Any, _method: str, record: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """The structlog processor: the last before the record is written."""
    noted = _pattern(_noted.get() or set())
    for key, value in record.items():
        record[key] = REDACTED if key in PERSONAL_KEYS else _cleaned(value, noted)
    return record


def redacted(text: str) -> str:
    """A text under the same rules."""
    return str(_cleaned(text, _pattern(_noted.get() or set())))


def _pattern(noted: set[str]) -> re.Pattern[str] | None:
    if not noted:
        return None
    forms = {form for value in noted for form in (value, repr(value)[1:-1], ascii(value)[1:-1])}
    words = "|".join(re.escape(form) for form in sorted(forms, key=len, reverse=True))
    return re.compile(rf"(?<![\w-])(?:{words})(?![\w-])")


def _cleaned(value: Any, noted: re.Pattern[str] | None) -> Any:
    if isinstance(value, str):
        text = noted.sub(REDACTED, value) if noted else value
        return _BEHIND_KEY.sub(rf"\1\2{REDACTED}", text)
    if isinstance(value, Mapping):
        return {k: REDACTED if k in PERSONAL_KEYS else _cleaned(inner, noted) for k, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(inner, noted) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return _cleaned(str(value), noted)
