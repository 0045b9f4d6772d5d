"""Our metrics against what ranx, RecTools and OBP answered to the same questions (`tests/oracles/answers.py`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rolecall.features.job_vectors import JobVectors
from rolecall.pipelines.evaluation import exposure
from rolecall.pipelines.evaluation.exposure import Popularity, Shown
from rolecall.pipelines.evaluation.metrics import (
    average_precision,
    hit_at,
    ndcg_at,
    ranks_of,
    recall_at,
    reciprocal_rank,
)

EXPECTED = json.loads((Path(__file__).parents[2] / "oracles" / "expected.json").read_text())
INPUTS: dict[str, Any] = EXPECTED["ranking"]["inputs"]
RANX: dict[str, Any] = EXPECTED["ranking"]["ranx"]
RECTOOLS: dict[str, Any] = EXPECTED["ranking"]["rectools"]
ITEMS: int = INPUTS["items"]
K = 10


def ranks_and_gains() -> list[tuple[np.ndarray, np.ndarray]]:
    """Of each user, by our own ranking of the scores that make their list."""
    found = []
    for listed, gains in zip(INPUTS["lists"], INPUTS["gains"], strict=True):
        scores = np.full(ITEMS, -np.inf)
        scores[listed] = -np.arange(len(listed), dtype=float)
        found.append((ranks_of(scores, np.array([int(item) for item in gains])), np.array(list(gains.values()), float)))
    return found


OURS = ranks_and_gains()


def test_ranx_agrees_about_every_user() -> None:
    ours = {
        "ndcg_burges@10": [ndcg_at(ranks, gains, K) for ranks, gains in OURS],
        "map@10": [average_precision(ranks, K) for ranks, _ in OURS],
        "map": [average_precision(ranks) for ranks, _ in OURS],
        "mrr": [reciprocal_rank(ranks) for ranks, _ in OURS],
        "recall@10": [recall_at(ranks, K) for ranks, _ in OURS],
        "hit_rate@10": [hit_at(ranks, K) for ranks, _ in OURS],
    }
    assert set(ours) == set(RANX)
    for name, values in ours.items():
        assert values == pytest.approx(RANX[name], abs=1e-9), name


def test_rectools_agrees_about_what_is_found() -> None:
    ours = {
        "map@10": [average_precision(ranks, K) for ranks, _ in OURS],
        "recall@10": [recall_at(ranks, K) for ranks, _ in OURS],
        "hit_rate@10": [hit_at(ranks, K) for ranks, _ in OURS],
        "mrr@10": [reciprocal_rank(ranks[ranks <= K]) if (ranks <= K).any() else 0.0 for ranks, _ in OURS],
    }
    for name, values in ours.items():
        assert values == pytest.approx(RECTOOLS[name], abs=1e-9), name


def test_rectools_ndcg_divides_by_a_full_list_where_ours_divides_by_what_was_there_to_find() -> None:
    """Its gains are 0 or 1, and its ideal list holds k relevant jobs even where a user has fewer."""
    full = float((1 / np.log2(np.arange(2, K + 2))).sum())
    for (ranks, gains), theirs in zip(OURS, RECTOOLS["ndcg@10"], strict=True):
        there = float((1 / np.log2(np.arange(2, min(K, len(ranks)) + 2))).sum())
        assert ndcg_at(ranks, np.ones_like(gains), K) * there / full == pytest.approx(theirs, abs=1e-9)


def popularity(earlier: list[list[int]]) -> Popularity:
    counts = np.bincount([item for items in earlier for item in items], minlength=ITEMS).astype(float)
    return Popularity(counts=counts, live=np.ones(ITEMS, np.bool_))


LISTS = [np.array(listed[:K]) for listed in INPUTS["lists"]]
RELEVANT = [np.isin(rows, [int(item) for item in gains]) for rows, gains in zip(LISTS, INPUTS["gains"], strict=True)]


def test_rectools_agrees_about_coverage() -> None:
    flags = np.zeros(K, np.bool_)
    shown = [
        Shown(rows=rows, relevant=flags, applied=flags, popularity=popularity(INPUTS["earlier"])) for rows in LISTS
    ]
    vectors = JobVectors(np.ones((ITEMS, 2), np.int8), np.ones(ITEMS, np.float32))
    found = exposure.catalogue_metrics(shown, vectors)["coverage@10"]
    assert found == pytest.approx(RECTOOLS["coverage@10"], abs=1e-12)


def test_rectools_novelty_is_ours_by_users_in_place_of_engagements() -> None:
    """It asks how many of the users know a job, we how many of the engagements were with it."""
    known = popularity(INPUTS["earlier"])
    users = len(INPUTS["earlier"])
    shift = np.log2(users) - np.log2(known.total)
    ours = [exposure.novelty(rows, known) + shift for rows in LISTS]
    assert ours == pytest.approx(RECTOOLS["mean_inverse_user_frequency@10"], abs=1e-9)


def test_rectools_popularity_is_ours_times_the_catalogues_mean() -> None:
    known = popularity(INPUTS["earlier"])
    ours = [exposure.popularity_lift(rows, known) * known.mean for rows in LISTS]
    assert ours == pytest.approx(RECTOOLS["popularity@10"], abs=1e-9)


def test_rectools_agrees_about_serendipity_where_no_two_jobs_are_equally_popular() -> None:
    known = popularity(INPUTS["distinct"])
    ours = [exposure.serendipity(rows, right, known) for rows, right in zip(LISTS, RELEVANT, strict=True)]
    assert ours == pytest.approx(RECTOOLS["serendipity_distinct@10"], abs=1e-9)


def test_where_jobs_are_equally_popular_rectools_sees_less_serendipity() -> None:
    """It numbers the different counts, so that hardly any job of a large catalogue counts as unexpected; ours takes
    the place a list of the most popular would give it."""
    known = popularity(INPUTS["earlier"])
    ours = [exposure.serendipity(rows, right, known) for rows, right in zip(LISTS, RELEVANT, strict=True)]
    theirs = RECTOOLS["serendipity@10"]
    assert all(one >= other - 1e-9 for one, other in zip(ours, theirs, strict=True))
    assert sum(ours) > sum(theirs)


def test_rectools_agrees_about_diversity() -> None:
    codes = (np.array(INPUTS["vectors"]) * 64).round().astype(np.int8)
    vectors = JobVectors(codes, np.ones(ITEMS, np.float32))
    ours = [exposure.diversity(rows, vectors) for rows in LISTS]
    assert ours == pytest.approx(RECTOOLS["diversity@10"], abs=1e-6)


def test_every_drawn_bandit_problem_has_its_answers() -> None:
    """What the counterfactual estimators are held against: distributions that sum to 1 and one answer an estimator."""
    for problem in EXPECTED["ope"]:
        for policy in ("logging", "target"):
            assert np.sum(problem["inputs"][policy], axis=1) == pytest.approx(1, abs=0)
        assert {"ips", "snips", "dr", "switch_dr@1", "switch_dr@3", "dm"} <= set(problem["obp"])
        assert np.isfinite(list(problem["obp"].values())).all()
