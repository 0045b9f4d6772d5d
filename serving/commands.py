"""The commands that answer: `rolecall serve`, `recommend`, `search`, `ask`, `llm`; and `bench`, which measures."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from rolecall.platform.console import Json, console, emit, table
from rolecall.platform.errors import InputError, UnavailableError
from rolecall.platform.settings import load_settings
from rolecall.serving import bench_commands
from rolecall.serving.llm import commands as llm

if TYPE_CHECKING:
    from rolecall.serving.answers.answering import Event
    from rolecall.serving.models import AnswerReply
    from rolecall.serving.state import ServingState

Limit = Annotated[int, typer.Option("--limit", min=1, max=1000, help="How many.")]


def register(app: typer.Typer) -> None:
    """Add the serving commands."""
    app.command()(serve)
    app.command()(recommend)
    app.command()(search)
    app.add_typer(bench_commands.app, name="bench")
    app.add_typer(llm.app, name="llm")
    app.command()(ask)


def serve() -> None:
    """Serve the champion over HTTP until interrupted; a promoted release is picked up without a restart."""
    from rolecall.serving.app import run_server

    run_server(load_settings(), blocking=True, on_ready=_say_where)


def recommend(
    candidate: Annotated[str | None, typer.Argument(help="A candidate id; leave it out for a profile.")] = None,
    title: Annotated[list[str] | None, typer.Option("--title", help="A desired title; may be repeated.")] = None,
    skill: Annotated[list[str] | None, typer.Option("--skill", help="A skill; may be repeated.")] = None,
    city: Annotated[str | None, typer.Option("--city")] = None,
    country: Annotated[str | None, typer.Option("--country")] = None,
    job: Annotated[str | None, typer.Option("--job", help="A job id: recommend people for it instead.")] = None,
    limit: Limit = 10,
    json: Json = False,
) -> None:
    """Jobs for a candidate, or for a profile described here, from the champion release; with --job, people for it."""
    from rolecall.serving.models import Profile, RecommendationRequest
    from rolecall.serving.printing import print_recommendations

    if job is not None:
        _recommend_people(job, limit, json, alone=candidate is None and not any((title, skill, city, country)))
        return
    described = any(part is not None for part in (title, skill, city, country))
    if candidate is None and not described:
        raise InputError("neither a candidate nor a profile", "CANDIDATE, or --title, --skill, --city, --country")
    with _as_over_http():
        profile = Profile(desired_titles=tuple(title or ()), skills=tuple(skill or ()), city=city, country=country)
        request = RecommendationRequest(candidate_id=candidate, profile=profile if described else None, limit=limit)
    with _champion() as state:
        reply = state.recommend(request, uuid.uuid4().hex)
    emit(reply.model_dump(mode="json"), json, lambda: print_recommendations(reply, candidate or "the profile"))


def _recommend_people(job: str, limit: int, json: bool, *, alone: bool) -> None:
    from rolecall.serving.models import PeopleRequest
    from rolecall.serving.printing import print_people

    if not alone:
        raise InputError("--job together with a candidate or a profile", "one or the other", "leave one out")
    with _champion() as state:
        reply = state.people(job, PeopleRequest(limit=limit), uuid.uuid4().hex)
    emit(reply.model_dump(mode="json"), json, lambda: print_people(reply, job))


def search(text: str, limit: Limit = 10, json: Json = False) -> None:
    """Jobs for a text, by meaning and by words, from the champion release."""
    from rolecall.serving.models import SearchRequest

    with _as_over_http():
        request = SearchRequest(text=text, limit=limit)
    with _champion() as state:
        reply = state.search(request, uuid.uuid4().hex)
    rows = [item.model_dump() for item in reply.items]
    columns = ("position", "title", "employer", "place", "score", "snippet")
    emit(reply.model_dump(mode="json"), json, lambda: console.print(table(f"{text!r}", rows, columns)))


def ask(question: str, json: Json = False) -> None:
    """Answer a question from the adverts of the champion release, each sentence with the advert it rests on."""
    from rolecall.serving.answers.answering import Answerer
    from rolecall.serving.llm.api.opening import open_llm
    from rolecall.serving.models import AnswerRequest
    from rolecall.serving.printing import print_answer

    with _as_over_http():
        request = AnswerRequest(question=question)
    with _champion() as state:
        retrieved = state.passages(request)
        llm = open_llm(load_settings().llm)
        try:
            events = Answerer(llm).events(request, retrieved, request_id=uuid.uuid4().hex)
            reply = asyncio.run(_told(events, quiet=json))
        finally:
            llm.close(patience_s=0)
    emit(reply.model_dump(mode="json"), json, lambda: print_answer(reply))


async def _told(events: AsyncIterator[Event], *, quiet: bool) -> AnswerReply:
    """The reply, its text printed as it comes."""
    from rolecall.serving.answers.answering import Said
    from rolecall.serving.models import AnswerReply

    async for event in events:
        if isinstance(event, Said) and not quiet:
            console.print(event.text, end="", markup=False, highlight=False)
        if isinstance(event, AnswerReply):
            return event
    raise RuntimeError("an answer without a reply")


@contextlib.contextmanager
def _as_over_http() -> Iterator[None]:
    """The rules of the HTTP interface hold here too: what breaks one is bad input."""
    from pydantic import ValidationError

    try:
        yield
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:10])
        raise InputError(told, "what the HTTP interface takes: see /docs of a running server") from error


@contextlib.contextmanager
def _champion() -> Iterator[ServingState]:
    from rolecall.serving.state import ServingState

    state = ServingState.open(load_settings())
    try:
        if not state.readiness().ready:
            raise UnavailableError("no release is promoted yet", todo="run `rolecall run daily` or `rolecall demo`")
        yield state
    finally:
        state.close()


def _say_where(url: str) -> None:
    console.print(f"serving on [bold]{url}[/]  (docs: {url}/docs, readiness: {url}/readyz; Ctrl-C stops)")


if __name__ == "__main__":
    typer.run(serve)
