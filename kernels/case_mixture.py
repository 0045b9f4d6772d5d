"""Mixture-of-Logits at given sizes: its cached tensors, and the forward that scores a batch of queries with them.

    L_bxp = <f_bi, g_xj> / tau, p = (i, j)      a = G_q + G_x + W2 silu(W1 L + b1) + b2
    score_bx = sum_p softmax_p(silu(a))_p L_bxp

Shapes: f [B, I, d], g [X, J, d], gates G_q [B, P] and G_x [X, P], P = I J; scores [B, X] float32. Items are taken a
block at a time, so that no B x X x P x d tensor arises and the logits of one block stay in the cache. Zhai et al.,
arXiv:2306.04039; gating of Ding and Zhai, arXiv:2407.15462.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rolecall.kernels.case import Numbers

TEMPERATURE = 0.05
BLOCK_LOGITS = 2**18  # of one block of items: 1 MB in float32


@dataclass(frozen=True, kw_only=True)
class MixtureSizes:
    """`dimension` of the embeddings components are made from, components a query and an item, their width, batch."""

    dimension: int
    query_components: int
    item_components: int
    width: int
    batch: int
    hidden: int = 128

    @property
    def pairs(self) -> int:
        """Pairs of components, P."""
        return self.query_components * self.item_components


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a device holds to score items: items' g, G_x and raw embeddings; queries' f, G_q; the gate's layers."""

    query: Tensor
    query_gate: Tensor
    item: Tensor
    item_gate: Tensor
    embedding: Tensor
    w1: Tensor
    b1: Tensor
    w2: Tensor
    b2: Tensor
    out: Tensor

    @property
    def bytes(self) -> int:
        """Of all of it."""
        return sum(tensor.numel() * tensor.element_size() for tensor in vars(self).values())


def mixture(sizes: MixtureSizes, items: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Mixture:
    """Random components of unit length, gates and layers."""
    numbers = [Numbers(seed=seed + i, device=device) for i in range(6)]
    P, H = sizes.pairs, sizes.hidden

    def unit(n: Numbers, *shape: int) -> Tensor:
        return torch.nn.functional.normalize(n.normal(*shape), dim=-1).to(dtype)

    return Mixture(
        query=unit(numbers[0], sizes.batch, sizes.query_components, sizes.width),
        query_gate=numbers[1].normal(sizes.batch, P, dtype=dtype),
        item=unit(numbers[2], items, sizes.item_components, sizes.width),
        item_gate=numbers[3].normal(items, P, dtype=dtype),
        embedding=numbers[4].normal(items, sizes.dimension, dtype=dtype),
        w1=(numbers[5].normal(H, P) / P**0.5).to(dtype),
        b1=torch.zeros(H, dtype=dtype, device=device),
        w2=(numbers[0].normal(P, H) / H**0.5).to(dtype),
        b2=torch.zeros(P, dtype=dtype, device=device),
        out=torch.empty(sizes.batch, items, device=device),
    )


def score(m: Mixture) -> Tensor:
    """Scores [B, X] in `out`."""
    B, components, width = m.query.shape
    X, P = m.item_gate.shape
    query = m.query.reshape(B * components, width).t()
    step = max(1, BLOCK_LOGITS // max(1, B * P))
    for start in range(0, X, step):
        g = m.item[start : start + step]
        n = len(g)
        logits = (g.reshape(-1, width) @ query).view(n, -1, B, components).permute(0, 2, 3, 1).reshape(n, B, P)
        logits = logits / TEMPERATURE
        gate = torch.nn.functional.silu(torch.nn.functional.linear(logits, m.w1, m.b1))
        gate = torch.nn.functional.linear(gate, m.w2, m.b2) + m.query_gate + m.item_gate[start : start + step, None]
        weights = torch.softmax(torch.nn.functional.silu(gate).float(), dim=-1)
        m.out[:, start : start + step] = (weights * logits.float()).sum(-1).t()
    return m.out
