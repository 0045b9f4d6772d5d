"""From logits to tokens: which rows to draw from, what is done to them first, which guesses hold, what is reported."""

from __future__ import annotations

import math
from collections.abc import Sequence as Rows
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rolecall.kernels.sampling import sample
from rolecall.serving.llm.batch import Batch, Chunk
from rolecall.serving.llm.draft import verified
from rolecall.serving.llm.draw import Draw, draws_of
from rolecall.serving.llm.output import Token
from rolecall.serving.llm.penalties import bias, penalise
from rolecall.serving.llm.sequence import Sequence


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """`tokens`: the new ones of each sequence. `prompt`: scores of the prompt's next tokens, where they are wanted."""

    tokens: dict[Sequence, list[Token]] = field(default_factory=dict[Sequence, list[Token]])
    prompt: dict[Sequence, list[Token]] = field(default_factory=dict[Sequence, list[Token]])


class Sampler:
    """`eos`: the tokens that end a text, kept from doing so before `min_tokens`."""

    def __init__(self, eos: frozenset[int]) -> None:
        self._eos = eos

    @torch.inference_mode()
    def sample(self, batch: Batch, logits_RV: Tensor) -> Sampled:
        """Draw for each chunk that samples and score each prompt position wanted. The logits are overwritten."""
        sampled = Sampled()
        draws: list[Draw] = []
        first = 0
        for chunk in batch.chunks:
            draws += draws_of(chunk, first)
            if prompt := len(chunk.wants_logits) - (chunk.drafted + 1 if chunk.samples else 0):
                sampled.prompt[chunk.sequence] = _scores(chunk, logits_RV[first : first + prompt])
            first += len(chunk.wants_logits)
        if draws:
            _keep_verified(draws, self.draw(draws, logits_RV), sampled)
        return sampled

    @torch.inference_mode()
    def draw(self, draws: Rows[Draw], logits_RV: Tensor) -> list[Token]:
        """A token for each draw; -1 where nothing is left to draw from. The logits are overwritten."""
        rows = [draw.row for draw in draws]
        logits_BV = logits_RV if rows == list(range(len(logits_RV))) else logits_RV[rows]
        reported = [place for place, draw in enumerate(draws) if draw.parameters.logprobs is not None]
        raw_MV = logits_BV[reported]
        penalise(logits_BV, draws)
        bias(logits_BV, draws)
        for place, draw in enumerate(draws):
            self._mask(draw, logits_BV[place])
        tokens = _sampled(draws, logits_BV).tolist()
        result = [Token(token=token) for token in tokens]
        counts = [draws[place].parameters.logprobs or 0 for place in reported]
        for place, token in zip(reported, scored(raw_MV, [tokens[at] for at in reported], counts), strict=True):
            result[place] = token
        return result

    def _mask(self, draw: Draw, logits_V: Tensor) -> None:
        """What a constraint forbids, and an end before its time; in place."""
        wishes = draw.parameters
        if wishes.constraint is not None:
            allowed_V = torch.from_numpy(wishes.constraint.allowed(draw.generated)).to(logits_V.device)
            logits_V[: len(allowed_V)].masked_fill_(~allowed_V, -math.inf)
            logits_V[len(allowed_V) :] = -math.inf  # rows of a padded vocabulary
        if draw.position - draw.sequence.prompt_length < wishes.min_tokens:
            logits_V[[*self._eos, *wishes.stop_token_ids]] = -math.inf


def _keep_verified(draws: Rows[Draw], tokens: Rows[Token], sampled: Sampled) -> None:
    """Of each sequence the tokens up to its first wrong guess and the one drawn there."""
    rows: dict[Sequence, list[Token]] = {}
    guesses: dict[Sequence, tuple[int, ...]] = {}
    for draw, token in zip(draws, tokens, strict=True):
        rows.setdefault(draw.sequence, []).append(token)
        guesses[draw.sequence] = draw.drafted
    for sequence, drawn in rows.items():
        kept = verified(guesses[sequence], [token.token for token in drawn])
        sampled.tokens[sequence] = drawn[: len(kept)]


def _sampled(draws: Rows[Draw], logits_BV: Tensor) -> Tensor:
    """A token for each row; parameters that no row sets cost nothing."""
    wishes = [draw.parameters for draw in draws]

    def column(values: list[int] | list[float], off: float, dtype: torch.dtype) -> Tensor | None:
        used = any(value != off for value in values)
        return torch.tensor(values, dtype=dtype, device=logits_BV.device) if used else None

    return sample(
        logits_BV,
        temperature_B=torch.tensor([each.temperature for each in wishes], device=logits_BV.device),
        top_k_B=column([each.top_k for each in wishes], 0, torch.int64),
        top_p_B=column([each.top_p for each in wishes], 1.0, torch.float32),
        min_p_B=column([each.min_p for each in wishes], 0.0, torch.float32),
        seeds_B=torch.tensor([draw.sequence.seed for draw in draws], device=logits_BV.device),
        positions_B=torch.tensor([draw.position for draw in draws], device=logits_BV.device),
    )


def _scores(chunk: Chunk, logits_SV: Tensor) -> list[Token]:
    """Each wanted prompt position's next token under the model."""
    positions = [chunk.start + offset for offset in chunk.wants_logits[: len(logits_SV)]]
    followed_by = [chunk.sequence.tokens[position + 1] for position in positions]
    top = chunk.sequence.request.parameters.prompt_logprobs or 0
    return scored(logits_SV, followed_by, [top] * len(followed_by))


def scored(logits_MV: Tensor, tokens: Rows[int], tops: Rows[int]) -> list[Token]:
    """Log-probabilities of one token a row, and of the row's likeliest `tops` tokens."""
    if not tokens:
        return []
    total_M = torch.logsumexp(logits_MV, dim=1)
    chosen = logits_MV[range(len(tokens)), list(tokens)].sub(total_M).tolist()
    best = torch.topk(logits_MV, min(max(tops), logits_MV.shape[1]), dim=1)
    ids, values = best.indices.tolist(), (best.values - total_M[:, None]).tolist()
    return [
        Token(token=token, logprob=logprob, top=tuple(zip(ids[row][:top], values[row][:top], strict=True)))
        for row, (token, logprob, top) in enumerate(zip(tokens, chosen, tops, strict=True))
    ]
