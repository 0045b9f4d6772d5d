"""CPU products with weights in 8 and 4 bits, and the int8 top-k, against torch in float32 on the same threads.

Matrix-vector products at the shapes of SmolLM2-135M (hidden 576, three heads of keys, intermediate 1,536): queries,
keys and values in one, output, gate and up in one, down, and a layer's share of the vocabulary's 49,152 rows. Each arm
walks through its own copies of such a layer, as many as make up four times the last-level cache, so that every weight
comes from memory, as in a decode step. Arms take turns, one walk each; ratios are medians of the turns' ratios.
`_x`: seconds of `torch.nn.functional.linear` in float32 over ours in exact mode (float32 activations), called as a
decode loop does (`linear_into`); `_fast_x`: with int8 activations.

The same for 16 rows of x, a decode step of 16 sequences (`_batch16`), and for 256, a prompt (`_prompt`), whose weights
stay in the cache. `int8_gemm_x`: products of int8 matrices of that prompt, both quantised beforehand, over float32's;
`int8_gemm_vs_int_mm_x`: over `torch._int_mm`, which has no scales.

`_pct_bandwidth`: bytes of weights a second over those of a plain read of memory by the same threads in the same turn.

Top-k: the best 10,000 of a million int8 rows of 64, against the fastest of torch's ways there: rows made float32
beforehand (four times the memory) or in the call, then `torch.mv` and `torch.topk`.

    python tests/bench/kernels_cpu.py
    python tests/bench/kernels_cpu.py --threads 1 --turns 40
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from harness import ROOT, finish
from torch import Tensor

sys.path.insert(0, str(ROOT / "infra" / "import_root"))

from rolecall.kernels.cpp import build
from rolecall.kernels.int8_gemm import int8_gemm
from rolecall.kernels.int8_topk import int8_topk
from rolecall.kernels.quantization import dequantize, quantize_rows
from rolecall.kernels.weight_formats import Format, TiledWeight, quantize_weight, tile_weight
from rolecall.kernels.weight_only import linear_into, weight_only_linear

LAYER = ((960, 576), (576, 576), (3072, 576), (576, 1536), (1632, 576))
CACHES = 4
BEST = 10_000
GOALS = {
    "int8_gemv_x": (">=", 3.0),
    "int4_gemv_x": (">=", 5.0),
    "int4_gemv_pct_bandwidth": (">=", 60.0),
    "topk_vs_torch_x": (">=", 3.0),
}
FORMATS: dict[str, Format] = {"int8_gemv": "int8_channel", "int4_gemv": "int4_group", "int4_affine_gemv": "int4_affine"}


@dataclass(kw_only=True)
class Arm:
    """`walk` reads `bytes` bytes in `units` equal parts; `seconds`: of one part, by turn."""

    walk: Callable[[], object]
    bytes: int = 0
    units: int = 1
    seconds: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=25)
    parser.add_argument("--items", type=int, default=1_000_000)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if not build.available():
        sys.exit("no compiled operators here: install g++, or set CXX")
    with torch.inference_mode():
        metrics = {
            **products(options.turns),
            **batches(options.turns),
            **prompts(max(3, options.turns // 5)),
            **topk(options.items, options.turns),
        }
    finish("kernels_cpu", metrics, goals=GOALS)


def products(turns: int) -> dict[str, float]:
    """Speed of the matrix-vector products over float32's, and their share of the memory's bandwidth."""
    least = CACHES * last_level_cache()
    layer, inputs = drawn_layer(1)
    tiled = {name: [tile_weight(quantize_weight(w, format)) for w in layer] for name, format in FORMATS.items()}
    arms = {"float32": float_arm(layer, inputs, least), "read": read_arm(least)}
    for name, weights in tiled.items():
        arms[f"{name}_x"] = tiled_arm(weights, inputs, least, fast=False)
        arms[f"{name}_fast_x"] = tiled_arm(weights, inputs, least, fast=True)
    take_turns(arms, turns)
    out = {key: ratio(arms["float32"].seconds, arm.seconds) for key, arm in arms.items() if key.endswith("_x")}
    speed = [arms["read"].bytes / seconds for seconds in arms["read"].seconds]
    for name in FORMATS:
        arm = arms[f"{name}_x"]
        out[f"{name}_pct_bandwidth"] = 100 * ratio([arm.bytes / arm.units / s for s in arm.seconds], speed)
    out["read_gb_per_s"] = statistics.median(speed) / 1e9
    for name in ("float32", "int8_gemv_x", "int4_gemv_x"):
        out[f"{name.removesuffix('_gemv_x')}_layer_us"] = statistics.median(arms[name].seconds) * 1e6
    return {**out, **call_costs()}


def batches(turns: int) -> dict[str, float]:
    """Speed of products with 16 rows over float32's; weights come from memory."""
    return several_rows("batch16", 16, CACHES * last_level_cache(), turns)


