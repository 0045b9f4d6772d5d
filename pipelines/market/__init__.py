"""The demo marketplace: both sides and a month of position-logged events over real ESCO and O*NET text.

tables = generate(MarketConfig(jobs=5000, candidates=2000, seed=7))
"""

from rolecall.pipelines.market.config import MarketConfig
from rolecall.pipelines.market.generate import Marketplace, generate

__all__ = ["MarketConfig", "Marketplace", "generate"]
