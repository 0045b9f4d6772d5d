"""What travels to a replica that holds the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rolecall.serving.llm.request import SamplingParameters


@dataclass(frozen=True, kw_only=True)
class Order:
    """Prompts of one caller and how to go on from each. `parameters` without a constraint: `grammar` describes it, and
    the matcher is built where the engine runs. `timeout_s` counts from arrival."""

    prompts: Sequence[Sequence[int]]
    parameters: SamplingParameters
    grammar: str | None = None
    priority: int = 0
    timeout_s: float | None = None
    salt: str = ""
