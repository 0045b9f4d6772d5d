"""The engine: requests in, tokens out, a step at a time.

It is driven from one thread: `add` and `cancel` are called between steps. An error of the runner leaves a step undone
and the engine unusable; everything else a request can do wrong is refused by `add`.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Sequence as Tokens
from dataclasses import asdict, dataclass
from typing import Protocol

from torch import Tensor

from rolecall.serving.llm.admission import Admission, Words
from rolecall.serving.llm.batch import Batch
from rolecall.serving.llm.block_pool import BlockPool
from rolecall.serving.llm.choice import Choice, News
from rolecall.serving.llm.draft import LATER, Draft, DraftKind, next_limit
from rolecall.serving.llm.errors import EngineBusyError
from rolecall.serving.llm.flight import Computed, Flight, Launcher, settled
from rolecall.serving.llm.output import Generation, Output, joined
from rolecall.serving.llm.request import SEEDS, Request, SamplingParameters
from rolecall.serving.llm.sampler import Sampled, Sampler
from rolecall.serving.llm.scheduler import Scheduler, SchedulerOptions
from rolecall.serving.llm.sequence import FinishReason, Sequence, State
from rolecall.serving.llm.statistics import Counters, Statistics
from rolecall.serving.llm.text import TextStream


class Runner(Protocol):
    """The model with its cache."""

    @property
    def blocks(self) -> int: ...

    @property
    def block_size(self) -> int: ...

    def run(self, batch: Batch) -> Tensor:
        """float32 [R, vocabulary]: a row for each wanted position, chunk by chunk."""
        ...

    def close(self) -> None:
        """Give back what is held outside this process; harmless when already done. No step follows."""
        ...


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """`token_budget`, `max_sequences`: see `SchedulerOptions`. `max_waiting` requests and tokens may queue.

    `draft`: who guesses on: what followed the same words before (lookup), the model's own first `draft_layers` layers,
    both (layers where lookup has no guess), or none. `draft_tokens`: guesses a step verifies at most, shared among what
    runs. `overlap`: a step is computed while the last one's text is read and, where no guesses hang on its tokens, the
    next one is scheduled; the text is the same. On two cores that gains nothing (scheduling and reading are 3% of the
    time, and the model uses both); on a GPU it is unmeasured.
    """

    token_budget: int = 512
    max_sequences: int = 64
    max_waiting: int = 256
    max_waiting_tokens: int = 200_000
    prefix_cache: bool = True
    draft: DraftKind = "lookup"
    draft_tokens: int = 8
    draft_layers: int = 4
    overlap: bool = False


class LLMEngine:
    """Schedules, runs, samples and detokenises. `clock` and `randomness` (of unseeded requests) are given in tests."""

    def __init__(
        self,
        runner: Runner,
        words: Words,
        options: EngineOptions | None = None,
        *,
        draft: Draft | None = None,
        clock: Callable[[], float] = time.monotonic,
        randomness: random.Random | None = None,
    ) -> None:
        self.options = chosen = options or EngineOptions()
        self.words = words
        self.admission = Admission(
            words=words,
            context=min(words.context, runner.blocks * runner.block_size),
            max_sequences=chosen.max_sequences,
            max_waiting=chosen.max_waiting,
            max_waiting_tokens=chosen.max_waiting_tokens,
        )
        self.scheduler = Scheduler(
            BlockPool(runner.blocks, runner.block_size),
            SchedulerOptions(token_budget=chosen.token_budget, max_sequences=chosen.max_sequences),
            prefix_cache=chosen.prefix_cache,
        )
        self._runner, self._sampler, self._draft = runner, Sampler(words.eos), draft
        self._clock, self._random = clock, randomness or random.Random()
        self._requests: dict[str, list[Choice]] = {}
        self._counters = Counters()
        self._launcher = Launcher(runner.run, self._draft, overlap=chosen.overlap)
        self._flight: Flight | None = None

    @property
    def busy(self) -> bool:
        """Whether there is anything to do."""
        return bool(self._requests)

    def add(
        self,
        prompt: Tokens[int],
        parameters: SamplingParameters,
        *,
        priority: int = 0,
        deadline: float | None = None,
        salt: str = "",
        request_id: str | None = None,
    ) -> str:
        """Queue a request and return its id. `deadline`: of the engine's clock; `salt`: tenants share no cache.

        Raises ContextOverflowError, EngineBusyError, and ValueError for what this engine can never serve.
        """
        self.admission.check(prompt, parameters)
        waiting = self._waiting_tokens()
        soon = self._counters.seconds_for(waiting)
        self.admission.check_load(len(self.scheduler.waiting), waiting, len(prompt), soon)
        number = self._counters.requests
        request_id = request_id or f"request-{number}"
        if request_id in self._requests:
            raise ValueError(f"got request id {request_id!r} twice; allowed: one not in use")
        request = Request(
            request_id=request_id,
            number=number,
            prompt=tuple(prompt),
            parameters=parameters,
            max_tokens=self.admission.most_tokens(prompt, parameters),
            arrived=self._clock(),
            priority=priority,
            deadline=deadline,
            salt=salt,
        )
        seed = parameters.seed if parameters.seed is not None else self._random.randrange(SEEDS)
        self._counters.requests += 1
        self._requests[request_id] = []
        self.scheduler.add(self._choose(Sequence.of(request, seed)))
        return request_id

    def step(self) -> list[Output]:
        """Compute one batch; news of every choice that has some. Nothing to do: an empty list."""
        late = self._expire()
        flight, self._flight = self._flight or self._launch(None), None
        if flight is None:
            return late
        ahead = self._schedule_ahead(flight) if self.options.overlap else None
        computed = flight.result()
        with self._counters.timed("sample"):
            sampled = self._sampler.sample(computed.batch, computed.logits)
        with self._counters.timed("schedule"):
            news = self._book(flight, computed, sampled)
        if self.options.overlap:
            self._flight = self._launch(ahead)
        with self._counters.timed("detokenise"):
            return late + self._read(news)

    def cancel(self, request_id: str) -> None:
        """Drop a request at whatever stage and free its memory; unknown and finished ones are passed over."""
        choices = self._requests.pop(request_id, [])
        for choice in choices:
            self.scheduler.finish(choice.sequence, "cancelled")
        self._counters.finished += bool(choices)

    def generate(self, prompts: Iterable[Tokens[int]], parameters: SamplingParameters) -> list[Generation]:
        """All generations, in the prompts' order; other requests are served meanwhile and their outputs are lost.

        However many prompts there are, no more wait than are admitted. Raises as `add`, and then drops them all.
        """
        news: dict[str, list[Output]] = {}
        try:
            for prompt in prompts:
                news[self._add_patiently(prompt, parameters, news)] = []
            while any(request_id in self._requests for request_id in news):
                self._collect(news)
        finally:
            for request_id in news:
                self.cancel(request_id)
        return [joined(request_id, parameters.n, outputs) for request_id, outputs in news.items()]

    def stream(self, request_id: str) -> Iterator[Output]:
        """Outputs of one request as they come; leaving early cancels it."""
        try:
            while request_id in self._requests:
                yield from (output for output in self.step() if output.request_id == request_id)
        finally:
            self.cancel(request_id)

    def close(self) -> None:
        """End the runner. No step follows."""
        self._runner.close()

    def stats(self) -> Statistics:
        """Counts and load at this moment."""
        scheduler, pool = self.scheduler, self.scheduler.pool
        return Statistics(
            waiting=len(scheduler.waiting),
            waiting_tokens=self._waiting_tokens(),
            running=len(scheduler.running),
            blocks=pool.size,
            blocks_free=pool.free,
            preemptions=scheduler.preemptions,
            **asdict(self._counters),
        )

    def _add_patiently(self, prompt: Tokens[int], parameters: SamplingParameters, news: dict[str, list[Output]]) -> str:
        while True:
            try:
                return self.add(prompt, parameters)
            except EngineBusyError:
                self._collect(news)

    def _collect(self, news: dict[str, list[Output]]) -> None:
        for output in self.step():
            if output.request_id in news:
                news[output.request_id].append(output)

    def _choose(self, sequence: Sequence) -> Sequence:
        """Enter a sequence as the next choice of its request."""
        request, words = sequence.request, self.words
        ends = frozenset(request.parameters.stop_token_ids)
        stream = None
        if words.tokenizer is not None:
            stream = TextStream(words.tokenizer, request.prompt, request.parameters.stop)
        choice = Choice(
            sequence=sequence, stream=stream, ends=ends if request.parameters.never_ends else ends | words.eos
        )
        self._requests[request.request_id].append(choice)
        return sequence

    def _choice(self, sequence: Sequence) -> Choice:
        return self._requests[sequence.request.request_id][sequence.index]

    def _waiting_tokens(self) -> int:
        return sum(len(sequence.tokens) for sequence in self.scheduler.waiting)

    def _expire(self) -> list[Output]:
        """End what is past its deadline."""
        now = self._clock()
        late = [
            choice
            for choices in self._requests.values()
            for choice in choices
            if choice.sequence.state is not State.FINISHED and choice.sequence.request.late(now)
        ]
        outputs: list[Output] = []
        for choice in late:
            outputs += choice.spread(choice.output((), "", "deadline", now))
            self._finish(choice.sequence, "deadline")
        return outputs

    @property
    def _guesses(self) -> int:
        """How many tokens may be drafted for each that runs: the more run together, the fewer."""
        return 0 if self._draft is None else self.options.draft_tokens // max(len(self.scheduler.running), 1)

    def _propose(self) -> None:
        """Guess on for the sequences that only decode."""
        most = self._guesses
        if self._draft is None or not most:
            return
        for sequence in self.scheduler.running:
            if sequence.may_draft and sequence.request.parameters.constraint is None:
                count = min(most, sequence.draft_limit, sequence.remaining - 1)
                sequence.draft = self._draft.propose(sequence, count)

    def _schedule(self) -> Batch:
        """The next step; the choices that it forks off are entered."""
        batch = self.scheduler.schedule()
        for chunk in batch.chunks:
            for sibling in chunk.siblings:
                self._choose(sibling)
        return batch

    def _schedule_ahead(self, flight: Flight) -> Batch | None:
        """The step after the one in flight, with LATER for its tokens; None where guesses hang on them."""
        if self._guesses or any(chunk.drafted for chunk in flight.batch.chunks):
            return None
        with self._counters.timed("schedule"):
            flight.booked = True
            self.scheduler.update(flight.batch, {sequence: [LATER] for sequence in flight.sampling})
            return self._schedule()

    def _launch(self, ahead: Batch | None) -> Flight | None:
        """Start what was scheduled ahead, as far as it still stands, else a new step; None where nothing is to do."""
        with self._counters.timed("schedule"):
            batch = settled(ahead) if ahead is not None else Batch(chunks=())
            if not batch.chunks:
                self._propose()
                batch = self._schedule()
            now = self._clock()
            for chunk in batch.chunks:
                self._counters.seconds["queue"] += self._choice(chunk.sequence).start(now)
                for sibling in chunk.siblings:
                    self._choice(sibling).start(now)
        return self._launcher.launch(batch) if batch.chunks else None

    def _book(self, flight: Flight, computed: Computed, sampled: Sampled) -> list[News]:
        """Append what was drawn, and end the choices that it ends; those that ended meanwhile are passed over."""
        news = self._take(computed.batch, sampled)
        gained = {each.choice.sequence: [token.token for token in each.tokens] for each in news}
        self._count(computed, gained)
        if not flight.booked:
            self.scheduler.update(computed.batch, gained)
        else:
            for each in news:
                for token in each.tokens:  # one, in the place of LATER
                    each.choice.sequence.tokens[-1] = token.token
        for each in news:
            if each.reason is not None:
                self._finish(each.choice.sequence, each.reason)
        return news

    def _take(self, batch: Batch, sampled: Sampled) -> list[News]:
        now = self._clock()
        news: list[News] = []
        for chunk in batch.chunks:
            going = [each for each in (chunk.sequence, *chunk.siblings) if each.state is not State.FINISHED]
            if chunk.sequence in going:
                self._choice(chunk.sequence).scores += sampled.prompt.get(chunk.sequence, [])
            if chunk.samples or (chunk.sequence.request.max_tokens == 0 and chunk.end == len(chunk.sequence.tokens)):
                news += [self._choice(each).take(sampled.tokens.get(each, []), now) for each in going]
        return news

    def _count(self, computed: Computed, gained: Mapping[Sequence, Tokens[int]]) -> None:
        counters = self._counters
        counters.count(computed.batch, sum(map(len, gained.values())), computed.seconds)
        for chunk in computed.batch.chunks:
            if chunk.drafted and chunk.sequence in gained:
                kept = max(len(gained[chunk.sequence]) - 1, 0)
                counters.drafted_tokens += chunk.drafted
                counters.kept_tokens += kept
                chunk.sequence.draft_limit = next_limit(chunk.sequence.draft_limit, chunk.drafted, kept)

    def _read(self, news: Iterable[News]) -> list[Output]:
        """What choices say to their new tokens; a stop string ends one that its tokens did not."""
        now = self._clock()
        outputs: list[Output] = []
        for each in news:
            output, sequence = each.choice.read(each, now), each.choice.sequence
            outputs += each.choice.spread(output)
            if output.finish_reason is not None and sequence.state is not State.FINISHED:
                self._finish(sequence, output.finish_reason)
        return outputs

    def _finish(self, sequence: Sequence, reason: FinishReason) -> None:
        self.scheduler.finish(sequence, reason)
        self._counters.cached_tokens += sequence.cached or 0 if sequence.index == 0 else 0
        request_id = sequence.request.request_id
        if all(choice.sequence.state is State.FINISHED for choice in self._requests[request_id]):
            del self._requests[request_id]
            self._counters.finished += 1
