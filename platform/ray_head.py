"""A Ray head of this process's own that takes jobs: for who has no cluster and still runs everything through Ray Jobs.

    with ray_head(settings.ray, settings.home) as url:
        RayJobService(url)

Not `ray.init`: its agent, which starts jobs, insists on port 52365 and takes none where another Ray has that, and a job
is told the address of *any* Ray found on the machine. `ray start --head` takes ports, and a folder where it writes the
address that its jobs are given.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rolecall.platform.errors import UnavailableError
from rolecall.platform.jobs import RayJobService
from rolecall.platform.ray_runtime import environment
from rolecall.platform.settings import RaySettings

START_SECONDS = 360.0
HEAD_LOG = "ray-head.log"
_STOP_SECONDS = 60.0
_ADDRESS_FILE = "ray_current_cluster"  # written once the node is up
_PR_SET_PDEATHSIG = 1
_PORTS: tuple[str, ...] = (
    "port",
    "dashboard-port",
    "dashboard-agent-listen-port",
    "metrics-export-port",
    "ray-client-server-port",
)


@contextmanager
def ray_head(settings: RaySettings, home: Path) -> Iterator[str]:
    """The URL of a head's dashboard on 127.0.0.1; it ends with the block, and when this process dies.

    Ray gives up starting where a busy machine takes longer than 30 s: then it is started again. The logs of its jobs
    are kept below `home/logs`. Raises UnavailableError where it does not come up within six minutes.
    """
    deadline = time.monotonic() + START_SECONDS
    while (head := _Head.started(settings, home)).gave_up(deadline):
        head.stop()
        if time.monotonic() > deadline:
            raise UnavailableError(
                "no Ray head came up here", "a less busy machine", f"read {home / 'logs' / HEAD_LOG}"
            )
    try:
        yield head.url
    finally:
        head.stop()


@dataclass(frozen=True, kw_only=True)
class _Head:
    process: subprocess.Popen[bytes]
    folder: Path
    home: Path
    url: str

    @classmethod
    def started(cls, settings: RaySettings, home: Path) -> _Head:
        folder = Path(tempfile.mkdtemp(prefix="rolecall-ray-", dir="/tmp"))  # sockets below it have room for 107 bytes
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        if settings.dashboard_port:
            ports["dashboard-port"] = settings.dashboard_port
        with (folder / HEAD_LOG).open("wb") as log:
            process = subprocess.Popen(
                _command(settings, folder, ports),
                env=os.environ | environment(settings, home),
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
            )
        return cls(process=process, folder=folder, home=home, url=f"http://127.0.0.1:{ports['dashboard-port']}")

    def gave_up(self, deadline: float) -> bool:
        """Wait until it takes calls; True where it ended instead, or the time is over."""
        while self.process.poll() is None and time.monotonic() < deadline:
            if (self.folder / _ADDRESS_FILE).exists():
                with contextlib.suppress(UnavailableError):
                    RayJobService(self.url)
                    return False
            time.sleep(0.5)
        return True

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        _keep_logs(self.folder, self.home / "logs")
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Ports of the loopback interface that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(held.getsockname()[1]) for held in sockets]
    for held in sockets:
        held.close()
    return ports


def _command(settings: RaySettings, folder: Path, ports: dict[str, int]) -> list[str]:
    cpus = settings.logical_cpus or max(4, 2 * (os.cpu_count() or 1))
    return [
        *(sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--include-dashboard=true"),
        *("--min-worker-port=0", "--max-worker-port=0", "--disable-usage-stats"),
        *(f"--num-cpus={cpus}", f"--object-store-memory={settings.object_store_mb * 1024 * 1024}"),
        f"--temp-dir={folder}",
        *(f"--{name}={port}" for name, port in ports.items()),
    ]


def _keep_logs(folder: Path, target: Path) -> None:
    """The log of each job by its submission id, and the last head's own."""
    target.mkdir(parents=True, exist_ok=True)
    for log in (folder / HEAD_LOG, *folder.glob("session_2*/logs/job-driver-*.log")):
        if log.is_file():
            shutil.copy(log, target / log.name.removeprefix("job-driver-"))


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
