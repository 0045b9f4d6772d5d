"""A model's matrices by name, from a folder of safetensors or from a GGUF file.

Names are those of Hugging Face's Llama. Every tensor's shape is compared with the configuration before it is used.
GGUF files hold the rows of queries and keys in the order that interleaved rotary pairs need; they are put back into
half-split order.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rolecall.serving.llm import llama_config
from rolecall.serving.llm.ggml_blocks import dequantized, quantized
from rolecall.serving.llm.gguf import GgufFile, ModelFileError
from rolecall.serving.llm.linear import Matrix, floats, rows_of
from rolecall.serving.llm.llama_config import LlamaConfig

_GGUF_PARTS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
ALL = slice(None)
Shape: TypeAlias = tuple[int, int]
_GGUF_NAMES = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


class Checkpoint(Protocol):
    """Where weights come from. Both methods raise ModelFileError for a tensor that is missing or of another shape."""

    config: LlamaConfig

    def matrix(self, name: str, shape: Shape, rows: slice = ALL, columns: slice = ALL) -> Matrix:
        """`rows` and `columns` of `name`.weight: codes where the file's are the kernels' own, floats else.

        No more of the file is read than that. ValueError where `columns` cut a block of codes.
        """
        ...

    def vector(self, name: str, length: int) -> Tensor:
        """A norm's weight, or a bias."""
        ...

    def divisors(self) -> Tensor | None:
        """What rotary frequencies are divided by, [head_width / 2], where the file says so."""
        ...


