"""The scheduler and its blocks under random load, with a model that only remembers what it was shown."""

from __future__ import annotations

import random
import zlib
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.serving.llm.batch import Batch, Chunk
from rolecall.serving.llm.block_pool import BlockPool
from rolecall.serving.llm.draft import PromptLookup, verified
from rolecall.serving.llm.request import Request, SamplingParameters
from rolecall.serving.llm.scheduler import Scheduler, SchedulerOptions
from rolecall.serving.llm.sequence import Sequence, State

VOCABULARY = 3  # so few that prompts share prefixes, and guesses are often right


def next_token(salt: str, tokens: tuple[int, ...], seed: int) -> int:
    """What the remembering model says after these tokens: a function of all of them."""
    return zlib.crc32(f"{salt} {tokens[-6:]} {len(tokens) // 3} {seed}".encode()) % VOCABULARY


@dataclass
class Memory:
    """Cache slots that hold what a key depends on: the salt and every token up to and including its own."""

    slots: dict[tuple[int, int], tuple[str, tuple[int, ...]]] = field(default_factory=dict)

    def run(self, batch: Batch, size: int) -> None:
        for old, new in batch.copies:
            for slot in range(size):
                self.slots[new, slot] = self.slots.get((old, slot), ("nothing", ()))
        for chunk in batch.chunks:
            self._write(chunk, size)
        for chunk in batch.chunks:
            self._check_keys(chunk, size)

    def _write(self, chunk: Chunk, size: int) -> None:
        text = (*chunk.sequence.tokens[: chunk.start], *chunk.tokens)
        for position in range(chunk.start, chunk.end):
            place = (chunk.block_table[position // size], position % size)
            self.slots[place] = (chunk.sequence.request.salt, text[: position + 1])

    def _check_keys(self, chunk: Chunk, size: int) -> None:
        """Attention reads every key before the chunk's end: each must be the sequence's own."""
        text = (*chunk.sequence.tokens[: chunk.start], *chunk.tokens)
        for position in range(chunk.end):
            place = (chunk.block_table[position // size], position % size)
            assert self.slots[place] == (chunk.sequence.request.salt, text[: position + 1])


class Driver:
    """Random arrivals, cancels, forks and guesses on a pool that is too small for them."""

    def __init__(
        self, seed: int, *, blocks: int = 20, size: int = 4, budget: int = 24, prefix_cache: bool = True
    ) -> None:
        self.random = random.Random(seed)
        self.pool = BlockPool(blocks, size)
        options = SchedulerOptions(token_budget=budget, max_sequences=8)
        self.scheduler = Scheduler(self.pool, options, prefix_cache=prefix_cache)
        self.memory = Memory()
        self.lookup = PromptLookup(longest=3, shortest=1)
        self.sequences: list[Sequence] = []
        self.counts: Counter[str] = Counter()
        self.stems = [tuple(self.random.choices(range(VOCABULARY), k=30)) for _ in range(4)]

    def arrive(self) -> None:
        length = self.random.choice((1, 3, 4, 8, 15, 30))
        room = self.pool.size * self.pool.block_size - length
        parameters = SamplingParameters(
            n=self.random.choice((1, 1, 3)), prompt_logprobs=self.random.choice((None, None, None, 0))
        )
        request = Request(
            request_id=str(len(self.sequences)),
            number=len(self.sequences),
            prompt=self.random.choice(self.stems)[:length],
            parameters=parameters,
            max_tokens=min(self.random.choice((0, 1, 5, 20, 60)), room),
            arrived=0.0,
            priority=self.random.choice((0, 0, 0, 1, -1)),
            deadline=self.random.choice((None, self.random.random())),
            salt=self.random.choice("ab"),
        )
        sequence = Sequence.of(request, seed=self.random.choice((0, 1)))
        self.sequences.append(sequence)
        self.scheduler.add(sequence)

    def step(self) -> None:
        for sequence in self.scheduler.running:
            if sequence.may_draft and self.random.random() < 0.7:
                sequence.draft = self.lookup.propose(sequence, min(4, sequence.remaining - 1))
        batch = self.scheduler.schedule()
        self.check_batch(batch)
        self.memory.run(batch, self.pool.block_size)
        self.scheduler.update(batch, self.sample(batch))
        self.sequences.extend(sibling for chunk in batch.chunks for sibling in chunk.siblings)
        for sequence in list(self.scheduler.running):
            if sequence.remaining == 0 and sequence.computed >= sequence.prompt_length:
                self.scheduler.finish(sequence, "length")
        self.check_blocks()

    def sample(self, batch: Batch) -> dict[Sequence, list[int]]:
        sampled: dict[Sequence, list[int]] = {}
        for chunk in batch.chunks:
            for sequence in (chunk.sequence, *chunk.siblings) if chunk.samples else ():
                text = (*sequence.tokens, *chunk.tokens[len(chunk.tokens) - chunk.drafted :])
                known, salt = len(sequence.tokens), sequence.request.salt
                rows = [next_token(salt, text[: known + row], sequence.seed) for row in range(chunk.drafted + 1)]
                sampled[sequence] = verified(text[known:], rows)
                self.counts["drafted"] += chunk.drafted
                self.counts["kept"] += len(sampled[sequence]) - 1
        return sampled

    def check_batch(self, batch: Batch) -> None:
        assert 0 < batch.tokens <= self.scheduler.options.token_budget
        assert len({chunk.sequence for chunk in batch.chunks}) == len(batch.chunks)
        for chunk in batch.chunks:
            own = chunk.block_table[chunk.start // self.pool.block_size :]
            assert not any(self.pool.is_cached(block) for block in own), "a cached block would be written"
            shared = (chunk.sequence, *chunk.siblings)
            assert all(self.pool.holders(block) == len(shared) for block in own), "a shared block would be written"
            self.counts["copies"] += len(chunk.copies)
            self.counts["forks"] += len(chunk.siblings)
            self.counts["hits"] += chunk.sequence.cached or 0

    def check_blocks(self) -> None:
        running, waiting = self.scheduler.running, self.scheduler.waiting
        held = Counter(block for sequence in running for block in sequence.block_table)
        assert all(self.pool.holders(block) == held[block] for block in range(self.pool.size))
        assert self.pool.free == self.pool.size - len(held)
        assert not any(sequence.block_table or sequence.computed for sequence in waiting)
        assert sum(1 + sequence.siblings_due for sequence in running) <= self.scheduler.options.max_sequences
        assert running == sorted(running, key=lambda sequence: sequence.order)
        assert waiting == sorted(waiting, key=lambda sequence: sequence.order)

    def drain(self, most: int = 3_000) -> None:
        for _ in range(most):
            if not (self.scheduler.running or self.scheduler.waiting):
                return
            self.step()
        raise AssertionError("some sequences never finish")

    def check_results(self) -> None:
        for sequence in self.sequences:
            assert sequence.state is State.FINISHED
            text = sequence.request.prompt
            while len(text) < len(sequence.tokens):
                text = (*text, next_token(sequence.request.salt, text, sequence.seed))
            assert sequence.tokens == list(text), "not what the model says alone"
            assert sequence.finish_reason == "cancelled" or sequence.remaining == 0


def test_no_block_is_leaked_lost_or_shared_wrongly_and_everyone_finishes() -> None:
    driver = Driver(seed=7)
    for _ in range(10_000):
        if len(driver.scheduler.waiting) < 8 and driver.random.random() < 0.8:
            driver.arrive()
        live = [*driver.scheduler.running, *driver.scheduler.waiting]
        if live and driver.random.random() < 0.02:
            driver.scheduler.finish(driver.random.choice(live), "cancelled")
        if driver.scheduler.running or driver.scheduler.waiting:
            driver.step()
    driver.drain()
    driver.check_results()
    assert driver.pool.free == driver.pool.size
    assert driver.scheduler.preemptions > 100
    assert min(driver.counts[what] for what in ("copies", "forks", "hits", "kept")) > 100


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10**6),
    blocks=st.integers(9, 40),
    size=st.integers(1, 8),
    budget=st.integers(8, 40),
    prefix_cache=st.booleans(),
)
def test_any_pool_and_budget_serve_everyone(seed: int, blocks: int, size: int, budget: int, prefix_cache: bool) -> None:
    blocks = -(-36 // size) + blocks  # the longest prompt must fit
    driver = Driver(seed, blocks=blocks, size=size, budget=budget, prefix_cache=prefix_cache)
    for _ in range(8):
        driver.arrive()
    driver.drain()
    driver.check_results()
    assert driver.pool.free == driver.pool.size
