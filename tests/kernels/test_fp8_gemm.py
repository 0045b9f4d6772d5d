"""Products in 8-bit floating point: as exact as float32 sums of the same codes."""

from __future__ import annotations

import pytest
import torch

from rolecall.kernels.dispatch import INTERPRETED
from rolecall.kernels.fp8_gemm import LARGEST, Fp8Rows, fp8_gemm, fp8_linear, quantize_rows_fp8, reference

from .oracle import assert_as_exact_as_torch, needs_loops, random

BACKENDS = ["torch", *([pytest.param("triton", marks=needs_loops)] if INTERPRETED else [])]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("per_tensor", [False, True])
@pytest.mark.parametrize(("M", "N", "K"), [(1, 1, 1), (3, 70, 150), (65, 5, 33)])
def test_sums_are_as_exact_as_torchs(M: int, N: int, K: int, per_tensor: bool, backend: str) -> None:
    a = quantize_rows_fp8(random(M, K, seed=1), per_tensor=per_tensor)
    b = quantize_rows_fp8(random(N, K, seed=2), per_tensor=per_tensor)
    for dtype in (torch.float32, torch.bfloat16):
        ours = fp8_gemm(a, b, dtype=dtype, backend=backend)
        exact = reference(a.codes, a.scales, b, torch.float64)
        torchs = ((a.codes.float() @ b.codes.float().t()) * (a.scales[:, None] * b.scales)).to(dtype)
        assert_as_exact_as_torch(ours, exact, torchs)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_weight_alone_in_fp8(dtype: torch.dtype, backend: str) -> None:
    x, w = random(2, 3, 150, dtype=dtype, seed=1), quantize_rows_fp8(random(20, 150, seed=2))
    ours = fp8_linear(x, w, backend=backend)
    exact = reference(x.flatten(0, 1).double(), None, w, torch.float64).view(2, 3, 20)
    torchs = (torch.nn.functional.linear(x.float(), w.codes.float()) * w.scales).to(dtype)
    assert_as_exact_as_torch(ours, exact, torchs)
    out = torch.empty_like(ours)
    assert fp8_linear(x, w, backend=backend, out=out) is out
    assert torch.equal(out, ours)


def test_codes_are_the_nearest_and_the_largest_does_not_overflow() -> None:
    x = random(5, 300) * 1e4
    for per_tensor in (False, True):
        rows = quantize_rows_fp8(x, per_tensor=per_tensor)
        back = rows.codes.float() * rows.scales[:, None]
        assert bool(torch.isfinite(back).all())
        assert rows.codes.float().abs().max() == LARGEST
        assert bool(((back - x).abs() <= x.abs() / 16 + rows.scales[:, None] * 2**-10 * 1.001).all())
    assert quantize_rows_fp8(torch.zeros(2, 3)).codes.float().abs().max() == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_alone_equals_the_row_in_a_batch_bit_for_bit(backend: str) -> None:
    a, b = quantize_rows_fp8(random(64, 160, seed=1)), quantize_rows_fp8(random(40, 160, seed=2))
    x = random(64, 160, seed=3)
    whole, linear = fp8_gemm(a, b, backend=backend), fp8_linear(x, b, backend=backend)
    for m in (0, 63):
        alone = Fp8Rows(codes=a.codes[m : m + 1], scales=a.scales[m : m + 1])
        assert torch.equal(fp8_gemm(alone, b, backend=backend)[0], whole[m])
        assert torch.equal(fp8_linear(x[m : m + 1], b, backend=backend)[0], linear[m])


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs_and_outputs_and_empty_ones(backend: str) -> None:
    a, b = quantize_rows_fp8(random(5, 32, seed=1)), quantize_rows_fp8(random(6, 32, seed=2))
    right, out = fp8_gemm(a, b, backend=backend), torch.full((5, 10), 9.0)
    turned = Fp8Rows(codes=a.codes.view(torch.uint8).t().contiguous().t().view(torch.float8_e4m3fn), scales=a.scales)
    fp8_gemm(turned, b, backend=backend, out=out[:, 2:8])
    assert torch.equal(out[:, 2:8], right)
    assert bool((out[:, [0, 1, 8, 9]] == 9).all())
    for M, N, K in ((0, 3, 4), (3, 0, 4), (2, 3, 0)):
        empty = fp8_gemm(quantize_rows_fp8(torch.ones(M, K)), quantize_rows_fp8(torch.ones(N, K)), backend=backend)
        assert empty.shape == (M, N)
        assert bool((empty == 0).all())


def test_what_does_not_fit_is_refused() -> None:
    a, b = quantize_rows_fp8(random(2, 8)), quantize_rows_fp8(random(3, 8))
    for bad in (quantize_rows_fp8(random(3, 7)), Fp8Rows(codes=b.codes.float(), scales=b.scales),
                Fp8Rows(codes=b.codes, scales=b.scales[:2])):  # fmt: skip
        with pytest.raises(ValueError, match="allowed"):
            fp8_gemm(a, bad)
        with pytest.raises(ValueError, match="allowed"):
            fp8_linear(random(2, 8), bad)
    with pytest.raises(ValueError, match="allowed"):
        fp8_gemm(a, b, out=torch.zeros(3, 2))
    with pytest.raises(ValueError, match="allowed"):
        fp8_linear(random(2, 8), b, out=torch.zeros(2, 4))


def test_a_compiled_graph_holds_the_operator_and_its_registration_keeps_its_promises() -> None:
    a, b = quantize_rows_fp8(random(4, 32, seed=1)), quantize_rows_fp8(random(5, 32, seed=2))

    def layer(x: torch.Tensor) -> torch.Tensor:
        return fp8_linear(x, b) + 1

    x = random(4, 32)
    assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    arguments = (a.codes, a.scales, b.codes, b.scales, None, torch.empty(4, 5))
    # without test_schema, which compares arguments by an operation that torch lacks for fp8
    checks = ("test_autograd_registration", "test_faketensor", "test_aot_dispatch_dynamic")
    torch.library.opcheck(torch.ops.rolecall.fp8_gemm.default, arguments, test_utils=checks)
