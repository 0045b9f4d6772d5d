"""The daily run on two nodes that share no folder, with everything it leaves behind in S3, PostgreSQL and Redis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ray.util.state import list_actors

from rolecall.pipelines.assemble import EVALUATION
from rolecall.pipelines.daily import daily_run, run_daily
from rolecall.pipelines.demo import fill_tables
from rolecall.pipelines.materialize import feature_store
from rolecall.platform.registry import Registry
from rolecall.platform.settings import Settings, load_settings
from tests.services import PostgresServer, S3Bucket, new_bucket
from tests.small_world import AS_OF, SMALL, World, small_market

from .raylets import RayCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 8
"""Between two checkpoints."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A finished day of the cluster, and what was seen of it from outside while it ran."""

    settings: Settings
    registry: Registry
    training_nodes: set[str]
    embedding_nodes: set[str]
    checkpoints_at_kill: int
    log: str

    @property
    def metrics(self) -> dict[str, float]:
        """Of the run, as MLflow keeps them."""
        release = self.registry.list()[0]
        return dict(self.registry.client.get_run(str(release.run_id)).data.metrics)


@pytest.fixture(scope="module")
def bucket(s3_options: dict[str, str]) -> S3Bucket:
    return new_bucket(s3_options)


@pytest.fixture(scope="module")
def variables(bucket: S3Bucket, postgresql: PostgresServer, redis_server: str) -> dict[str, str]:
    """Cluster mode by environment alone."""
    options = ", ".join(f"{name} = {json.dumps(value)}" for name, value in bucket.options.items())
    return SMALL | {
        "ROLECALL_MODE": "cluster",
        "ROLECALL_STORAGE__TABLES_URI": f"{bucket.uri}/tables",
        "ROLECALL_STORAGE__ARTIFACTS_URI": f"{bucket.uri}/artifacts",
        "ROLECALL_STORAGE__OPTIONS": f"{{{options}}}",
        "ROLECALL_REGISTRY__LEDGER_URL": postgresql.database(),
        "ROLECALL_REGISTRY__TRACKING_URI": postgresql.database(),
        "ROLECALL_FEATURES__REGISTRY_URL": postgresql.database(),
        "ROLECALL_FEATURES__ONLINE_STORE": "redis",
        "ROLECALL_FEATURES__REDIS_URL": redis_server,
        "ROLECALL_RAY__SEND_CREDENTIALS": "true",
        "ROLECALL_RANKING__WORKERS": "2",
        "ROLECALL_RANKING__CHECKPOINT_ROUNDS": str(ROUNDS),
    }


@pytest.fixture(scope="module")
def outcome(
    cluster: RayCluster,
    variables: dict[str, str],
    bucket: S3Bucket,
    tmp_path_factory: pytest.TempPathFactory,
) -> Outcome:
    """The day submitted as `rolecall run daily --submit` does; a training worker dies once a checkpoint is entered."""
    home = tmp_path_factory.mktemp("submitter")
    settings = load_settings(environ=variables | {"ROLECALL_HOME": str(home)})
    fill_tables(settings, small_market())
    command = [sys.executable, "-m", "rolecall.platform.cli", "run", "daily", "--as-of", AS_OF.isoformat()]
    log = home / "submit.log"
    environment = os.environ | variables | {"ROLECALL_HOME": str(home), "RAY_AUTH_MODE": "disabled"}
    with log.open("wb") as stream:
        job = subprocess.Popen(
            [*command, "--submit", cluster.dashboard], cwd=ROOT, env=environment, stdout=stream, stderr=stream
        )
    training = f"artifacts/training/{daily_run(settings, AS_OF).id}/fine"
    try:
        seen = next(kept for kept in polled(lambda: entered(bucket, training), job, log) if kept)
        workers = actors(cluster, "RayTrainWorker", alive=True)
        os.kill(workers[-1].pid, signal.SIGKILL)
        assert job.wait(1200) == 0, log.read_text()[-5000:]
    finally:
        job.kill()
    return Outcome(
        settings=settings,
        registry=Registry.from_settings(settings),
        training_nodes={worker.node_id for worker in workers},
        embedding_nodes={actor.node_id for actor in actors(cluster, "ChunkEncoder", alive=False)},
        checkpoints_at_kill=len(seen),
        log=log.read_text(),
    )


