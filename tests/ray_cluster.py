"""A local Ray cluster for the tests that submit jobs to one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from rolecall.pipelines.demo import free_ports
from rolecall.platform.errors import UnavailableError
from rolecall.platform.jobs import RayJobService


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[str]:
    """A local Ray cluster of its own: free ports, its own folder, ended by process id."""
    folder = tempfile.mkdtemp(prefix="rcj", dir="/tmp")
    names = ("port", "dashboard-port", "dashboard-agent-listen-port", "metrics-export-port", "ray-client-server-port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    command = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=2"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--include-dashboard=true"]
    command += ["--min-worker-port=0", "--max-worker-port=0", "--object-store-memory=100000000"]
    command += ["--disable-usage-stats", f"--temp-dir={folder}"]
    command += [f"--{name}={port}" for name, port in ports.items()]
    env = {**os.environ, "RAY_AUTH_MODE": "disabled"}
    head = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield answering(f"http://127.0.0.1:{ports['dashboard-port']}")
    finally:
        head.terminate()
        head.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def answering(address: str) -> str:
    """Wait until the cluster takes calls."""
    deadline = time.monotonic() + 120
    while True:
        try:
            RayJobService(address)
        except UnavailableError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return address
