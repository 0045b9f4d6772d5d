"""From a release to weights: what it would have shown, how far that overlaps, and what its ranker expects."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from rolecall.features.catalogue import Catalogue
from rolecall.features.context import CandidateContext
from rolecall.features.job_vectors import JobVectors
from rolecall.features.schema import JOBS
from rolecall.pipelines.evaluation.counterfactual import (
    Logged,
    LoggedSlates,
    LogJudge,
    TargetSlates,
    agreement,
    dr,
    exposure_of,
    ips,
    ordered,
    power_law,
    predictions,
    read_slates,
    release_slates,
    sequential,
    snips,
)
from rolecall.pipelines.evaluation.counterfactual.log_value import LogValue, LogWindow
from rolecall.pipelines.train import TrainedRankers
from rolecall.pipelines.training_set import read_contexts
from rolecall.platform.errors import InputError
from rolecall.platform.settings import PolicySettings
from rolecall.serving.funnel import Funnel
from rolecall.serving.policy import Policy

if TYPE_CHECKING:
    from conftest import World

NOON = datetime(2026, 9, 1, 12, tzinfo=UTC)
CURVE = np.array([1.0, 0.5, 0.25])


def slates_of(*shown: tuple[str, ...], propensity: float = 0.5) -> LoggedSlates:
    full = np.full((len(shown), max(map(len, shown))), np.nan)
    for row, jobs in enumerate(shown):
        full[row, : len(jobs)] = propensity
    return LoggedSlates(
        request_ids=tuple(f"r{n}" for n in range(len(shown))),
        candidate_ids=tuple(f"c{n}" for n in range(len(shown))),
        at=(NOON,) * len(shown),
        job_ids=shown,
        logged=Logged(propensity=full, reward=np.where(np.isnan(full), np.nan, 0.0), cluster=np.arange(len(shown))),
        dropped={},
    )


def test_exposure_is_the_examination_of_where_the_target_puts_a_logged_job() -> None:
    slates = slates_of(("a", "b", "c"), ("a", "b"))
    one = exposure_of(slates, TargetSlates(draws=((("c", "x", "a"),), (("z",),))), CURVE)
    assert one.of_logged.tolist() == [[0.25, 0, 1], [0, 0, 0]]
    assert one.due.tolist() == [1.75, 1.0]
    two = exposure_of(slates, TargetSlates(draws=((("a",), ("b", "a")), (("a",), ("a",)))), CURVE)
    assert two.of_logged.tolist() == [[0.75, 0.5, 0], [1, 0, 0]]
    assert two.due.tolist() == [1.25, 1.0]
    with pytest.raises(InputError, match="examination of 3"):
        exposure_of(slates, TargetSlates(draws=((("a", "b", "c", "d"),), (("a",),))), CURVE)


def test_agreement_is_one_where_the_same_job_stands_at_the_same_place() -> None:
    slates = slates_of(("a", "b", "c"), ("a", "b"))
    assert agreement(slates, TargetSlates(draws=((("a", "c", "c"),), (("a",),)))).tolist() == [[1, 0, 1], [1, 0, 0]]
    with pytest.raises(InputError, match="several draws"):
        agreement(slates, TargetSlates(draws=((("a",), ("b",)), (("a",),))))


def serving_policy(exploration: float, *, jobs: int) -> Policy:
    """The policy that serves, over as many jobs, two an employer, so that its caps and diversity bite."""
    rows = [
        dict.fromkeys(JOBS.columns.names)
        | {"job_id": f"j{n}", "updated_at": NOON, "employer_id": f"e{n // 2}", "title": f"t{n % 3}"}
        for n in range(jobs)
    ]
    codes = np.random.default_rng(0).integers(-127, 128, (jobs, 8)).astype(np.int8)
    settings = PolicySettings(exploration=exploration, max_per_employer=1, max_per_title=2, diversity=0.2)
    catalogue = Catalogue.from_table(pa.Table.from_pylist(rows, schema=JOBS.columns))
    return Policy(settings, catalogue, JobVectors(codes, np.ones(jobs, np.float32)))


def test_the_serving_policys_log_answers_for_another_order_of_the_same_jobs() -> None:
    """What it logs is what `ordered` and `sequential` take, caps, diversity and exploration included."""
    jobs, visits, slots = 8, 6000, 3
    random = np.random.default_rng(9)
    appeal, curve = random.random(jobs), power_law(slots, 0.6)
    logging, target = serving_policy(0.5, jobs=jobs), serving_policy(0.0, jobs=jobs)
    rows, at_us = np.arange(jobs, dtype=np.int32), NOON.timestamp() * 1e6
    scores = {"logging": random.random(jobs).astype(np.float32), "target": appeal.astype(np.float32)}

    def select(policy: Policy, score: str, name: str) -> tuple[list[int], list[float]]:
        asked = policy.select(rows, scores[score], CandidateContext(), at_us=at_us, limit=slots, request_id=name)
        return asked.picks.tolist(), asked.propensities.tolist()

    shown, propensity = zip(*(select(logging, "logging", f"r{n}") for n in range(visits)), strict=True)
    best, _ = select(target, "target", "any")
    clicks = (random.random((visits, slots)) < curve * appeal[np.array(shown)]).astype(np.float64)
    log = Logged(propensity=np.array(propensity), reward=clicks, cluster=np.arange(visits))
    slates = replace(slates_of(*[tuple(f"j{job}" for job in slate) for slate in shown]), logged=log)
    answer = TargetSlates(draws=((tuple(f"j{job}" for job in best),),) * visits)
    truth = float((curve * appeal[best]).sum())
    exposure = exposure_of(slates, answer, curve)
    for estimate in (
        ips(ordered(log, exposure.of_logged, curve, due=exposure.due)),
        snips(ordered(log, exposure.of_logged, curve, due=exposure.due)),
        ips(sequential(log, agreement(slates, answer))),
    ):
        assert abs(estimate.mean - truth) < 3.5 * estimate.error
        assert estimate.support.supported.low < 1 < estimate.support.supported.high
    assert abs(clicks.sum(axis=1).mean() - truth) > 0.1


@pytest.fixture(scope="module")
def funnel(world: World, rankers: TrainedRankers) -> Funnel:
    return world.funnel(rankers)


@pytest.fixture(scope="module")
def slates(world: World) -> LoggedSlates:
    whole = read_slates(world.events, start=world.cutoff, end=world.as_of)
    few = set(whole.request_ids[:12])
    events = world.events.filter(world.events["request_id"].is_in(sorted(few)))
    return read_slates(events, start=world.cutoff, end=world.as_of)


@pytest.fixture(scope="module")
def contexts(world: World, slates: LoggedSlates) -> list[CandidateContext]:
    return read_contexts(world.store, slates.asked, "ranker_full")


def test_a_release_answers_logged_visits_as_it_would_have_served_them(
    funnel: Funnel, slates: LoggedSlates, contexts: list[CandidateContext]
) -> None:
    target = release_slates(funnel, slates, contexts)
    assert target == release_slates(funnel, slates, contexts)
    for (slate,), context, logged, at in zip(target.draws, contexts, slates.job_ids, slates.at, strict=True):
        assert len(set(slate)) == len(slate) == len(logged)
        assert not set(slate) & {*context.history, *context.applied, *context.dismissed}
        assert funnel.catalogue.live(funnel.catalogue.rows_of(slate), at.timestamp() * 1e6).all()
    assert {len(slate) for (slate,) in release_slates(funnel, slates, contexts, slots=2).draws} == {2}


def test_a_releases_ranker_is_a_reward_model_of_what_was_and_what_would_be_shown(
    funnel: Funnel, slates: LoggedSlates, contexts: list[CandidateContext]
) -> None:
    curve = power_law(12, 0.6)
    same = TargetSlates(draws=tuple((jobs,) for jobs in slates.job_ids))
    model = predictions(funnel, slates, same, contexts, curve)
    assert model.value == pytest.approx((model.appeal * curve).sum(axis=1))
    assert (model.appeal >= 0).all()
    assert model.appeal.max() > 0
    target = release_slates(funnel, slates, contexts)
    model, exposure = predictions(funnel, slates, target, contexts, curve), exposure_of(slates, target, curve)
    sample = ordered(slates.logged, exposure.of_logged, curve, due=exposure.due, appeal=model.appeal, value=model.value)
    assert np.isfinite([dr(sample).mean, snips(sample).mean]).all()


def test_a_job_the_release_does_not_know_has_no_appeal_to_it(
    funnel: Funnel, slates: LoggedSlates, contexts: list[CandidateContext]
) -> None:
    gone = replace(slates, job_ids=tuple(tuple(f"gone-{job}" for job in jobs) for jobs in slates.job_ids))
    nothing = TargetSlates(draws=tuple(((),) for _ in gone.job_ids))
    assert not predictions(funnel, gone, nothing, contexts, power_law(12, 0.6)).appeal.any()


def test_a_window_is_put_to_releases_and_they_are_compared_visit_by_visit(
    world: World, funnel: Funnel, slates: LoggedSlates
) -> None:
    events = world.events.filter(world.events["request_id"].is_in(sorted(slates.request_ids)))
    judge = LogJudge.prepare(events, world.store, start=world.cutoff, end=world.as_of, examination=power_law(12, 0.6))
    assert judge.slates.request_ids == slates.request_ids
    ours = judge.estimates(funnel)
    assert set(ours) == {"ips", "snips", "dr", "switch_dr"}
    for name, again in judge.estimates(funnel).items():
        assert again.mean == ours[name].mean
        assert ours[name].less(again).mean == 0
        assert ours[name].support.visits == len(slates)
        assert any("effective sample size" in warning for warning in ours[name].warnings)


def test_a_window_that_explored_nothing_is_refused(world: World, slates: LoggedSlates) -> None:
    events = world.events.filter(world.events["request_id"].is_in(sorted(slates.request_ids)))
    with pytest.raises(InputError, match="explored nothing"):
        LogJudge.prepare(
            events.with_columns(pl.lit(1.0).alias("propensity")), world.store, start=world.cutoff, end=world.as_of
        )


def test_a_window_of_many_visits_is_asked_about_some_chosen_by_hash(world: World, slates: LoggedSlates) -> None:
    events = world.events.filter(world.events["request_id"].is_in(sorted(slates.request_ids)))
    some = [LogJudge.prepare(events, world.store, start=world.cutoff, end=world.as_of, most=7).slates for _ in range(2)]
    assert some[0].request_ids == some[1].request_ids
    assert len(set(some[0].request_ids)) == 7
    assert set(some[0].request_ids) < set(slates.request_ids)


def test_what_the_log_says_is_kept_with_its_interval_and_why_not_to_believe_it(
    world: World, funnel: Funnel, slates: LoggedSlates
) -> None:
    events = world.events.filter(world.events["request_id"].is_in(sorted(slates.request_ids)))
    window = LogWindow.read(events, world.store, start=world.cutoff, end=world.as_of)
    found = window.estimates(funnel)
    value = LogValue(release=found, champion=found, why=window.why)
    told = json.loads(json.dumps(value.to_dict(), allow_nan=False))
    assert set(told["estimates"]) == {"ips", "snips", "dr", "switch_dr"}
    for name, one in told["estimates"].items():
        assert one["value"]["low"] <= one["value"]["mean"] == found[name].mean <= one["value"]["high"]
        assert one["less_champion"]["mean"] == 0
        assert 0 < one["effective"] <= one["visits"] == len(slates)
        assert one["warnings"]
    assert value.metrics()["log_dr"] == found["dr"].mean


def test_a_log_that_explored_nothing_says_so_instead_of_failing(
    world: World, funnel: Funnel, slates: LoggedSlates
) -> None:
    events = world.events.filter(world.events["request_id"].is_in(sorted(slates.request_ids)))
    for silent in (events.with_columns(pl.lit(1.0).alias("propensity")), events.clear()):
        window = LogWindow.read(silent, world.store, start=world.cutoff, end=world.as_of)
        assert window.estimates(funnel) == {}
        assert window.why
