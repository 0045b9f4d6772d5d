"""One line of a batch file and what is answered to it, in the shapes of OpenAI's Batch API.

A request: {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"model": .., "prompt": ..}}. Plainly,
a body alone is one too: {"prompt": ..} or {"messages": ..}, its `model` and `custom_id` (then `line-7`) left out.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from rolecall.serving.llm.api.errors import OpenAIError, invalid_request
from rolecall.serving.llm.api.requests import ChatRequest, CompletionRequest

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"
_BODIES: dict[str, type[ChatRequest] | type[CompletionRequest]] = {CHAT: ChatRequest, TEXT: CompletionRequest}
LONGEST_ID = 512
BEGINNING = b'{"id":"batch_req_'
"""Of every answer's line."""
Id = Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_ID)]


class LineError(ValueError):
    """A line that is no request; the message says what is wrong."""


class _Enveloped(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    custom_id: Id
    method: Literal["POST"]
    url: Literal["/v1/chat/completions", "/v1/completions"]
    body: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Reply:
    """The answer to a line. `status` None: the line was no request, and `body` is what is wrong with it."""

    number: int
    custom_id: str | None
    status: int | None
    body: dict[str, Any]
    request_id: str = field(default_factory=lambda: secrets.token_hex(16))

    @property
    def answered(self) -> bool:
        """Whether a model answered it."""
        return self.status == 200

    def line(self) -> bytes:
        """As it is written, with its end of line. `error` is for lines that were no request, as OpenAI has it: a
        refused request has a response, whose status and body say why."""
        response = {"status_code": self.status, "request_id": f"req_{self.request_id}", "body": self.body}
        told = {
            "id": f"batch_req_{self.request_id}",
            "custom_id": self.custom_id,
            "response": None if self.status is None else response,
            "error": self.body if self.status is None else None,
        }
        return orjson.dumps(told, option=orjson.OPT_APPEND_NEWLINE)


def no_request(number: int, custom_id: str | None, message: str) -> Reply:
    """The answer to a line that cannot be read."""
    return Reply(
        number=number,
        custom_id=custom_id,
        status=None,
        body={"code": "invalid_line", "message": f"line {number}: {message}", "line": number},
    )


def fields_of(text: bytes) -> dict[str, Any]:
    """Raises LineError for anything but a JSON object."""
    try:
        fields = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise LineError(f"no JSON: {error}") from error
    if not isinstance(fields, dict):
        raise LineError(f"got a JSON {type(fields).__name__}; allowed: an object")
    return fields


def custom_id_of(fields: dict[str, Any], number: int) -> str | None:
    """What a line is told by; None where it says so wrongly, or must say and does not."""
    given = fields.get("custom_id")
    if given is None and not _enveloped(fields):
        return f"line-{number}"
    return given if isinstance(given, str) and 0 < len(given) <= LONGEST_ID else None


def request_of(fields: dict[str, Any], model: str) -> ChatRequest | CompletionRequest:
    """What a line asks for, under the rules of the HTTP interface; a plain line asks `model`.

    Raises LineError where the line is no request, OpenAIError 400 where its body is wrong.
    """
    url, body = _parts(fields, model)
    if body.get("stream"):
        told = "parameter 'stream' is not supported in a batch; leave it out"
        raise OpenAIError(400, told, param="stream", code="unsupported_parameter")
    try:
        return _BODIES[url].model_validate(body)
    except ValidationError as error:
        raise invalid_request(error, body) from error


def _enveloped(fields: dict[str, Any]) -> bool:
    return not {"body", "url", "method"}.isdisjoint(fields)


def _parts(fields: dict[str, Any], model: str) -> tuple[str, dict[str, Any]]:
    if not _enveloped(fields):
        if custom_id_of(fields, 0) is None:
            raise LineError(f"custom_id: allowed: a string of 1 to {LONGEST_ID} characters, or none")
        if "prompt" not in fields and "messages" not in fields:
            raise LineError("no body, prompt or messages")
        body = {"model": model} | {name: value for name, value in fields.items() if name != "custom_id"}
        return CHAT if "messages" in fields else TEXT, body
    try:
        line = _Enveloped.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise LineError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    return line.url, line.body
