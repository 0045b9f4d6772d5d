"""GGUF files: one language model's metadata and its tensors, read through a memory map.

Layout, little-endian: "GGUF", version (2 or 3), number of tensors, number of metadata entries; the entries (key, type,
value); the tensors' names, dimensions, types and offsets; padding to `general.alignment`; the data. Source:
github.com/ggml-org/ggml, docs/gguf.md. What a tensor's bytes stand for is in `ggml_blocks`.

A file may come from anywhere: every length is compared with the bytes that are left before anything is read or
allocated, and what does not fit is refused with its place. Nothing of a refused file is kept.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar, overload

import torch
from torch import Tensor

from rolecall.serving.llm.ggml_blocks import BLOCKS, Block

Value: TypeAlias = "int | float | bool | str | list[Value]"
V = TypeVar("V", int, float, bool, str, list[Any])

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "B", 10: "Q", 11: "q", 12: "d"}
_BOOL, _STRING, _ARRAY = 7, 8, 9
_LEAST_ENTRY, _LEAST_TENSOR = 8 + 4 + 1, 8 + 4 + 8 + 4 + 8  # bytes of the shortest entry and tensor description


class ModelFileError(ValueError):
    """A model's file is wrong, cut short, or of a kind that is not read here; the message says which and where."""


@dataclass(frozen=True, kw_only=True)
class GgufTensor:
    """`shape`: rows first, as torch has it. `start`: of its bytes in the file."""

    name: str
    shape: tuple[int, ...]
    block: Block
    start: int

    @property
    def size(self) -> int:
        """Bytes of the data."""
        return math.prod(self.shape) // self.block.elements * self.block.size