def prompts(turns: int) -> dict[str, float]:
    """Speed of products with 256 rows over float32's."""
    return {**several_rows("prompt", 256, 1, turns), **gemms(256, turns)}


def several_rows(name: str, rows: int, least: int, turns: int) -> dict[str, float]:
    layer, inputs = drawn_layer(rows)
    arms = {"float32": float_arm(layer, inputs, least)}
    for kind, format in (("int8", "int8_channel"), ("int4", "int4_group")):
        tiled = [tile_weight(quantize_weight(w, cast(Format, format))) for w in layer]
        arms[f"{kind}_{name}_x"] = tiled_arm(tiled, inputs, least, fast=False)
        arms[f"{kind}_{name}_fast_x"] = tiled_arm(tiled, inputs, least, fast=True)
    take_turns(arms, turns)
    out = {key: ratio(arms["float32"].seconds, arm.seconds) for key, arm in arms.items() if key != "float32"}
    return {**out, f"float32_{name}_layer_us": statistics.median(arms["float32"].seconds) * 1e6}


def gemms(rows: int, turns: int) -> dict[str, float]:
    layer, inputs = drawn_layer(rows)
    weights = [quantize_rows(w) for w in layer]
    codes = {K: quantize_rows(x) for K, x in inputs.items()}
    outs = [torch.empty(rows, len(w)) for w in layer]

    def ours() -> None:
        for weight, out in zip(weights, outs, strict=True):
            int8_gemm(codes[weight.codes.shape[1]], weight, out=out)

    def torchs() -> None:
        for weight in weights:
            torch._int_mm(codes[weight.codes.shape[1]].codes, weight.codes.t())

    arms = {
        "float32": float_arm(layer, inputs, 1),
        "ours": Arm(walk=ours, seconds=[]),
        "int_mm": Arm(walk=torchs, seconds=[]),
    }
    take_turns(arms, turns)
    return {
        "int8_gemm_x": ratio(arms["float32"].seconds, arms["ours"].seconds),
        "int8_gemm_vs_int_mm_x": ratio(arms["int_mm"].seconds, arms["ours"].seconds),
    }


def drawn_layer(rows: int) -> tuple[list[Tensor], dict[int, Tensor]]:
    """Weights of a layer, and x of so many rows by its columns."""
    generator = torch.Generator().manual_seed(0)
    layer = [torch.randn(N, K, generator=generator) / K**0.5 for N, K in LAYER]
    return layer, {K: torch.randn(rows, K, generator=generator) for _, K in LAYER}


