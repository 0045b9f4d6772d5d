"""Two ranks that share a model say what one says."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing

from rolecall.kernels.weight_formats import dequantize_weight, untile_weight
from rolecall.serving.llm.linear import Linear
from rolecall.serving.llm.loading import load_model
from rolecall.serving.llm.model_runner import ModelRunner
from rolecall.serving.llm.tensor_parallel import Ranks

from . import tiny

PROMPTS = [[3, 1, 4, 1, 5, 9, 2, 6], [2, 7, 1], list(range(40))]


def tokens(path: Path, compute: str, ranks: Ranks | None = None) -> list[list[int]]:
    model = load_model(path, compute="fast" if compute == "fast" else "exact", ranks=ranks)
    return tiny.greedy(ModelRunner(model, blocks=18), PROMPTS, 12)


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    place = Path(folder)
    dist.init_process_group(
        "gloo", init_method=f"file://{place}/meet", rank=rank, world_size=2, timeout=timedelta(seconds=60)
    )
    ranks = Ranks(rank=rank, size=2)
    made = {
        f"{path.name} {compute}": tokens(path, compute, ranks)
        for path in (place / "folder", place / "model.gguf")
        for compute in ("exact", "fast")
    }
    (place / f"rank{rank}.json").write_text(json.dumps(made))
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_processes_give_the_tokens_of_one(tmp_path: Path) -> None:
    model = tiny.llama(attention_bias=True, mlp_bias=True)
    model.save_pretrained(tmp_path / "folder")
    tiny.write_gguf(tiny.llama(seed=1), tmp_path / "model.gguf", "Q8_0")
    torch_processes: Any = torch.multiprocessing  # untyped
    torch_processes.spawn(work, args=(str(tmp_path),), nprocs=2)
    both = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert both[0] == both[1]
    for name, made in both[0].items():
        file, compute = name.split()
        assert made == tokens(tmp_path / file, compute), name


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
