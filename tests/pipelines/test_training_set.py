"""The training set: what a row may know, and where its negatives come from."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rolecall.features.pairs import COARSE_COLUMNS
from rolecall.features.schema import ENGAGEMENT_EVENTS
from rolecall.pipelines.examples import TrainingSet
from rolecall.pipelines.requests import collect_requests
from rolecall.pipelines.training_set import (
    Preparer,
    build_training_set,
    job_columns_at,
    read_contexts,
    training_columns,
)

if TYPE_CHECKING:
    from conftest import World


def test_the_same_log_gives_the_same_rows(world: World, examples: TrainingSet) -> None:
    again = world.examples()
    np.testing.assert_array_equal(again.features, examples.features)
    np.testing.assert_array_equal(again.labels, examples.labels)


def test_nothing_of_the_evaluation_days_is_learned_from(world: World, examples: TrainingSet) -> None:
    assert examples.times.max() < world.cutoff.timestamp() * 1e6
    early = world.events.filter(pl.col("occurred_at") < world.cutoff)
    np.testing.assert_array_equal(world.examples(early).features, examples.features)


def test_both_rankers_columns_are_there_and_content_has_nothing_of_other_candidates(examples: TrainingSet) -> None:
    assert set(COARSE_COLUMNS) <= set(examples.columns)
    assert examples.columns == training_columns("ranker_full")
    assert not [name for name in training_columns("ranker_content") if name.startswith("job.job_")]


def test_shown_rows_are_what_serving_would_compute_at_the_request(world: World, examples: TrainingSet) -> None:
    requests = collect_requests(world.events, start=world.start, end=world.cutoff)
    number = int(np.repeat(np.arange(examples.requests), examples.groups)[np.argmax(examples.shown)])
    first = int(examples.groups[:number].sum())
    rows = requests.filter(pl.col("at").dt.epoch("us") == int(examples.times[number]))
    at, who = rows["at"][0], rows["candidate_id"][0]
    assert examples.origin is not None
    part = slice(first, first + int(examples.groups[number]))
    jobs = examples.origin.items[part]
    assert set(world.pairs.catalogue.ids_of(jobs[examples.shown[part]])) == set(rows["job_id"])
    context = read_contexts(world.store, [(who, at)], "ranker_full")[0]
    expected = world.pairs.matrix(
        Preparer(world.pairs, [context], world.embed).prepare(context),
        jobs,
        at=at,
        job_features=job_columns_at(world.store, world.pairs.catalogue, jobs, [at] * len(jobs), "ranker_full"),
        columns=examples.columns,
    )
    np.testing.assert_array_equal(examples.features[part], expected)
    assert context.history == tuple(
        list(
            dict.fromkeys(
                reversed(
                    world.events.filter(
                        pl.col("candidate_id") == who,
                        pl.col("kind").is_in(ENGAGEMENT_EVENTS),
                        pl.col("actor") == "candidate",
                        pl.col("occurred_at") < at,
                    ).sort("occurred_at", "event_id")["job_id"]
                )
            )
        )[: world.settings.features.history_length][::-1]
    )


def view_log(world: World) -> pl.DataFrame:
    """The same engagements as a source that logs no impressions would tell them."""
    return world.events.filter(pl.col("kind").is_in(ENGAGEMENT_EVENTS)).with_columns(
        pl.lit(None, pl.String).alias("request_id")
    )


def test_a_view_log_gets_negatives_half_of_them_from_recall(world: World) -> None:
    events = view_log(world)
    asked: list[int] = []

    def retrieve(prepared: object, at: object) -> np.ndarray:
        asked.append(1)
        return np.arange(40, dtype=np.int32)

    made = build_training_set(
        events,
        start=world.start + timedelta(days=8),
        end=world.cutoff,
        store=world.store,
        service="ranker_content",
        pairs=world.pairs,
        embed=world.embed,
        settings=world.settings.ranking,
        retrieve=retrieve,
    )
    assert len(asked) == made.requests > 20
    positives = np.array([(part > 0).sum() for part in np.split(made.labels, np.cumsum(made.groups)[:-1])])
    wanted = world.settings.ranking.negatives_per_positive * positives
    assert (positives >= 1).all()
    assert (made.groups - positives <= wanted).all()
    assert np.median((made.groups - positives) / wanted) > 0.8


def test_other_candidates_change_no_row_of_a_candidate(world: World) -> None:
    """Labels, negatives and content features of one candidate's requests come from that candidate alone."""
    events = view_log(world)
    who = events.filter(pl.col("occurred_at") < world.cutoff)["candidate_id"].mode().sort()[0]

    def build(log: pl.DataFrame) -> TrainingSet:
        return world.examples(log, "ranker_content")

    everyone, alone = build(events), build(events.filter(pl.col("candidate_id") == who))
    kept = everyone.select(np.isin(everyone.times, alone.times))
    assert kept.requests == alone.requests > 0
    np.testing.assert_array_equal(kept.features, alone.features)
    np.testing.assert_array_equal(kept.labels, alone.labels)
