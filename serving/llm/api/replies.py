"""The JSON of OpenAI's replies and chunks, as plain dictionaries: they are written many times a second.

The fields, and which are null when, are those of OpenAI's API reference: a stream's first chunk of a choice says the
role, `finish_reason` is null until the choice's last chunk, whose delta is empty, and with `include_usage` every
chunk has `usage: null` but the last, which has usage and no choices.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

Body = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class ScoredToken:
    """A token, its natural log-probability (None: the first of a prompt has none), and the best at its place."""

    text: str
    raw: bytes
    logprob: float | None
    best: tuple[tuple[str, bytes, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one reply; `cached` of the prompt's were not computed again."""

    prompt: int
    completion: int
    cached: int = 0

    def body(self) -> Body:
        """As it is written."""
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
            "prompt_tokens_details": {"cached_tokens": self.cached},
        }


@dataclass(kw_only=True)
class Piece:
    """What a choice gained since the last time. `finish_reason` ends it."""

    index: int
    text: str
    scored: Sequence[ScoredToken] = field(default_factory=tuple)
    finish_reason: str | None = None


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """What every object of one reply repeats. `kind`: which of the two APIs."""

    kind: Literal["chat", "text"]
    id: str
    model: str
    fingerprint: str
    with_usage: bool = False
    created: int = field(default_factory=lambda: int(time.time()))

    def opening(self, index: int) -> Body | None:
        """A choice's first chunk; text completions have none."""
        if self.kind == "text":
            return None
        return self._chunk([_choice(index, delta={"role": "assistant", "content": ""})])

    def chunks(self, piece: Piece, *, scored: bool, offset: int = 0) -> list[Body]:
        """The chunks of a piece. `scored`: logprobs were asked for; `offset`: characters of the choice before it."""
        made = []
        text = self.kind == "text"
        if piece.text or piece.scored:
            logprobs = self._logprobs(piece.scored, offset) if scored else None
            said: Body = {"text": piece.text} if text else {"delta": {"content": piece.text}}
            made.append(self._chunk([_choice(piece.index, logprobs=logprobs, **said)]))
        if piece.finish_reason is not None:
            said = {"text": ""} if text else {"delta": {}}
            made.append(self._chunk([_choice(piece.index, finish_reason=piece.finish_reason, **said)]))
        return made

    def usage_chunk(self, usage: Usage) -> Body:
        """The one without choices."""
        return self._chunk([]) | {"usage": usage.body()}

    def reply(self, pieces: Sequence[Piece], usage: Usage, *, scored: bool) -> Body:
        """All at once: one whole piece a choice."""
        choices = []
        for piece in sorted(pieces, key=lambda one: one.index):
            logprobs = self._logprobs(piece.scored, 0) if scored else None
            said: Body = {"text": piece.text}
            if self.kind == "chat":
                said = {"message": {"role": "assistant", "content": piece.text, "refusal": None}}
            choices.append(_choice(piece.index, logprobs=logprobs, finish_reason=piece.finish_reason, **said))
        return self._base(stream=False) | {"choices": choices, "usage": usage.body()}

    def _chunk(self, choices: list[Body]) -> Body:
        base = self._base(stream=True) | {"choices": choices}
        return base | {"usage": None} if self.with_usage else base

    def _base(self, *, stream: bool) -> Body:
        chat = "chat.completion.chunk" if stream else "chat.completion"
        return {
            "id": self.id,
            "object": chat if self.kind == "chat" else "text_completion",
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }

    def _logprobs(self, tokens: Sequence[ScoredToken], offset: int) -> Body:
        return _chat_logprobs(tokens) if self.kind == "chat" else _text_logprobs(tokens, offset)


def _choice(index: int, *, logprobs: Body | None = None, finish_reason: str | None = None, **said: Any) -> Body:
    return {"index": index, **said, "logprobs": logprobs, "finish_reason": finish_reason}


def _chat_logprobs(tokens: Sequence[ScoredToken]) -> Body:
    def entry(text: str, raw: bytes, logprob: float | None) -> Body:
        return {"token": text, "logprob": _finite(logprob), "bytes": list(raw)}

    content = [
        entry(token.text, token.raw, token.logprob) | {"top_logprobs": [entry(*other) for other in token.best]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _text_logprobs(tokens: Sequence[ScoredToken], offset: int) -> Body:
    offsets = []
    for token in tokens:
        offsets.append(offset)
        offset += len(token.text)
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [None if token.logprob is None else _finite(token.logprob) for token in tokens],
        "top_logprobs": [
            None if token.logprob is None else _by_text(token) | {token.text: _finite(token.logprob)}
            for token in tokens
        ],
        "text_offset": offsets,
    }


def _by_text(token: ScoredToken) -> Body:
    return {text: _finite(value) for text, _, value in token.best}


LEAST = -9999.0
"""What OpenAI writes for a token that cannot come: JSON has no infinity."""


def _finite(logprob: float | None) -> float:
    return LEAST if logprob is None else max(float(logprob), LEAST)
