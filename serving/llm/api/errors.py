"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`, as its clients read them.

Statuses are OpenAI's: 400 for a request that cannot be used, 401, 404 for a model, 413, 429 with `Retry-After`, 500
and 503.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import orjson
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.responses import Response

PATHS = ("/v1/chat/completions", "/v1/completions", "/v1/models", "/v1/tokenize", "/v1/embeddings")
MOST_NAME = 64
"""Characters of a field's name that an error repeats."""
_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error", 500: "server_error"}


class OpenAIError(Exception):
    """A refusal. `param`: the request's field it is about. `code`: what programs tell it by."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(status, message, param, code)
        self.status = status
        self.message = message
        self.param = param
        self.code = code
        self.retry_after_s = retry_after_s

    def body(self) -> dict[str, Any]:
        """The JSON of the answer, also as a chunk of a stream that had begun."""
        return error_body(self.status, self.message, self.param, self.code)

    def response(self) -> Response:
        """The answer."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}
        return openai_response(self.status, self.message, param=self.param, code=self.code, headers=headers)


def is_openai(path: str) -> bool:
    """Whether answers on this path have OpenAI's shape."""
    return any(path == known or path.startswith(known + "/") for known in PATHS)


def openai_response(
    status: int,
    message: str,
    *,
    param: str | None = None,
    code: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """An error answer."""
    body = orjson.dumps(error_body(status, message, param, code))
    return Response(body, status_code=status, media_type="application/json", headers=dict(headers or {}))


def error_body(status: int, message: str, param: str | None, code: str | None) -> dict[str, Any]:
    """`type` follows the status, as OpenAI's does."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def invalid_request(error: RequestValidationError | ValidationError, body: Any = None) -> OpenAIError:
    """What is wrong in a body, named by its field as the client wrote it (`messages.0.content`); a field that is not
    known is not supported. Of a union's alternatives the one is told that the body followed furthest.

    `body`: what was validated; FastAPI's error knows it.
    """
    given = error.body if isinstance(error, RequestValidationError) else body
    found = [(_written(one, given), one) for one in error.errors()]
    field = found[0][0][:1]
    told = [pair for pair in found if pair[0][:1] == field]
    path, first = max(told, key=lambda pair: (len(pair[0]), [step for step in pair[0] if isinstance(step, int)]))
    param = _readable(".".join(str(step)[:MOST_NAME] for step in path)) or None
    if first["type"] == "extra_forbidden":
        return OpenAIError(
            400, f"parameter {param!r} is not supported here; leave it out", param=param, code="unsupported_parameter"
        )
    message = _readable(str(first["msg"]))[:500]
    return OpenAIError(400, f"{param}: {message}" if param else message, param=param, code="invalid_value")


def _written(error: Mapping[str, Any], body: Any) -> tuple[str | int, ...]:
    """Where an error is. Between the steps pydantic puts the names of a union's alternatives, which no client wrote."""
    steps = list(error["loc"])
    if steps[:1] == ["body"]:
        del steps[0]  # FastAPI's errors begin with it
    if steps[:1] == ["response_format"]:
        del steps[1:2]  # the alternative that its type names may be called as one of its fields
    path: list[str | int] = []
    value = body
    for step in steps:
        if step in value if isinstance(value, dict) else isinstance(value, list) and step in range(len(value)):
            path.append(step)
            value = value[step]
    return (*path, *steps[-1:]) if error["type"] == "missing" else tuple(path)


def _readable(text: str) -> str:
    """What JSON can carry: no halves of surrogate pairs."""
    return text.encode("utf-8", "replace").decode("utf-8")
