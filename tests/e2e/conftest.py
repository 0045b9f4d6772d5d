"""The small world under the name that tests of whole runs know it by."""

from __future__ import annotations

from tests.small_world import AS_OF, SMALL, World, small_market, small_settings

__all__ = ["AS_OF", "SMALL", "World", "small_market", "small_settings"]
