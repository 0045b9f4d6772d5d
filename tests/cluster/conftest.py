"""One Ray cluster of two raylets that share no folder, for every test of cluster mode."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .raylets import RayCluster, two_raylets


@pytest.fixture(scope="session")
def cluster() -> Iterator[RayCluster]:
    """A head and a worker. A test that kills the worker adds another before it ends."""
    cluster = two_raylets()
    yield cluster
    cluster.stop()
