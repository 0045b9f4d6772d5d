"""The Kubernetes manifests hold to the schemas of KubeRay and Kubernetes, to each other, and to this code."""

from __future__ import annotations

import copy
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import ServeDeploySchema

from .manifests import (
    INFRA,
    ROOT,
    containers,
    documents,
    manifest,
    manifests,
    pods,
    problems,
    published_schema,
    small_schema,
)

CRDS = os.environ.get("ROLECALL_TEST_KUBERAY_CRDS", "")
KINDS = {"RayService", "RayCluster", "RayJob", "CronJob", "ConfigMap", "Secret"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_there_is_one_manifest_of_each_kind_at_least() -> None:
    assert {m["kind"] for m in manifests()} == KINDS


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_manifests_hold_to_the_schema_of_their_kind(kind: str) -> None:
    schema = small_schema(kind)
    assert [problems(schema, m) for m in manifests() if m["kind"] == kind and problems(schema, m)] == []


@pytest.mark.skipif(not CRDS, reason="ROLECALL_TEST_KUBERAY_CRDS names no folder with KubeRay's definitions")
@pytest.mark.parametrize("kind", ["RayService", "RayCluster", "RayJob"])
def test_manifests_hold_to_the_published_definitions(kind: str) -> None:
    schema = published_schema(Path(CRDS), kind)
    assert [problems(schema, m) for m in manifests() if m["kind"] == kind and problems(schema, m)] == []


@pytest.mark.parametrize(
    ("kind", "path", "wrong"),
    [
        ("RayService", ("spec", "serveConfigV3"), "applications: []"),
        ("RayService", ("spec", "rayClusterConfig", "authOptions", "mode"), "tokens"),
        ("RayService", ("spec", "rayClusterConfig", "workerGroupSpecs", 0, "minReplica"), 2),
        ("RayCluster", ("spec", "headGroupSpec", "rayStartParams", "num-cpus"), 0),
        ("RayCluster", ("spec", "gcsFaultToleranceOptions", "redisAddres"), "redis:6379"),
        ("RayJob", ("spec", "ttlSecondsAfterFinished"), "600"),
        ("RayJob", ("spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "container"), []),
        ("CronJob", ("spec", "concurrencyPolicy"), "forbid"),
        ("CronJob", ("spec", "jobTemplate", "spec", "template", "spec", "containers", 0, "envfrom"), []),
        ("ConfigMap", ("data", "ROLECALL_RANKING__WORKERS"), 2),
        ("Secret", ("stringdata",), {}),
    ],
)
def test_a_slip_in_a_manifest_is_found(kind: str, path: tuple[Any, ...], wrong: object) -> None:
    document = copy.deepcopy(manifest(kind))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = wrong
    assert problems(small_schema(kind), document)


def test_the_service_carries_the_committed_serve_configuration() -> None:
    carried = manifest("RayService")["spec"]["serveConfigV2"]
    assert carried.strip() == (INFRA / "serve/serve.yaml").read_text().strip()


def test_ray_takes_every_line_of_the_serve_configuration() -> None:
    document = yaml.safe_load((INFRA / "serve/serve.yaml").read_text())
    assert list(ignored_by_ray(document)) == []
    assert document["applications"][0]["import_path"] == "rolecall.serving.app:app"


@pytest.mark.parametrize(
    "path",
    [
        ("proxy_locations",),
        ("http_options", "request_timeout"),
        ("applications", 0, "route"),
        ("applications", 0, "deployments", 0, "health_check_periods"),
        ("applications", 0, "deployments", 0, "autoscaling_config", "max_replica"),
        ("applications", 0, "deployments", 0, "ray_actor_options", "cpus"),
    ],
)
def test_a_slip_in_the_serve_configuration_which_ray_would_ignore_is_found(path: tuple[Any, ...]) -> None:
    document = place = yaml.safe_load((INFRA / "serve/serve.yaml").read_text())
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = 1
    assert [step for step in ignored_by_ray(document) if step.endswith(path[-1])]


def ignored_by_ray(document: dict[str, Any]) -> Iterator[str]:
    """Paths of the keys that Ray's own schema reads and drops without a word."""
    taken = ServeDeploySchema.model_validate(document).model_dump(exclude_unset=True)
    yield from _missing(document, taken, "")
    for application in document["applications"]:
        for deployment in application["deployments"]:
            scaling = deployment["autoscaling_config"]
            yield from _missing(scaling, AutoscalingConfig.model_validate(scaling).model_dump(), "autoscaling_config")


def _missing(given: Any, taken: Any, where: str) -> Iterator[str]:
    if isinstance(given, dict):
        for key, value in given.items():
            if key not in taken:
                yield f"{where}.{key}"
            else:
                yield from _missing(value, taken[key], f"{where}.{key}")
    elif isinstance(given, list):
        for number, (one, other) in enumerate(zip(given, taken, strict=True)):
            yield from _missing(one, other, f"{where}[{number}]")


def test_every_container_runs_the_image_of_this_version_and_not_as_root() -> None:
    assert {container["image"] for container in containers()} == {f"rolecall:{PROJECT['version']}"}
    assert all(pod["securityContext"]["runAsNonRoot"] for m in manifests() for pod in pods(m))
    (image,) = documents(INFRA / "kuberay/kustomization.yaml")[0]["images"]
    assert (image["name"], str(image["newTag"])) == ("rolecall", PROJECT["version"])


def test_every_cluster_says_the_version_of_ray_that_is_locked() -> None:
    locked = dict(line.split("==") for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line)
    clusters = [
        manifest("RayService")["spec"]["rayClusterConfig"],
        manifest("RayCluster")["spec"],
        manifest("RayJob")["spec"]["rayClusterSpec"],
    ]
    assert {cluster["rayVersion"] for cluster in clusters} == {locked["ray"]}


def test_every_name_that_a_manifest_refers_to_exists() -> None:
    known = {(m["kind"], m["metadata"].get("name")) for m in manifests()}
    referred = {
        (kind, source[ref]["name"])
        for container in containers()
        for source in container["envFrom"]
        for kind, ref in (("ConfigMap", "configMapRef"), ("Secret", "secretRef"))
        if ref in source
    }
    assert referred
    assert referred <= known
    for m in manifests():
        for pod in pods(m):
            volumes = {volume["name"] for volume in pod["volumes"]}
            assert {mount["name"] for c in pod["containers"] for mount in c["volumeMounts"]} == volumes


def test_a_schedule_never_overlaps_itself_and_asks_the_batch_cluster() -> None:
    job = manifest("CronJob")
    (container,) = next(pods(job))["containers"]
    assert job["spec"]["concurrencyPolicy"] == "Forbid"
    assert container["command"] == ["rolecall", "schedule", "tick", "--no-wait", "--json"]
    address = {variable["name"]: variable.get("value") for variable in container["env"]}["ROLECALL_RAY__ADDRESS"]
    assert address == f"http://{manifest('RayCluster')['metadata']['name']}-head-svc:8265"