def polled(look: Callable[[], Any], job: subprocess.Popen[bytes], log: Path) -> Iterator[Any]:
    """What is seen, again and again while the job runs."""
    deadline = time.monotonic() + 1200
    while time.monotonic() < deadline and job.poll() is None:
        yield look()
        time.sleep(0.1)
    pytest.fail(log.read_text()[-5000:])


def entered(bucket: S3Bucket, prefix: str) -> list[str]:
    """Checkpoints that Ray Train has taken note of, and would resume from: those its own snapshot lists."""
    found = [key for key in bucket.keys(prefix) if key.endswith("/checkpoint_manager_snapshot.json")]
    if not found:
        return []
    with bucket.filesystem.open_input_stream(f"{bucket.name}/{found[0]}") as snapshot:
        return [kept["checkpoint_dir_name"] for kept in json.loads(snapshot.read())["checkpoint_results"]]


def actors(cluster: RayCluster, name: str, *, alive: bool) -> list[Any]:
    """The cluster's actors whose class or name says `name`."""
    found = list_actors(address=cluster.dashboard, detail=True, limit=1000)
    return [
        actor
        for actor in found
        if name in f"{actor.class_name} {actor.name} {actor.repr_name}" and (actor.state == "ALIVE" or not alive)
    ]


def evaluation(registry: Registry, release: str) -> dict[str, Any]:
    return dict(json.loads((registry.releases.fetch(release) / EVALUATION).read_text()))


def test_every_metric_ends_inside_the_embedded_runs_interval(outcome: Outcome, world: World) -> None:
    release = outcome.registry.reconcile()
    assert release is not None
    here = evaluation(outcome.registry, release)
    there = evaluation(Registry.from_settings(world.settings), world.result.release_id)
    assert here["targets"] == there["targets"]
    for kind in ("systems", "stages", "slices"):
        assert here[kind].keys() == there[kind].keys()
    means = {**leaves("systems", here["systems"]), **leaves("stages", here["stages"])}
    bounds = {**leaves("systems", there["systems"]), **leaves("stages", there["stages"])}
    outside = {
        name: (found["mean"], bounds[name])
        for name, found in means.items()
        if found["mean"] is not None and not bounds[name]["low"] <= found["mean"] <= bounds[name]["high"]
    }
    assert means
    assert outside == {}


def leaves(name: str, tree: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Intervals by their dotted names."""
    if "mean" in tree:
        return {name: tree}
    return {path: leaf for key, inner in tree.items() for path, leaf in leaves(f"{name}.{key}", inner).items()}


def test_training_resumed_from_the_checkpoint_it_had_when_a_worker_was_killed(outcome: Outcome) -> None:
    resumed = outcome.metrics["fine.resumed_from"]
    assert resumed >= ROUNDS * outcome.checkpoints_at_kill > 0
    assert resumed % ROUNDS == 0
    assert resumed < outcome.metrics["fine.rounds"]


def test_training_and_embedding_ran_on_both_nodes(outcome: Outcome) -> None:
    assert len(outcome.training_nodes) == 2
    assert len(outcome.embedding_nodes) == 2


def test_all_that_is_left_lies_in_the_shared_stores(outcome: Outcome, bucket: S3Bucket) -> None:
    release = outcome.registry.list()[0]
    assert {"champion", "built"} <= set(release.aliases)
    assert bucket.keys(f"artifacts/releases/{release.release_id}")
    assert bucket.keys("artifacts/mlflow")
    assert not bucket.keys("artifacts/training")
    engaged = str(small_market().events["candidate_id"][0])
    row = feature_store(outcome.settings).online_candidates([engaged], at=AS_OF)[0]
    assert any(value is not None for value in row.values())


def test_a_machine_without_any_of_its_files_finds_the_run_finished(outcome: Outcome, tmp_path: Path) -> None:
    settings = outcome.settings.model_copy(update={"home": tmp_path / "home"})
    again = run_daily(settings, AS_OF)
    assert again.release_id == outcome.registry.champion()
    assert len(outcome.registry.promotions.history()) == 1