class GgufFile:
    """An opened file, checked from its first byte to its last. `metadata`: values by key; `tensors`: by name.

    Raises ModelFileError for a file that is no whole GGUF, OSError where it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            size = path.stat().st_size
            if size < 24:
                raise ModelFileError(f"{path}: got {size} bytes; a GGUF file has at least 24")
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_COPY)  # private: torch wants it writable
        try:
            self.metadata, self.tensors = _parse(_Cursor(path, self._map))
        except BaseException:
            self._map.close()
            raise

    def raw(self, name: str) -> Tensor:
        """The bytes of a tensor, uint8, in the map itself: nothing is copied. Raises ModelFileError without it."""
        found = self.described(name)
        if found.size == 0:
            return torch.empty(0, dtype=torch.uint8)
        return torch.frombuffer(self._map, dtype=torch.uint8, count=found.size, offset=found.start)

    def described(self, name: str) -> GgufTensor:
        """Shape and type of a tensor. Raises ModelFileError without it."""
        if name not in self.tensors:
            raise ModelFileError(f"{self.path}: no tensor {name!r} among its {len(self.tensors)}")
        return self.tensors[name]

    @overload
    def value(self, key: str, kind: type[V]) -> V: ...
    @overload
    def value(self, key: str, kind: type[V], default: V) -> V: ...
    def value(self, key: str, kind: type[V], default: V | None = None) -> V:
        """A metadata value of type `kind`. Raises ModelFileError where it is of another, or absent with no default."""
        found = self.metadata.get(key, default)
        if kind is float and isinstance(found, int) and not isinstance(found, bool):
            found = float(found)
        if not isinstance(found, kind) or (kind is int and isinstance(found, bool)):
            met = "nothing" if found is None else f"{type(found).__name__} {str(found)[:40]!r}"
            raise ModelFileError(f"{self.path}: got {met} for {key}; allowed: a value of type {kind.__name__}")
        return found


class _Cursor:
    """A place in the file from which values are read, never beyond the end."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.at, self.end = path, data, 0, len(data)

    def refuse(self, what: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: at byte {self.at}: {what}")

    def need(self, size: int, what: str) -> None:
        if size > self.end - self.at:
            raise self.refuse(
                f"{what} needs {size} bytes, {self.end - self.at} are left; the file is cut short or wrong"
            )

    def taken(self, size: int, what: str) -> bytes:
        self.need(size, what)
        self.at += size
        return self.data[self.at - size : self.at]

    def numbers(self, code: str, count: int, what: str) -> tuple[Any, ...]:
        layout = f"<{count}{code}"
        self.need(count * struct.calcsize(f"<{code}"), what)  # before a layout of that size is made
        return struct.unpack(layout, self.taken(struct.calcsize(layout), what))

    def integer(self, code: str, what: str) -> int:
        return int(self.numbers(code, 1, what)[0])

    def text(self, what: str) -> str:
        found = self.taken(self.integer("Q", f"the length of {what}"), what)
        try:
            return found.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.refuse(f"{what} is no UTF-8") from error

    def value(self, kind: int, what: str) -> Value:
        if kind != _ARRAY:
            return self.values(kind, 1, what)[0]
        kind, count = self.integer("I", what), self.integer("Q", what)
        return self.values(kind, count, what)

    def values(self, kind: int, count: int, what: str) -> list[Value]:
        if kind == _STRING:
            self.need(8 * count, f"{what} of {count} texts")
            return [self.text(what) for _ in range(count)]
        if kind not in _SCALARS:
            raise self.refuse(f"{what} has type {kind}; known: 0 to 12, arrays of arrays not")
        found = list(self.numbers(_SCALARS[kind], count, what))
        if kind == _BOOL and not set(found) <= {0, 1}:
            raise self.refuse(f"{what} holds a truth value other than 0 and 1")
        return [bool(x) for x in found] if kind == _BOOL else found


def _parse(cursor: _Cursor) -> tuple[Mapping[str, Value], Mapping[str, GgufTensor]]:
    if cursor.data[:4] != b"GGUF":
        raise cursor.refuse(f"got {cursor.data[:4]!r}; a GGUF file begins with b'GGUF'")
    cursor.at = 4
    version = cursor.integer("I", "the version")
    if version not in (2, 3):
        raise cursor.refuse(f"got version {version}; read: 2 and 3, little-endian")
    tensors, entries = cursor.integer("Q", "the tensors' number"), cursor.integer("Q", "the entries' number")
    cursor.need(entries * _LEAST_ENTRY + tensors * _LEAST_TENSOR, f"{entries} entries and {tensors} tensors")
    metadata: dict[str, Value] = {}
    for _ in range(entries):
        key = cursor.text("a key")
        if key in metadata:
            raise cursor.refuse(f"key {key!r} comes twice")
        metadata[key] = cursor.value(cursor.integer("I", f"the type of {key!r}"), f"{key!r}")
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or alignment < 8 or alignment & (alignment - 1) or alignment > 1 << 20:
        raise cursor.refuse(f"got general.alignment {alignment!r}; allowed: a power of two from 8 to 2^20")
    described = [_described(cursor) for _ in range(tensors)]
    return MappingProxyType(metadata), MappingProxyType(_placed(cursor, described, alignment))


def _described(cursor: _Cursor) -> GgufTensor:
    """One tensor's description; `start` still counts from the beginning of the data."""
    name = cursor.text("a tensor's name")
    dimensions = cursor.integer("I", f"the dimensions of {name!r}")
    if not 1 <= dimensions <= 4:
        raise cursor.refuse(f"tensor {name!r} has {dimensions} dimensions; allowed: 1 to 4")
    shape = cursor.numbers("Q", dimensions, f"the shape of {name!r}")
    kind, start = cursor.integer("I", f"the type of {name!r}"), cursor.integer("Q", f"the place of {name!r}")
    if kind not in BLOCKS:
        known = ", ".join(f"{number} ({block.name})" for number, block in BLOCKS.items())
        raise cursor.refuse(f"tensor {name!r} has type {kind}; read: {known}")
    if shape[0] % BLOCKS[kind].elements:
        raise cursor.refuse(f"tensor {name!r} has rows of {shape[0]}, no multiple of {BLOCKS[kind].elements}")
    return GgufTensor(name=name, shape=tuple(reversed(shape)), block=BLOCKS[kind], start=start)


def _placed(cursor: _Cursor, described: list[GgufTensor], alignment: int) -> dict[str, GgufTensor]:
    data = -(-cursor.at // alignment) * alignment
    placed: dict[str, GgufTensor] = {}
    free = data  # where the next tensor may begin: no two may share a byte
    for tensor in sorted(described, key=lambda t: t.start):
        start = data + tensor.start
        if tensor.name in placed:
            raise cursor.refuse(f"tensor {tensor.name!r} comes twice")
        if tensor.start % alignment or start < free:
            raise cursor.refuse(f"tensor {tensor.name!r} begins at {start}; expected a free multiple of {alignment}")
        if start + tensor.size > cursor.end:
            raise cursor.refuse(
                f"tensor {tensor.name!r} ends at {start + tensor.size}, the file at {cursor.end}; it is cut short"
            )
        free = start + tensor.size
        placed[tensor.name] = replace(tensor, start=start)
    return placed
