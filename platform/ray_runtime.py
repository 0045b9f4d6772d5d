"""Ray started in this process's name, or attached to.

    with ray_session(settings.ray, settings.home):
        ...

A local cluster listens on 127.0.0.1 alone (Ray on Linux binds every interface, and rewrites a node
address of 127.0.0.1, unless told that this machine is no cluster), says its authentication mode
outright (`ray.init` would otherwise switch tokens on and write a token file), and is told more logical
CPUs than two, since
Ray Data with one actor pool and one reader can wait for ever on two. Unix sockets may be 107 bytes
long and Serve appends a folder named by the node's 56 digits, so sockets live in a short folder of
their own and not below a home that may be anywhere.
"""

from __future__ import annotations

import hashlib
import logging
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rolecall.platform.errors import InputError, UnavailableError
from rolecall.platform.settings import RaySettings

_SOCKET_BYTES = 107
_NODE_SOCKET = len("/") + 56 + len("/metrics.sock.1234567.tmp")
_SESSION_SOCKET = len("/session_2026-01-01_00-00-00_000000_1234567/sockets/plasma_store")
_KNOCK_SECONDS = 10.0
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True, kw_only=True)
class RayHandle:
    """A running Ray. `owned`: this process started it, and `stop` ends it; otherwise `stop` only detaches."""

    address: str
    dashboard_url: str
    owned: bool

    def stop(self) -> None:
        """End the local cluster, or detach from the one attached to. Harmless when already done."""
        import ray

        if self.owned and ray.is_initialized():
            ray.shutdown()


@contextmanager
def ray_session(settings: RaySettings, home: Path) -> Iterator[RayHandle]:
    """`start_ray`, stopped at the end of the block."""
    handle = start_ray(settings, home)
    try:
        yield handle
    finally:
        handle.stop()


def starts_here(settings: RaySettings) -> bool:
    """Whether no cluster is named: Ray is then started on this machine, and has no more cores than this process."""
    return (settings.address or os.environ.get("RAY_ADDRESS", "")) in ("", "local")


def start_ray(settings: RaySettings, home: Path) -> RayHandle:
    """Attach to `settings.address` or `$RAY_ADDRESS`; where neither is set, start a local cluster.

    Where this process has a Ray already, that one is used and left running by `stop`.
    Raises UnavailableError when the address does not answer.
    """
    address, local = settings.address or os.environ.get("RAY_ADDRESS", ""), starts_here(settings)
    if local:
        os.environ.update(environment(settings, home))
    import ray
    from ray._private import ray_constants

    if ray.is_initialized():
        return RayHandle(address=_address(ray), dashboard_url="", owned=False)
    if not local:
        return _attach(ray, address)
    ray_constants.ENABLE_RAY_CLUSTER = False  # the variable above comes too late where ray was imported before
    context = ray.init(
        address="local",
        num_cpus=settings.logical_cpus or max(4, 2 * (os.cpu_count() or 1)),
        object_store_memory=settings.object_store_mb * 1024 * 1024,
        include_dashboard=settings.dashboard_port > 0,
        dashboard_host="127.0.0.1",
        dashboard_port=settings.dashboard_port or None,
        _temp_dir=str(_session_folder(home)),
        log_to_driver=False,
        logging_level=logging.WARNING,
    )
    return RayHandle(address=_address(ray), dashboard_url=context.dashboard_url or "", owned=True)


def environment(settings: RaySettings, home: Path) -> dict[str, str]:
    """The variables that must be set before a local cluster starts; Serve's proxy reads its own only then."""
    names = {
        "RAY_AUTH_MODE": settings.auth_mode,
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "PYTHONPATH": os.pathsep.join(_python_path()),
    }
    return {**names, **_haproxy_environment(settings, home)} if settings.haproxy else names


def actor_env(threads: int) -> dict[str, Any]:
    """A `runtime_env` that gives an actor's numeric libraries `threads` threads (Ray's own choice is 1)."""
    return {"env_vars": {name: str(threads) for name in _THREAD_VARIABLES}}


def runtime_folder(home: Path) -> Path:
    """A private folder with a short path, the same one for the same home: for sockets and session files."""
    name = f"rc-{hashlib.sha256(str(home).encode()).hexdigest()[:8]}"
    base = Path(tempfile.gettempdir())
    if len(str(base / name)) + max(_NODE_SOCKET, _SESSION_SOCKET) > _SOCKET_BYTES:
        base = Path("/tmp")
    folder = base / name
    folder.mkdir(mode=0o700, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise InputError(f"{folder} belongs to another user", "a folder of this user", "set TMPDIR to one of your own")
    return folder


def _attach(ray: Any, address: str) -> RayHandle:
    try:
        _knock(address)
        context = ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError) as error:
        raise UnavailableError(
            f"no Ray answers at {address}: {error}",
            "the address of a running cluster, or none to start one here",
            "correct ray.address or RAY_ADDRESS",
        ) from error
    return RayHandle(address=_address(ray), dashboard_url=context.dashboard_url or "", owned=True)


def _knock(address: str) -> None:
    """Raises OSError where nobody listens at host:port. Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit() and "://" not in address:
        socket.create_connection((host, int(port)), timeout=_KNOCK_SECONDS).close()


def _haproxy_environment(settings: RaySettings, home: Path) -> dict[str, str]:
    folder = settings.haproxy_folder or str(runtime_folder(home))
    if len(folder) + _NODE_SOCKET > _SOCKET_BYTES:
        raise InputError(
            f"ray.haproxy_folder {folder} is {len(folder)} characters long",
            f"at most {_SOCKET_BYTES - _NODE_SOCKET}: Serve puts sockets into a folder below it",
            "choose a shorter folder, or leave it empty",
        )
    return {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(settings.haproxy_metrics_port),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(settings.haproxy_stats_port),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
    }


def _session_folder(home: Path) -> Path:
    """Ray's session files lie below home where its sockets fit there; Ray takes ASCII paths alone."""
    inside = home / "ray"
    if len(str(inside)) + _SESSION_SOCKET > _SOCKET_BYTES or not str(inside).isascii():
        return runtime_folder(home) / "ray"
    inside.mkdir(parents=True, exist_ok=True)
    return inside


def _python_path() -> list[str]:
    """Where workers find `rolecall`, absolute: a worker's working folder is not ours."""
    import rolecall  # type: ignore[import-untyped, unused-ignore]

    roots = [str(Path(part).absolute().parent) for part in rolecall.__path__]
    given = [str(Path(part).absolute()) for part in os.environ.get("PYTHONPATH", "").split(os.pathsep) if part]
    return list(dict.fromkeys([*given, *roots]))


def _address(ray: Any) -> str:
    return str(ray.get_runtime_context().gcs_address)
