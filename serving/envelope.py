"""What surrounds every HTTP request: its id, its size limit, its count and time, and an answer where it failed."""

from __future__ import annotations

import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rolecall.platform.redaction import personal_scope
from rolecall.serving.metrics import ServingMetrics
from rolecall.serving.problems import crash_response, refusal

_LOG = logging.getLogger("rolecall.serving.api")
_ID = re.compile(r"[A-Za-z0-9._:\-]{1,128}")
_TOO_LARGE = "a body may have at most {most} bytes; send less at a time"


class Envelope:
    """ASGI middleware. The id of a request is its `X-Request-ID` where that is well-formed, else a new one."""

    def __init__(self, app: ASGIApp, *, metrics: ServingMetrics, most_bytes: int, echo_request_id: bool) -> None:
        self._app = app
        self._metrics = metrics
        self._most_bytes = most_bytes
        self._echo_request_id = echo_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        with personal_scope():
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.perf_counter()
        status = 0
        headers = Headers(scope=scope)
        request_id = self._identify(headers)
        scope["state"] = {**scope.get("state", {}), "request_id": request_id}

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self._echo_request_id:
                    MutableHeaders(scope=message)["X-Request-ID"] = request_id
            await send(message)

        try:
            if self._declared(headers) > self._most_bytes:
                detail = _TOO_LARGE.format(most=self._most_bytes)
                await refusal(scope["path"], 413, detail, request_id=request_id)(scope, receive, sending)
            else:
                await self._app(scope, self._limited(receive), sending)
        except Exception as error:  # noqa: BLE001 - the edge of the process: the caller gets an answer, the log the reason
            _LOG.error("request %s to %s failed", request_id, _route(scope), exc_info=error)
            if not status:
                await crash_response(scope["path"], request_id)(scope, receive, sending)
        finally:
            self._metrics.answered(_route(scope), status or 499, time.perf_counter() - started)

    def _identify(self, headers: Headers) -> str:
        given = headers.get("x-request-id", "")
        return given if _ID.fullmatch(given) else uuid.uuid4().hex

    def _declared(self, headers: Headers) -> int:
        length = headers.get("content-length", "0")
        return int(length) if length.isascii() and length.isdigit() else 0

    def _limited(self, receive: Receive) -> Receive:
        """A body that declares no length is counted as it comes."""
        seen = 0

        async def receiving() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self._most_bytes:
                raise HTTPException(413, _TOO_LARGE.format(most=self._most_bytes))
            return message

        return receiving


def _route(scope: Scope) -> str:
    return getattr(scope.get("route"), "path", "unmatched")
