"""Products of int8 matrices: exact sums, so every implementation gives the same bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.kernels.cpp import build
from rolecall.kernels.dispatch import INTERPRETED
from rolecall.kernels.int8_gemm import int8_gemm, reference
from rolecall.kernels.quantization import QuantizedRows, quantize_rows

BACKENDS = ["torch"] + (["cpp"] if build.available() else []) + (["triton"] if INTERPRETED else [])


def draw(rows: int, columns: int, seed: int = 0) -> QuantizedRows:
    return quantize_rows(torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 70), st.sampled_from([torch.float32, torch.bfloat16]))
def test_every_size_gives_the_bits_of_exact_sums(M: int, N: int, K: int, dtype: torch.dtype) -> None:
    a, b = draw(M, K, 1), draw(N, K, 2)
    assert torch.equal(int8_gemm(a, b, dtype=dtype), reference(a, b, dtype))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("M", "N", "K"), [(1, 1, 1), (3, 70, 130), (17, 5, 33)])
def test_odd_sizes(M: int, N: int, K: int, backend: str) -> None:
    a, b = draw(M, K, 1), draw(N, K, 2)
    assert torch.equal(int8_gemm(a, b, backend=backend), reference(a, b))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_largest_codes_over_many_columns_do_not_overflow(backend: str) -> None:
    K = 4096 if backend == "triton" else 131_072
    ends = QuantizedRows(codes=torch.full((1, K), 127, dtype=torch.int8), scales=torch.ones(1))
    ends_minus = QuantizedRows(codes=-ends.codes, scales=ends.scales)
    assert int8_gemm(ends, ends_minus, backend=backend).item() == torch.tensor(-127.0 * 127 * K).item()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_alone_equals_the_row_in_a_batch_bit_for_bit(backend: str) -> None:
    a, b = draw(64, 96, 1), draw(40, 96, 2)
    whole = int8_gemm(a, b, backend=backend)
    for m in (0, 31, 63):
        alone = QuantizedRows(codes=a.codes[m : m + 1], scales=a.scales[m : m + 1])
        assert torch.equal(int8_gemm(alone, b, backend=backend)[0], whole[m])


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs_and_outputs(backend: str) -> None:
    a, b = draw(5, 32, 1), draw(6, 32, 2)
    wide = torch.zeros(5, 80, dtype=torch.int8)
    wide[:, 7:39] = a.codes
    out = torch.full((5, 10), 9.0)
    strided = QuantizedRows(codes=wide[:, 7:39], scales=a.scales)
    int8_gemm(strided, b, backend=backend, out=out[:, 2:8])
    assert torch.equal(out[:, 2:8], reference(a, b))
    assert bool((out[:, [0, 1, 8, 9]] == 9).all())
    turned = QuantizedRows(codes=a.codes.t().contiguous().t(), scales=a.scales)
    assert torch.equal(int8_gemm(turned, b, backend=backend), reference(a, b))


def test_what_does_not_fit_is_refused() -> None:
    a, b = draw(2, 8), draw(3, 8)
    for bad in (draw(3, 7), QuantizedRows(codes=b.codes.int(), scales=b.scales),
                QuantizedRows(codes=b.codes, scales=b.scales[:2])):  # fmt: skip
        with pytest.raises(ValueError, match="allowed"):
            int8_gemm(a, bad)
    with pytest.raises(ValueError, match="allowed"):
        int8_gemm(a, b, dtype=torch.float64)
    with pytest.raises(ValueError, match="allowed"):
        int8_gemm(a, b, out=torch.zeros(3, 2))


def test_a_compiled_graph_holds_the_operator_and_its_registration_keeps_its_promises() -> None:
    a, b = draw(4, 32, 1), draw(5, 32, 2)

    def layer(codes: torch.Tensor) -> torch.Tensor:
        return int8_gemm(QuantizedRows(codes=codes, scales=a.scales), b) + 1

    assert torch.equal(torch.compile(layer, fullgraph=True, backend="aot_eager")(a.codes), layer(a.codes))
    arguments = (a.codes, a.scales, b.codes, b.scales, None, torch.empty(4, 5))
    torch.library.opcheck(torch.ops.rolecall.int8_gemm.default, arguments)
