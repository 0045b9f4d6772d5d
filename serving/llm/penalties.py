"""Which tokens each draw's penalties and bias weigh on: a few entries a row, never the whole vocabulary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from rolecall.kernels.penalties import add_bias, apply_penalties
from rolecall.serving.llm.draw import Draw


def penalise(logits_BV: Tensor, draws: Sequence[Draw]) -> None:
    """Repetition of prompt and text, presence and frequency of the text so far; in place, row i being draw i's."""
    entries = [
        (row, token, count)
        for row, draw in enumerate(draws)
        if draw.parameters.penalised
        for token, count in _seen(draw).items()
    ]
    if not entries:
        return
    rows, tokens, counts = (list(column) for column in zip(*entries, strict=True))
    device = logits_BV.device

    def column(values: list[float]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=device)

    apply_penalties(
        logits_BV,
        torch.tensor(rows, device=device),
        torch.tensor(tokens, device=device),
        torch.tensor(counts, dtype=torch.int32, device=device),
        repetition_B=column([draw.parameters.repetition_penalty for draw in draws]),
        presence_B=column([draw.parameters.presence_penalty for draw in draws]),
        frequency_B=column([draw.parameters.frequency_penalty for draw in draws]),
    )


def bias(logits_BV: Tensor, draws: Sequence[Draw]) -> None:
    """Each request's bias on the tokens it names; in place."""
    entries = [(row, *pair) for row, draw in enumerate(draws) for pair in draw.parameters.logit_bias.items()]
    if not entries:
        return
    rows, tokens, values = (list(column) for column in zip(*entries, strict=True))
    device = logits_BV.device
    biases = torch.tensor(values, dtype=torch.float32, device=device)
    add_bias(logits_BV, torch.tensor(rows, device=device), torch.tensor(tokens, device=device), biases)


def _seen(draw: Draw) -> Counter[int]:
    """How often each token of the prompt and the text is in the text; 0 for those of the prompt alone."""
    seen = Counter(dict.fromkeys(draw.sequence.request.prompt, 0))
    seen.update(draw.generated)
    return seen
