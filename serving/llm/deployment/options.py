"""How the deployment runs, from settings. A Serve configuration may say otherwise, option by option."""

from __future__ import annotations

from typing import Any

from rolecall.platform.ray_runtime import actor_env
from rolecall.platform.settings import LLMSettings, Settings

NAME = "llm"
ROUTER = "rolecall.serving.llm.deployment.router.PrefixRouter"
POLICY = "rolecall.serving.llm.deployment.autoscaling.QueueAndCache"
OPERATION_SLOTS = 16
"""Room beside the engine's own queue, so that the engine refuses what is too much, and says when to come back."""
MARGIN_S = 5.0


def deployment_options(settings: Settings) -> dict[str, Any]:
    """Options of `serve.deployment`."""
    from ray.serve.config import RequestRouterConfig

    llm = settings.llm
    return {
        "name": NAME,
        **replicas(llm),
        "max_ongoing_requests": llm.max_waiting_requests + llm.max_sequences + OPERATION_SLOTS,
        "max_queued_requests": llm.max_waiting_requests,
        "request_router_config": RequestRouterConfig.model_validate(
            {
                "request_router_class": ROUTER,
                "request_router_kwargs": {"imbalance": llm.route_imbalance, "block": llm.block_tokens},
                "request_routing_stats_period_s": 2.0,
            }
        ),
        "health_check_period_s": 5.0,
        "health_check_timeout_s": 30.0,
        "graceful_shutdown_timeout_s": llm.drain_s + MARGIN_S,
        "graceful_shutdown_wait_loop_s": 0.2,
        "max_surge_percent": 0 if llm.num_gpus else 100,  # GPUs for twice the replicas are seldom free
        "ray_actor_options": {
            "num_cpus": llm.num_cpus,
            "num_gpus": llm.num_gpus,
            "runtime_env": actor_env(llm.threads or settings.ray.threads_per_actor),
        },
    }


def replicas(llm: LLMSettings) -> dict[str, Any]:
    """A fixed number of them, or bounds within which they follow the load."""
    if llm.max_replicas <= llm.min_replicas:
        return {"num_replicas": llm.min_replicas}
    return {
        "autoscaling_config": {
            "min_replicas": llm.min_replicas,
            "max_replicas": llm.max_replicas,
            "upscale_delay_s": 15.0,
            "downscale_delay_s": 600.0,
            "policy": {
                "policy_function": POLICY,
                "policy_kwargs": {"cache_use": llm.target_cache_use, "waiting_tokens": llm.target_waiting_tokens},
            },
        }
    }
