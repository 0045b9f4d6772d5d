"""A small random Llama with a tokenizer of its own, behind OpenAI's paths on a real socket."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import torch
import uvicorn
from fastapi import FastAPI
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from rolecall.platform.settings import LLMSettings
from rolecall.serving import problems
from rolecall.serving.llm.api.opening import open_llm
from rolecall.serving.llm.api.routes import LLMRoutes
from rolecall.serving.llm.api.service import LLMService

NAME = "little"
TEXTS = (
    "A welder joins metal parts. The nurse works nights in Köln, the driver by day.",
    '{"name": "Anna", "age": 34, "skills": ["welding", "first aid"], "remote": true}',
    "0 1 2 3 4 5 6 7 8 9 . , : ; ! ? ( ) [ ] { } ' - _ / + * = < > # % & @",
)
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights, tokenizer and chat template as Hugging Face writes them."""
    folder = tmp_path_factory.mktemp("little")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    special = ["<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=384, special_tokens=special, initial_alphabet=alphabet)
    )
    words = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|im_end|>", bos_token="<|im_start|>", chat_template=TEMPLATE
    )
    words.save_pretrained(folder)
    torch.manual_seed(7)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        eos_token_id=words.eos_token_id,
        bos_token_id=words.bos_token_id,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def service(model_folder: Path) -> Iterator[LLMService]:
    """The engine, running."""
    opened = open_llm(
        LLMSettings(model=str(model_folder), name=NAME, compute="exact", cache_mb=1, max_waiting_requests=4)
    )
    yield opened
    opened.close(patience_s=0)


@pytest.fixture(scope="session")
def url(service: LLMService) -> Iterator[str]:
    """Of a server with this model."""
    app = FastAPI()
    problems.install(app)
    app.include_router(LLMRoutes(lambda: service).router())
    with served(app) as address:
        yield f"{address}/v1"


@pytest.fixture(scope="session")
def client(url: str) -> openai.OpenAI:
    """OpenAI's own client. It is told not to try again, so that a refusal is seen."""
    return openai.OpenAI(base_url=url, api_key="none", max_retries=0)


@contextlib.contextmanager
def served(app: Any) -> Iterator[str]:
    """An ASGI application on a free port."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()
