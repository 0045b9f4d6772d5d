"""What a Llama is: its sizes and its rotary frequencies, from a config.json or from GGUF metadata.

Frequencies and angles are float32, as `transformers` computes them: the checkpoints were trained with those.
Scaling: `linear` divides frequencies by a factor; `llama3` divides those of long wavelengths, leaves those of short
ones and interpolates between (Llama 3.1 model card; transformers, modeling_rope_utils); GGUF files carry the latter as
a tensor of divisors.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rolecall.serving.llm.gguf import GgufFile, ModelFileError

LONGEST = 1 << 21
"""Tokens of context: the tables of angles are made for all of them, a gibibyte at this length and heads of 128."""


@dataclass(frozen=True, kw_only=True)
class Rope:
    """`kind`: default, linear or llama3. `factor` and what follows are of those scalings."""

    theta: float = 10_000.0
    kind: str = "default"
    factor: float = 1.0
    low: float = 1.0
    high: float = 4.0
    trained: int = 8_192

    def frequencies(self, width: int) -> Tensor:
        """float32 [width / 2], radians a position."""
        plain = 1.0 / (self.theta ** (torch.arange(0, width, 2, dtype=torch.int64).float() / width))
        if self.kind == "default":
            return plain
        if self.kind == "linear":
            return plain / self.factor
        wavelength = 2 * math.pi / plain
        share = (self.trained / wavelength - self.low) / (self.high - self.low)
        between = (1 - share) * plain / self.factor + share * plain
        scaled = torch.where(wavelength > self.trained / self.low, plain / self.factor, between)
        return torch.where(wavelength < self.trained / self.high, plain, scaled)


@dataclass(frozen=True, kw_only=True)
class LlamaConfig:
    """Sizes of one model. `head_width` x `heads` need not be `hidden`."""

    vocabulary: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_width: int
    intermediate: int
    context: int
    eps: float = 1e-5
    rope: Rope = Rope()
    tied: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False

    def __post_init__(self) -> None:
        """Raise ModelFileError for sizes that make no model."""
        sizes = {name: value for name, value in vars(self).items() if type(value) is int}
        for name, value in sizes.items():
            most = LONGEST if name == "context" else 1 << 31
            if not 0 < value <= most:
                raise ModelFileError(f"got {name} = {value}; allowed: 1 to {most}")
        if self.heads % self.kv_heads or self.head_width % 2:
            raise ModelFileError(
                f"got {self.heads} heads {self.head_width} wide over {self.kv_heads} key heads; "
                "allowed: a multiple of the key heads, of even width"
            )
        if self.rope.kind not in ("default", "linear", "llama3"):
            raise ModelFileError(f"got rope scaling {self.rope.kind!r}; read: default, linear, llama3")
        if not (0 < self.rope.theta < math.inf and 0 < self.rope.factor < math.inf and 0 <= self.eps < 1):
            raise ModelFileError(f"got {self.rope} and eps {self.eps}; allowed: positive numbers, eps below 1")

    def angles(self, divisors: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(cos, sin), float32 [context, head_width / 2]; `divisors`: of the frequencies, as GGUF carries them."""
        frequencies = self.rope.frequencies(self.head_width)
        if divisors is not None:
            frequencies = frequencies / divisors.float()
        angles = torch.arange(self.context).float()[:, None] * frequencies
        return angles.cos(), angles.sin()

    def cache_bytes(self, dtype: torch.dtype) -> int:
        """Bytes of keys and values a token: 2 x layers x KV heads x head width x bytes an entry."""
        return 2 * self.layers * self.kv_heads * self.head_width * dtype.itemsize


