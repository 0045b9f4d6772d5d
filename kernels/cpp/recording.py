"""Calls of compiled operators noted down, to be made again and again in one call.

A decode step of a small model is a few hundred operators of some tens of microseconds each; to call each from Python
takes about as long as some of them compute.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from collections.abc import Callable
from typing import Any

from rolecall.kernels.cpp import build

# In the order of recording.cpp.
RECORDED = ("weight_only_linear", "rms_norm", "swiglu", "rope_and_cache", "paged_attention", "weight_rows")
WORDS = 20  # of a call: which operator, then its arguments


class Recording:
    """Looks like the library to who calls an operator of `RECORDED`, and notes the call down.

    Pointers are noted as they are: whoever records keeps the tensors.
    """

    def __init__(self) -> None:
        self._words: list[int] = []
        self._arrays: list[Any] = []  # of strides, to which calls point
        self._made: Any = None

    def __getattr__(self, name: str) -> Callable[..., None]:
        """The operator `name`, noted down when it is called. Raises AttributeError for one that cannot be."""
        if name not in RECORDED:
            raise AttributeError(f"got operator {name!r}; allowed: {', '.join(RECORDED)}")
        number, types = RECORDED.index(name), build.SIGNATURES[name][1]

        def note(*arguments: Any) -> None:
            words = [number, *(self._word(kind, each) for kind, each in zip(types, arguments, strict=True))]
            self._words += words + [0] * (WORDS - len(words))
            self._made = None

        return note

    def replay(self) -> None:
        """Every call, in order."""
        if self._made is None:
            self._made = (ctypes.c_int64 * len(self._words))(*self._words)
        library = build.library()
        if library is None:
            raise RuntimeError("no compiled operators here: install g++, or set CXX")
        library.lasting.replay(self._made, len(self._words) // WORDS)

    def _word(self, kind: Any, argument: Any) -> int:
        if isinstance(argument, ctypes.Array):
            self._arrays.append(argument)
            return ctypes.addressof(argument)
        if kind is ctypes.c_float:
            return int.from_bytes(struct.pack("<f", argument), sys.byteorder)
        return int(argument or 0)
