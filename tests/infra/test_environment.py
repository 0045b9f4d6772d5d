"""The settings that the manifests give to pods are settings of this code, and nothing secret is in them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from sqlalchemy import make_url

from rolecall.features.feast_repository import redis_address
from rolecall.platform.errors import SettingsError
from rolecall.platform.ray_runtime import environment
from rolecall.platform.settings import RaySettings, Settings, load_settings
from rolecall.serving.app import PATIENCE_S, deployment_options, longest_answer_s
from rolecall.serving.llm.deployment.options import deployment_options as llm_options

from .manifests import INFRA, containers, documents, manifest, manifests, pods

SECRET = re.compile(
    r"password|secret_access|access_key|api_keys|token$|ledger_url|tracking_uri|redis_url|registry_url", re.I
)


def variables() -> dict[str, str]:
    """What a pod's environment holds: the ConfigMap, the example Secret, and what containers add."""
    own = {v["name"]: v["value"] for container in containers() for v in container.get("env", []) if "value" in v}
    return {**manifest("ConfigMap")["data"], **manifest("Secret", "rolecall-credentials")["stringData"], **own}


def ours(given: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in given.items() if name.startswith("ROLECALL_")}


def test_every_variable_is_a_setting() -> None:
    settings = load_settings(environ=ours(variables()))
    assert settings.mode == "cluster"
    assert settings.tables_uri.startswith("s3://")
    assert settings.ledger_url.startswith("postgresql+psycopg://")
    assert settings.features.online_store == "redis"
    assert settings.serve.api_keys == ("CHANGE-ME",)


def test_every_url_of_the_example_is_one_that_its_client_takes() -> None:
    settings = load_settings(environ=ours(variables()))
    assert redis_address(settings.features.redis_url) == "redis:6379,db=0,password=CHANGE-ME"
    for url in (settings.ledger_url, settings.tracking_uri, settings.features.registry_url):
        assert make_url(url).host == "postgresql"


def test_the_services_of_the_cluster_bring_no_variable_that_settings_refuse() -> None:
    """Kubernetes tells each pod of the Services beside it: `rolecall-serve-svc` is ROLECALL_SERVE_SVC_PORT."""
    with pytest.raises(SettingsError):
        load_settings(environ={"ROLECALL_SERVE_SVC_PORT": "tcp://10.0.0.7:8000"})
    found = [pod for m in manifests() for pod in pods(m)]
    assert len(found) == 8
    assert all(pod.get("enableServiceLinks") is False for pod in found)


@pytest.mark.parametrize("name", ["ROLECALL_STORAGE__TABLE_URI", "ROLECALL_RANKING__WORKER", "ROLECALL_HOMES"])
def test_a_slip_in_a_variable_is_refused(name: str) -> None:
    with pytest.raises(SettingsError):
        load_settings(environ=ours(variables()) | {name: "2"})


def test_what_is_secret_is_in_a_secret_and_only_as_an_example() -> None:
    assert [name for name in manifest("ConfigMap")["data"] if SECRET.search(name)] == []
    for document in documents(INFRA / "kuberay/secret.example.yaml"):
        assert all("CHANGE-ME" in text for text in document["stringData"].values())
    inline = [v for container in containers() for v in container.get("env", []) if SECRET.search(v["name"])]
    assert all("valueFrom" in variable for variable in inline)


def test_the_serve_flags_of_one_machine_hold_on_a_cluster_too(tmp_path_factory: pytest.TempPathFactory) -> None:
    local = environment(RaySettings(), tmp_path_factory.mktemp("h"))
    flags = {name: text for name, text in local.items() if name in manifest("ConfigMap")["data"]}
    assert flags
    here = {name: local[name] for name in flags if name != "RAY_AUTH_MODE"}
    assert here.items() <= manifest("ConfigMap")["data"].items()
    assert {"RAY_SERVE_ENABLE_HA_PROXY", "RAY_SERVE_THROUGHPUT_OPTIMIZED"} <= flags.keys()


def test_a_replica_gets_as_many_threads_as_the_settings_say() -> None:
    settings = Settings()
    (application,) = documents(INFRA / "serve/serve.yaml")[0]["applications"]
    configured = application["deployments"][0]
    code = deployment_options(settings)
    assert configured["name"] == code["name"]
    assert configured["ray_actor_options"] == code["ray_actor_options"]


def test_the_language_models_deployment_follows_the_settings_of_its_pods() -> None:
    settings = load_settings(environ=ours(variables()))
    (application,) = documents(INFRA / "serve/serve.yaml")[0]["applications"]
    configured, code = application["deployments"][1], llm_options(settings)
    assert (settings.llm.placement, configured["name"]) == ("deployment", code["name"])
    assert configured["ray_actor_options"]["runtime_env"] == code["ray_actor_options"]["runtime_env"]
    assert configured["autoscaling_config"] == code["autoscaling_config"]
    timeout = documents(INFRA / "serve/serve.yaml")[0]["http_options"]["request_timeout_s"]
    assert timeout >= longest_answer_s(settings) + PATIENCE_S


def test_a_pod_of_the_language_model_holds_one_replica_and_nothing_else() -> None:
    (application,) = documents(INFRA / "serve/serve.yaml")[0]["applications"]
    wanted = application["deployments"][1]["ray_actor_options"]
    groups = {group["groupName"]: group for group in rayservice()["workerGroupSpecs"]}
    started = groups["llm"]["rayStartParams"]
    assert (wanted["num_cpus"], started["num-cpus"]) == (0, "0")
    assert json.loads(json.loads(started["resources"])) == wanted["resources"]
    assert "resources" not in groups["serve"]["rayStartParams"]
    (container,) = groups["llm"]["template"]["spec"]["containers"]
    threads = wanted["runtime_env"]["env_vars"]["OMP_NUM_THREADS"]
    assert container["resources"]["limits"]["cpu"] == threads


def rayservice() -> dict[str, Any]:
    return dict(manifest("RayService")["spec"]["rayClusterConfig"])
