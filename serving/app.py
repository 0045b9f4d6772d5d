"""The shell of Ray Serve around the HTTP application: with `llm.deployment` all of `serving` that knows Ray.

One deployment holds everything (a hop between deployments costs milliseconds, a process 120 MB), behind
Serve's HAProxy. The replica's event loop runs the handlers; computing has its own thread (`lanes`). By
`llm.placement` the language model has a deployment of its own, which scales by its own load and may have GPUs.

    with run_server(settings, blocking=False) as server:
        httpx.post(f"{server.url}/v1/recommendations", json={"candidate_id": "c1"})

On a cluster a Serve configuration names the builder, `import_path: rolecall.serving.app:app`, and every replica
reads its settings from its own node (infra/serve/serve.yaml).

`ray.serve` reads its flags from the environment when it is imported, so it is imported inside functions,
after Ray was started with those flags.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Mapping
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any

from rolecall.platform.errors import ConflictError, InputError, UnavailableError
from rolecall.platform.ray_runtime import RayHandle, actor_env, start_ray
from rolecall.platform.settings import ServeSettings, Settings, load_settings
from rolecall.platform.telemetry import configure_logging
from rolecall.serving.api import create_api
from rolecall.serving.llm.api.opening import open_llm, open_texts
from rolecall.serving.llm.api.opening import serve as serve_llm
from rolecall.serving.llm.api.service import LLMService
from rolecall.serving.llm.deployment.client import reach
from rolecall.serving.llm.deployment.options import deployment_options as llm_options
from rolecall.serving.llm.deployment.replica import LLMReplica
from rolecall.serving.problems import RETRY_AFTER_S
from rolecall.serving.state import ServingState

if TYPE_CHECKING:
    from fastapi import FastAPI

_LOG = logging.getLogger("rolecall.serving")
APPLICATION = "rolecall"
OPERATION_SLOTS = 16
"""Room beside the lanes for health checks and metrics, so that a full queue does not hide the process."""
DRAIN_S = 1.0
"""How long a replica that leaves still takes requests: the proxy on this machine hears of it in far less."""
PATIENCE_S = 5.0
"""What Serve waits beyond the longest deadline: for a replica to take the place of one that died."""
REACH_S = 10.0
"""How long a new replica waits for the language model's deployment before it answers what needs none."""
REACH_AGAIN_S = 2.0
WEDGED_AFTER = 6.0
"""Deadlines that one piece of work may last before the replica counts as unhealthy and is replaced."""


