"""Serve on a cluster as an operator deploys it, and two releases for it to answer from."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from datetime import time as clock
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from rolecall.pipelines.assemble import RELEASE_FOLDER
from rolecall.pipelines.daily import assembly_plan, daily_run
from rolecall.pipelines.daily_release import ReleaseSteps
from rolecall.pipelines.demo import fill_tables, free_ports
from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.generate import generate
from rolecall.platform.registry import Registry
from rolecall.platform.settings import Settings
from tests.releases import built_again, publish

from .raylets import RayCluster, Raylet, outside

ROOT = Path(__file__).resolve().parents[2]
SERVE_CONFIG = ROOT / "infra/serve/serve.yaml"
BIN = Path(sys.executable).parent
AS_OF = datetime.combine(datetime.now(UTC).date(), clock(), UTC)
RAYLET = "raylet"
SMALL = {
    "ROLECALL_RANKING__COARSE_ROUNDS": "10",
    "ROLECALL_RANKING__FINE_ROUNDS": "10",
    "ROLECALL_RANKING__MAX_TRAINING_REQUESTS": "300",
    "ROLECALL_RANKING__RECALL_LIMIT": "200",
    "ROLECALL_RANKING__COARSE_LIMIT": "100",
    "ROLECALL_RANKING__WORKERS": "0",
}


def committed_settings() -> dict[str, str]:
    """What infra/kuberay/configmap.yaml sets for every pod."""
    return dict(yaml.safe_load((ROOT / "infra/kuberay/configmap.yaml").read_text())["data"])


def haproxy_of_one_machine() -> dict[str, str]:
    """Ports and a folder for the head's HAProxy, whose defaults are the same for everybody on a machine."""
    metrics, stats, fallback = free_ports(3)
    folder = tempfile.mkdtemp(prefix="rch", dir="/tmp")
    return {
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(fallback),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(metrics),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(stats),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": f"{folder}/metrics.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": folder,
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
    }


def fill_stores(settings: Settings) -> tuple[str, str]:
    """A small marketplace in the tables, its features online, and two releases published. Returns their ids."""
    fill_tables(settings, generate(MarketConfig(jobs=120, candidates=60, employers=20, end=AS_OF.date())))
    registry = Registry.from_settings(settings)
    work = ReleaseSteps(settings=settings, registry=registry, mlflow_run="")
    try:
        folder = daily_run(settings, AS_OF).execute(assembly_plan(work))["assemble"].folder / RELEASE_FOLDER
    finally:
        work.close()
    return publish(registry, folder), publish(registry, built_again(folder, settings.home / "another"))


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Serve on a cluster, asked through its dashboard and its proxy."""

    cluster: RayCluster
    http_port: int

    @classmethod
    def deploy(cls, cluster: RayCluster, environment: Mapping[str, str]) -> Deployment:
        """`serve start` with one proxy on a free port, then `serve deploy` of the committed file, as it is."""
        port = free_ports(1)[0]
        start = ["start", "--address", cluster.address, "--proxy-location", "HeadOnly"]
        start += ["--http-host", "0.0.0.0", "--http-port", str(port)]
        _serve(cluster, start, environment)
        _serve(cluster, ["deploy", str(SERVE_CONFIG), "--address", cluster.dashboard], environment)
        return cls(cluster=cluster, http_port=port)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def application(self) -> dict[str, Any]:
        """What `serve status` says of the application."""
        details = httpx.get(f"{self.cluster.dashboard}/api/serve/applications/", timeout=30.0).raise_for_status().json()
        return dict(details["applications"].get("rolecall", {}))

    def replicas(self) -> dict[str, str]:
        """Running replicas: id to the node each is on."""
        api = self.application().get("deployments", {}).get("api", {})
        return {r["replica_id"]: r["node_id"] for r in api.get("replicas", []) if r["state"] == "RUNNING"}

    def on_two_nodes(self) -> bool:
        """Whether replicas run on two nodes. Fails at once where the application cannot be deployed."""
        application = self.application()
        if application.get("status") == "DEPLOY_FAILED":
            pytest.fail(application["message"])
        return len(set(self.replicas().values())) == 2

    def answered_by(self) -> dict[str, float]:
        """Recommendations that each running replica says it has answered, by id; those whom a scrape reached."""
        found: dict[str, float] = {}
        for _ in range(8):
            text = httpx.get(f"{self.url}/metrics", timeout=30.0).raise_for_status().text
            for sample in (s for family in text_string_to_metric_families(text) for s in family.samples):
                found.setdefault(sample.labels.get("replica", ""), 0.0)
                if sample.name == "rolecall_http_requests_total" and sample.labels["route"] == "/v1/recommendations":
                    found[sample.labels["replica"]] = sample.value
        return {replica: count for replica, count in found.items() if replica in self.replicas()}

    def all_answer(self) -> bool:
        """Whether replicas on two nodes have answered recommendations."""
        counts = self.answered_by()
        return len(counts) == 2 and min(counts.values()) > 0


def raylet_process(node: Raylet) -> psutil.Process:
    """The raylet among a node's processes."""
    return next(process for process in node.processes() if process.name() == RAYLET)


def wait_for(what: str, ask: Callable[[], bool], *, seconds: float) -> float:
    """Poll until `ask` says yes; returns how long it took, seconds."""
    began = time.monotonic()
    while time.monotonic() < began + seconds:
        try:
            if ask():
                return time.monotonic() - began
        except httpx.HTTPError:
            pass  # a dashboard that is busy answers the next time
        time.sleep(0.2)
    pytest.fail(f"{what}: not within {seconds:g} s")


def _serve(cluster: RayCluster, words: list[str], environment: Mapping[str, str]) -> None:
    done = subprocess.run(
        cluster.head.inside(str(BIN / "serve"), *words),
        env={**outside(), **environment},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    if done.returncode:
        pytest.fail(f"serve {words[0]}: {done.stdout[-2000:]}\n{done.stderr[-2000:]}")
