"""A Ray cluster of separate raylets on one machine that share no folder.

Each raylet has its own ROLECALL_HOME, its own Ray session folder and its own folder for
temporary files. As root each also lives in a mount namespace of its own, where a private tmpfs covers the folder that
holds them all and another one /dev/shm: what one writes there no other can see, as with pods. Without root the
folders are merely different ones.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import psutil
import ray.util

from rolecall.pipelines.demo import free_ports
from rolecall.platform.errors import UnavailableError

START_SECONDS = 300.0
ATTEMPTS = 4
# A dead node is noticed within seconds, and memory that other processes of this machine use kills no worker.
_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_memory_monitor_refresh_ms": "0",
    "OMP_NUM_THREADS": "1",
}
_PRIVATE = (
    'mount -t tmpfs tmpfs "$0" && mount -t tmpfs -o size=512m tmpfs /dev/shm && mkdir -p "$1" && shift && exec "$@"'
)


@dataclass(frozen=True, kw_only=True)
class Raylet:
    """One node: its name, the folder no other node sees, and the process all of its processes descend from."""

    name: str
    folder: Path
    process: subprocess.Popen[bytes]

    @property
    def home(self) -> Path:
        """ROLECALL_HOME as the node's processes name it."""
        return self.folder / "home"

    def seen_from_here(self, path: Path) -> Path:
        """A path of the node as this process reaches it, while the node lives."""
        return Path(f"/proc/{self.process.pid}/root") / path.relative_to("/")

    def inside(self, *command: str) -> list[str]:
        """The words that run a command on the node: a driver must see the same shared memory as its raylet."""
        own, nodes = (Path(f"/proc/{pid}/ns/mnt").readlink() for pid in ("self", self.process.pid))
        return [*command] if own == nodes else ["nsenter", "--mount", f"--target={self.process.pid}", *command]

    def processes(self) -> list[psutil.Process]:
        """Everything that runs on the node now."""
        try:
            node = psutil.Process(self.process.pid)
            return [node, *node.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def kill(self) -> None:
        """End the node as a power cut does: every process of it, at once."""
        while processes := [p for p in self.processes() if p.status() != psutil.STATUS_ZOMBIE]:
            for process in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.suspend()  # none of them may start another while the rest is ended
            for process in {*processes, *self.processes()}:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.process.wait(30)


@dataclass(kw_only=True)
class RayCluster:
    """The head and its workers. `resources`: {"head": 1} on the head, {"worker": 1} on every worker."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    cpus: int = 3
    head: Raylet = field(init=False)
    workers: list[Raylet] = field(init=False, default_factory=list)
    _ports: dict[str, int] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.head = self._ready("head", self._head_options, nodes=1)

    @property
    def address(self) -> str:
        """What `ray.init(address=...)` takes."""
        return f"{ray.util.get_node_ip_address()}:{self._ports['port']}"

    @property
    def dashboard(self) -> str:
        """What `ray job submit --address` takes."""
        return f"http://127.0.0.1:{self._ports['dashboard-port']}"

    def add_worker(self) -> Raylet:
        """Another raylet, ready to take work."""
        worker = self._ready("worker", lambda: [f"--address={self.address}"], nodes=len(self.alive()) + 1)
        self.workers.append(worker)
        return worker

    def alive(self) -> list[str]:
        """Names of the nodes that the head believes to live."""
        reply = httpx.get(f"{self.dashboard}/api/v0/nodes", timeout=30.0).raise_for_status().json()
        nodes = reply["data"]["result"]["result"]
        return sorted(node["node_name"] for node in nodes if node["state"] == "ALIVE")

    def stop(self) -> None:
        """End every node."""
        for raylet in (*self.workers, self.head):
            raylet.kill()
        shutil.rmtree(self.root, ignore_errors=True)

    def _start(self, kind: str, options: list[str]) -> Raylet:
        number = len(self.workers) + 1
        name = kind if kind == "head" else f"{kind}-{number}"
        folder = self.root / name
        command = [str(Path(sys.executable).parent / "ray"), "start", "--block", "--disable-usage-stats"]
        command += [f"--node-name={name}", f"--temp-dir={folder / 'ray'}", f"--num-cpus={self.cpus}"]
        command += ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000"]
        agent, metrics = free_ports(2)
        command += [f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"]
        command += [f'--resources={{"{kind}": 1}}', *options]
        env = {**outside(), **_ENVIRONMENT, **self.environment}
        env |= {"ROLECALL_HOME": str(folder / "home"), "TMPDIR": str(folder / "tmp")}
        fixed = ("DASHBOARD_METRIC_PORT", "AUTOSCALER_METRIC_PORT")  # two clusters on one machine would share them
        env |= {name: str(port) for name, port in zip(fixed, free_ports(len(fixed)), strict=True)}
        with (self.root / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [*_private(self.root, folder / "tmp"), *command], env=env, stdout=log, stderr=log, cwd="/"
            )
        return Raylet(name=name, folder=folder, process=process)

    def wait_for(self, nodes: int) -> None:
        """Poll until the head counts this many living nodes."""
        self._wait(nodes, self.head)

    def _ready(self, kind: str, options: Callable[[], list[str]], nodes: int) -> Raylet:
        """Ray gives a raylet 30 s, and a free port may be taken by another before it is used: so try again."""
        for _ in range(ATTEMPTS):
            raylet = self._start(kind, options())
            try:
                self._wait(nodes, raylet)
            except UnavailableError as error:
                raylet.kill()
                failed = error
            else:
                return raylet
        raise failed

    def _wait(self, nodes: int, raylet: Raylet) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if len(self.alive()) == nodes:
                    return
            if raylet.process.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError((self.root / f"{raylet.name}.log").read_text(errors="replace")[-3000:])
            time.sleep(0.2)

    def _head_options(self) -> list[str]:
        names = ("port", "dashboard-port", "ray-client-server-port")
        self._ports = dict(zip(names, free_ports(len(names)), strict=True))
        ports = [f"--{name}={port}" for name, port in self._ports.items()]
        return ["--head", "--dashboard-host=127.0.0.1", "--include-dashboard=true", *ports]


def outside() -> dict[str, str]:
    """This process's environment without what a Ray that an earlier test started here has left in it."""
    return {name: text for name, text in os.environ.items() if not name.startswith(("RAY_", "ROLECALL_"))}


def two_raylets(environment: Mapping[str, str] | None = None) -> RayCluster:
    """A head and one worker, both ready."""
    cluster = RayCluster(root=Path(tempfile.mkdtemp(prefix="rcl", dir="/tmp")), environment=environment or {})
    try:
        cluster.add_worker()
    except BaseException:
        cluster.stop()
        raise
    return cluster


def _private(covered: Path, made: Path) -> list[str]:
    """The words before a command that hide what others put below `covered`; `made` exists there."""
    if (
        os.geteuid() == 0
        and subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0
    ):
        return ["unshare", "-m", "--propagation=private", "sh", "-c", _PRIVATE, str(covered), str(made)]
    made.mkdir(parents=True, exist_ok=True)
    return []
