"""GGUF files: what their blocks stand for, and that a wrong file is refused before anything of it is used."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.kernels.weight_formats import dequantize_weight
from rolecall.serving.llm.ggml_blocks import BLOCKS, dequantized, quantized
from rolecall.serving.llm.gguf import GgufFile, ModelFileError

from .tiny import gguf_bytes

Blocks = dict[str, tuple[tuple[int, ...], int, bytes]]
SMALL: Blocks = {
    "a": ((2, 32), 8, bytes(range(68))),
    "b": ((3,), 0, struct.pack("<3f", 1, 2, 3)),
}
WHOLE = gguf_bytes(
    {"general.architecture": "llama", "n": 3, "names": ["x", "yy"], "numbers": [1, 2], "on": True}, SMALL
)
BY_NAME = {block.name: block for block in BLOCKS.values()}
HALVES = {"Q5_0": [0], "Q5_1": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208]}


def opened(tmp_path: Path, data: bytes) -> GgufFile:
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    return GgufFile(path)


def test_a_whole_file_gives_its_metadata_and_its_bytes(tmp_path: Path) -> None:
    file = opened(tmp_path, WHOLE)
    assert file.value("names", list) == ["x", "yy"]
    assert file.value("n", int) == 3
    assert file.value("n", float) == 3.0
    assert file.value("on", bool) is True
    assert file.described("a").shape == (2, 32)
    assert bytes(file.raw("a").numpy()) == bytes(range(68))
    assert file.raw("b").view(torch.float32).tolist() == [1, 2, 3]


@pytest.mark.parametrize("length", sorted({*range(0, len(WHOLE) - 20, 7), len(WHOLE) - 21}))
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, length: int) -> None:
    with pytest.raises(ModelFileError):
        opened(tmp_path, WHOLE[:length])


@settings(max_examples=300, deadline=None)
@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255), st.integers(0, 255))
def test_a_file_with_a_wrong_byte_is_refused_or_read_within_its_bounds(
    tmp_path_factory: pytest.TempPathFactory, at: int, first: int, second: int
) -> None:
    data = bytearray(WHOLE)
    data[at], data[(at * 31 + 7) % len(data)] = first, second
    path = tmp_path_factory.getbasetemp() / "flipped.gguf"
    path.write_bytes(data)
    try:
        file = GgufFile(path)
    except ModelFileError:
        return
    for name in file.tensors:
        assert file.raw(name).numel() == file.described(name).size <= len(data)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [(8, 2**60, "tensors"), (16, 2**62, "entries"), (24, 2**63, "a key"), (4, 2**40 + 9, "version")],
)
def test_a_count_beyond_the_file_is_refused_at_once(tmp_path: Path, place: int, value: int, words: str) -> None:
    data = bytearray(WHOLE)
    data[place : place + 8] = struct.pack("<Q", value)
    with pytest.raises(ModelFileError, match=words):
        opened(tmp_path, bytes(data))


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"a": ((2, 33), 8, b"")}, "no multiple of 32"),
        ({"a": ((2, 32), 99, b"")}, "type 99"),
        ({"a": ((2**40, 32), 8, b"")}, "cut short"),
        ({"a": ((1, 1, 1, 1, 1), 0, b"\0" * 4)}, "5 dimensions"),
    ],
)
def test_a_tensor_that_cannot_be_is_refused_by_name(tmp_path: Path, tensors: Blocks, words: str) -> None:
    with pytest.raises(ModelFileError, match=words):
        opened(tmp_path, gguf_bytes({}, tensors))


def test_tensors_that_share_bytes_and_values_of_another_type_are_refused(tmp_path: Path) -> None:
    data = WHOLE.replace(struct.pack("<IQ", 0, 96), struct.pack("<IQ", 0, 32))  # b begins within a
    assert data != WHOLE
    with pytest.raises(ModelFileError, match="free"):
        opened(tmp_path, data)
    with pytest.raises(ModelFileError, match="type str"):
        opened(tmp_path, WHOLE).value("n", str)


@pytest.mark.parametrize("name", sorted(HALVES))
def test_blocks_stand_for_what_their_definition_says(name: str) -> None:
    block = BY_NAME[name]
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (3, block.size), dtype=np.uint8)
    for at, value in zip(HALVES[name], (0.25, -0.5), strict=False):
        raw[:, at : at + 2] = np.array([value], dtype=np.float16).view(np.uint8)
    got = dequantized(torch.from_numpy(raw).view(-1), block, block.elements)
    right = [[element(name, row, i) for i in range(block.elements)] for row in raw.astype(int)]
    assert torch.equal(got, torch.tensor(right))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["Q5_0", "Q4_K"]), st.integers(0, 2**32 - 1))
def test_codes_that_are_kept_stand_for_the_same_numbers_but_for_scales_of_q4_k_in_float16(name: str, seed: int) -> None:
    block = BY_NAME[name]
    raw = np.random.default_rng(seed).integers(0, 256, (2, 2 * block.size), dtype=np.uint8)
    for at in (*HALVES[name], *(block.size + place for place in HALVES[name])):
        raw[:, at + 1] = raw[:, at + 1] % 0x40  # factors in 0 to 2: others have no minima, or none a float16 holds
    tensor = torch.from_numpy(raw)
    kept = quantized(tensor, block, 2 * block.elements, rounded=True)
    right = dequantized(tensor, block, 2 * block.elements)
    assert kept is not None
    assert kept.codes.numel() == right.numel()
    if name == "Q5_0":
        assert torch.equal(dequantize_weight(kept), right)
        return
    assert quantized(tensor, block, 2 * block.elements) is None
    assert kept.minima is not None
    largest = (15 * kept.scales.float() + kept.minima.float().abs()).repeat_interleave(32, dim=1)
    assert bool(((dequantize_weight(kept) - right).abs() <= 2**-11 * largest + 2**-20).all())


def test_factors_beyond_float16_are_not_kept_as_codes() -> None:
    raw = np.full((1, 144), 255, dtype=np.uint8)
    raw[:, :4] = np.array([60_000.0, 1.0], dtype=np.float16).view(np.uint8)
    assert quantized(torch.from_numpy(raw), BY_NAME["Q4_K"], 256, rounded=True) is None


def element(name: str, b: np.ndarray, i: int) -> float:
    """Column i of one block whose factors are .25 and -.5, after the loops of ggml-quants.c."""
    d, m = 0.25, -0.5
    if name in ("Q5_0", "Q5_1"):
        start = 2 if name == "Q5_0" else 4
        high = int.from_bytes(bytes(b[start : start + 4].astype(np.uint8)), "little") >> i & 1
        nibble = b[start + 4 + i % 16] >> (4 * (i // 16)) & 15
        code = int(nibble | high << 4)
        return d * (code - 16) if name == "Q5_0" else d * code + m
    half, rest = divmod(i, 128)
    part, lane = divmod(rest, 32)
    if name == "Q2_K":
        scale = b[i // 16]
        return float(d * (scale & 15) * (b[16 + 32 * half + lane] >> 2 * part & 3) - m * (scale >> 4))
    if name == "Q3_K":
        g, packed = i // 16, b[96:108]
        scale = (packed[g % 8] >> (4 * (g // 8)) & 15) | (packed[8 + g % 4] >> (2 * (g // 4)) & 3) << 4
        low = b[32 + 32 * half + lane] >> 2 * part & 3
        return float(d * (scale - 32) * (low - (0 if b[lane] >> (4 * half + part) & 1 else 4)))
    if name == "Q6_K":
        low = b[64 * half + 32 * (part % 2) + lane] >> (4 * (part // 2)) & 15
        code = low | (b[128 + 32 * half + lane] >> 2 * part & 3) << 4
        scale = int(np.array(b[192 + i // 16], dtype=np.uint8).view(np.int8))
        return float(d * scale * (code - 32))
    g, p = i // 32, b[4:16]
    scale = p[g] & 63 if g < 4 else (p[g + 4] & 15) | (p[g - 4] >> 6) << 4
    low = p[g + 4] & 63 if g < 4 else (p[g + 4] >> 4) | (p[g] >> 6) << 4
    nibbles = b[16:] if name == "Q4_K" else b[48:]
    code = nibbles[32 * (g // 2) + i % 32] >> (4 * (g % 2)) & 15
    if name == "Q5_K":
        code |= (b[16 + i % 32] >> g & 1) << 4
    return float(d * scale * code - m * low)
