"""The marketplace laboratory: both sides and position-logged events over real ESCO and O*NET text, with known truth.

tables = generate(MarketConfig(jobs=5000, candidates=2000, seed=7))     # four tables in memory
world = World(named("drifting", horizon=14))                            # a place where days go by
"""

from rolecall.pipelines.market.config import MarketConfig, configurations, named
from rolecall.pipelines.market.generate import Marketplace, generate
from rolecall.pipelines.market.memory import Memory
from rolecall.pipelines.market.session import Responses
from rolecall.pipelines.market.truth import Truth, write_truth
from rolecall.pipelines.market.visits import Visits
from rolecall.pipelines.market.world import World
from rolecall.pipelines.market.write import Written, write_market

__all__ = [
    "MarketConfig",
    "Marketplace",
    "Memory",
    "Responses",
    "Truth",
    "Visits",
    "World",
    "Written",
    "configurations",
    "generate",
    "named",
    "write_market",
    "write_truth",
]
