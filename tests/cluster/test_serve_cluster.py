"""The committed Serve configuration on two raylets that share no folder, and what clients see when one is killed.

Settings come from the environment alone: the committed ConfigMap, with the addresses of this test's services. Two nodes
of one machine cannot both have HAProxy's ports, so Serve is started with one proxy, on the head, before the file is
deployed as it is.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from rolecall.platform.event_log import EventLog
from rolecall.platform.ledger import open_ledger
from rolecall.platform.registry import Registry
from rolecall.platform.settings import Settings, load_settings
from tests.services import PostgresServer, new_bucket

from .load import Load, recommendation
from .raylets import RayCluster
from .serving import (
    SMALL,
    Deployment,
    committed_settings,
    fill_stores,
    haproxy_of_one_machine,
    raylet_process,
    wait_for,
)

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
CLIENTS = 4
PEOPLE = [f"cand-{number:06}" for number in range(1, 21)]


@dataclass(frozen=True, kw_only=True)
class Stores:
    """S3, PostgreSQL and Redis as settings; two releases in them, of which the first is champion."""

    environment: dict[str, str]
    settings: Settings
    releases: tuple[str, str]

    @property
    def registry(self) -> Registry:
        return Registry.from_settings(self.settings)

    def logged(self) -> set[str]:
        """Ids of the events in the log."""
        return {logged.event["event_id"] for logged in EventLog(open_ledger(self.settings.ledger_url)).read_after(0)}


@pytest.fixture(scope="module")
def stores(
    postgresql: PostgresServer, redis_server: str, s3_options: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Stores:
    bucket, database = new_bucket(s3_options), postgresql.database()
    environment = committed_settings() | {
        "ROLECALL_STORAGE__TABLES_URI": f"{bucket.uri}/tables",
        "ROLECALL_STORAGE__ARTIFACTS_URI": f"{bucket.uri}/artifacts",
        **{f"ROLECALL_STORAGE__OPTIONS__{name}": text for name, text in s3_options.items()},
        "ROLECALL_REGISTRY__LEDGER_URL": database,
        "ROLECALL_REGISTRY__TRACKING_URI": postgresql.database(),
        "ROLECALL_FEATURES__REGISTRY_URL": postgresql.database(),
        "ROLECALL_FEATURES__REDIS_URL": redis_server,
        "ROLECALL_RAY__AUTH_MODE": "disabled",
        "RAY_AUTH_MODE": "disabled",
    }
    home = tmp_path_factory.mktemp("driver") / "home"
    settings = load_settings(environ=environment | SMALL | {"ROLECALL_HOME": str(home)})
    first, second = fill_stores(settings)
    Registry.from_settings(settings).promote(first, expected=None, why="the first", gated=False)
    return Stores(environment=environment, settings=settings, releases=(first, second))


@pytest.fixture(scope="module")
def served(stores: Stores) -> Iterator[Deployment]:
    """Two replicas, one on the head and one on the worker: each node has room for one."""
    proxy = haproxy_of_one_machine()
    environment = {**stores.environment, **proxy, "PYTHONPATH": str(ROOT / "infra/import_root")}
    cluster = RayCluster(root=Path(tempfile.mkdtemp(prefix="rcs", dir="/tmp")), environment=environment, cpus=1)
    try:
        cluster.add_worker()
        deployment = Deployment.deploy(cluster, environment)
        wait_for("two replicas on two nodes", deployment.on_two_nodes, seconds=300)
        yield deployment
    finally:
        cluster.stop()
        shutil.rmtree(proxy["RAY_SERVE_HAPROXY_SERVER_STATE_BASE"], ignore_errors=True)


@pytest.fixture
def client(served: Deployment) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=served.url, timeout=30.0) as client:
        yield client


def test_each_node_fetches_the_release_and_both_answer(
    stores: Stores, served: Deployment, client: httpx.Client
) -> None:
    for node in (served.cluster.head, *served.cluster.workers):
        assert (node.seen_from_here(node.home) / "cache/releases" / stores.releases[0]).is_dir()
    replies = [client.post(recommendation(person)[0], json=recommendation(person)[1]).json() for person in PEOPLE]
    assert {reply["release_id"] for reply in replies} == {stores.releases[0]}
    assert all(reply["known"] and len(reply["items"]) == 5 for reply in replies)
    with Load(url=served.url, clients=CLIENTS, people=PEOPLE) as load:
        wait_for("both to have answered", served.all_answer, seconds=60)
    assert [seen for seen in load.seen if not seen.answered] == []


def test_both_follow_a_promotion_without_a_failed_request(stores: Stores, served: Deployment) -> None:
    first, second = stores.releases
    with Load(url=served.url, clients=2, people=PEOPLE) as load:
        wait_for("answers", lambda: len(load.seen) > 20, seconds=60)
        stores.registry.promote(second, expected=first, why="the second", gated=False)

        def followed() -> bool:
            newest = [seen.release_id for seen in load.seen if seen.release_id][-20:]
            return set(newest) == {second}

        wait_for("both on the new release", followed, seconds=120)
    assert [seen for seen in load.seen if not seen.answered] == []
    assert all((folder / "cache/releases" / second).is_dir() for folder in _homes(served.cluster))


def test_killing_a_raylet_under_load_fails_no_request_and_loses_no_event(
    stores: Stores, served: Deployment, record_property: pytest.RecordProperty
) -> None:
    worker = served.cluster.workers[0]
    with Load(url=served.url, clients=CLIENTS, people=PEOPLE) as load:
        wait_for("answers", lambda: len(load.seen) > 50, seconds=60)
        killed = time.monotonic()
        raylet_process(worker).kill()
        wait_for("Serve to notice", lambda: len(served.replicas()) == 1, seconds=120)
        noticed = time.monotonic() - killed
        worker.kill()  # what the raylet leaves behind goes with its node
        wait_for("Ray to notice", lambda: served.cluster.alive() == ["head"], seconds=120)
        replacement = served.cluster.add_worker()
        wait_for("a replica on the new node", served.on_two_nodes, seconds=240)
        recovered = time.monotonic() - killed
        wait_for("the new replica to answer", served.all_answer, seconds=60)
    report = {
        "requests": len(load.seen),
        "after the kill": dict(load.statuses(killed)),
        "asked again": sum(seen.repeated for seen in load.seen),
        "longest silence, s": round(load.longest_silence(killed), 2),
        "slowest answer, s": round(max(seen.ended - seen.sent for seen in load.seen), 2),
        "noticed after, s": round(noticed, 1),
        "two replicas again after, s": round(recovered, 1),
    }
    print(json.dumps(report))
    record_property("killed_raylet", json.dumps(report))
    assert [seen for seen in load.seen if not (seen.answered or seen.clean_refusal)] == []
    assert load.longest_silence(killed) < 5.0
    assert load.accepted() <= stores.logged()
    assert (replacement.seen_from_here(replacement.home) / "cache/releases" / stores.releases[1]).is_dir()


def _homes(cluster: RayCluster) -> list[Path]:
    return [node.seen_from_here(node.home) for node in (cluster.head, *cluster.workers)]
