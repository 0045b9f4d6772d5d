"""Whatever the described schema allows, and much that it does not, is answered: nothing makes the server fail."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings

from rolecall.serving import problems
from rolecall.serving.llm.api.errors import is_openai
from rolecall.serving.llm.api.routes import LLMRoutes
from rolecall.serving.llm.api.service import LLMService


@pytest.mark.slow
def test_no_request_makes_the_server_fail(service: LLMService) -> None:
    app = FastAPI()
    problems.install(app)
    app.include_router(LLMRoutes(lambda: service).router())
    described: Any = schemathesis.openapi.from_asgi("/openapi.json", app)
    operations = [found.ok() for found in described.get_all_operations()]
    assert len(operations) == 5
    for operation in operations:
        asked = given(operation.as_strategy())(ask)
        settings(max_examples=40, suppress_health_check=list(HealthCheck))(asked)()


def ask(case: Any) -> None:
    reply = case.call()
    assert reply.status_code < 500, reply.text
    if reply.status_code >= 400 and is_openai(case.formatted_path):
        assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
