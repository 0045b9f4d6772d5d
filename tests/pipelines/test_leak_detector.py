"""Leaks of six kinds are planted into the small world's training set and named; the clean one passes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl
import pytest

from rolecall.features.schema import CANDIDATES
from rolecall.pipelines.evaluation.targets import collect_targets
from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.knowledge import Window
from rolecall.pipelines.leaks import Finding, LeakDetector, Sampled, stored_requests
from rolecall.pipelines.materialize import feature_sources
from rolecall.platform.errors import InputError

if TYPE_CHECKING:
    from conftest import World

Column = npt.NDArray[np.float64]
PLANTED = "title_words"


def planted(examples: TrainingSet, column: npt.NDArray[Any], name: str = PLANTED) -> TrainingSet:
    """The training set with one column replaced."""
    features = examples.features.copy()
    features[:, examples.columns.index(name)] = column
    return replace(examples, features=features)


def of(examples: TrainingSet) -> npt.NDArray[np.int64]:
    return np.repeat(np.arange(examples.requests), examples.groups)


def items(examples: TrainingSet) -> npt.NDArray[np.int32]:
    assert examples.origin is not None
    return examples.origin.items


def askers(examples: TrainingSet) -> npt.NDArray[np.int64]:
    assert examples.origin is not None
    return np.unique(examples.origin.askers, return_inverse=True)[1][of(examples)]


def rate(examples: TrainingSet, key: npt.NDArray[np.integer]) -> Column:
    """Share of positive labels by key."""
    positive = (examples.labels > 0).astype(np.float64)
    return np.asarray((np.bincount(key, weights=positive) / np.maximum(np.bincount(key), 1))[key])


def rate_without_own(examples: TrainingSet) -> Column:
    """Share of positive labels of a job's other rows."""
    positive, key = (examples.labels > 0).astype(np.float64), items(examples)
    return np.asarray((np.bincount(key, weights=positive)[key] - positive) / np.maximum(np.bincount(key)[key] - 1, 1))


def noisy(examples: TrainingSet) -> Column:
    random = np.random.default_rng(1)
    return np.asarray(examples.labels + 0.5 * random.standard_normal(len(examples.labels)))


def place(examples: TrainingSet) -> Column:
    starts = np.cumsum(examples.groups) - examples.groups
    return np.asarray(np.arange(len(examples.labels)) - starts[of(examples)], np.float64)


def shuffled_ids(key: npt.NDArray[np.integer]) -> Column:
    return np.random.default_rng(2).permutation(int(key.max()) + 1)[key].astype(np.float64)


def tomorrow(examples: TrainingSet) -> Column:
    """Epoch seconds of the day after the request."""
    return examples.times[of(examples)] / 1e6 + 86_400


def sorted_by_label(examples: TrainingSet) -> TrainingSet:
    """Positives first, as a log that is read shown jobs first would have them."""
    order = np.lexsort((-examples.labels, of(examples)))
    assert examples.origin is not None
    return replace(
        examples,
        features=examples.features[order],
        labels=examples.labels[order],
        shown=examples.shown[order],
        origin=replace(examples.origin, items=examples.origin.items[order]),
    )


@pytest.fixture(scope="module")
def window(world: World) -> Window:
    return Window(start=world.start, end=world.cutoff)


def named(findings: tuple[Finding, ...]) -> set[tuple[str, str]]:
    return {(finding.kind, finding.column) for finding in findings}


def test_the_clean_training_set_passes(world: World, examples: TrainingSet, window: Window) -> None:
    targets = collect_targets(world.events, start=world.cutoff, end=world.as_of)
    row_of = world.pairs.catalogue.row_of
    judged = {(t.candidate_id, row) for t in targets for job in t.job_ids if (row := row_of(job)) is not None}
    assert len(judged) > 20
    assert LeakDetector().findings(examples, window=window, judged=judged) == ()
    assert world.leak_audit().findings(world.events, stored_requests(examples, count=2)) == ()