class SafetensorsCheckpoint:
    """A folder with config.json and model.safetensors, or its shards and their index."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = llama_config.from_json(read_json(folder / "config.json"))
        self._tensors = Tensors(self._files())

    def matrix(self, name: str, shape: Shape, rows: slice = ALL, columns: slice = ALL) -> Matrix:
        """Floats."""
        return self._tensors.get(f"{name}.weight", shape, (rows, columns))

    def vector(self, name: str, length: int) -> Tensor:
        """As stored."""
        return self._tensors.get(name, (length,))

    def divisors(self) -> Tensor | None:
        """None: the configuration says it all."""
        return None

    def _files(self) -> dict[str, Path]:
        """The file of each tensor."""
        whole, index = self.folder / "model.safetensors", self.folder / "model.safetensors.index.json"
        if not index.exists():
            return names_of(whole)
        shards = read_json(index).get("weight_map")
        if not isinstance(shards, Mapping):
            raise ModelFileError(f"{index}: got no weight_map")
        for file in set(shards.values()):
            if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
                raise ModelFileError(f"{index}: got shard {file!r}; allowed: a safetensors file beside the index")
        held = {file: names_of(self.folder / file) for file in sorted(set(shards.values()))}
        for name, file in shards.items():
            if name not in held[file]:
                raise ModelFileError(f"{index}: {file} holds no {name!r}")
        return {name: self.folder / file for name, file in shards.items()}


class GgufCheckpoint:
    """A GGUF file. `rounded`: codes are kept also where the kernels round their scales (`ggml_blocks.quantized`)."""

    def __init__(self, file: GgufFile, *, rounded: bool = False) -> None:
        self.file, self.config, self._rounded = file, llama_config.from_metadata(file), rounded

    def matrix(self, name: str, shape: Shape, rows: slice = ALL, columns: slice = ALL) -> Matrix:
        """Codes for Q4_0, Q4_1, Q5_0 and Q8_0, and for Q4_K if rounded."""
        matrix = self._read(_gguf_name(name) + ".weight", shape, rows, columns)
        heads = {"q_proj": self.config.heads, "k_proj": self.config.kv_heads}.get(name.rpartition(".")[2])
        count = len(range(shape[0])[rows])
        return matrix if heads is None else rows_of(matrix, half_split(count, heads * count // shape[0]))

    def vector(self, name: str, length: int) -> Tensor:
        """Floats."""
        part, _, kind = name.rpartition(".")
        vector = floats(self._read(f"{_gguf_name(part)}.{kind}", (length,))).view(length)
        heads = {"q_proj.bias": self.config.heads, "k_proj.bias": self.config.kv_heads}
        found = heads.get(".".join(name.split(".")[-2:]))
        return vector if found is None else vector[half_split(length, found)]

    def divisors(self) -> Tensor | None:
        """`rope_freqs`, which Llama 3's files carry."""
        if "rope_freqs.weight" not in self.file.tensors:
            return None
        return floats(self._read("rope_freqs.weight", (self.config.head_width // 2,))).view(-1)

    def _read(self, name: str, expected: tuple[int, ...], rows: slice = ALL, columns: slice = ALL) -> Matrix:
        found = self.file.described(name)
        if found.shape != expected:
            raise ModelFileError(f"{self.file.path}: {name} is {found.shape}; the metadata makes it {expected}")
        block, wanted = found.block, range(expected[-1])[columns]
        if wanted.start % block.elements or len(wanted) % block.elements:
            raise ValueError(
                f"got columns {wanted.start} to {wanted.stop} of {name}; allowed: whole {block.name} blocks of "
                f"{block.elements}; share the model among fewer ranks"
            )
        blocks = slice(wanted.start // block.elements, wanted.stop // block.elements)
        raw = self.file.raw(name).view(-1, expected[-1] // block.elements, block.size)[rows, blocks].contiguous()
        codes = quantized(raw, block, len(wanted), rounded=self._rounded)
        return dequantized(raw, block, len(wanted)) if codes is None else codes


class Tensors:
    """Tensors of safetensors files by name, each read when it is asked for."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files, self._open = files, dict[Path, Any]()
        self.names = frozenset(files)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a tensor that exists."""
        return tuple(self._file(name).get_slice(name).get_shape())

    def get(self, name: str, expected: tuple[int, ...], part: tuple[slice, ...] = (ALL,)) -> Tensor:
        """`part` of a float tensor. Raises ModelFileError where it is missing, of another shape, or of integers."""
        if name not in self._files:
            raise ModelFileError(f"no tensor {name!r} among {len(self._files)}")
        found = self._file(name).get_slice(name)
        if tuple(found.get_shape()) != expected or found.get_dtype() not in ("F32", "F16", "BF16"):
            raise ModelFileError(
                f"{self._files[name]}: {name} is {tuple(found.get_shape())} {found.get_dtype()}; "
                f"expected float {expected}"
            )
        tensor: Tensor = found[part]
        return tensor

    def _file(self, name: str) -> Any:
        path = self._files[name]
        if path not in self._open:
            self._open[path] = _opened(path)
        return self._open[path]


def names_of(path: Path) -> dict[str, Path]:
    """The tensors of one safetensors file. Raises ModelFileError where it is none, or cut short."""
    return dict.fromkeys(_opened(path).keys(), path)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. Raises ModelFileError where there is none."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelFileError(f"no file {path}; a model's folder needs it") from error
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelFileError(f"{path}: got {type(found).__name__}; expected an object")
    return found


def half_split(rows: int, heads: int) -> Tensor:
    """Row numbers that turn interleaved rotary pairs (2i, 2i + 1) of each head into half-split ones (i, i + R/2)."""
    return torch.arange(rows).view(heads, rows // heads // 2, 2).transpose(1, 2).reshape(-1)


def _opened(path: Path) -> Any:
    try:
        return safe_open(str(path), framework="pt")
    except FileNotFoundError as error:
        raise ModelFileError(f"no file {path}; a model's folder needs it") from error
    except (SafetensorError, OSError) as error:
        raise ModelFileError(f"{path}: no whole safetensors file: {error}") from error


def _gguf_name(name: str) -> str:
    if name in _GGUF_NAMES:
        return _GGUF_NAMES[name]
    _, _, number, part = name.split(".", 3)  # model.layers.7.self_attn.q_proj
    return f"blk.{number}.{_GGUF_PARTS[part]}"