def float_arm(layer: Sequence[Tensor], inputs: dict[int, Tensor], least: int) -> Arm:
    size = sum(w.numel() * 4 for w in layer)
    copies = -(-least // size)
    weights = [w.clone() for _ in range(copies) for w in layer]
    linear = torch.nn.functional.linear

    def walk() -> None:
        for w in weights:
            linear(inputs[w.shape[1]], w)

    return Arm(walk=walk, bytes=size * copies, units=copies, seconds=[])


def tiled_arm(layer: Sequence[TiledWeight], inputs: dict[int, Tensor], least: int, *, fast: bool) -> Arm:
    size = sum(weight.tiles.numel() for weight in layer)
    copies = -(-least // size)
    weights = [
        TiledWeight(format=w.format, rows=w.rows, columns=w.columns, tiles=w.tiles.clone())
        for _ in range(copies)
        for w in layer
    ]
    outs = {weight.rows: torch.empty(len(inputs[weight.columns]), weight.rows) for weight in layer}
    threads = torch.get_num_threads()

    def walk() -> None:
        for weight in weights:
            linear_into(inputs[weight.columns], weight, outs[weight.rows], fast=fast, threads=threads)

    return Arm(walk=walk, bytes=size * copies, units=copies, seconds=[])


def read_arm(least: int) -> Arm:
    library = build.library()
    assert library is not None
    memory = torch.randint(0, 255, (least,), dtype=torch.uint8)
    threads = torch.get_num_threads()
    return Arm(
        walk=lambda: library.lasting.read_bytes(memory.data_ptr(), memory.numel(), threads), bytes=least, seconds=[]
    )


def call_costs() -> dict[str, float]:
    """Microseconds of a call around a product too small to count."""
    weight = tile_weight(quantize_weight(torch.ones(16, 32), "int4_group"))
    x, out = torch.ones(1, 32), torch.empty(1, 16)
    bare = Arm(walk=lambda: linear_into(x, weight, out, fast=False, threads=2), seconds=[])
    checked = Arm(walk=lambda: weight_only_linear(x, weight, out=out), seconds=[])
    torch_own = Arm(walk=lambda: torch.nn.functional.linear(x, x), seconds=[])
    take_turns({"bare": bare, "checked": checked, "torch": torch_own}, 5000)
    return {
        "call_us": statistics.median(bare.seconds) * 1e6,
        "checked_call_us": statistics.median(checked.seconds) * 1e6,
        "torch_linear_call_us": statistics.median(torch_own.seconds) * 1e6,
    }


def topk(count: int, turns: int) -> dict[str, float]:
    """Speed of the top-k over the fastest of torch's ways, which give the same rows but for rounding."""
    generator = torch.Generator().manual_seed(0)
    items = quantize_rows(torch.randn(count, 64, generator=generator))
    query = torch.randn(1, 64, generator=generator)
    allowed = torch.rand(count, generator=generator) < 0.5
    rows = dequantize(items)
    k = min(BEST, count)
    arms = {
        "ours": Arm(walk=lambda: int8_topk(query, items, k), seconds=[]),
        "masked": Arm(walk=lambda: int8_topk(query, items, k, allowed=allowed), seconds=[]),
        "kept": Arm(walk=lambda: torch.topk(torch.mv(rows, query[0]), k), seconds=[]),
        "made": Arm(walk=lambda: torch.topk(torch.mv(items.codes.float(), query[0]) * items.scales, k), seconds=[]),
    }
    take_turns(arms, turns)
    fastest = min(("kept", "made"), key=lambda name: statistics.median(arms[name].seconds))
    return {
        "topk_vs_torch_x": ratio(arms[fastest].seconds, arms["ours"].seconds),
        "topk_masked_vs_torch_x": ratio(arms[fastest].seconds, arms["masked"].seconds),
        "topk_ms": statistics.median(arms["ours"].seconds) * 1e3,
        "topk_torch_ms": statistics.median(arms[fastest].seconds) * 1e3,
    }


def take_turns(arms: dict[str, Arm], turns: int) -> None:
    """One walk of each arm untimed, then `turns` rounds of one walk each."""
    for arm in arms.values():
        arm.walk()
    for _ in range(turns):
        for arm in arms.values():
            start = time.perf_counter()
            arm.walk()
            arm.seconds.append((time.perf_counter() - start) / arm.units)


def ratio(above: Sequence[float], below: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def last_level_cache() -> int:
    """Bytes of the largest cache of the first core; 32 MiB where the system does not say."""
    sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
    units = {"K": 2**10, "M": 2**20}
    return max((int(size[:-1]) * units[size[-1]] for size in sizes if size[-1] in units), default=2**25)


if __name__ == "__main__":
    main()
