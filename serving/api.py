"""The HTTP interface as one FastAPI application. It knows neither Ray nor disk: whatever answers is given to it.

    app = create_api(backend, settings.serve)      # run it with any ASGI server

`backend` computes on a lane (one thread of its own), so a handler never holds the event loop.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, FastAPI, Path, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel
from starlette.responses import Response

from rolecall.platform.redaction import note_personal
from rolecall.platform.settings import ServeSettings
from rolecall.serving import problems
from rolecall.serving.answers.answering import Answerer, Event, Found, Retrieved, Said, shown
from rolecall.serving.envelope import Envelope
from rolecall.serving.lanes import Lane
from rolecall.serving.llm.api.errors import OpenAIError
from rolecall.serving.llm.api.routes import CLIENT_LEFT, LLMRoutes, Provider
from rolecall.serving.llm.api.streaming import ClientLeftError, EventStream, server_event, until_left
from rolecall.serving.metrics import ServingMetrics
from rolecall.serving.models import (
    AnswerReply,
    AnswerRequest,
    EventBatch,
    EventReceipt,
    FieldError,
    Identifier,
    Liveness,
    PeopleReply,
    PeopleRequest,
    Problem,
    Readiness,
    RecommendationReply,
    RecommendationRequest,
    SearchReply,
    SearchRequest,
    personal_texts,
)

MOST_BYTES = 4 * 1024 * 1024


class Recommender(Protocol):
    """Ranks jobs for a person. Called on a lane: may block."""

    def recommend(self, request: RecommendationRequest, request_id: str) -> RecommendationReply: ...


class PeopleRecommender(Protocol):
    """Ranks people for a job. Called on a lane: may block."""

    def people(self, job_id: str, request: PeopleRequest, request_id: str) -> PeopleReply: ...


class Searcher(Protocol):
    """Finds jobs for a text. Called on a lane: may block."""

    def search(self, request: SearchRequest, request_id: str) -> SearchReply: ...


class PassageFinder(Protocol):
    """Finds what may answer a question. Called on a lane: may block."""

    def passages(self, request: AnswerRequest) -> Retrieved: ...


class EventSink(Protocol):
    """Keeps events. Returns only once all of them are on disk. Called on a lane: may block."""

    def accept(self, batch: EventBatch) -> EventReceipt: ...


class ReadinessSource(Protocol):
    """Says whether this process answers. Called on the event loop: must not block."""

    def readiness(self) -> Readiness: ...


class GaugeSource(Protocol):
    """More of what Prometheus may read: of things beside this process. Called on a thread of its own: may block."""

    def gauges(self) -> bytes: ...


class Backend(
    Recommender, PeopleRecommender, Searcher, PassageFinder, EventSink, ReadinessSource, GaugeSource, Protocol
):
    """All that the HTTP side needs."""


def create_api(
    backend: Backend,
    settings: ServeSettings,
    *,
    echo_request_id: bool = True,
    on_close: Callable[[], None] | None = None,
    replica: str = "",
    llm: Provider = lambda: None,
) -> FastAPI:
    """The application. `echo_request_id`: off where a proxy adds the header; `on_close` runs at shutdown;
    `replica`: what metrics call this process where there are several; `llm`: the language model, None while there is
    none."""
    routes = Routes(backend, settings, replica, llm)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        routes.close()
        if on_close is not None:
            on_close()

    app = FastAPI(
        title="RoleCall",
        summary="Job recommendations, search and the events that improve them.",
        version="1",
        lifespan=lifespan,
        separate_input_output_schemas=False,
    )
    problems.install(app)
    app.include_router(routes.operation())
    app.include_router(routes.answers())
    app.include_router(LLMRoutes(llm, created=int(time.time()), note=note_personal).router(routes.keyed))
    app.add_middleware(Envelope, metrics=routes.metrics, most_bytes=MOST_BYTES, echo_request_id=echo_request_id)
    app.state.routes = routes
    return app


class Routes:
    """The handlers, and the two lanes they compute on: ranking, and writing events."""

    def __init__(
        self, backend: Backend, settings: ServeSettings, replica: str = "", llm: Provider = lambda: None
    ) -> None:
        self.metrics = ServingMetrics(replica)
        self._llm = llm
        self.keyed = [Depends(KeyCheck(settings.api_keys))] if settings.api_keys else []
        self._backend = backend
        self._settings = settings
        most = settings.max_ongoing_requests + settings.max_queued_requests
        self.ranking = Lane("ranking", most_inside=most, deadline_s=settings.request_timeout_s)
        self.writing = Lane("writing", most_inside=most, deadline_s=settings.request_timeout_s)

    def close(self) -> None:
        """End both lanes."""
        self.ranking.close()
        self.writing.close()

    def busy_s(self) -> float:
        """How long the longest piece of running work has been running."""
        return max(self.ranking.busy_s(), self.writing.busy_s())

    def answers(self) -> APIRouter:
        """What clients call."""
        router = APIRouter(prefix="/v1", dependencies=self.keyed, tags=["answers"])
        add = partial(_add, router, "POST", refusals=(401, 413, 422, 503, 504) if self.keyed else (413, 422, 503, 504))
        add("/recommendations", self.recommend, RecommendationReply, "Jobs for a person")
        add(
            "/jobs/{job_id}/candidates",
            self.people,
            PeopleReply,
            "People for a job",
            more_refusals=(404, 409),
        )
        add("/search", self.search, SearchReply, "Jobs for a text")
        add("/answers", self.answer, AnswerReply, "An answer with the adverts it rests on")
        add("/events", self.accept, EventReceipt, "What people did, kept durably", status=202)
        return router

    def operation(self) -> APIRouter:
        """What operators and load balancers call."""
        router = APIRouter(tags=["operation"])
        add = partial(_add, router, "GET")
        add("/healthz", self.live, Liveness, "The process runs")
        add("/readyz", self.ready, Readiness, "Index, models and warm-up are through", refusals=(503,))
        router.add_api_route("/metrics", self.expose, methods=["GET"], summary="Prometheus metrics")
        return router

    async def recommend(self, request: Request, body: RecommendationRequest) -> Response:
        """Jobs for a stored candidate, or for a profile given here. A candidate id that is not known is answered
        from the profile, or from the filters alone, and the reply says `known: false`."""
        self._check_limit(body.limit)
        note_personal(*personal_texts(body))
        reply = await self.ranking.run(partial(self._backend.recommend, body, request.state.request_id))
        self.metrics.ranked(reply.trace, known=reply.known)
        return _json(reply)

    async def people(self, request: Request, job_id: Annotated[Identifier, Path()], body: PeopleRequest) -> Response:
        """People who agreed to be recommended, for a job of the release or one described in `job`. 404: the release
        does not hold the job and `job` does not describe it; 409: the release recommends nobody."""
        self._check_limit(body.limit)
        reply = await self.ranking.run(partial(self._backend.people, job_id, body, request.state.request_id))
        self.metrics.ranked(reply.trace, known=reply.known)
        return _json(reply)

    async def search(self, request: Request, body: SearchRequest) -> Response:
        """Jobs for a text, by meaning and by words."""
        self._check_limit(body.limit)
        note_personal(body.text)
        return _json(await self.ranking.run(partial(self._backend.search, body, request.state.request_id)))

    async def answer(self, request: Request, body: AnswerRequest) -> Response:
        """The adverts that fit the question, and an answer that names them, written by the language model. Where no
        advert fits, `found` is false and the model is not asked. With `stream`: server-sent events `passages`, `delta`
        for each piece of text, `done` with the whole reply."""
        note_personal(body.question)
        llm = self._llm()
        if llm is None:
            raise problems.ApiError(503, "no language model is loaded", retry_after_s=problems.RETRY_AFTER_S)
        retrieved = await self.ranking.run(partial(self._backend.passages, body))
        events = Answerer(llm).events(body, retrieved, request_id=request.state.request_id)
        first = await anext(events)
        if body.stream:
            return EventStream(_named(first, events))
        try:
            return _json(await until_left(request, _last(events)))
        except ClientLeftError:
            return Response(status_code=CLIENT_LEFT)

    async def accept(self, body: EventBatch) -> Response:
        """Answered once every event is committed. Sending the same `event_id` again changes nothing. Events of
        people who asked to be forgotten are dropped and counted."""
        note_personal(*(event.candidate_id for event in body.events))
        receipt = await self.writing.run(partial(self._backend.accept, body))
        self.metrics.received(receipt)
        return _json(receipt, 202)

    async def live(self) -> Response:
        """Whether the process runs at all."""
        return _json(Liveness())

    async def ready(self, request: Request) -> Response:
        """Whether requests are answered, and with which release."""
        readiness = self._backend.readiness()
        if readiness.ready:
            return _json(readiness)
        return problems.problem_response(
            503,
            "not ready yet",
            request_id=request.state.request_id,
            errors=[FieldError(pointer=name, detail=what) for name, what in readiness.checks.items() if what != "ok"],
            headers={"Retry-After": str(problems.RETRY_AFTER_S)},
        )

    async def expose(self) -> Response:
        """Metrics of this process, and of the daily schedules."""
        inside = {lane.name: lane.inside for lane in (self.ranking, self.writing)}
        beside = await asyncio.to_thread(self._backend.gauges)
        llm = self._llm()
        spoken = b"" if llm is None else await llm.exposition()
        text = self.metrics.render(self._backend.readiness(), inside) + beside + spoken
        return Response(text, media_type=ServingMetrics.content_type)

    def _check_limit(self, limit: int) -> None:
        most = self._settings.max_limit
        if limit > most:
            raise problems.ApiError(422, f"limit {limit} was asked for; the most is {most} (setting serve.max_limit)")


class KeyCheck:
    """Refuses a request whose bearer token is none of the keys. Compares in constant time."""

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = [key.encode() for key in keys]

    async def __call__(
        self, given: HTTPAuthorizationCredentials | None = Depends(HTTPBearer(auto_error=False))
    ) -> None:
        token = given.credentials.encode("utf-8", "replace") if given else b""
        matches = [hmac.compare_digest(token, key) for key in self._keys]
        if not any(matches):
            raise problems.ApiError(401, "send one of the configured keys as `Authorization: Bearer KEY`")


def _add(
    router: APIRouter,
    method: str,
    path: str,
    handler: Callable[..., Any],
    reply: type[BaseModel],
    summary: str,
    *,
    status: int = 200,
    refusals: Sequence[int] = (),
    more_refusals: Sequence[int] = (),
) -> None:
    """A route whose reply is described but not validated a second time."""
    refused: dict[int | str, dict[str, Any]] = {
        code: {"description": "Problem details", "content": {problems.MEDIA_TYPE: {"schema": _PROBLEM}}}
        for code in sorted((*refusals, *more_refusals))
    }
    described: dict[int | str, dict[str, Any]] = {status: {"model": reply}, **refused}
    router.add_api_route(
        path, handler, methods=[method], summary=summary, status_code=status, responses=described, response_model=None
    )


_PROBLEM = Problem.model_json_schema()


def _json(reply: BaseModel, status: int = 200) -> Response:
    return Response(reply.model_dump_json(), status_code=status, media_type="application/json")


async def _last(events: AsyncIterator[Event]) -> BaseModel:
    """The reply, which comes last."""
    async for event in events:
        if isinstance(event, AnswerReply):
            return event
    raise RuntimeError("an answer without a reply")


async def _named(first: Event, rest: AsyncIterator[Event]) -> AsyncIterator[bytes]:
    """Each event with its name. An error, once the answer has begun, is an event too."""
    yield _event(first)
    try:
        async for event in rest:
            yield _event(event)
    except OpenAIError as error:
        yield server_event({"status": error.status, "detail": error.message}, "error")


def _event(event: Event) -> bytes:
    if isinstance(event, Found):
        passages = [shown(passage).model_dump(mode="json") for passage in event.passages]
        return server_event({"passages": passages}, "passages")
    if isinstance(event, Said):
        return server_event({"text": event.text}, "delta")
    return server_event(event.model_dump(mode="json"), "done")
