"""Compile what a call would launch for an H100 (sm_90), which needs neither a GPU nor its driver.

Run as `python hopper.py '<python statements>'`, in a process of its own: Triton's launch is replaced, so that nothing
runs and every kernel is compiled, down to machine code, from the arguments it was given; one line is printed for each.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction, KernelInterface

from rolecall.kernels import configurations, dispatch
from rolecall.kernels.configurations import Configuration, Table


class Absent:
    """What Triton asks of a driver in order to compile."""

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)


class OnHopper(Table):
    """The table as an H100 reads it."""

    def entry(self, op: str, shape: str, device: str, default: Configuration) -> Configuration:
        return super().entry(op, shape, "h100", default)


def launch(kernel: JITFunction[Any], grid: Any) -> Any:
    """In place of `kernel[grid]`."""

    def compiled(*arguments: Any, **options: Any) -> None:
        done = kernel.run(*arguments, grid=grid, warmup=True, **options)
        print(kernel.fn.__module__, kernel.fn.__name__, len(done.asm["cubin"]), "shared", done.metadata.shared)

    return compiled


if __name__ == "__main__":
    driver.set_active(Absent())  # type: ignore[arg-type]
    KernelInterface.__getitem__ = launch  # type: ignore[method-assign,assignment]
    for file in Path(dispatch.__file__).parent.glob("*.py"):
        importlib.import_module(f"rolecall.kernels.{file.stem}")
    configurations.TABLE = OnHopper(configurations.TABLE.entries)
    dispatch.INTERPRETED = True  # CPU tensors are taken for what they would be on the device
    exec(sys.argv[1], {"torch": torch})
