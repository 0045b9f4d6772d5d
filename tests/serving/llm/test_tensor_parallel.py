"""What each of two ranks holds of a model; that they say what one says is shown with actors, in test_parallel."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rolecall.kernels.weight_formats import dequantize_weight, untile_weight
from rolecall.serving.llm.linear import Linear
from rolecall.serving.llm.loading import load_model
from rolecall.serving.llm.tensor_parallel import Ranks

from . import tiny


def test_sizes_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    path = tiny.write_gguf(tiny.llama(num_key_value_heads=1), tmp_path / "model.gguf")
    with pytest.raises(ValueError, match="1 kv_heads for 2 ranks"):
        load_model(path, ranks=Ranks(rank=0, size=2))


@pytest.mark.parametrize("kind", ["F32", "Q4_1"])
def test_ranks_hold_the_rows_and_columns_of_one_model_each_once(tmp_path: Path, kind: str) -> None:
    path = tiny.write_gguf(tiny.llama(), tmp_path / "model.gguf", kind)
    ranks = (None, Ranks(rank=0, size=2), Ranks(rank=1, size=2))
    whole, *parts = (load_model(path, compute="exact", ranks=one).weights for one in ranks)
    assert sum(part.weight_bytes for part in parts) == whole.weight_bytes
    joined = [[dense(part.layers[1].down) for part in parts], [dense(part.head) for part in parts]]
    assert torch.equal(torch.cat(joined[0], dim=1), dense(whole.layers[1].down))
    assert torch.equal(torch.cat(joined[1]), dense(whole.head))


def dense(layer: Linear) -> torch.Tensor:
    """The numbers of a layer of one matrix."""
    (weight,) = layer.parts
    return weight if isinstance(weight, torch.Tensor) else dequantize_weight(untile_weight(weight))
