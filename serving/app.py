"""The shell of Ray Serve around the HTTP application: the only file of `serving` that knows Ray.

One deployment holds everything (a hop between deployments costs milliseconds, a process 120 MB), behind
Serve's HAProxy. The replica's event loop runs the handlers; computing has its own thread (`lanes`).

    with run_server(settings, blocking=False) as server:
        httpx.post(f"{server.url}/v1/recommendations", json={"candidate_id": "c1"})

`ray.serve` reads its flags from the environment when it is imported, so it is imported inside functions,
after Ray was started with those flags.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rolecall.platform.errors import UnavailableError
from rolecall.platform.ray_runtime import start_ray
from rolecall.platform.settings import ServeSettings, Settings
from rolecall.serving.api import create_api
from rolecall.serving.problems import RETRY_AFTER_S
from rolecall.serving.state import ServingState

if TYPE_CHECKING:
    from fastapi import FastAPI

_LOG = logging.getLogger("rolecall.serving.app")
APPLICATION = "rolecall"
OPERATION_SLOTS = 16
"""Room beside the lanes for health checks and metrics, so that a full queue does not hide the process."""
WEDGED_AFTER = 6.0
"""Deadlines that one piece of work may last before the replica counts as unhealthy and is replaced."""


class Replica:
    """One serving process: built by Serve once its state is loaded, so no request meets a half-started one."""

    async def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._state = await asyncio.to_thread(ServingState.open, settings)
        self._state.start()

    def __serve_build_asgi_app__(self) -> FastAPI:
        """Called by Serve after the constructor. Its proxy adds the request id to answers."""
        self._api = create_api(
            self._state, self._settings.serve, echo_request_id=False, on_close=self._state.close
        )
        return self._api

    async def check_health(self) -> None:
        """Called by Serve every few seconds; raising has the replica replaced."""
        longest = self._api.state.routes.busy_s()
        if longest > WEDGED_AFTER * self._settings.serve.request_timeout_s:
            raise UnavailableError(f"one request has been computing for {longest:.0f} s")
        if not self._state.following():
            raise UnavailableError("the thread that follows the champion has ended")


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server."""

    url: str


def build(settings: Settings) -> Any:
    """The Serve application of these settings."""
    from ray import serve

    replica = serve.ingress()(Replica)
    return serve.deployment(replica, **deployment_options(settings.serve)).bind(settings)


def deployment_options(settings: ServeSettings) -> dict[str, Any]:
    """How the deployment runs. What waits is counted and refused by the lanes, with problem details; Serve's own
    queue limit stands behind them, for what they cannot see."""
    from ray.serve.config import BackpressureConfig

    return {
        "name": "api",
        "num_replicas": settings.replicas,
        "max_ongoing_requests": settings.max_ongoing_requests + settings.max_queued_requests + OPERATION_SLOTS,
        "max_queued_requests": settings.max_queued_requests,
        "backpressure_config": BackpressureConfig(status_code=503, retry_after_s=RETRY_AFTER_S),
        "health_check_period_s": 5.0,
        "health_check_timeout_s": 10.0,
        "graceful_shutdown_timeout_s": settings.request_timeout_s + 5.0,
        "graceful_shutdown_wait_loop_s": 0.2,
        "max_surge_percent": 100,
        "ray_actor_options": {"num_cpus": 1},
    }
