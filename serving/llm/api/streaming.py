"""Server-sent events, and noticing that nobody listens any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import orjson
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

T = TypeVar("T")
DONE = b"data: [DONE]\n\n"


def server_event(body: dict[str, Any], name: str | None = None) -> bytes:
    """One server-sent event, with a name where it has one."""
    head = b"" if name is None else b"event: " + name.encode() + b"\n"
    return head + b"data: " + orjson.dumps(body) + b"\n\n"


class LastEvents(bytes):
    """Events that end a stream: nothing is sent after them, so that the end needs no message of its own."""


class ClientLeftError(Exception):
    """The client closed its connection."""


class EventStream(Response):
    """`text/event-stream` of the events that an iterator makes. A client that leaves ends the iterator at once, also
    while no event is due, and `on_close` runs in any case."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], on_close: Callable[[], None] = lambda: None) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events = events
        self._on_close = on_close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until done or left."""
        try:
            await _while_heard(receive, self._send(send))
        except (ClientLeftError, OSError):
            pass
        finally:
            self._on_close()

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        more = True
        async for event in self._events:
            more = not isinstance(event, LastEvents)
            await send({"type": "http.response.body", "body": event, "more_body": more})
        if more:
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def until_left(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. Raises ClientLeftError, and cancels the work, when the client closes its connection."""
    return await _while_heard(request.receive, work)


async def _while_heard(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    working = asyncio.ensure_future(work)
    listening = asyncio.ensure_future(_left(receive))
    try:
        await asyncio.wait((working, listening), return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientLeftError
    finally:
        await _ended(working, listening)


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _ended(*tasks: asyncio.Future[Any]) -> None:
    for task in tasks:
        task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await task
