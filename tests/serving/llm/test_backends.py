"""Which engine answers is a setting."""

from __future__ import annotations

import importlib.util

import pytest

from rolecall.platform.errors import NotFoundError
from rolecall.platform.settings import LLMSettings
from rolecall.serving.llm.api.opening import open_llm


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_where_it_is_not_installed_is_refused_by_name() -> None:
    with pytest.raises(NotFoundError, match="vllm, which is not installed"):
        open_llm(LLMSettings(backend="vllm"))
