"""Every Triton kernel compiles for an H100, down to machine code, as its operator launches it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .oracle import needs_triton

SHARED_MEMORY = 227 * 1024  # bytes a program may have on sm_90

ROWS = """
from rolecall.kernels.{module} import *
for dtype in (torch.bfloat16, torch.float32):
    for width in (48, 576, 4096, 200_000):
        x, w = torch.zeros(3, width, dtype=dtype), torch.ones(width, dtype=dtype)
        {calls}
"""
CALLS = {
    "rms_norm": (
        "rms_norm(x, w, backend='triton'); add_rms_norm(x, x, w, backend='triton');"
        " rms_norm_quantized(x, w, backend='triton')"
    ),
    "layer_norm": "layer_norm(x, w, w, backend='triton')",
    "gates": (
        "swiglu(x, x, backend='triton'); geglu(x, x, backend='triton');"
        " geglu(x, x, approximate='tanh', backend='triton')"
    ),
    "bias_relu": "bias_relu(x, w, backend='triton')",
    "softmax": (
        "softmax(x, x > 0, backend='triton'); log_softmax(x, backend='triton');"
        " softmax_backward(x, x, backend='triton'); softmax_backward(x, x, log=True, backend='triton')"
    ),
}
ROPE = """
from rolecall.kernels.rope import *
for dtype in (torch.bfloat16, torch.float32):
    for heads, width in ((9, 64), (32, 128), (1, 80)):
        q, positions = torch.zeros(3, heads, width, dtype=dtype), torch.arange(3)
        rope(q, positions, *rope_tables(8, width), backend='triton')
        rope_pair(q, q[:, :1], positions, *rope_tables(8, 32), interleaved=True, backend='triton')
"""
ATTENTION = """
from rolecall.kernels.attention import *
starts = torch.tensor([0, 100, 300], dtype=torch.int32)
for dtype, width in ((torch.bfloat16, 64), (torch.bfloat16, 128), (torch.bfloat16, 192), (torch.float32, 64)):
    q, k = torch.zeros(2, 300, 4, width, dtype=dtype), torch.zeros(2, 300, 2, width, dtype=dtype)
    attention(q, k, k, causal=True, backend='triton')
    attention(q[0], k[0], k[0], causal=True, window=64, q_starts=starts, k_starts=starts, backend='triton')
"""
PAGED = """
from rolecall.kernels.paged_cache import *
from rolecall.kernels.paged_attention import *
starts, lengths = torch.tensor([0, 1, 3], dtype=torch.int32), torch.tensor([3, 40], dtype=torch.int32)
tables = torch.zeros(2, 64, dtype=torch.int32)
for entries, heads, groups, width, size in (
    (torch.bfloat16, 9, 3, 64, 16), (torch.int8, 32, 8, 128, 7), (torch.float8_e4m3fn, 32, 8, 128, 16)
):
    cache = empty_cache(pages=4, page_size=size, heads=groups, width=width, dtype=entries)
    q = torch.zeros(3, heads, width, dtype=torch.bfloat16)
    paged_attention(q[:2], cache, tables, lengths, backend='triton')
    paged_attention(q, cache, tables, lengths, q_starts=starts, window=9, backend='triton')
"""
ROPE_CACHE = """
from rolecall.kernels.paged_cache import *
from rolecall.kernels.rope import *
from rolecall.kernels.rope_cache import *
positions = torch.arange(3)
for entries, heads, groups, width in (
    (torch.bfloat16, 9, 3, 64), (torch.int8, 32, 8, 128), (torch.float8_e4m3fn, 32, 8, 128)
):
    cache = empty_cache(pages=4, page_size=16, heads=groups, width=width, dtype=entries)
    q, k = (torch.zeros(3, count, width, dtype=torch.bfloat16) for count in (heads, groups))
    rope_and_cache(q, k, k, positions, *rope_tables(8, width), positions, cache, backend='triton')
