"""The engine's runner over Ray actors, one a rank, each on CPUs or GPUs of its own.

A step is one small message to every rank and its columns of the logits back; between, ranks talk among themselves.
Ranks are placed on one node (STRICT_PACK) unless told otherwise. When one fails or is lost, those that wait for it give
up, all are ended, and the engine's step raises RankError: an engine without a rank is an engine without a model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import ray
import torch
from ray.exceptions import RayError
from ray.util.placement_group import placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy
from torch import Tensor

from rolecall.serving.llm.batch import Batch
from rolecall.serving.llm.errors import RankError
from rolecall.serving.llm.parallel.rank import Rank, Shared, message

Placement: TypeAlias = Literal["STRICT_PACK", "PACK", "SPREAD", "STRICT_SPREAD"]


class ParallelRunner:
    """`shared.size` ranks of one model. `cpus`: of each, and its threads; on GPUs each has a GPU as well.

    Blocks until every rank has loaded its weights and all have met. `start_s`: the longest to wait for room in the
    cluster. Raises RankError where there is none or a rank is lost; as `load_model` where the model is wrong.
    """

    def __init__(
        self, shared: Shared, *, cpus: int = 1, placement: Placement = "STRICT_PACK", start_s: float = 300.0
    ) -> None:
        if shared.device not in ("cpu", "cuda"):
            raise ValueError(f"got device {shared.device!r} for {shared.size} ranks; allowed: cpu, cuda")
        self.blocks, self.block_size, self._shared = shared.blocks, shared.block_size, shared
        bundle = {"CPU": float(cpus), **({"GPU": 1.0} if shared.device == "cuda" else {})}
        self._ranks: list[Any] = []
        self._group = placement_group([bundle] * shared.size, strategy=placement)
        try:
            if not self._group.wait(start_s):
                raise RankError(f"no room for {shared.size} ranks of {bundle} ({placement}) within {start_s:.0f} s")
            self._ranks = [self._placed(number, bundle) for number in range(shared.size)]
            self.rank_bytes: list[int] = self._of_each("load")
            self.processes = self._met()
        except BaseException:
            self.close()
            raise

    def run(self, batch: Batch) -> Tensor:
        """float32 [R, vocabulary]: a row for each wanted position, chunk by chunk. Raises RankError."""
        try:
            shares = self._of_each("run", message(batch), timeout_s=2 * self._shared.timeout_s)
        except BaseException:
            self.close()
            raise
        return torch.from_numpy(np.concatenate(shares, axis=1))

    def close(self) -> None:
        """End every rank. Harmless when already done."""
        ranks, self._ranks = self._ranks, []
        if ray.is_initialized():
            for rank in ranks:
                with contextlib.suppress(RayError):
                    ray.kill(rank)
            remove_placement_group(self._group)

    def _placed(self, number: int, bundle: dict[str, float]) -> Any:
        place = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=number)
        actor: Any = ray.remote(Rank)
        options = {"num_cpus": bundle["CPU"], "num_gpus": bundle.get("GPU", 0), "scheduling_strategy": place}
        return actor.options(**options).remote(number, self._shared)

    def _met(self) -> list[int]:
        """The processes of the ranks."""
        first = self._ranks[0]
        [host] = self._answers([first.__ray_call__.remote(_address)])
        [port] = self._answers([first.open_store.remote(host)])
        return self._of_each("meet", host, port, timeout_s=2 * self._shared.timeout_s)

    def _of_each(self, method: str, *arguments: object, timeout_s: float | None = None) -> list[Any]:
        if not self._ranks:
            raise RankError("the ranks of this model have ended")
        return self._answers([getattr(rank, method).remote(*arguments) for rank in self._ranks], timeout_s)

    def _answers(self, calls: Sequence[Any], timeout_s: float | None = None) -> list[Any]:
        """What each call returned. Ray raises the first error as soon as it is there, whatever the others do."""
        try:
            return list(ray.get(list(calls), timeout=timeout_s))
        except RayError as error:
            cause = getattr(error, "cause", None)  # what a rank itself raised
            if isinstance(cause, ValueError | FileNotFoundError):
                raise cause from error
            raise RankError(f"a rank of {self._shared.size} failed or was lost: {error}") from error


def _address(_: Rank) -> str:
    """Where other nodes reach the process that this runs in."""
    return str(ray.util.get_node_ip_address())
