"""Whom an erasure is about, and how to recognise them in rows, texts and bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any
from urllib.parse import quote

from rolecall.platform.errors import InputError

SHORTEST_TEXT = 24
"""A shorter text is shared by too many people to tell one of them."""

CANDIDATE = "candidate_id"


@dataclass(frozen=True, kw_only=True)
class Person:
    """A candidate by id, with the long texts that only they wrote."""

    candidate_id: str
    texts: tuple[str, ...] = ()

    def is_them(self, candidate_id: str) -> bool:
        """Whether an id is theirs."""
        return candidate_id == self.candidate_id

    def named_in(self, text: str) -> bool:
        """Whether a text holds the id as a word of its own, or one of the person's texts, plain or escaped."""
        return any(needle in text for needle in self._long) or self._id.search(text) is not None

    def mask(self, content: bytes) -> bytes:
        """The bytes with every mention overwritten by stars; as long as before."""
        masked = self._id_bytes.sub(lambda found: b"*" * len(found.group()), content)
        for needle in self._long:
            masked = masked.replace(needle.encode(), b"*" * len(needle.encode()))
        return masked

    @property
    def needles(self) -> tuple[bytes, ...]:
        """The id as it may stand in a file: UTF-8, escaped as JSON does, encoded as a URL does."""
        return tuple(form.encode() for form in _forms(self.candidate_id))

    @cached_property
    def _long(self) -> tuple[str, ...]:
        return tuple(form for text in self.texts for form in _forms(text))

    @cached_property
    def _id(self) -> re.Pattern[str]:
        return re.compile(_word(self.candidate_id))

    @cached_property
    def _id_bytes(self) -> re.Pattern[bytes]:
        forms = b"|".join(re.escape(needle) for needle in sorted(self.needles, key=len, reverse=True))
        return re.compile(rb"(?<![A-Za-z0-9_-])(?:" + forms + rb")(?![A-Za-z0-9_-])")


def person_of(candidate_id: str, profiles: list[Mapping[str, Any]]) -> Person:
    """The person with the texts of these profile rows. Raises InputError for a blank id: every text holds that."""
    if not candidate_id.strip():
        raise InputError("a blank candidate id", "the id as the tables and events name it")
    texts: list[str] = []
    for row in profiles:
        texts.append(row.get("resume_text") or "")
        texts += [position.get("description") or "" for position in row.get("experience") or ()]
    return Person(
        candidate_id=candidate_id, texts=tuple(dict.fromkeys(text for text in texts if len(text) >= SHORTEST_TEXT))
    )


def _forms(text: str) -> tuple[str, ...]:
    plain, escaped = json.dumps(text, ensure_ascii=False)[1:-1], json.dumps(text)[1:-1]
    return tuple(dict.fromkeys((text, plain, escaped, escaped.replace("\\u", "\\\\u"), quote(text, safe=""))))


def _word(name: str) -> str:
    """A pattern for the id in any of its forms, not inside a longer word."""
    forms = "|".join(re.escape(form) for form in sorted(_forms(name), key=len, reverse=True))
    return rf"(?<![\w-])(?:{forms})(?![\w-])"
