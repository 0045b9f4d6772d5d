"""Every error as problem details (RFC 9457), `application/problem+json`; on OpenAI's paths in OpenAI's shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from rolecall.platform.errors import (
    ConflictError,
    InputError,
    NotFoundError,
    RoleCallError,
    UnavailableError,
)
from rolecall.serving.llm.api.errors import OpenAIError, invalid_request, is_openai, openai_response
from rolecall.serving.models import FieldError, Problem

MEDIA_TYPE = "application/problem+json"
_TITLES = {
    400: "The request could not be read",
    401: "An API key is needed",
    404: "Not found",
    405: "Method not allowed",
    409: "The state changed in between",
    413: "The request is too large",
    422: "The input cannot be used",
    429: "Too much is waiting already",
    500: "Internal error",
    503: "Not available now",
    504: "The deadline passed",
}
_SLUGS = {
    400: "unreadable",
    401: "unauthorized",
    404: "not-found",
    405: "method-not-allowed",
    409: "conflict",
    413: "too-large",
    422: "invalid-input",
    429: "queue-full",
    500: "internal",
    503: "unavailable",
    504: "deadline",
}
_STATUS: tuple[tuple[type[RoleCallError], int], ...] = (
    (InputError, 422),
    (NotFoundError, 404),
    (ConflictError, 409),
    (UnavailableError, 503),
)
RETRY_AFTER_S = 1


class ApiError(Exception):
    """An answer other than 2xx that the HTTP side itself decides on."""

    def __init__(self, status: int, detail: str, *, retry_after_s: int | None = None) -> None:
        super().__init__(status, detail, retry_after_s)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s


def problem_response(
    status: int,
    detail: str,
    *,
    request_id: str | None = None,
    errors: Sequence[FieldError] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """One problem document with its status and headers."""
    problem = Problem(
        type=f"urn:rolecall:problem:{_SLUGS.get(status, 'http')}",
        title=_TITLES.get(status, "The request was refused"),
        status=status,
        detail=detail,
        request_id=request_id,
        errors=tuple(errors),
    )
    body = problem.model_dump_json(exclude_defaults=True)
    return Response(body, status_code=status, media_type=MEDIA_TYPE, headers=dict(headers or {}))


def refusal(
    path: str, status: int, detail: str, *, request_id: str | None, headers: Mapping[str, str] | None = None
) -> Response:
    """An error in the shape that clients of this path read."""
    if is_openai(path):
        return openai_response(status, detail, headers=headers)
    return problem_response(status, detail, request_id=request_id, headers=headers)


def crash_response(path: str, request_id: str) -> Response:
    """The answer to a request that failed here. What went wrong goes to the log, not to the caller."""
    detail = "The server failed; its log names the reason by request_id"
    if is_openai(path):
        detail = f"The server failed; its log names the reason by request id {request_id}"
    return refusal(path, 500, detail, request_id=request_id)


def install(app: FastAPI) -> None:
    """Give the application a handler for every error that is an answer. Any other is left to `Envelope`."""
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(ApiError, _on_api)
    app.add_exception_handler(RoleCallError, _on_rolecall)
    app.add_exception_handler(OpenAIError, _on_openai)


def field_errors(error: RequestValidationError, most: int = 20) -> list[FieldError]:
    """The first things wrong in a request, as JSON Pointers. The refused values are not repeated."""
    return [
        FieldError(pointer=_pointer(item["loc"]), detail=_printable(str(item["msg"]))) for item in error.errors()[:most]
    ]


def _pointer(location: Sequence[str | int]) -> str:
    where, *path = location or ("body",)
    if where != "body":
        return "/".join(map(str, location))
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def _printable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")[:500]


def _request_id(request: Request) -> str | None:
    return getattr(request.state, "request_id", None)


async def _on_openai(request: Request, error: Exception) -> Response:
    if not isinstance(error, OpenAIError):
        raise error
    answer = error.response()
    if is_openai(request.url.path):
        return answer
    headers = {"Retry-After": answer.headers["Retry-After"]} if "Retry-After" in answer.headers else {}
    return problem_response(error.status, error.message, request_id=_request_id(request), headers=headers)


async def _on_invalid(request: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError) and is_openai(request.url.path):
        return invalid_request(error).response()
    errors = field_errors(error) if isinstance(error, RequestValidationError) else []
    detail = f"{len(errors)} thing(s) in the request are wrong; the schema is at /openapi.json"
    return problem_response(422, detail, request_id=_request_id(request), errors=errors)


async def _on_http(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise error
    # FastAPI answers 400 where the body is not text in UTF-8 or nests too deeply: wrong input like any other.
    status = 422 if error.status_code == 400 else error.status_code
    if error.status_code == 400 and is_openai(request.url.path):
        status = 400
    detail = _printable(str(error.detail))
    return refusal(request.url.path, status, detail, request_id=_request_id(request), headers=error.headers)


async def _on_api(request: Request, error: Exception) -> Response:
    if not isinstance(error, ApiError):
        raise error
    headers: dict[str, str] = {}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return refusal(request.url.path, error.status, error.detail, request_id=_request_id(request), headers=headers)


async def _on_rolecall(request: Request, error: Exception) -> Response:
    status = next((code for kind, code in _STATUS if isinstance(error, kind)), None)
    if status is None:
        raise error
    headers = {"Retry-After": str(RETRY_AFTER_S)} if status == 503 else {}
    return refusal(request.url.path, status, _printable(str(error)), request_id=_request_id(request), headers=headers)
