"""How far a cheaper way to compute a model is from the exact one, on a text.

KL = mean over positions of  sum_v p(v) (log p(v) - log q(v))           p exact, q cheaper, nats
perplexity = e^(mean over positions of -log p(the token that comes next)),   rise = q's over p's - 1
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """`kl`: nats a position, mean. `perplexity`: of the exact model. `rise`: .01 is one percent."""

    kl: float
    perplexity: float
    rise: float


def fidelity(exact_TV: Tensor, cheaper_TV: Tensor, tokens_T: Tensor) -> Fidelity:
    """From both models' logits at every position of one text of at least two tokens."""
    p, q = exact_TV.double().log_softmax(dim=-1), cheaper_TV.double().log_softmax(dim=-1)
    kl = float((p.exp() * (p - q)).sum(dim=-1).mean())
    following = tokens_T[1:, None]
    losses = [float(-logs[:-1].gather(1, following).mean()) for logs in (p, q)]
    rise = torch.tensor(losses[1] - losses[0]).expm1()
    return Fidelity(kl=kl, perplexity=float(torch.tensor(losses[0]).exp()), rise=float(rise))
