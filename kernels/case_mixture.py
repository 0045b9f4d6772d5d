"""Cases of Mixture-of-Logits, and its tensors at any sizes, as the planner asks for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rolecall.kernels import intensity
from rolecall.kernels.case import Case, Numbers, Scale, working_dtype
from rolecall.kernels.mixture_of_logits import CrossGate, Side, mixture_of_logits

HIDDEN = 128


@dataclass(frozen=True, kw_only=True)
class MixtureSizes:
    """`dimension` of the embeddings components are made from, components a query and an item, their width, batch."""

    dimension: int
    query_components: int
    item_components: int
    width: int
    batch: int
    hidden: int = HIDDEN

    @property
    def pairs(self) -> int:
        """Pairs of components, P."""
        return self.query_components * self.item_components


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a device holds: items' components, gates and raw embeddings [X, dimension]; queries'; the layers; scores."""

    queries: Side
    items: Side
    cross: CrossGate
    embeddings: Tensor
    out: Tensor

    @property
    def bytes(self) -> int:
        """Of all of it."""
        sides = (self.queries.components, self.queries.gates, self.items.components, self.items.gates)
        tensors = (*sides, *self.cross.tensors, self.embeddings, self.out)
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


# The sizes published for ML-20M (arXiv:2407.15462): 8 x 4 components 128 wide. Batch, then items.
SHAPES: dict[Scale, tuple[MixtureSizes, int]] = {
    "tiny": (
        MixtureSizes(dimension=8, query_components=2, item_components=2, width=16, batch=2, hidden=16),
        20,
    ),
    "cpu": (MixtureSizes(dimension=64, query_components=8, item_components=4, width=64, batch=1), 4096),
    "gpu": (MixtureSizes(dimension=256, query_components=8, item_components=4, width=128, batch=32), 100_000),
}


def mixture(sizes: MixtureSizes, items: int, dtype: torch.dtype, device: torch.device, seed: int = 0) -> Mixture:
    """Random components of unit length, gates and layers."""
    numbers = [Numbers(seed=seed + i, device=device) for i in range(6)]
    P, H = sizes.pairs, sizes.hidden

    def unit(n: Numbers, *shape: int) -> Tensor:
        return torch.nn.functional.normalize(n.normal(*shape), dim=-1).to(dtype)

    return Mixture(
        queries=Side(
            components=unit(numbers[0], sizes.batch, sizes.query_components, sizes.width),
            gates=numbers[1].normal(sizes.batch, P, dtype=dtype),
        ),
        items=Side(
            components=unit(numbers[2], items, sizes.item_components, sizes.width),
            gates=numbers[3].normal(items, P, dtype=dtype),
        ),
        cross=CrossGate(
            w1=(numbers[5].normal(H, P) / P**0.5).to(dtype),
            b1=torch.zeros(H, dtype=dtype, device=device),
            w2=(numbers[0].normal(P, H) / H**0.5).to(dtype),
            b2=torch.zeros(P, dtype=dtype, device=device),
        ),
        embeddings=numbers[4].normal(items, sizes.dimension, dtype=dtype),
        out=torch.empty(sizes.batch, items, device=device),
    )


def score(m: Mixture, backend: str | None = None) -> Tensor:
    """Scores [B, X] in `out`."""
    return mixture_of_logits(m.queries, m.items, m.cross, out=m.out, backend=backend)


def cases(op: str, scale: Scale, device: torch.device) -> list[Case]:
    """The case of `mol`."""
    sizes, items = SHAPES[scale]
    dtype = working_dtype(device)
    pair = (sizes.query_components, sizes.item_components)
    return [
        Case(
            op=op,
            shape=f"{sizes.batch} x {items:,} items, {pair[0]} x {pair[1]} components of {sizes.width}",
            work=intensity.mixture_of_logits(sizes.batch, items, pair, sizes.width, dtype, hidden=sizes.hidden),
            inputs=lambda seed: mixture(sizes, items, dtype, device, seed),
            run=score,
        )
    ]
