"""The Mixture-of-Logits model around `mixture_of_logits`: components and gates from embeddings.

    f = normalise(Linear(P_Q D)(GeGLU(dropout(q))))     g = normalise(Linear(P_X D)(dropout(x)))
    u = Linear(P)(silu(Linear(H)(q)))                   v = Linear(P)(silu(Linear(H)(x)))       no bias at the end

Ding and Zhai, arXiv:2407.15462, section 3; lengths are at least 1e-6 when divided by, tau is .05. Shapes: q_BE, x_NF.
An item's side is a function of its embedding alone: compute it once, keep it, and score or search it with the query's.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from rolecall.kernels.gates import geglu
from rolecall.kernels.int8_topk import Best
from rolecall.kernels.mixture_of_logits import CrossGate, Side, mixture_of_logits, mixture_topk

_LEAST_LENGTH = 1e-6


@dataclass(frozen=True, kw_only=True)
class MixtureSizes:
    """`query`, `item`: width of the embeddings. `hidden`: of the gates; `query_hidden`: of the query's projection."""

    query: int
    item: int
    query_parts: int = 8
    item_parts: int = 4
    width: int = 64
    hidden: int = 128
    query_hidden: int = 512
    tau: float = 0.05
    query_dropout: float = 0.2
    item_dropout: float = 0.1

    def __post_init__(self) -> None:
        sizes = (self.query, self.item, self.query_parts, self.item_parts, self.width, self.hidden, self.query_hidden)
        if min(sizes) < 1 or not self.tau > 0:
            raise ValueError(f"got {self}; allowed: every size 1 or more, tau above 0")

    @property
    def pairs(self) -> int:
        """P."""
        return self.query_parts * self.item_parts


class _Gate(nn.Module):
    """An embedding's part of the gates."""

    def __init__(self, width: int, hidden: int, pairs: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, hidden)
        self.last = nn.Linear(hidden, pairs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        last: Tensor = self.last(nn.functional.silu(self.first(x)))
        return last


class MixtureOfLogits(nn.Module):
    """Scores of queries and items; `score` and `topk` take sides computed before."""

    def __init__(self, sizes: MixtureSizes) -> None:
        super().__init__()
        self.sizes = sizes
        self.query_in = nn.Linear(sizes.query, 2 * sizes.query_hidden)
        self.query_out = nn.Linear(sizes.query_hidden, sizes.query_parts * sizes.width)
        self.item_out = nn.Linear(sizes.item, sizes.item_parts * sizes.width)
        self.query_gate = _Gate(sizes.query, sizes.hidden, sizes.pairs)
        self.item_gate = _Gate(sizes.item, sizes.hidden, sizes.pairs)
        self.cross_in = nn.Linear(sizes.pairs, sizes.hidden)
        self.cross_out = nn.Linear(sizes.hidden, sizes.pairs)

    def query_side(self, q_BE: Tensor) -> Side:
        """f and u."""
        dropped = nn.functional.dropout(q_BE, self.sizes.query_dropout, self.training)
        gate, value = self.query_in(dropped).chunk(2, dim=-1)
        parts = self.query_out(geglu(gate, value))
        return Side(components=self._components(parts, self.sizes.query_parts), gates=self.query_gate(q_BE))

    def item_side(self, x_NF: Tensor) -> Side:
        """g and v: what an index keeps of the items."""
        parts = self.item_out(nn.functional.dropout(x_NF, self.sizes.item_dropout, self.training))
        return Side(components=self._components(parts, self.sizes.item_parts), gates=self.item_gate(x_NF))

    @property
    def cross(self) -> CrossGate:
        """The gate across logits."""
        first, last = self.cross_in, self.cross_out
        return CrossGate(w1=first.weight, b1=first.bias, w2=last.weight, b2=last.bias)

    def forward(self, q_BE: Tensor, x_NF: Tensor, *, backend: str | None = None) -> Tensor:
        """scores_BN, differentiable."""
        return self.score(self.query_side(q_BE), self.item_side(x_NF), backend=backend)

    def score(self, queries: Side, items: Side, *, out: Tensor | None = None, backend: str | None = None) -> Tensor:
        """scores_BN; see `mixture_of_logits`."""
        return mixture_of_logits(queries, items, self.cross, tau=self.sizes.tau, out=out, backend=backend)

    def topk(
        self, queries: Side, items: Side, k: int, *, allowed: Tensor | None = None, backend: str | None = None
    ) -> Best:
        """The best `k` items for each query; see `mixture_topk`."""
        return mixture_topk(queries, items, self.cross, k, tau=self.sizes.tau, allowed=allowed, backend=backend)

    def _components(self, parts: Tensor, count: int) -> Tensor:
        split = parts.view(len(parts), count, self.sizes.width)
        return nn.functional.normalize(split, dim=-1, eps=_LEAST_LENGTH)
