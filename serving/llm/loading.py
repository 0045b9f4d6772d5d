"""Loading a model: from a folder of safetensors, a GGUF file, or a package that carries one.

A file is memory-mapped, so it is read from disk once however many processes serve it; what the kernels read is laid
out anew. Codes of GGUF files stay codes where the kernels have their format:

    exact   float32 (or `dtype`) activations; weights are the file's very numbers: codes of Q4_0, Q4_1, Q5_0 and Q8_0,
            floats in `dtype` of all others
    fast    activations in 8 bits; Q4_K stays codes as well, its scales rounded (5 bits a weight), and floats, and codes
            of other formats, are quantised to `weight_format` first (8.5 bits)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from rolecall.kernels.weight_formats import FORMATS, Format
from rolecall.serving.llm import tokenizer
from rolecall.serving.llm.adapter import Adapted
from rolecall.serving.llm.checkpoint import Checkpoint, GgufCheckpoint, SafetensorsCheckpoint, read_json
from rolecall.serving.llm.gguf import GgufFile, ModelFileError
from rolecall.serving.llm.linear import Embedding, Linear, Matrix, linear
from rolecall.serving.llm.llama import Layer, Llama
from rolecall.serving.llm.llama_config import LlamaConfig
from rolecall.serving.llm.model_files import DEFAULT_MODEL, find
from rolecall.serving.llm.tensor_parallel import Ranks

Compute: TypeAlias = Literal["exact", "fast"]


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """What an engine needs to know of a model. `eos_ids`: tokens that end an answer. `tokenizer`: None without one."""

    name: str
    config: LlamaConfig
    tokenizer: PreTrainedTokenizerBase | None
    eos_ids: frozenset[int]

    @property
    def context_length(self) -> int:
        """Tokens that the model was trained for."""
        return self.config.context


@dataclass(frozen=True, kw_only=True)
class LoadedModel(ModelInfo):
    """A model with its weights, or with one rank's share of them."""

    weights: Llama
    compute: Compute


def describe_model(path: str | Path = DEFAULT_MODEL) -> ModelInfo:
    """The model at `path` without its weights. Raises as `load_model`."""
    return _info(path, _checkpoint(find(path), "exact"))


def load_model(
    path: str | Path = DEFAULT_MODEL,
    *,
    compute: Compute = "fast",
    weight_format: Format | None = None,
    adapter: str | Path | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    ranks: Ranks | None = None,
    backend: str | None = None,
) -> LoadedModel:
    """The model at `path`: a folder, a .gguf file, or what else `model_files.find` takes.

    `weight_format`: what floats are quantised to (fast: int8_group unless given; exact: not). `adapter`: a folder of a
    LoRA. `dtype`: of activations, float32 on a CPU and bfloat16 on a GPU unless given. `backend`: forced on
    every operator. Raises ModelFileError for files that are wrong, FileNotFoundError where there is nothing.
    """
    if compute not in ("exact", "fast") or weight_format not in (None, *FORMATS):
        raise ValueError(
            f"got compute {compute!r}, weight_format {weight_format!r}; allowed: exact, fast; {', '.join(FORMATS)}"
        )
    checkpoint = _checkpoint(find(path), compute)
    info = _info(path, checkpoint)
    adapted = Adapted(checkpoint, Path(adapter)) if adapter is not None else None
    builder = _Builder(
        checkpoint=adapted or checkpoint,
        ranks=ranks or Ranks(),
        mode=compute,
        format=weight_format or ("int8_group" if compute == "fast" else None),
        device=torch.device(device),
        dtype=dtype or default_dtype(device),
    )
    with torch.inference_mode():
        model = builder.model(backend)
    if adapted is not None:
        adapted.check_used()
    return LoadedModel(**vars(info), weights=model, compute=compute)


def default_dtype(device: torch.device | str) -> torch.dtype:
    """Of activations: float32 on a CPU, bfloat16 on a GPU."""
    return torch.bfloat16 if torch.device(device).type == "cuda" else torch.float32


def _checkpoint(place: Path, compute: Compute) -> SafetensorsCheckpoint | GgufCheckpoint:
    if place.is_dir():
        return SafetensorsCheckpoint(place)
    return GgufCheckpoint(GgufFile(place), rounded=compute == "fast")