class Replica:
    """One serving process. Serve sends it requests once it is built, and it is built once its release is loaded.

    `settings`: None reads this node's own, from `ROLECALL_*` and `$ROLECALL_CONFIG`: nodes share no folder, so their
    homes may differ, and credentials then travel in no object of Ray's. `llm`: a handle of the deployment that holds
    the language model, None where this process does.
    """

    async def __init__(self, settings: Settings | None, llm: Any = None) -> None:  # type: ignore[misc]  # Serve awaits it
        self._settings = load_settings() if settings is None else settings
        configure_logging(self._settings.log_level)
        self._state = await asyncio.to_thread(ServingState.open, self._settings)
        self._llm: LLMService | None = None
        self._reaching: asyncio.Task[None] | None = None
        if llm is not None:
            self._reaching = asyncio.create_task(self._reach(llm))
            await asyncio.wait([self._reaching], timeout=REACH_S)
        elif self._settings.llm.enabled:
            self._llm = await asyncio.to_thread(open_llm, self._settings.llm, replica=_replica_name())
        self._state.start()

    async def _reach(self, handle: Any) -> None:
        """Find the language model, however long its replicas take to start: what needs none answers meanwhile."""
        while self._llm is None:
            try:
                engine = await reach(handle)
                texts = await asyncio.to_thread(open_texts, self._settings.llm, engine.facts)
                self._llm = serve_llm(self._settings.llm, engine, texts, replica=_replica_name())
            except Exception:  # noqa: BLE001 - the edge of the process: requests are answered 503, the log has the reason
                _LOG.exception("the language model's deployment does not answer; trying again")
                await asyncio.sleep(REACH_AGAIN_S)

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor. Serve adds the request id to every answer itself."""

        self._api = create_api(
            self._state,
            self._settings.serve,
            echo_request_id=False,
            on_close=self._close,
            replica=_replica_name(),
            llm=lambda: self._llm,
        )
        return self._api

    def _close(self) -> None:
        if self._reaching is not None:
            self._reaching.cancel()
        if self._llm is not None:
            self._llm.close(patience_s=0.0)
        self._state.close()

    async def check_health(self) -> None:
        """Called by Serve every few seconds; raising has the replica replaced."""
        longest = self._api.state.routes.busy_s()
        if longest > WEDGED_AFTER * self._settings.serve.request_timeout_s:
            raise UnavailableError(f"one request has been computing for {longest:.0f} s")
        if not self._state.following():
            raise UnavailableError("the thread that follows the champion has ended")
        if self._llm is not None and not self._llm.loop.alive:
            raise UnavailableError("the language model's engine has ended")


def _replica_name() -> str:
    from ray import serve

    return str(serve.get_replica_context().replica_id.unique_id)


class Server:
    """A running server. Leaving its `with` block, or `close`, stops what was started for it."""

    def __init__(self, url: str, ray: RayHandle) -> None:
        self.url = url
        self._ray = ray
        self._closed = False

    def close(self) -> None:
        """Let requests under way end, then stop. Of a cluster attached to, only this application is taken down."""
        from ray import serve

        if self._closed:
            return
        self._closed = True
        if self._ray.owned:
            serve.shutdown()
        else:
            serve.delete(APPLICATION)
        self._ray.stop()

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def run_server(settings: Settings, *, blocking: bool, on_ready: Callable[[str], None] = lambda url: None) -> Server:
    """Serve the champion on `serve.host:serve.port`; calls `on_ready` with the URL once requests are taken.

    `blocking`: stay until SIGINT or SIGTERM, then close. Without a promoted release the server starts all the same,
    `/readyz` says what is missing, and the first promotion is picked up. Raises ConflictError where the port is
    taken, UnavailableError where the replica cannot start.
    """
    serving = settings.serve
    _refuse_taken_port(serving.host, serving.port)
    os.environ.update(_environment())
    handle = start_ray(settings.ray, settings.home)
    server = Server(f"http://{_reachable(serving.host)}:{serving.port}", handle)
    try:
        _deploy(settings)
        on_ready(server.url)
        if blocking:
            wait_for_signal()
    except BaseException:
        server.close()
        raise
    if blocking:
        server.close()
    return server


def app(arguments: Mapping[str, str]) -> Any:
    """The Serve application for a Serve configuration file. Called on a node of the cluster, with its settings.

    Options under `deployments:` in the file win over `deployment_options`. There are no `args:`: what they would say
    is said by settings, on each node. Raises InputError where some are given, SettingsError for wrong settings.
    """
    if arguments:
        raise InputError(
            f"args {', '.join(sorted(arguments))} in the Serve configuration",
            "none",
            "set ROLECALL_* in the environment of the nodes",
        )
    return _bind(load_settings(), None)


def build(settings: Settings) -> Any:
    """The Serve application for `serve.run`. In cluster mode each replica reads the settings of its own node."""
    return _bind(settings, None if settings.mode == "cluster" else settings)


def _bind(settings: Settings, carried: Settings | None) -> Any:
    from ray import serve

    deployment: Any = serve.deployment(serve.ingress()(Replica), **deployment_options(settings))
    if not (settings.llm.enabled and settings.llm.placement == "deployment"):
        return deployment.bind(carried)
    llm: Any = serve.deployment(LLMReplica, **llm_options(settings))
    return deployment.bind(carried, llm.bind(carried))


def deployment_options(settings: Settings) -> dict[str, Any]:
    """How the deployment runs. What waits is counted and refused by the lanes, with problem details; Serve's own
    queue limit stands behind them, for what they cannot see."""
    from ray.serve.config import BackpressureConfig

    serving = settings.serve
    return {
        "name": "api",
        "num_replicas": serving.replicas,
        "max_ongoing_requests": most_ongoing(serving),
        "max_queued_requests": serving.max_queued_requests,
        "backpressure_config": BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        "health_check_period_s": 5.0,
        "health_check_timeout_s": 15.0,
        "graceful_shutdown_timeout_s": longest_drain_s(settings) + DRAIN_S + 5.0,
        "graceful_shutdown_wait_loop_s": 0.2,
        "max_surge_percent": 100,
        "ray_actor_options": {"num_cpus": 1, "runtime_env": actor_env(settings.ray.threads_per_actor)},
    }


def most_ongoing(serving: ServeSettings) -> int:
    """Requests a replica holds at once: both lanes full, and room for the operators."""
    return 2 * (serving.max_ongoing_requests + serving.max_queued_requests) + OPERATION_SLOTS


def longest_answer_s(settings: Settings) -> float:
    """After it Serve gives a request up, stream or not. Ranking keeps its own, shorter deadline."""
    return max(settings.serve.request_timeout_s, settings.llm.timeout_s if settings.llm.enabled else 0.0)


def longest_drain_s(settings: Settings) -> float:
    """How long a replica that leaves may finish what it answers: a stream of the language model lasts longest."""
    return max(settings.serve.request_timeout_s, settings.llm.drain_s if settings.llm.enabled else 0.0)


def wait_for_signal() -> None:
    """Return at the first SIGINT or SIGTERM. Called on the main thread."""
    told = threading.Event()

    def tell(_: int, __: FrameType | None) -> None:
        told.set()

    before = {number: signal.signal(number, tell) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        told.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _deploy(settings: Settings) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of ray.serve's own models
        from ray import serve

    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        proxy_location="HeadOnly" if settings.mode == "embedded" else "EveryNode",
        http_options={
            "host": settings.serve.host,
            "port": settings.serve.port,
            "request_timeout_s": longest_answer_s(settings) + PATIENCE_S,
        },
        logging_config={"log_level": "WARNING", "enable_access_log": False},
    )
    try:
        serve.run(build(settings), name=APPLICATION, route_prefix="/")
    except RuntimeError as error:
        raise UnavailableError(
            f"the replica did not start: {error}", "a home whose stores can be opened", "rolecall doctor"
        ) from error


def _environment() -> dict[str, str]:
    """What Serve reads from the environment beyond `ray_runtime`. Values set outside are kept."""
    wanted = {
        "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": str(DRAIN_S),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(_free_port()),
    }
    return {name: os.environ.get(name, value) for name, value in wanted.items()}


def _refuse_taken_port(host: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConflictError(
                f"{host}:{port} cannot be listened on: {error.strerror}", "a free port", "set serve.port"
            ) from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _reachable(host: str) -> str:
    return "127.0.0.1" if host in ("", "0.0.0.0") else host
