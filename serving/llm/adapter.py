"""A low-rank adapter (peft, LoRA) merged into a model: W + alpha / r B A (Hu et al., arXiv:2106.09685).

The matrices it touches become floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from rolecall.serving.llm.checkpoint import ALL, Checkpoint, Shape, Tensors, names_of, read_json
from rolecall.serving.llm.gguf import ModelFileError
from rolecall.serving.llm.linear import Matrix, floats


class Adapted:
    """A checkpoint with a LoRA adapter merged into it. Raises ModelFileError for an adapter that does not fit."""

    def __init__(self, base: Checkpoint, folder: Path) -> None:
        self.base, self.config, self.folder = base, base.config, folder
        options = read_json(folder / "adapter_config.json")
        self._scale, self._rank = _scale(folder, options), options.get("r")
        self._tensors = Tensors(names_of(folder / "adapter_model.safetensors"))
        self._left = set(self._tensors.names)

    def matrix(self, name: str, shape: Shape, rows: slice = ALL, columns: slice = ALL) -> Matrix:
        """Floats, where the adapter has something to add."""
        matrix = self.base.matrix(name, shape, rows, columns)
        a_name, b_name = (f"base_model.model.{name}.lora_{x}.weight" for x in "AB")
        if a_name not in self._tensors.names:
            return matrix
        rank = max(self._tensors.shape(a_name)[:1], default=0)
        if rank < 1 or rank != self._rank:
            raise ModelFileError(f"{self.folder}: {a_name} is of rank {rank}; adapter_config.json says {self._rank!r}")
        a = self._tensors.get(a_name, (rank, shape[1]), (ALL, columns))
        b = self._tensors.get(b_name, (shape[0], rank), (rows, ALL))
        self._left -= {a_name, b_name}
        return floats(matrix).float() + self._scale(rank) * (b.float() @ a.float())

    def vector(self, name: str, length: int) -> Tensor:
        """The base's."""
        return self.base.vector(name, length)

    def divisors(self) -> Tensor | None:
        """The base's."""
        return self.base.divisors()

    def check_used(self) -> None:
        """Raise ModelFileError where the adapter holds tensors that no matrix of the model took."""
        if self._left:
            raise ModelFileError(f"{self.folder}: got {sorted(self._left)[:3]}, which no linear layer of the model has")


def _scale(folder: Path, options: Mapping[str, Any]) -> Callable[[int], float]:
    """alpha over r (over its root with rslora), as a function of r."""
    plain = {"use_dora": False, "fan_in_fan_out": False, "bias": "none", "rank_pattern": {}, "alpha_pattern": {}}
    for name, value in plain.items():
        if options.get(name, value) not in (value, None):
            raise ModelFileError(f"{folder}: got {name} = {options[name]!r}; read: {value!r}")
    if options.get("peft_type") != "LORA" or options.get("modules_to_save"):
        raise ModelFileError(f"{folder}: got peft_type {options.get('peft_type')!r} or whole modules; read: LORA alone")
    alpha = options.get("lora_alpha")
    if not isinstance(alpha, int | float):
        raise ModelFileError(f"{folder}: got lora_alpha {alpha!r}; allowed: a number")
    root = bool(options.get("use_rslora"))
    return lambda rank: float(alpha) / (math.sqrt(rank) if root else rank)