def _info(path: str | Path, checkpoint: SafetensorsCheckpoint | GgufCheckpoint) -> ModelInfo:
    if isinstance(checkpoint, SafetensorsCheckpoint):
        words, ends = tokenizer.from_folder(checkpoint.folder), _folder_ends(checkpoint.folder)
    else:
        file = checkpoint.file
        words = tokenizer.from_gguf(file)
        ends = {file.value(f"tokenizer.ggml.{name}_token_id", int, -1) for name in ("eos", "eot", "eom")} - {-1}
    if words is not None and len(words) > checkpoint.config.vocabulary:
        raise ModelFileError(f"{path}: {len(words)} tokens for a model of {checkpoint.config.vocabulary}")
    if words is not None and isinstance(words.eos_token_id, int):
        ends.add(words.eos_token_id)
    held = frozenset(end for end in ends if 0 <= end < checkpoint.config.vocabulary)  # no other is ever sampled
    return ModelInfo(name=str(path), config=checkpoint.config, tokenizer=words, eos_ids=held)


def _folder_ends(folder: Path) -> set[int]:
    """`eos_token_id` of generation_config.json, else of config.json: a number or several."""
    file = folder / "generation_config.json"
    found: Any = read_json(file if file.exists() else folder / "config.json").get("eos_token_id")
    ends = found if isinstance(found, list) else [found]
    return {end for end in ends if isinstance(end, int)}


@dataclass(frozen=True, kw_only=True)
class _Builder:
    """Puts a checkpoint's tensors into a model, this rank's share of them, laid out for the kernels."""

    checkpoint: Checkpoint
    ranks: Ranks
    mode: Compute
    format: Format | None
    device: torch.device
    dtype: torch.dtype

    def model(self, backend: str | None) -> Llama:
        c = self.checkpoint.config
        self.ranks.check(heads=c.heads, kv_heads=c.kv_heads, intermediate=c.intermediate, vocabulary=c.vocabulary)
        tokens = self._by_rows({"model.embed_tokens": c.vocabulary}, biased=False)
        cos, sin = c.angles(self.checkpoint.divisors())
        return Llama(
            c,
            embedding=Embedding(tokens.parts[0], vocabulary=c.vocabulary, ranks=self.ranks),
            layers=[self._layer(f"model.layers.{number}") for number in range(c.layers)],
            norm=self._norm("model.norm"),
            head=tokens if c.tied else self._by_rows({"lm_head": c.vocabulary}, biased=False),
            angles=(cos.to(self.device), sin.to(self.device)),
            dtype=self.dtype,
            ranks=self.ranks,
            backend=backend,
        )

    def _layer(self, name: str) -> Layer:
        c = self.checkpoint.config
        q, kv = c.heads * c.head_width, c.kv_heads * c.head_width
        return Layer(
            attention_norm=self._norm(f"{name}.input_layernorm"),
            qkv=self._by_rows(
                {f"{name}.self_attn.q_proj": q, f"{name}.self_attn.k_proj": kv, f"{name}.self_attn.v_proj": kv},
                c.attention_bias,
            ),
            output=self._by_columns(f"{name}.self_attn.o_proj", q, c.attention_bias),
            mlp_norm=self._norm(f"{name}.post_attention_layernorm"),
            gate_up=self._by_rows(
                {f"{name}.mlp.gate_proj": c.intermediate, f"{name}.mlp.up_proj": c.intermediate}, c.mlp_bias
            ),
            down=self._by_columns(f"{name}.mlp.down_proj", c.intermediate, c.mlp_bias),
        )

    def _by_rows(self, rows: dict[str, int], biased: bool) -> Linear:
        hidden, share = self.checkpoint.config.hidden, self.ranks.share
        matrices = [self.checkpoint.matrix(name, (count, hidden), rows=share(count)) for name, count in rows.items()]
        biases = [self.checkpoint.vector(f"{name}.bias", count)[share(count)] for name, count in rows.items() if biased]
        return self._linear(matrices, biases)

    def _by_columns(self, name: str, columns: int, biased: bool) -> Linear:
        hidden = self.checkpoint.config.hidden
        matrix = self.checkpoint.matrix(name, (hidden, columns), columns=self.ranks.share(columns))
        once = biased and self.ranks.rank == 0  # added to a sum over ranks
        return self._linear([matrix], [self.checkpoint.vector(f"{name}.bias", hidden)] if once else [])

    def _linear(self, matrices: list[Matrix], biases: list[Tensor]) -> Linear:
        return linear(matrices, biases=biases, mode=self.mode, format=self.format, device=self.device, dtype=self.dtype)

    def _norm(self, name: str) -> Tensor:
        vector = self.checkpoint.vector(f"{name}.weight", self.checkpoint.config.hidden)
        return vector.to(device=self.device, dtype=torch.float32)