def from_json(config: Mapping[str, Any]) -> LlamaConfig:
    """The sizes in a config.json. Raises ModelFileError for another architecture, or an option not computed here."""
    kind = config.get("model_type")
    if kind != "llama":
        raise ModelFileError(f"got model_type {kind!r}; read: 'llama'")
    for name, expected in (("hidden_act", "silu"), ("pretraining_tp", 1)):
        if config.get(name, expected) != expected:
            raise ModelFileError(f"got {name} = {config[name]!r}; read: {expected!r}")
    if config.get("quantization_config"):
        raise ModelFileError("got quantised safetensors; read: float weights, or a GGUF file for quantised ones")
    heads, hidden = _integer(config, "num_attention_heads"), _integer(config, "hidden_size")
    return LlamaConfig(
        vocabulary=_integer(config, "vocab_size"),
        hidden=hidden,
        layers=_integer(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_integer(config, "num_key_value_heads", heads),
        head_width=_integer(config, "head_dim", hidden // max(heads, 1)),
        intermediate=_integer(config, "intermediate_size"),
        context=_integer(config, "max_position_embeddings", 2_048),
        eps=_number(config, "rms_norm_eps", 1e-6),
        rope=_rope(config),
        tied=bool(config.get("tie_word_embeddings", False)),
        attention_bias=bool(config.get("attention_bias", False)),
        mlp_bias=bool(config.get("mlp_bias", False)),
    )


def from_metadata(file: GgufFile) -> LlamaConfig:
    """The sizes in a GGUF file's metadata. Raises ModelFileError likewise."""
    kind = file.value("general.architecture", str)
    if kind != "llama":
        raise ModelFileError(f"{file.path}: got general.architecture {kind!r}; read: 'llama'")
    heads, hidden = file.value("llama.attention.head_count", int), file.value("llama.embedding_length", int)
    width = file.value("llama.attention.key_length", int, hidden // max(heads, 1))
    if file.value("llama.rope.dimension_count", int, width) != width:
        raise ModelFileError(f"{file.path}: got a rotary width other than the heads' {width}; read: the whole head")
    if file.value("llama.expert_count", int, 0):
        raise ModelFileError(f"{file.path}: got a mixture of experts; read: dense models")
    if file.value("llama.rope.scale_linear", float, 1.0) != 1.0:
        raise ModelFileError(f"{file.path}: got llama.rope.scale_linear; read: llama.rope.scaling.type and .factor")
    scaling = file.value("llama.rope.scaling.type", str, "none")
    if "output.weight" not in file.tensors and "token_embd.weight" not in file.tensors:
        raise ModelFileError(f"{file.path}: no token_embd.weight; the file holds no language model")
    return LlamaConfig(
        vocabulary=file.described("token_embd.weight").shape[0],
        hidden=hidden,
        layers=file.value("llama.block_count", int),
        heads=heads,
        kv_heads=file.value("llama.attention.head_count_kv", int, heads),
        head_width=width,
        intermediate=file.value("llama.feed_forward_length", int),
        context=file.value("llama.context_length", int),
        eps=file.value("llama.attention.layer_norm_rms_epsilon", float),
        rope=Rope(
            theta=file.value("llama.rope.freq_base", float, 10_000.0),
            kind="default" if scaling == "none" else scaling,
            factor=file.value("llama.rope.scaling.factor", float, 1.0),
        ),
        tied="output.weight" not in file.tensors,
        attention_bias="blk.0.attn_q.bias" in file.tensors,
        mlp_bias="blk.0.ffn_up.bias" in file.tensors,
    )


def _rope(config: Mapping[str, Any]) -> Rope:
    options = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(options, Mapping):
        raise ModelFileError(f"got rope_scaling {options!r}; read: an object")
    told = {**config, **options}
    if _number(told, "partial_rotary_factor", 1.0) != 1.0:
        raise ModelFileError(f"got partial_rotary_factor {told['partial_rotary_factor']}; read: the whole head")
    return Rope(
        theta=_number(told, "rope_theta", 10_000.0),
        kind=str(options.get("rope_type", options.get("type", "default"))),
        factor=_number(options, "factor", 1.0),
        low=_number(options, "low_freq_factor", 1.0),
        high=_number(options, "high_freq_factor", 4.0),
        trained=_integer(options, "original_max_position_embeddings", 8_192),
    )


def _number(config: Mapping[str, Any], name: str, default: float) -> float:
    found = config.get(name)
    found = default if found is None else found
    if not isinstance(found, int | float) or isinstance(found, bool):
        raise ModelFileError(f"config.json: got {name} = {found!r}; allowed: a number")
    return float(found)


def _integer(config: Mapping[str, Any], name: str, default: int | None = None) -> int:
    found = config.get(name)
    found = default if found is None else found
    if not isinstance(found, int) or isinstance(found, bool):
        raise ModelFileError(f"config.json: got {name} = {found!r}; allowed: a whole number")
    return found
