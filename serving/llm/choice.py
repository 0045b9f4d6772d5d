"""One choice of a request on its way out: its text, when it ends, and when things happened to it."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field, replace

from rolecall.serving.llm.output import Output, Timing, Token
from rolecall.serving.llm.sequence import FinishReason, Sequence
from rolecall.serving.llm.text import TextStream


@dataclass(frozen=True, kw_only=True)
class News:
    """Tokens that a step brought to a choice; with a `reason` the last ones, as far as their numbers tell."""

    choice: Choice
    tokens: list[Token]
    reason: FinishReason | None


@dataclass(eq=False, kw_only=True)
class Choice:
    """`stream` is None for a model without a tokenizer. `taken`: tokens so far. Times are of the engine's clock."""

    sequence: Sequence
    stream: TextStream | None
    ends: frozenset[int]
    started: float | None = None
    first_token: float | None = None
    taken: int = 0
    scores: list[Token] = field(default_factory=list[Token])
    scores_sent: bool = False

    def start(self, now: float) -> float:
        """Seconds it queued, when it is computed for the first time; else 0."""
        if self.started is not None:
            return 0.0
        self.started = now
        return now - self.sequence.request.arrived

    def take(self, tokens: Tokens[Token], now: float) -> News:
        """The tokens up to the one that ends the choice, if one does by itself; the sequence is not changed."""
        if self.first_token is None and tokens:
            self.first_token = now
        taken: list[Token] = []
        reason: FinishReason | None = "length" if not tokens and self.sequence.request.max_tokens == 0 else None
        for token in tokens:
            if token.token < 0:
                reason = "error"
                break
            taken.append(token)
            self.taken += 1
            if token.token in self.ends:
                reason = "stop"
            elif self.taken == self.sequence.request.max_tokens:
                reason = "length"
            if reason is not None:
                break
        return News(choice=self, tokens=taken, reason=reason)

    def read(self, news: News, now: float) -> Output:
        """The text of what was just taken, up to the first stop string, which ends the choice as well."""
        before, text = self.taken - len(news.tokens), ""
        for count, token in enumerate(news.tokens, start=1):
            if self.stream is None or token.token in self.ends:
                continue
            may_stop = before + count >= self.sequence.request.parameters.min_tokens
            more, stopped = self.stream.feed(token.token, may_stop=may_stop)
            text += more
            if stopped:
                return self.output(news.tokens[:count], text, "stop", now)
        return self.output(news.tokens, text, news.reason, now)

    def output(self, tokens: Tokens[Token], text: str, reason: FinishReason | None, now: float) -> Output:
        """News for the caller; with a reason the last, so with what text was held back."""
        sequence, request = self.sequence, self.sequence.request
        rest = self.stream.flush() if self.stream is not None and reason is not None else ""
        return Output(
            request_id=request.request_id,
            index=sequence.index,
            tokens=tuple(tokens),
            text=text + rest,
            finish_reason=reason,
            prompt_tokens=sequence.prompt_length,
            cached_tokens=sequence.cached or 0,
            prompt_logprobs=self._prompt_logprobs(),
            timing=None if reason is None else self._timing(now),
        )

    def spread(self, output: Output) -> list[Output]:
        """The output, and where it ends a prompt before its other choices were forked off, theirs."""
        if output.finish_reason is None:
            return [output]
        others = range(1, self.sequence.siblings_due + 1)
        return [output, *(replace(output, index=index, prompt_logprobs=None) for index in others)]

    def _prompt_logprobs(self) -> tuple[Token | None, ...] | None:
        wanted = self.sequence.request.parameters.prompt_logprobs is not None and self.sequence.index == 0
        if not wanted or self.scores_sent or len(self.scores) < self.sequence.prompt_length - 1:
            return None
        self.scores_sent = True
        return (None, *self.scores)

    def _timing(self, now: float) -> Timing:
        arrived = self.sequence.request.arrived
        return Timing(arrived=arrived, started=self.started, first_token=self.first_token, finished=now)
