"""One model over several processes: which rows and columns of each matrix a rank holds, and what ranks exchange.

Queries, keys, values, gate and up are cut by rows (each rank computes some of the columns of y = x W^T), attention's
output and down by columns (each rank computes a part of every sum, then all ranks add theirs): one sum over ranks after
attention and one after the MLP (Shoeybi et al., arXiv:1909.08053). The vocabulary is cut by rows: a token's embedding
comes from the rank that has it, and each rank's logits are those of its share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place among those that share a model: ranks of torch's default group where there are several."""

    rank: int = 0
    size: int = 1

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def check(self, **counts: int) -> None:
        """Raise ValueError where one of these does not divide among the ranks."""
        for name, count in counts.items():
            if count % self.size:
                raise ValueError(f"got {count} {name} for {self.size} ranks; allowed: a multiple of the ranks")

    def share(self, count: int) -> slice:
        """This rank's of `count` rows or columns. Raises ValueError where they do not divide."""
        self.check(**{"rows or columns": count})
        each = count // self.size
        return slice(self.rank * each, (self.rank + 1) * each)
