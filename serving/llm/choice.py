"""One choice of a request on its way out: its text, when it ends, and when things happened to it."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass, field, replace

from rolecall.serving.llm.output import Output, Timing, Token
from rolecall.serving.llm.sequence import FinishReason, Sequence
from rolecall.serving.llm.text import TextStream


@dataclass(eq=False, kw_only=True)
class Choice:
    """`stream` is None for a model without a tokenizer. Times are seconds of the engine's clock."""

    sequence: Sequence
    stream: TextStream | None
    ends: frozenset[int]
    started: float | None = None
    first_token: float | None = None
    scores: list[Token] = field(default_factory=list[Token])
    scores_sent: bool = False

    def start(self, now: float) -> float:
        """Seconds it queued, when it is computed for the first time; else 0."""
        if self.started is not None:
            return 0.0
        self.started = now
        return now - self.sequence.request.arrived

    def read(self, tokens: Tokens[Token], now: float) -> Output:
        """Take the tokens up to the one that ends the choice, if one does; the sequence itself is not changed."""
        if self.first_token is None and tokens:
            self.first_token = now
        taken: list[Token] = []
        text = ""
        reason: FinishReason | None = None
        for token in tokens:
            if token.token < 0:
                reason = "error"
                break
            taken.append(token)
            more, reason = self._take(token.token, self.sequence.generated_count + len(taken))
            text += more
            if reason is not None:
                break
        if not tokens and self._only_scored():
            reason = "length"
        return self.output(taken, text, reason, now)

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

    def _take(self, token: int, count: int) -> tuple[str, FinishReason | None]:
        """The text of the `count`-th token, and whether it ends the choice."""
        request = self.sequence.request
        if token in self.ends:
            return "", "stop"
        text, stopped = "", False
        if self.stream is not None:
            text, stopped = self.stream.feed(token, may_stop=count >= request.parameters.min_tokens)
        if stopped:
            return text, "stop"
        return text, "length" if count >= request.max_tokens else None

    def _only_scored(self) -> bool:
        return self.sequence.request.max_tokens == 0

    def _prompt_logprobs(self) -> tuple[Token | None, ...] | None:
        wanted = self.sequence.request.parameters.prompt_logprobs is not None and self.sequence.index == 0
        if not wanted or self.scores_sent or len(self.scores) < self.sequence.prompt_length - 1:
            return None
        self.scores_sent = True
        return (None, *self.scores)

    def _timing(self, now: float) -> Timing:
        arrived = self.sequence.request.arrived
        return Timing(arrived=arrived, started=self.started, first_token=self.first_token, finished=now)
