"""lm-eval's `local-completions` against our server: the scores of `transformers` on the same weights.

lm-eval brings some twenty packages of its own and is no part of the locks. In an environment beside this one:

    python -m venv lm-eval
    echo $PWD/.venv/lib/python3.11/site-packages > lm-eval/lib/python3.11/site-packages/rolecall.pth
    lm-eval/bin/pip install -c requirements.lock 'lm-eval[api]==0.4.13'
    lm-eval/bin/python -m pytest tests/serving/llm/api/test_lm_eval.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch import Tensor
from transformers import AutoTokenizer, LlamaForCausalLM

pytestmark = pytest.mark.slow

WORK = ("welder", "nurse", "driver", "cook")
QUESTIONS = [f"{number}. The {one} and the {other} work" for number, one in enumerate(WORK) for other in WORK]
CHOICES = [" nights", " by day", " in Köln"]
UNTIL = "e"
TOKENS = 8


@pytest.fixture
def lm_eval(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The library, offline."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    reason = "lm-eval is not installed; the head of this file says how to run it"
    return pytest.importorskip("lm_eval", reason=reason)


class Reference:
    """`transformers` on the same weights, one text at a time."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = LlamaForCausalLM.from_pretrained(folder).eval()

    def scores(self, question: str, choice: str) -> float:
        """Log-likelihood of a choice."""
        before, whole = self.tokenizer.encode(question), self.tokenizer.encode(question + choice)
        logprobs = self._logits(whole).log_softmax(dim=-1)
        return sum(float(logprobs[at - 1, whole[at]]) for at in range(len(before), len(whole)))

    def greedy(self, question: str) -> str:
        """The likeliest text, up to where it is to end."""
        tokens = self.tokenizer.encode(question)
        begun = len(tokens)
        while len(tokens) < begun + TOKENS and tokens[-1] != self.tokenizer.eos_token_id:
            tokens.append(int(self._logits(tokens)[-1].argmax()))
        return str(self.tokenizer.decode(tokens[begun:], skip_special_tokens=True)).split(UNTIL)[0]

    def _logits(self, tokens: list[int]) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = self.model(torch.tensor([tokens])).logits[0].double()
        return logits


def task(folder: Path, name: str, docs: list[dict[str, Any]], **more: Any) -> None:
    """A task's file and its data."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(doc) + "\n" for doc in docs))
    kept = {"data_files": {"test": str(folder / f"{name}.jsonl")}, "cache_dir": str(folder / "cache")}
    described = {"task": name, "dataset_path": "json", "dataset_kwargs": kept, "test_split": "test"}
    described |= {"doc_to_text": "{{question}}", "target_delimiter": "", "num_fewshot": 0} | more
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(described))


def test_its_scores_are_those_of_the_same_weights(lm_eval: Any, url: str, model_folder: Path, tmp_path: Path) -> None:
    reference = Reference(model_folder)
    scores = [[reference.scores(question, choice) for choice in CHOICES] for question in QUESTIONS]
    texts = [reference.greedy(question) for question in QUESTIONS]
    choose = [{"question": q, "choices": CHOICES, "gold": n % 3} for n, q in enumerate(QUESTIONS)]
    write = [
        {"question": q, "answer": text if n % 4 else "another"}
        for n, (q, text) in enumerate(zip(QUESTIONS, texts, strict=True))
    ]
    task(
        tmp_path, "choose", choose, output_type="multiple_choice", doc_to_choice="choices", doc_to_target="gold",
        metric_list=[{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
    )  # fmt: skip
    task(
        tmp_path, "write", write, output_type="generate_until", doc_to_target="{{answer}}",
        generation_kwargs={"until": [UNTIL], "max_gen_toks": TOKENS, "do_sample": False, "temperature": 0.0},
        metric_list=[{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
    )  # fmt: skip
    served = {"model": "little", "base_url": f"{url}/completions", "tokenizer": str(model_folder), "max_length": 256}
    made = lm_eval.simple_evaluate(
        model="local-completions",
        model_args=served | {"tokenizer_backend": "huggingface", "num_concurrent": 2},
        tasks=["choose", "write"],
        task_manager=lm_eval.tasks.TaskManager(include_path=str(tmp_path), include_defaults=False),
        bootstrap_iters=0,
        log_samples=True,
    )
    samples = {name: sorted(found, key=lambda one: one["doc_id"]) for name, found in made["samples"].items()}
    told = [[float(score) for score, _ in sample["filtered_resps"]] for sample in samples["choose"]]
    assert told == [pytest.approx(expected, abs=2e-4) for expected in scores]
    right = [int(torch.tensor(mine).argmax()) == doc["gold"] for mine, doc in zip(scores, choose, strict=True)]
    assert made["results"]["choose"]["acc,none"] == pytest.approx(sum(right) / len(right))
    assert [sample["filtered_resps"][0] for sample in samples["write"]] == texts
    assert made["results"]["write"]["exact_match,none"] == pytest.approx(0.75)
