"""How a kernel is judged: by float64, allowed twice the error of the same expression in torch and the same dtype."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import torch
from torch import Tensor

from rolecall.kernels.dispatch import HAS_TRITON, INTERPRETED

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
needs_triton = pytest.mark.skipif(not HAS_TRITON, reason="triton is not installed")
BACKENDS = ["torch", pytest.param("triton", marks=needs_triton)]
# Triton's interpreter cannot loop to a bound known only at run time where numpy is 2.4 or later.
LOOPS = HAS_TRITON and not (INTERPRETED and version("numpy").split(".") >= ["2", "4"])
needs_loops = pytest.mark.skipif(not LOOPS, reason="needs triton, and to interpret it numpy below 2.4")
LOOPING_BACKENDS = ["torch", pytest.param("triton", marks=needs_loops)]
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def random(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0, scale: float = 1.0) -> Tensor:
    """Normal numbers, the same in every run."""
    numbers = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (numbers * scale).to(dtype).to(DEVICE)


def assert_as_exact_as_torch(ours: Tensor, exact: Tensor, torchs: Tensor, *, ulps: float = 4.0) -> None:
    """max |ours - exact| <= 2 max |torch's - exact| + `ulps` units in the last place of the largest value."""
    assert ours.dtype == torchs.dtype
    assert ours.shape == exact.shape
    if exact.numel() == 0:
        return
    exact, finite = exact.double(), torch.isfinite(exact)
    assert torch.equal(torch.where(finite, 0.0, ours.double()), torch.where(finite, 0.0, exact))
    largest = torch.where(finite, exact, 0.0).abs().max()
    allowed = 2 * error(torchs, exact, finite) + ulps * torch.finfo(ours.dtype).eps * largest
    assert float(error(ours, exact, finite)) <= float(allowed)


def error(got: Tensor, exact: Tensor, finite: Tensor) -> Tensor:
    """The largest deviation where the exact value is finite; infinite where `got` is not."""
    deviation = torch.where(finite, got.double() - exact, 0.0).abs()
    return torch.nan_to_num(deviation, nan=float("inf"), posinf=float("inf")).max()
