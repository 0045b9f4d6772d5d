"""The model's own first layers as its draft: no second model, and no second cache.

    guess i + 1 = draw(W n(first layers(guess i)))          with the random numbers of the place that is guessed

(Zhang et al., arXiv:2309.08168; Elhoushi et al., arXiv:2404.16710, who train the model for it; here it is not). Keys
and values of guesses go where the verification, which computes every layer anew, writes the same ones a moment later;
so a guess that is refused leaves nothing behind that one that is verified would not. That is why guesses are made when
the step's blocks have been allocated and copied, not before.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from rolecall.serving.llm.batch import Batch, Chunk
from rolecall.serving.llm.draft import LATER, PromptLookup
from rolecall.serving.llm.draw import Draw
from rolecall.serving.llm.sampler import Sampler
from rolecall.serving.llm.sequence import Sequence


class FirstLayers:
    """`run`: a runner's; `layers`: how many guess; `lookup`: who is asked first."""

    def __init__(
        self, run: Callable[[Batch], Tensor], sampler: Sampler, *, layers: int, lookup: PromptLookup | None = None
    ) -> None:
        self._run, self._sampler, self._layers, self._lookup = run, sampler, layers, lookup

    def propose(self, sequence: Sequence, count: int) -> list[int]:
        """What the lookup says, else LATER."""
        found = self._lookup.propose(sequence, count) if self._lookup else []
        return found or [LATER] * count

    @torch.inference_mode()
    def complete(self, batch: Batch) -> Batch:
        """Guess for all chunks together, a token of each at a time; the batch's copies are done first, once."""
        asked = [chunk for chunk in batch.chunks if chunk.drafted and chunk.tokens[-1] == LATER]
        if not asked:
            return batch
        guesses: dict[Sequence, tuple[int, ...]] = {chunk.sequence: () for chunk in asked}
        copies = batch.copies
        for place in range(max(chunk.drafted for chunk in asked)):
            going = [chunk for chunk in asked if chunk.drafted > place]
            chunks = [_single(chunk, (chunk.tokens[0], *guesses[chunk.sequence])) for chunk in going]
            chunks[0], copies = replace(chunks[0], copies=copies), ()
            logits = self._run(Batch(chunks=tuple(chunks), layers=self._layers))
            draws = [
                Draw(sequence=c.sequence, row=row, known=c.start + 1, drafted=guesses[c.sequence])
                for row, c in enumerate(going)
            ]
            for draw, token in zip(draws, self._sampler.draw(draws, logits), strict=True):
                guesses[draw.sequence] = (*draw.drafted, max(token.token, 0))
        return Batch(chunks=tuple(_completed(chunk, guesses.get(chunk.sequence, ())) for chunk in batch.chunks))


def _single(chunk: Chunk, known: tuple[int, ...]) -> Chunk:
    """The last of the tokens known so far, at its place."""
    start = chunk.start + len(known) - 1
    return replace(chunk, start=start, tokens=known[-1:], wants_logits=(0,), drafted=0, siblings=(), copies=())


def _completed(chunk: Chunk, guesses: tuple[int, ...]) -> Chunk:
    return replace(chunk, copies=(), tokens=(*chunk.tokens[: len(chunk.tokens) - len(guesses)], *guesses))
