"""Weights in 8 and 4 bits: how near they stay, and that tiles and GGUF blocks hold them without loss."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.kernels.weight_formats import (
    FORMATS,
    Format,
    dequantize_weight,
    from_gguf,
    quantize_weight,
    tile_weight,
    untile_weight,
)
from rolecall.kernels.weight_rows import weight_rows

_FORMAT = st.sampled_from(FORMATS)
_SIZE = st.integers(0, 70)


def matrix(rows: int, columns: int, seed: int = 0, size: float = 1.0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed)) * size


@settings(max_examples=40, deadline=None)
@given(_FORMAT, _SIZE, _SIZE)
def test_tiles_hold_every_code_and_scale(format: Format, rows: int, columns: int) -> None:
    weight = quantize_weight(matrix(rows, columns), format)
    back = untile_weight(tile_weight(weight))
    assert torch.equal(back.codes, weight.codes)
    assert torch.equal(back.scales, weight.scales)
    assert (back.minima is None) == (weight.minima is None)
    if back.minima is not None and weight.minima is not None:
        assert torch.equal(back.minima, weight.minima)


@settings(max_examples=40, deadline=None)
@given(_FORMAT, st.integers(1, 70), st.integers(-8, 8))
def test_no_weight_moves_by_more_than_half_a_step_and_what_float16_rounds(
    format: Format, columns: int, power: int
) -> None:
    w = matrix(5, columns, seed=columns) * 2.0**power
    weight = quantize_weight(w, format)
    steps = weight.scales.float().abs().repeat_interleave(32 if format != "int8_channel" else columns, dim=1)
    codes_lost = {"int8_channel": 0.5, "int8_group": 0.6, "int4_group": 1.01, "int4_affine": 0.52}[format]
    moved = (dequantize_weight(weight) - w).abs()
    assert bool((moved <= steps[:, :columns] * codes_lost + w.abs().max() * 2e-3).all())


@pytest.mark.parametrize(("format", "bits"), [("int8_channel", 8), ("int8_group", 8.5), ("int4_group", 4.5)])
def test_a_weight_takes_the_bits_that_are_written_down(format: Format, bits: float) -> None:
    tiled = tile_weight(quantize_weight(matrix(64, 2048), format))
    assert tiled.tiles.numel() * 8 / (64 * 2048) == pytest.approx(bits, rel=2e-3)


@pytest.mark.parametrize("format", FORMATS)
def test_rows_of_zeros_and_of_one_value_come_back(format: Format) -> None:
    w = torch.cat([torch.zeros(1, 64), torch.full((1, 64), 0.5), torch.full((1, 64), -0.5)])
    assert torch.allclose(dequantize_weight(quantize_weight(w, format)), w, rtol=2e-3, atol=0)


def gguf_blocks(format: str, rows: int, groups: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Blocks of arbitrary codes, and the numbers they stand for by the block's definition."""
    generator = torch.Generator().manual_seed(3)
    heads = 2 if format == "int4_affine" else 1
    head = torch.randn(rows, groups, heads, generator=generator).half()
    body = torch.randint(0, 256, (rows, groups, 32 if format == "int8_group" else 16), generator=generator).byte()
    blocks = torch.cat([head.view(torch.uint8), body], dim=2)
    if format == "int8_group":
        codes = body.view(torch.int8).float()
    else:
        codes = torch.cat([body & 15, body >> 4], dim=2).float() - (8 if format == "int4_group" else 0)
    values = codes * head[:, :, :1].float() + (head[:, :, 1:].float() if heads == 2 else 0)
    return blocks, values.reshape(rows, groups * 32)


@pytest.mark.parametrize("format", ["int8_group", "int4_group", "int4_affine"])
def test_gguf_blocks_repack_without_loss(format: Format) -> None:
    blocks, values = gguf_blocks(format, 19, 3)
    weight = from_gguf(blocks, format, 96)
    assert torch.equal(dequantize_weight(weight), values)
    assert torch.equal(dequantize_weight(untile_weight(tile_weight(weight))), values)


def test_what_does_not_fit_is_refused() -> None:
    blocks = torch.zeros(34, dtype=torch.uint8)
    for columns, format in [(33, "int8_group"), (64, "int8_group"), (32, "int8_channel"), (0, "int8_group")]:
        with pytest.raises(ValueError, match="allowed"):
            from_gguf(blocks, format, columns)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="allowed"):
        quantize_weight(torch.zeros(2, 2), "int3")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="allowed"):
        quantize_weight(torch.full((1, 32), 1e9), "int4_group")
    with pytest.raises(ValueError, match="allowed"):
        quantize_weight(torch.tensor([[float("nan")]]), "int4_affine")


@settings(max_examples=30, deadline=None)
@given(_FORMAT, st.integers(1, 70), st.integers(1, 70), st.data())
def test_rows_that_are_looked_up_are_those_of_the_whole(
    format: Format, rows: int, columns: int, data: st.DataObject
) -> None:
    weight = quantize_weight(matrix(rows, columns), format)
    at = torch.tensor(data.draw(st.lists(st.integers(0, rows - 1), max_size=9)), dtype=torch.int64)
    for backend in ("auto", "torch"):
        assert torch.equal(weight_rows(tile_weight(weight), at, backend=backend), dequantize_weight(weight)[at])


@pytest.mark.parametrize("rows", [torch.tensor([0, 5]), torch.tensor([-1]), torch.tensor([0]).int(), torch.zeros(1, 1)])
def test_rows_that_are_not_there_are_refused(rows: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="allowed"):
        weight_rows(tile_weight(quantize_weight(matrix(5, 8), "int8_group")), rows)
