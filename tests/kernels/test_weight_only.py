"""Products with weights in 8 and 4 bits: right, and the same bits whoever else is in the batch."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.kernels.cpp import build
from rolecall.kernels.dispatch import INTERPRETED
from rolecall.kernels.weight_formats import (
    FORMATS,
    Format,
    QuantizedWeight,
    TiledWeight,
    dequantize_weight,
    quantize_weight,
    tile_weight,
)
from rolecall.kernels.weight_only import Mode, quantize_activations, reference, weight_only_linear

MODES: list[Mode] = ["exact", "fast"]
BACKENDS = ["torch"] + (["cpp"] if build.available() else []) + (["triton"] if INTERPRETED else [])
compiled = pytest.mark.skipif(not build.available(), reason="needs a C++ compiler")


def draw(rows: int, columns: int, batch: int, format: Format, seed: int = 0) -> tuple[torch.Tensor, QuantizedWeight]:
    generator = torch.Generator().manual_seed(seed)
    w, x = torch.randn(rows, columns, generator=generator), torch.randn(batch, columns, generator=generator)
    return x, quantize_weight(w, format)


def worst(y: torch.Tensor, right: torch.Tensor) -> float:
    return float((y.double() - right).abs().max()) if y.numel() else 0.0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (16, 32), (33, 100)])
def test_the_error_is_at_most_twice_that_of_torch(
    format: Format, rows: int, columns: int, mode: Mode, backend: str
) -> None:
    x, weight = draw(rows, columns, 2 if backend == "triton" else 7, format)
    w = dequantize_weight(weight)
    right = reference(x.double(), w.double(), mode)
    y = weight_only_linear(x, tile_weight(weight), mode=mode, backend=backend)
    allowed = 2 * worst(reference(x, w, mode), right) + 1e-6 * float(right.abs().max())
    assert worst(y, right) <= allowed


@compiled
@settings(max_examples=40, deadline=None)
@given(st.sampled_from(FORMATS), st.sampled_from(MODES), st.integers(0, 40), st.integers(0, 200), st.integers(0, 9))
def test_every_size_is_right(format: Format, mode: Mode, rows: int, columns: int, batch: int) -> None:
    x, weight = draw(rows, columns, batch, format, seed=rows + columns)
    w = dequantize_weight(weight)
    y = weight_only_linear(x, tile_weight(weight), mode=mode)
    right = reference(x.double(), w.double(), mode)
    assert y.shape == (batch, rows)
    assert worst(y, right) <= 2 * worst(reference(x, w, mode), right) + 1e-5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("format", FORMATS)
def test_a_row_alone_equals_the_row_in_a_batch_bit_for_bit(format: Format, mode: Mode, backend: str) -> None:
    batch = 2 if backend == "triton" else 64
    x, weight = draw(32 if backend == "triton" else 200, 96, batch, format)
    tiled = tile_weight(weight)
    whole = weight_only_linear(x, tiled, mode=mode, backend=backend)
    for m in {0, 1, batch // 2, batch - 1}:
        assert torch.equal(weight_only_linear(x[m : m + 1], tiled, mode=mode, backend=backend)[0], whole[m])


@compiled
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("format", FORMATS)
def test_two_runs_and_any_number_of_threads_give_the_same_bits(format: Format, mode: Mode) -> None:
    x, weight = draw(1000, 256, 9, format)
    tiled = tile_weight(weight)
    before = torch.get_num_threads()
    try:
        outs = []
        for threads in (1, 2, 5, 2):
            torch.set_num_threads(threads)
            outs.append(weight_only_linear(x, tiled, mode=mode))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(out, outs[0]) for out in outs)


@compiled
@pytest.mark.parametrize("mode", MODES)
def test_strided_inputs_and_half_precision_and_any_leading_dimensions(mode: Mode) -> None:
    x, weight = draw(40, 64, 6, "int4_group")
    tiled = tile_weight(weight)
    right = weight_only_linear(x, tiled, mode=mode)
    wide = torch.zeros(6, 200)
    wide[:, 50:114] = x
    assert torch.equal(weight_only_linear(wide[:, 50:114], tiled, mode=mode), right)
    assert torch.equal(weight_only_linear(x.t().contiguous().t(), tiled, mode=mode), right)
    assert torch.equal(weight_only_linear(x.view(2, 3, 64), tiled, mode=mode), right.view(2, 3, 40))
    assert torch.equal(weight_only_linear(x[0], tiled, mode=mode), right[0])
    for kind in (torch.bfloat16, torch.float16):
        y = weight_only_linear(x.to(kind), tiled, mode=mode)
        assert y.dtype == kind
        assert torch.equal(y, weight_only_linear(x.to(kind).float(), tiled, mode=mode).to(kind))


@compiled
def test_extremes_neither_overflow_nor_spread() -> None:
    x, weight = draw(20, 64, 3, "int8_channel")
    x[0] *= 1e35
    x[1] *= 1e-35
    w = dequantize_weight(weight)
    right = reference(x.double(), w.double())
    y = weight_only_linear(x, tile_weight(weight)).double()
    assert torch.allclose(y, right, rtol=1e-4, atol=0) or worst(y[2], right[2]) < 1e-4
    assert bool(torch.isfinite(y).all())
    x[1, 5] = float("nan")
    for mode in MODES:
        bad = weight_only_linear(x, tile_weight(weight), mode=mode)
        assert bool(torch.isnan(bad[1]).all())
        assert bool(torch.isfinite(bad[[0, 2]]).all())


def test_fast_mode_quantises_by_groups_of_32_with_halves_away_from_zero() -> None:
    x = torch.zeros(1, 40)
    x[0, :4] = torch.tensor([127.0, 0.5, -0.5, 1.5])
    x[0, 32] = float("inf")
    codes, scales = quantize_activations(x)
    assert codes[0, 0, :4].tolist() == [127, 1, -1, 2]
    assert scales[0, 0] == 1
    assert bool(torch.isnan(scales[0, 1]))
    assert codes[0, 1].tolist() == [0] * 32


@compiled
@pytest.mark.parametrize("format", FORMATS)
def test_fast_mode_of_the_compiled_code_and_of_torch_agree_beyond_float32(format: Format) -> None:
    x, weight = draw(64, 320, 5, format)
    y = weight_only_linear(x, tile_weight(weight), mode="fast", backend="cpp")
    right = reference(x, dequantize_weight(weight).double(), "fast")
    assert worst(y, right) <= 3e-6 * float(right.abs().max())


@pytest.mark.parametrize("backend", BACKENDS)
def test_out_is_written_and_returned(backend: str) -> None:
    x, weight = draw(16, 32, 2, "int8_channel")
    out = torch.full((2, 16), 7.0)
    assert weight_only_linear(x, tile_weight(weight), backend=backend, out=out) is out
    assert torch.equal(out, weight_only_linear(x, tile_weight(weight), backend=backend))


def test_a_gradient_reaches_x_and_is_refused_in_fast_mode() -> None:
    x, weight = draw(16, 32, 2, "int4_affine")
    x.requires_grad_()
    weight_only_linear(x, tile_weight(weight)).sum().backward()
    assert x.grad is not None
    assert torch.allclose(x.grad, dequantize_weight(weight).sum(dim=0).expand(2, 32), atol=1e-4)
    with pytest.raises(ValueError, match="allowed"):
        weight_only_linear(x, tile_weight(weight), mode="fast")


def test_what_does_not_fit_is_refused() -> None:
    x, weight = draw(16, 32, 2, "int4_group")
    tiled = tile_weight(weight)
    for bad in (x[:, :31], x.double(), x.int()):
        with pytest.raises(ValueError, match="allowed"):
            weight_only_linear(bad, tiled)
    for out in (torch.zeros(2, 15), torch.zeros(2, 16, dtype=torch.float16), torch.zeros(16, 2).t()):
        with pytest.raises(ValueError, match="allowed"):
            weight_only_linear(x, tiled, out=out)
    with pytest.raises(ValueError, match="allowed"):
        weight_only_linear(x, tiled, mode="quick")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="possible"):
        weight_only_linear(x, tiled, backend="cuda")


def test_a_compiled_graph_holds_the_operator() -> None:
    x, weight = draw(24, 64, 3, "int4_group")
    tiled = tile_weight(weight)

    def layer(x: torch.Tensor) -> torch.Tensor:
        return weight_only_linear(x, tiled) + 1

    graph = torch.compile(layer, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        assert torch.equal(graph(x), layer(x))


def test_the_registration_keeps_its_promises() -> None:
    x, weight = draw(24, 64, 3, "int4_group")
    tiled: TiledWeight = tile_weight(weight)
    arguments = (x, tiled.tiles, 24, 64, "int4_group", False, None, torch.empty(3, 24))
    torch.library.opcheck(torch.ops.rolecall.weight_only_linear.default, arguments)
