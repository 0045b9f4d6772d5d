"""Which slices a target and its relevant jobs are in."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np

from rolecall.features.context import CandidateContext
from rolecall.pipelines.evaluation.slices import FEWEST, LARGEST, candidate_slices, job_slices, reported

if TYPE_CHECKING:
    from conftest import World


def test_a_candidate_is_in_one_slice_of_each_kind() -> None:
    context = CandidateContext(country="NL", seniority="senior")
    assert candidate_slices(context, 0) == ("history=none", "place=NL", "seniority=senior")
    assert candidate_slices(CandidateContext(region="Utrecht"), 4) == (
        "history=1-4",
        "place=Utrecht",
        "seniority=unknown",
    )
    assert candidate_slices(CandidateContext(), 5) == ("history=5+", "place=unknown", "seniority=unknown")


def test_jobs_are_parted_by_whether_anybody_engaged_with_them_and_by_age_and_by_size(world: World) -> None:
    catalogue = world.pairs.catalogue
    at_us = world.as_of.timestamp() * 1e6
    size = len(catalogue)
    random = np.random.default_rng(0)
    columns = {
        "job_engagements_30d": random.choice([np.nan, 0, 3], size).astype(np.float32),
        "employer_size": random.choice([np.nan, 1, 49, 50, 249, 250, 999, 1000, 1e6], size).astype(np.float32),
    }
    rows = np.arange(-1, size, dtype=np.int32)
    found = job_slices(catalogue, rows, columns, at_us=at_us)
    assert not any(flags[0] for flags in found.values())  # a job the release does not hold
    assert (found["job=cold"][1:] ^ found["job=warm"][1:]).all()
    for kind, known in (("posted", ~np.isnan(catalogue.posted)), ("employer", ~np.isnan(columns["employer_size"]))):
        flags = sum(f[1:].astype(int) for name, f in found.items() if name.startswith(f"{kind}="))
        assert (flags == known).all()
    assert (found["employer=50-249"][1:] == np.isin(columns["employer_size"], [50, 249])).all()
    assert (found["employer=1000+"][1:] == np.isin(columns["employer_size"], [1000, 1e6])).all()


def test_a_jobs_age_is_that_at_the_instant(world: World) -> None:
    posted = np.array(
        [(datetime(2026, 3, 1, tzinfo=UTC) - timedelta(days=days)).timestamp() * 1e6 for days in (-1, 0.5, 3, 30)]
    )
    catalogue = replace(world.pairs.catalogue, posted=posted)
    found = job_slices(
        catalogue, np.arange(4, dtype=np.int32), {}, at_us=datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1e6
    )
    named = [name for row in range(4) for name, f in found.items() if name.startswith("posted=") and f[row]]
    assert named == ["posted=later", "posted=day", "posted=week", "posted=earlier"]


def test_the_most_frequent_values_of_each_kind_are_reported() -> None:
    names = [[f"place={place}" for place in range(number)] + ["history=none"] for number in range(1, 12)]
    every = reported(names, fewest=1)
    assert every == sorted(["history=none", *(f"place={place}" for place in range(LARGEST))])
    assert every == reported([list(reversed(one)) for one in reversed(names)], fewest=1)
    assert reported([]) == []


def test_a_value_that_a_handful_of_targets_have_is_not_reported() -> None:
    """The mean of one person's targets is what that person did."""
    names = [["place=DE", "seniority=senior"]] * FEWEST + [["place=LI", "seniority=senior"]] * (FEWEST - 1)
    assert reported(names) == ["place=DE", "seniority=senior"]
