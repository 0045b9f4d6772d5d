"""`PrefixRouting` as Ray Serve's request router, one in every process that asks the deployment."""

from __future__ import annotations

from typing import Any

from ray.serve.request_router import PendingRequest, ReplicaID, RequestRouter, RunningReplica

from rolecall.serving.llm.deployment.order import Order
from rolecall.serving.llm.deployment.prefix_routing import BLOCK, PrefixRouting


class PrefixRouter(RequestRouter):
    """Serve asks it for each call; calls other than orders go to the less busy of two."""

    def initialize_state(self, *, imbalance: int = 8, block: int = BLOCK, **_: Any) -> None:
        """Called by Serve with `request_router_kwargs`."""
        self._routing: PrefixRouting[ReplicaID] = PrefixRouting(imbalance=imbalance, block=block)

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """Ranks of one replica each: the next is tried where one takes no more."""
        replicas = {replica.replica_id: replica for replica in candidate_replicas}
        loads = {name: self._load(replica) for name, replica in replicas.items()}
        order = _order(pending_request)
        prompt, salt = (order.prompts[0], order.salt) if order else ((), "")
        return [[replicas[name]] for name in self._routing.choose(prompt, salt, loads)]

    def on_request_routed(self, pending_request: PendingRequest, replica_id: ReplicaID, result: Any) -> None:
        """A replica took the request."""
        order = _order(pending_request)
        if order is not None:
            for prompt in order.prompts:
                self._routing.sent(prompt, order.salt, replica_id)

    def update_replicas(self, replicas: list[RunningReplica]) -> None:
        """Replicas came or went."""
        super().update_replicas(replicas)
        self._routing.keep(replica.replica_id for replica in replicas)

    def _load(self, replica: RunningReplica) -> float:
        """Requests that it has: as it told when it last took one, which counts other callers' too, else as it told the
        controller."""
        told = self.replica_queue_len_cache.get(replica.replica_id)
        return float(replica.routing_stats.get("requests", 0.0) if told is None else told)


def _order(pending: PendingRequest | None) -> Order | None:
    first = pending.args[0] if pending is not None and pending.args else None
    return first if isinstance(first, Order) else None