@pytest.mark.parametrize(
    ("kind", "column"),
    [
        ("target", lambda e: rate(e, items(e))),
        ("target", lambda e: rate_without_own(e)),
        ("target", lambda e: rate(e, askers(e))),
        ("identity", lambda e: items(e)),
        ("identity", lambda e: shuffled_ids(items(e))),
        ("identity", lambda e: shuffled_ids(askers(e))),
        ("order", place),
        ("order", lambda e: np.arange(len(e.labels))),
        ("alone", noisy),
        ("future", tomorrow),
    ],
    ids=["job-rate", "job-rate-of-others", "asker-rate", "job-number", "job-hash", "asker-hash", "place", "row-number",
         "noisy-label", "epoch"],
)  # fmt: skip
def test_a_planted_column_is_named_with_its_kind(
    examples: TrainingSet, window: Window, kind: str, column: Callable[[TrainingSet], Column]
) -> None:
    found = LeakDetector().findings(planted(examples, column(examples)), window=window)
    assert (kind, PLANTED) in named(found)
    assert {finding.column for finding in found} == {PLANTED}


def test_an_order_of_rows_that_predicts_the_label_is_named(examples: TrainingSet, window: Window) -> None:
    found = LeakDetector().findings(sorted_by_label(examples), window=window)
    assert ("order", "(order of rows)") in named(found)


def test_pairs_that_are_judged_on_too_are_counted(examples: TrainingSet, window: Window) -> None:
    positives = np.flatnonzero(examples.labels > 0)[:3]
    assert examples.origin is not None
    judged = {(examples.origin.askers[of(examples)[row]], int(items(examples)[row])) for row in positives}
    found = LeakDetector().findings(examples, window=window, judged=judged)
    assert named(found) == {("duplicate", "(pairs)")}
    assert found[0].evidence["pairs"] == len(judged)


def test_requests_of_the_evaluation_days_are_named(examples: TrainingSet, window: Window) -> None:
    short = replace(window, end=window.end - timedelta(days=3))
    assert ("future", "(time of requests)") in named(LeakDetector().findings(examples, window=short))


def test_a_stored_column_that_counts_the_days_after_is_named(world: World, examples: TrainingSet) -> None:
    """Planted where the detector by numbers is blind: a daily count of a job as of a week later."""
    name = "job.job_impressions_7d"
    later = world.events.filter(pl.col("kind") == "impression").group_by("job_id").len()
    counts = dict(later.iter_rows())
    ids = world.pairs.catalogue.ids_of(items(examples))
    leaking = planted(examples, np.array([counts.get(name, 0) for name in ids], np.float64), name)
    found = world.leak_audit().findings(world.events, stored_requests(leaking, count=2))
    assert ("future", name) in named(found)
    assert {column for _, column in named(found)} == {name}


def edited_early(events: pl.DataFrame, candidates: pl.DataFrame, employers: pl.DataFrame, **asked: Any) -> Any:
    """Planted: a profile counts from a month before it was written."""
    whole: dict[str, pl.DataFrame] = dict(feature_sources(events, candidates, employers, **asked))
    early = pl.col("event_timestamp") - timedelta(days=30)
    whole["candidate_profile"] = whole["candidate_profile"].with_columns(early)
    return whole


def test_profile_text_of_later_is_named(world: World, examples: TrainingSet) -> None:
    requests: list[Sampled] = [replace(request, stored=None) for request in stored_requests(examples, count=2)]
    told = pl.lit("warehouse of tomorrow, forklift and night shifts").alias("resume_text")
    late = pl.lit(world.as_of).cast(world.candidates.schema[CANDIDATES.time]).alias(CANDIDATES.time)
    edits = world.candidates.with_columns(told, late)
    whole = replace(world.leak_audit(), make_sources=edited_early, candidates=pl.concat([world.candidates, edits]))
    found = named(whole.findings(world.events, requests))
    assert ("profile", "dense_profile") in found
    assert {kind for kind, _ in found} == {"profile"}
    assert replace(whole, make_sources=feature_sources).findings(world.events, requests) == ()


def test_a_set_read_from_a_file_cannot_be_audited(examples: TrainingSet, window: Window, tmp_path: Any) -> None:
    examples.save(tmp_path / "set.npz")
    read = TrainingSet.load(tmp_path / "set.npz")
    with pytest.raises(InputError, match="origin"):
        LeakDetector().findings(read, window=window)
    with pytest.raises(InputError, match="origin"):
        stored_requests(read)
