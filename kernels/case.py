"""One operator at one shape, ready to be timed: how to make its inputs, how to call it, what it must move."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from rolecall.kernels.intensity import Work

Scale: TypeAlias = Literal["tiny", "cpu", "gpu"]  # of a test, of a laptop's memory, of an H100's

Sizes: TypeAlias = Mapping[Scale, tuple[tuple[int, ...], ...]]  # the shapes an operator is measured at


@dataclass(frozen=True, kw_only=True)
class Case:
    """`inputs(seed)` makes random arguments of one call, with the tensors it writes; `run` makes the call,
    on the backend named (None: the one that is chosen there).

    `shape`: in words. `waits`: whether the call waits for the device, so that no CUDA graph can hold it.
    """

    op: str
    shape: str
    work: Work
    inputs: Callable[[int], Any]
    run: Callable[[Any, str | None], Any]
    waits: bool = False


def working_dtype(device: torch.device) -> torch.dtype:
    """What models compute in there: bfloat16 on a GPU, float32 on a CPU."""
    return torch.bfloat16 if device.type == "cuda" else torch.float32


def scale_of(device: torch.device) -> Scale:
    """The scale of the shapes that a device is measured on."""
    return "gpu" if device.type == "cuda" else "cpu"


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """Random tensors on a device, the same for a seed."""

    seed: int
    device: torch.device

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self._generator(), device=self.device).to(dtype)

    def codes(self, *shape: int) -> Tensor:
        """int8 in -127..127."""
        return torch.randint(-127, 128, shape, generator=self._generator(), dtype=torch.int8, device=self.device)

    def scales(self, *shape: int) -> Tensor:
        """float32 in (0, 1]."""
        return 1.0 - torch.rand(*shape, generator=self._generator(), device=self.device)

    def order(self, n: int) -> Tensor:
        """A permutation of 0..n - 1, int64."""
        return torch.randperm(n, generator=self._generator(), device=self.device)

    def _generator(self) -> torch.Generator:
        return torch.Generator(device=self.device).manual_seed(self.seed)
