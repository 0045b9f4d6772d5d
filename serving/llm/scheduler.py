"""Which tokens the next step computes. No torch, no model, no clock: sequences, blocks and a token budget.

Every sequence has computed tokens and a target; a step moves each one towards its target by as many tokens as the
budget allows. Prompts, chunks of prompts, decoding and drafted tokens to verify are the same thing to it.

A sequence of better priority goes first; among equals, those that run before those that wait, then the earlier
deadline, then the earlier arrival. Each running sequence is sure of one token a step, so a long prompt never stops the
others. When blocks run out, the last in this order is preempted: it gives back its blocks, keeps its tokens, and will
compute them again, apart from those the prefix cache still holds.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Mapping
from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from rolecall.serving.llm.batch import Batch, Chunk
from rolecall.serving.llm.block_pool import BlockPool
from rolecall.serving.llm.sequence import FinishReason, Sequence, State


@dataclass(frozen=True, kw_only=True)
class SchedulerOptions:
    """`token_budget`: tokens a step computes at most; `max_sequences`: sequences that run together."""

    token_budget: int = 512
    max_sequences: int = 64

    def __post_init__(self) -> None:
        """Raise ValueError where a running sequence could not be given its token."""
        if not 1 <= self.max_sequences <= self.token_budget:
            raise ValueError(
                f"got max_sequences {self.max_sequences} with token_budget {self.token_budget}; "
                "allowed: 1 to token_budget, since each running sequence computes a token a step"
            )


@dataclass
class _Step:
    """A step while it is put together. `later`: running sequences not served yet, the last to be preempted first."""

    budget: int
    later: deque[Sequence]
    chunks: list[Chunk]
    admitting: bool = True

    @property
    def available(self) -> int:
        """Tokens left for the next sequence when each later one keeps one."""
        return self.budget - len(self.later)

    def add(self, chunk: Chunk) -> None:
        self.chunks.append(chunk)
        self.budget -= len(chunk.tokens)


class Scheduler:
    """Sequences that wait and run, each list in order, over one pool of blocks."""

    def __init__(self, pool: BlockPool, options: SchedulerOptions, *, prefix_cache: bool = True) -> None:
        self.pool = pool
        self.options = options
        self.waiting: list[Sequence] = []
        self.running: list[Sequence] = []
        self.preemptions = 0
        self._prefix_cache = prefix_cache

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Alone in the pool it must fit: the caller has seen to that."""
        insort(self.waiting, sequence, key=_order)

    def schedule(self) -> Batch:
        """The next step's work, with its blocks allocated; empty if nothing waits and all that runs is whole."""
        step = _Step(budget=self.options.token_budget, later=deque(s for s in self.running if not s.whole), chunks=[])
        while step.later or (step.admitting and self.waiting):
            if self._waiting_goes_first(step):
                self._admit(self.waiting[0], step)
            elif step.later:
                self._serve(step.later.popleft(), step)
        return Batch(chunks=tuple(step.chunks))

    def update(self, batch: Batch, sampled: Mapping[Sequence, Tokens[int]]) -> None:
        """Book a computed step and append what was sampled; sequences finished meanwhile are passed over."""
        for chunk in batch.chunks:
            if chunk.sequence.state is State.RUNNING:
                _book(chunk, len(sampled.get(chunk.sequence, ())))
        for sequence, tokens in sampled.items():
            if sequence.state is State.RUNNING:
                sequence.tokens.extend(tokens)
        for chunk in batch.chunks:
            if chunk.sequence.state is State.RUNNING:
                self._enter_full_blocks(chunk.sequence)

    def finish(self, sequence: Sequence, reason: FinishReason) -> None:
        """Take a sequence out at any stage and give back its blocks; doing so twice changes nothing."""
        if sequence.state is State.FINISHED:
            return
        (self.running if sequence.state is State.RUNNING else self.waiting).remove(sequence)
        self._give_back(sequence)
        sequence.state, sequence.finish_reason = State.FINISHED, reason

    def _waiting_goes_first(self, step: _Step) -> bool:
        if not (step.admitting and self.waiting):
            return False
        return not step.later or self.waiting[0].request.priority < step.later[0].request.priority

    def _serve(self, sequence: Sequence, step: _Step) -> None:
        """Compute what the budget allows of a running sequence, at the cost of later ones or of itself."""
        count = min(sequence.target - sequence.computed, step.available)
        while self._blocks_wanted(sequence, count) > self.pool.free:
            if count > (known := len(sequence.tokens) - sequence.computed):
                sequence.draft.clear()
                count = known
                continue
            step.admitting = False
            victim = step.later.pop() if step.later else sequence
            self._preempt(victim)
            if victim is sequence:
                return
        step.add(self._chunk(sequence, count))

    def _admit(self, sequence: Sequence, step: _Step) -> None:
        """Start the first that waits if seats, budget and blocks allow it; else nobody is admitted in this step."""
        while step.available < 1 or not self._fits(sequence):
            if not step.later or step.later[-1].request.priority <= sequence.request.priority:
                step.admitting = False
                return
            self._preempt(step.later.pop())
        self.waiting.remove(sequence)
        self._start(sequence)
        step.add(self._chunk(sequence, min(sequence.target - sequence.computed, step.available)))

    def _fits(self, sequence: Sequence) -> bool:
        """Whether a seat for each choice is left, and blocks for all its tokens beside one for each that runs."""
        seats = sum(1 + running.siblings_due for running in self.running)
        found, _ = self._known_prefix(sequence)
        held = sum(self.pool.holders(block) > 0 for block in found)
        fresh = self.pool.blocks_for(len(sequence.tokens)) - held
        enough = fresh + len(self.running) <= self.pool.free
        return enough and seats + 1 + sequence.siblings_due <= self.options.max_sequences

    def _known_prefix(self, sequence: Sequence) -> tuple[list[int], list[int]]:
        """Cached blocks to start from. At least one token is left to compute, and all whose logits are still wanted."""
        limit = len(sequence.tokens) - 1
        if sequence.request.parameters.prompt_logprobs is not None:
            limit = min(limit, sequence.scored)
        return self.pool.find(sequence.tokens, sequence.request.salt, limit) if self._prefix_cache else ([], [])

    def _start(self, sequence: Sequence) -> None:
        sequence.block_table, sequence.prefix = self._known_prefix(sequence)
        self.pool.hold(sequence.block_table)
        sequence.computed = len(sequence.block_table) * self.pool.block_size
        if sequence.cached is None:
            sequence.cached = sequence.computed
        sequence.state = State.RUNNING
        insort(self.running, sequence, key=_order)

    def _preempt(self, sequence: Sequence) -> None:
        self.preemptions += 1
        self.running.remove(sequence)
        self._give_back(sequence)
        sequence.state = State.WAITING
        insort(self.waiting, sequence, key=_order)

    def _give_back(self, sequence: Sequence) -> None:
        self.pool.release(sequence.block_table)
        sequence.block_table, sequence.prefix, sequence.computed = [], [], 0
        sequence.draft.clear()

    def _shared(self, sequence: Sequence) -> list[int]:
        """Places in the block table that are about to be written and are shared: to be copied first."""
        table = sequence.block_table
        return [
            place
            for place in range(sequence.computed // self.pool.block_size, len(table))
            if self.pool.holders(table[place]) > 1
        ]

    def _blocks_wanted(self, sequence: Sequence, count: int) -> int:
        more = self.pool.blocks_for(sequence.computed + count) - len(sequence.block_table)
        return max(more, 0) + len(self._shared(sequence))

    def _chunk(self, sequence: Sequence, count: int) -> Chunk:
        """The next `count` tokens of a running sequence, with blocks of its own to write them to."""
        start, end, known = sequence.computed, sequence.computed + count, len(sequence.tokens)
        copies = self._copy_on_write(sequence)
        self._extend(sequence, end)
        drafted = max(end - known, 0)
        samples = end >= known and sequence.remaining > 0
        return Chunk(
            sequence=sequence,
            start=start,
            tokens=(*sequence.tokens[start:end], *sequence.draft[:drafted]),
            block_table=tuple(sequence.block_table[: self.pool.blocks_for(end)]),
            wants_logits=_wanted(sequence, start, end, samples),
            samples=samples,
            drafted=drafted,
            siblings=self._fork(sequence, end) if samples else (),
            copies=copies,
        )

    def _copy_on_write(self, sequence: Sequence) -> tuple[tuple[int, int], ...]:
        copies: list[tuple[int, int]] = []
        for place in self._shared(sequence):
            old, new = sequence.block_table[place], self.pool.allocate(1)[0]
            self.pool.release([old])
            sequence.block_table[place] = new
            copies.append((old, new))
        return tuple(copies)

    def _extend(self, sequence: Sequence, end: int) -> None:
        more = self.pool.blocks_for(end) - len(sequence.block_table)
        if more > 0:
            sequence.block_table += self.pool.allocate(more)

    def _fork(self, sequence: Sequence, computed: int) -> tuple[Sequence, ...]:
        """The other choices, as they will be after this step: the prompt computed, its blocks shared."""
        siblings = tuple(sequence.fork(index, computed) for index in range(1, sequence.siblings_due + 1))
        for sibling in siblings:
            self.pool.hold(sibling.block_table)
            insort(self.running, sibling, key=_order)
        sequence.siblings_due = 0
        return siblings

    def _enter_full_blocks(self, sequence: Sequence) -> None:
        size, salt = self.pool.block_size, sequence.request.salt
        for place in range(len(sequence.prefix), sequence.computed // size):
            parent = sequence.prefix[-1] if sequence.prefix else None
            tokens = tuple(sequence.tokens[place * size : (place + 1) * size])
            sequence.prefix.append(self.pool.enter(sequence.block_table[place], parent, tokens, salt))


def _order(sequence: Sequence) -> tuple[int, float, int, int]:
    return sequence.order


def _wanted(sequence: Sequence, start: int, end: int, samples: bool) -> tuple[int, ...]:
    """Offsets whose logits are needed: prompt positions not scored yet, then those that a token is sampled from."""
    scored: range = range(0)
    if sequence.request.parameters.prompt_logprobs is not None:
        scored = range(max(start, sequence.scored) - start, min(end, sequence.prompt_length - 1) - start)
    return (*scored, *(range(len(sequence.tokens) - 1 - start, end - start) if samples else ()))


def _book(chunk: Chunk, sampled: int) -> None:
    """Before the sampled tokens are appended: all but the last of them were drafted, so they are computed already."""
    sequence = chunk.sequence
    sequence.computed = chunk.end - chunk.drafted + max(sampled - 1, 0)
    sequence.scored = max(sequence.scored, min(chunk.end, sequence.prompt_length - 1))
    sequence.draft.clear()
