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
}


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("module", CALLS)
def test_the_kernels_of_an_operator_compile_for_hopper(module: str, tmp_path: Path) -> None:
    program = Path(__file__).with_name("hopper.py")
    env = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    code = ROWS.format(module=module, calls=CALLS[module])
    run = subprocess.run([sys.executable, program, code], env=env, capture_output=True, text=True, timeout=500)
    assert run.returncode == 0, run.stderr
    compiled = run.stdout.splitlines()
    assert compiled
    assert all(int(line.split()[-1]) <= SHARED_MEMORY for line in compiled)