"""
GEMM = """
from rolecall.kernels.int8_gemm import *
from rolecall.kernels.quantization import *
for M in (5, 300):
    int8_gemm(quantize_rows(torch.ones(M, 576)), quantize_rows(torch.ones(192, 576)), backend='triton')
"""
TOPK = """
from rolecall.kernels.int8_topk import *
from rolecall.kernels.quantization import *
for width, prefix in ((64, None), (384, 128)):
    items = quantize_rows(torch.ones(5000, width))
    queries = quantize_rows(torch.ones(3, width))
    for allowed in (None, torch.ones(5000, dtype=torch.bool)):
        int8_topk(queries, items, 5, allowed=allowed, prefix=prefix, backend='triton')
"""
FP8 = """
from rolecall.kernels.fp8_gemm import *
for M in (5, 300):
    x, w = torch.ones(M, 576, dtype=torch.bfloat16), quantize_rows_fp8(torch.ones(192, 576))
    fp8_gemm(quantize_rows_fp8(x), w, dtype=torch.bfloat16, backend='triton')
    fp8_linear(x, w, backend='triton')
"""
SAMPLING = """
from rolecall.kernels.sampling import *
from rolecall.kernels.penalties import *
from rolecall.kernels.speculative import *
ids, one = torch.zeros(3, dtype=torch.int64), torch.ones(3)
for dtype, width in ((torch.bfloat16, 49_152), (torch.float32, 49_152), (torch.float32, 100)):
    x = torch.zeros(3, width, dtype=dtype)
    shape = dict(temperature_B=one, top_k_B=ids, top_p_B=one, min_p_B=one)
    sample(x, **shape, seeds_B=ids, positions_B=ids, backend='triton')
    sample(x, temperature_B=one, seeds_B=ids, positions_B=ids, backend='triton')
    sampling_probabilities(x, **shape, backend='triton')
    apply_penalties(x, ids, ids, ids.int(), repetition_B=one, presence_B=one, frequency_B=one, backend='triton')
    add_bias(x, ids, ids, one, backend='triton')
    p, d = torch.zeros(3, 5, width), torch.zeros(3, 4, dtype=torch.int64)
    speculative_accept(p, p[:, :4], d, seeds_B=ids, positions_B=ids, backend='triton')
"""
MIXTURE = """
from rolecall.kernels.mixture_of_logits import *
for dtype, Q, X, D in ((torch.bfloat16, 8, 4, 64), (torch.bfloat16, 8, 8, 32), (torch.float32, 2, 3, 20)):
    f, u, g, v = (torch.zeros(*shape, dtype=dtype) for shape in ((5, Q, D), (5, Q * X), (70, X, D), (70, Q * X)))
    w, b1, b2 = torch.zeros(128, Q * X, dtype=dtype), torch.zeros(128, dtype=dtype), torch.zeros(Q * X, dtype=dtype)
    cross = CrossGate(w1=w, b1=b1, w2=w.t().contiguous(), b2=b2)
    mixture_of_logits(Side(components=f, gates=u), Side(components=g, gates=v), cross, backend='triton')
"""
PROGRAMS = {name: ROWS.format(module=name, calls=calls) for name, calls in CALLS.items()} | {
    "rope": ROPE,
    "attention": ATTENTION,
    "paged_attention": PAGED,
    "rope_cache": ROPE_CACHE,
    "int8_gemm": GEMM,
    "int8_topk": TOPK,
    "fp8_gemm": FP8,
    "sampling": SAMPLING,
    "mixture_of_logits": MIXTURE,
}


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("module", PROGRAMS)
def test_the_kernels_of_an_operator_compile_for_hopper(module: str, tmp_path: Path) -> None:
    program = Path(__file__).with_name("hopper.py")
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, program, PROGRAMS[module]], env=env, capture_output=True, text=True, timeout=500
    )
    assert run.returncode == 0, run.stderr
    compiled = run.stdout.splitlines()
    assert compiled
    assert all(int(line.split()[-1]) <= SHARED_MEMORY for line in compiled)
