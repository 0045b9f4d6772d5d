"""One model over several processes: which rows and columns of each matrix a rank holds, and what ranks exchange.

Queries, keys, values, gate and up are cut by rows (each rank computes some of the columns of y = x W^T), attention's
output and down by columns (each rank computes a part of every sum, then all ranks add theirs): one sum over ranks after
attention and one after the MLP (Shoeybi et al., arXiv:1909.08053). The token matrix is whole on every rank; the
vocabulary's product is cut by rows and joined.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from rolecall.serving.llm.linear import Matrix, columns_of, rows_of, shape


@dataclass(frozen=True, kw_only=True)
class Ranks:
    """This process's place among those that share a model; `group`: their group, if not the default one."""

    rank: int = 0
    size: int = 1
    group: Any = None

    def sum(self, x: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        if self.size > 1:
            dist.all_reduce(x, group=self.group)
        return x

    def gathered(self, x_MN: Tensor) -> Tensor:
        """[M, N over all ranks]: every rank's columns, in the ranks' order. Ranks hold as many columns each."""
        if self.size == 1:
            return x_MN
        parts = [torch.empty_like(x_MN) for _ in range(self.size)]
        dist.all_gather(parts, x_MN, group=self.group)
        return torch.cat(parts, dim=1)

    def check(self, **counts: int) -> None:
        """Raise ValueError where one of these does not divide among the ranks."""
        for name, count in counts.items():
            if count % self.size:
                raise ValueError(f"got {count} {name} for {self.size} ranks; allowed: a multiple of the ranks")

    def rows(self, matrix: Matrix) -> Matrix:
        """This rank's share of the rows."""
        start, end = self._share(shape(matrix)[0])
        return matrix if self.size == 1 else rows_of(matrix, slice(start, end))

    def columns(self, matrix: Matrix) -> Matrix:
        """This rank's share of the columns."""
        start, end = self._share(shape(matrix)[1])
        return matrix if self.size == 1 else columns_of(matrix, start, end)

    def vector(self, vector: Tensor | None) -> Tensor | None:
        """This rank's share of a bias whose matrix is cut by rows."""
        if vector is None or self.size == 1:
            return vector
        start, end = self._share(len(vector))
        return vector[start:end]

    def once(self, vector: Tensor | None) -> Tensor | None:
        """A bias that is added to a sum over ranks: the first rank's alone."""
        return vector if self.rank == 0 else None

    def _share(self, count: int) -> tuple[int, int]:
        self.check(**{"rows or columns": count})
        each = count // self.size
        return self.rank * each, (self.rank + 1) * each
