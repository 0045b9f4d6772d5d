"""From the engine's news to the pieces of a reply, streamed or gathered."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rolecall.serving.llm.api.errors import OpenAIError
from rolecall.serving.llm.api.replies import Envelope, Piece, ScoredToken, Usage
from rolecall.serving.llm.api.service import Running
from rolecall.serving.llm.api.streaming import DONE, LastEvents, server_event
from rolecall.serving.llm.api.texts import Texts
from rolecall.serving.llm.output import Output, Token


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the reply shows. `scored`: log-probabilities; `ends`: tokens that are no part of a text they end.

    `echoed`: what stands before each prompt's choices, None for nothing; `prompts`: their tokens.
    """

    choices: int
    scored: bool
    ends: frozenset[int]
    prompts: Sequence[Sequence[int]]
    echoed: Sequence[str] | None = None


class Answer:
    """One reply being made. `usage` is right once all pieces were taken."""

    def __init__(self, running: Running, texts: Texts, envelope: Envelope, wanted: Wanted) -> None:
        self._running, self._texts, self._envelope, self._wanted = running, texts, envelope, wanted
        self._begun: set[int] = set()
        self._lengths: dict[int, int] = {}
        self._generated = 0
        self._cached = [0] * len(wanted.prompts)
        self._prompt_scores: dict[int, tuple[Token | None, ...]] = {}

    @property
    def usage(self) -> Usage:
        """Tokens so far."""
        prompts = sum(map(len, self._wanted.prompts))
        return Usage(prompt=prompts, completion=self._generated, cached=sum(self._cached))

    async def whole(self) -> dict[str, Any]:
        """The reply, all at once."""
        choices: dict[int, Piece] = {}
        async for place, output in self._running.news():
            for piece in self._pieces(place, output):
                so_far = choices.setdefault(piece.index, Piece(index=piece.index, text=""))
                so_far.text += piece.text
                so_far.scored = [*so_far.scored, *piece.scored]
                so_far.finish_reason = piece.finish_reason
        return self._envelope.reply(list(choices.values()), self.usage, scored=self._wanted.scored)

    async def events(self) -> AsyncIterator[bytes]:
        """The reply as server-sent events, a step's together and `[DONE]` with the last; an error is an event too."""
        ending = b""
        try:
            async for step in self._running.steps():
                ending = b"".join(server_event(chunk) for told in step for chunk in self._chunks(*told))
                if self._running.unread:
                    yield ending
                    ending = b""
            if self._envelope.with_usage:
                ending += server_event(self._envelope.usage_chunk(self.usage))
        except OpenAIError as error:
            ending = server_event(error.body())
        yield LastEvents(ending + DONE)

    def _chunks(self, place: int, output: Output) -> Iterator[dict[str, Any]]:
        for piece in self._pieces(place, output):
            if piece.index not in self._lengths and (opening := self._envelope.opening(piece.index)) is not None:
                yield opening
            offset = self._lengths.get(piece.index, 0)
            yield from self._envelope.chunks(piece, scored=self._wanted.scored, offset=offset)
            self._lengths[piece.index] = offset + len(piece.text)

    def _pieces(self, place: int, output: Output) -> Iterator[Piece]:
        """What a choice gains, the echo of its prompt first."""
        self._cached[place] = output.cached_tokens
        self._generated += len(output.tokens)
        if output.prompt_logprobs is not None:
            self._prompt_scores[place] = output.prompt_logprobs
        index = place * self._wanted.choices + output.index
        if index not in self._begun:
            self._begun.add(index)
            if self._wanted.echoed is not None:
                yield Piece(index=index, text=self._wanted.echoed[place], scored=self._echo_scores(place))
        yield Piece(
            index=index,
            text=output.text,
            scored=self._scores(output) if self._wanted.scored else (),
            finish_reason=output.finish_reason,
        )

    def _scores(self, output: Output) -> list[ScoredToken]:
        tokens = output.tokens
        if output.finish_reason == "stop" and tokens and tokens[-1].token in self._wanted.ends:
            tokens = tokens[:-1]
        return [self._scored(token) for token in tokens]

    def _echo_scores(self, place: int) -> list[ScoredToken]:
        if not self._wanted.scored:
            return []
        prompt = self._wanted.prompts[place]
        scores = self._prompt_scores.get(place) or (None,) * len(prompt)
        return [
            ScoredToken(text=self._texts.shown(token), raw=self._texts.raw(token), logprob=None)
            if score is None
            else self._scored(score)
            for token, score in zip(prompt, scores, strict=True)
        ]

    def _scored(self, token: Token) -> ScoredToken:
        shown, raw = self._texts.shown, self._texts.raw
        return ScoredToken(
            text=shown(token.token),
            raw=raw(token.token),
            logprob=token.logprob,
            best=tuple((shown(other), raw(other), value) for other, value in token.top),
        )
