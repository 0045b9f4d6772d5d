"""The language model in a deployment of its own, two replicas of it, as a client of the server meets them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from rolecall.platform.ray_head import free_ports
from rolecall.platform.settings import LLMSettings, Settings, load_settings
from rolecall.serving.app import APPLICATION, Server, run_server
from rolecall.serving.llm.api.opening import open_llm
from rolecall.serving.llm.request import SamplingParameters

from .llm.api.conftest import model_folder  # noqa: F401  # the same little model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

LONG = "The nurse works nights in the clinic by the river, and the driver by day. " * 2
ENDLESS: dict[str, Any] = {"model": "little", "prompt": LONG, "temperature": 0, "max_tokens": 100, "ignore_eos": True}


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, model_folder: Path) -> Settings:  # noqa: F811
    names = ("SERVE__PORT", "RAY__HAPROXY_METRICS_PORT", "RAY__HAPROXY_STATS_PORT")
    ports = {f"ROLECALL_{name}": str(port) for name, port in zip(names, free_ports(3), strict=True)}
    llm = {
        "model": str(model_folder),
        "name": "little",
        "compute": "exact",
        "cache_mb": 1,
        "max_waiting_requests": 2,
        "max_sequences": 2,
        "placement": "deployment",
        "num_cpus": 0.5,
        "min_replicas": 2,
        "max_replicas": 2,
    }
    return load_settings(environ={"ROLECALL_HOME": str(tmp_path_factory.mktemp("llm") / "home"), **ports}, llm=llm)


@pytest.fixture(scope="module")
def server(settings: Settings) -> Iterator[Server]:
    with run_server(settings, blocking=False) as server:
        yield server


@pytest.fixture
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120) as client:
        until(lambda: client.get("/v1/models").status_code == 200)
        yield client


def until(true: Callable[[], bool]) -> None:
    """Asks again until it is so; the test's own time limit ends what never comes."""
    while not true():
        pass


def samples(client: httpx.Client, name: str) -> dict[str, float]:
    """A metric of each replica of the model."""
    families = text_string_to_metric_families(client.get("/metrics").text)
    found = [sample for family in families for sample in family.samples if sample.name == f"rolecall_llm_{name}"]
    return {sample.labels["replica"]: sample.value for sample in found}


def idle(client: httpx.Client) -> bool:
    return not any((*samples(client, "cache_use_ratio").values(), *samples(client, "waiting_requests").values()))


def events(lines: Iterator[str]) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")]


def test_what_the_deployment_says_is_what_the_model_says_inside(client: httpx.Client, settings: Settings) -> None:
    service = open_llm(settings.llm)
    service.close(patience_s=0)
    said = client.post("/v1/completions", json=ENDLESS | {"max_tokens": 30, "n": 2}).json()["choices"]
    prompt = service.texts.prompt(LONG)
    with_engine = service.loop._engine  # type: ignore[attr-defined]  # its thread has ended
    parameters = SamplingParameters(temperature=0.0, max_tokens=30, ignore_eos=True)
    (alone,) = with_engine.generate([prompt], parameters)
    assert [choice["text"] for choice in said] == [alone.completions[0].text] * 2


def test_refusals_are_told_as_inside(client: httpx.Client) -> None:
    refused = client.post("/v1/completions", json=ENDLESS | {"max_tokens": 5000})
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "context_length_exceeded")

    def ask(_: int) -> httpx.Response:
        return client.post("/v1/completions", json=ENDLESS | {"prompt": LONG[_:]})

    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(ask, range(16)))
    assert {reply.status_code for reply in replies} == {200, 429}
    assert all(int(reply.headers["retry-after"]) >= 1 for reply in replies if reply.status_code == 429)


def test_a_prompt_goes_where_its_prefix_is_and_both_replicas_count_in_the_metrics(client: httpx.Client) -> None:
    client.post("/v1/completions", json=ENDLESS | {"max_tokens": 1, "cache_salt": "s"})
    before, cached = samples(client, "requests_total"), samples(client, "cached_tokens_total")
    for _ in range(6):
        client.post("/v1/completions", json=ENDLESS | {"max_tokens": 1, "cache_salt": "s"})
    after = samples(client, "requests_total")
    assert len(after) == 2
    gained = {replica: after[replica] - before[replica] for replica in after}
    assert sorted(gained.values()) == [0, 6]
    (busy,) = (replica for replica, count in gained.items() if count)
    assert samples(client, "cached_tokens_total")[busy] > cached[busy]


def test_a_client_that_leaves_sets_the_replicas_memory_free(client: httpx.Client) -> None:
    before = samples(client, "generated_tokens_total")
    for body in ({"stream": True, "n": 2}, {"stream": False, "prompt": [LONG, LONG[1:]]}):
        asyncio.run(leave(client, ENDLESS | body))
        until(lambda: idle(client))
    gained = sum(samples(client, "generated_tokens_total").values()) - sum(before.values())
    assert gained < 2 * 3 * 2 * ENDLESS["max_tokens"]


async def leave(client: httpx.Client, body: dict[str, Any]) -> None:
    """Ask three times, and go once something is computed."""
    async with httpx.AsyncClient(base_url=str(client.base_url), timeout=60) as leaving:
        asking = [asyncio.create_task(leaving.post("/v1/completions", json=body)) for _ in range(3)]
        while not any((await asyncio.to_thread(samples, client, "running_sequences")).values()):
            assert not all(task.done() for task in asking)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)


def test_a_replica_that_dies_ends_its_stream_with_an_error_and_others_answer(client: httpx.Client) -> None:
    import ray

    with client.stream("POST", "/v1/completions", json=ENDLESS | {"stream": True}) as reply:
        lines = reply.iter_lines()
        next(lines)
        busy = max(samples(client, "running_sequences").items(), key=lambda one: one[1])[0]
        actors: list[Any] = list(ray.util.list_named_actors(all_namespaces=True))
        actor = next(actor for actor in actors if busy in actor["name"])
        ray.kill(ray.get_actor(**actor), no_restart=True)
        rest = list(lines)
    assert "data: [DONE]" in rest[-2:]
    assert events(iter(rest))[-1]["error"]["code"] == "unavailable"
    assert client.post("/v1/completions", json=ENDLESS | {"max_tokens": 2}).status_code == 200


def test_a_stream_under_way_is_finished_when_the_application_is_taken_down(client: httpx.Client) -> None:
    from ray import serve

    with client.stream("POST", "/v1/completions", json=ENDLESS | {"stream": True}) as reply:
        lines = reply.iter_lines()
        next(lines)
        leaving = threading.Thread(target=serve.delete, args=(APPLICATION,))
        leaving.start()
        chunks = events(lines)
    assert chunks[-1]["choices"][0]["finish_reason"] == "length"
    leaving.join()


def test_bounds_of_replicas_are_serves_and_its_policy_is_ours() -> None:
    from ray.serve.config import AutoscalingConfig

    from rolecall.serving.llm.deployment.options import replicas

    config = AutoscalingConfig.model_validate(replicas(LLMSettings(max_replicas=3))["autoscaling_config"])
    assert (config.min_replicas, config.max_replicas) == (1, 3)
    assert config.policy.get_policy().__name__ == "QueueAndCache"
