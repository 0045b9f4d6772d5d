"""What cluster tests stand on: nodes that cannot read each other's files, and that can be lost and replaced."""

from __future__ import annotations

import pytest

from .raylets import RayCluster

pytestmark = pytest.mark.slow


def test_no_node_sees_what_another_wrote(cluster: RayCluster) -> None:
    head, worker = cluster.head, cluster.workers[-1]
    (head.seen_from_here(head.folder) / "written").write_text("here")
    assert (head.seen_from_here(head.folder) / "written").read_text() == "here"
    assert not (worker.seen_from_here(head.folder) / "written").exists()
    assert worker.home != head.home


def test_a_killed_node_is_missed_and_a_new_one_takes_its_place(cluster: RayCluster) -> None:
    cluster.workers[-1].kill()
    cluster.wait_for(1)
    assert cluster.alive() == [cluster.head.name]
    fresh = cluster.add_worker()
    assert cluster.alive() == sorted([cluster.head.name, fresh.name])
