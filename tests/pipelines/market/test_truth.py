"""The truth: out of reach of every table, a bound for every ranking, and not to be had from the texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow.parquet as pq
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.metrics import roc_auc_score

from rolecall.features.mapping import load_mapping
from rolecall.features.schema import TABLES
from rolecall.pipelines.ingest import ingest
from rolecall.pipelines.market import Marketplace, Truth, World, write_truth
from rolecall.pipelines.market.config import Bias
from rolecall.pipelines.market.people import GROUP_B
from rolecall.platform.errors import InputError
from rolecall.platform.tables import TableStore

from .conftest import SMALL, Lived, Pairs

Matrix = npt.NDArray[np.float64]


@pytest.fixture(scope="module")
def similarity(market: Marketplace, pairs: Pairs) -> Matrix:
    """TF-IDF cosine of what both sides wrote, for every pair."""
    skills = pl.col("skills").list.join(" ")
    jobs = pl.DataFrame(market.jobs).select(pl.concat_str("title", "description", skills, separator=" "))
    people = pl.DataFrame(market.candidates).select(
        pl.concat_str(pl.col("desired_titles").list.join(" "), "resume_text", skills, separator=" ")
    )
    asked, offered = people.to_series().to_list(), jobs.to_series().to_list()
    weights = TfidfVectorizer(stop_words="english", sublinear_tf=True).fit(asked + offered)
    whole = (weights.transform(asked) @ weights.transform(offered).T).toarray()
    return np.asarray(whole[pairs.who[:, None], pairs.job])


@pytest.fixture(scope="module")
def applying(world: World, pairs: Pairs) -> Matrix:
    return np.asarray(Truth(world).apply(pairs.who, pairs.job, pairs.at_us), dtype=np.float64)


def test_texts_tell_something_of_who_would_apply_and_the_truth_much_more(
    world: World, pairs: Pairs, similarity: Matrix, applying: Matrix
) -> None:
    """Among pairs of related work: that a nurse does not apply as a welder is no art."""
    phase = world.people.phase(pairs.who, pairs.at_us)
    target = world.people.target[pairs.who, phase]
    related = world.taxonomy.kinship[target[:, None], world.postings.occupation[pairs.job]] > 0.3
    would = np.random.default_rng(1).random(applying.shape) < applying
    by_text = roc_auc_score(would[related], similarity[related])
    by_truth = roc_auc_score(would[related], applying[related])
    assert 0.6 < by_text < 0.9
    assert by_truth > by_text + 0.07


def test_the_best_list_by_truth_bounds_every_other(
    world: World, pairs: Pairs, similarity: Matrix, applying: Matrix
) -> None:
    """Expected applications from ten examined jobs: truth, the logging policy, texts, chance; in this order."""

    def expected(score: npt.NDArray[np.floating]) -> float:
        best = np.argsort(-score, axis=1)[:, :10]
        return float(np.take_along_axis(applying, best, axis=1).sum(axis=1).mean())

    policy = world.chooser.score(pairs.who, pairs.job, pairs.at_us)
    chance = np.random.default_rng(2).random(applying.shape)
    by_truth, by_policy, by_text, by_chance = (expected(s) for s in (applying, policy, similarity, chance))
    assert by_truth > 1.1 * by_policy
    assert by_policy > by_text > 3 * by_chance
    assert by_truth > 1.4 * by_text


def test_two_who_offer_or_seek_the_same_work_often_share_no_word_of_a_title(market: Marketplace, world: World) -> None:
    titles = {
        "jobs": [{*text.lower().split()} for text in market.jobs["title"].to_pylist()],
        "people": [{*row[0].lower().split()} for row in market.candidates["desired_titles"].to_pylist()],
    }
    work = {"jobs": world.postings.occupation[:600], "people": world.people.declared[:, 0]}
    for side, words in titles.items():
        alone = []
        for occupation in np.unique(work[side]):
            rows = np.flatnonzero(work[side] == occupation)[:8].tolist()
            alone += [not words[a] & words[b] for a in rows for b in rows if a < b]
        assert 0.05 < np.mean(alone) < 0.95, side


def test_probabilities_behind_impressions_agree_with_what_happened(lived: Lived, shown: pl.DataFrame) -> None:
    """Fatigue lowers and trust lifts what is written there a little; order of magnitude and ranking hold."""
    behind = pl.DataFrame(Truth(lived.world).of_impressions(lived.market.events)).rename(
        {"click": "p_click", "apply": "p_apply"}
    )
    rows = shown.join(behind, on="event_id")
    assert rows.height == shown.height
    assert 0.7 < shown["click"].sum() / (rows["p_click"] * rows["examined"]).sum() < 1.4
    assert roc_auc_score(rows["click"], rows["p_click"] * rows["examined"]) > 0.75


def test_groups_do_not_differ_in_anything_but_names_and_pronouns(world: World, market: Marketplace) -> None:
    big = World(SMALL.model_copy(update={"candidates": 6000}))
    in_b = big.people.group == GROUP_B
    assert abs(in_b.mean() - 0.5) < 0.03
    for name in ("seniority", "work", "place", "eager", "consent"):
        column = getattr(big.people, name).reshape(6000, -1)[:, 0].astype(float)
        assert abs(column[in_b].mean() - column[~in_b].mean()) < 4 * column.std() * np.sqrt(4 / 6000)
    texts = market.candidates["resume_text"].to_pylist()
    she = np.array([" She " in f" {text}" for text in texts])
    he = np.array([" He " in f" {text}" for text in texts])
    group = world.people.group == GROUP_B
    assert she.sum() > 20
    assert he.sum() > 20
    assert group[she].all()
    assert not group[he].any()
    told = world.profiles.rows(world.people, np.arange(500), np.zeros(500, dtype=np.int64))
    assert told.drop_columns("resume_text").equals(other_groups(world).drop_columns("resume_text"))


def other_groups(world: World) -> object:
    """The same profiles had everybody been in the other group."""
    swapped = replace(world.people, group=(1 - world.people.group).astype(np.int8))
    return world.profiles.rows(swapped, np.arange(500), np.zeros(500, dtype=np.int64))


def test_planted_bias_shows_in_the_outcomes_and_is_absent_without_it() -> None:
    fair = SMALL.model_copy(update={"candidates": 1500, "requests_per_candidate": 10.0})
    rates = {}
    for name, bias in (("fair", Bias()), ("biased", Bias(employer=2.0))):
        world = World(fair.model_copy(update={"bias": bias}))
        every, jobs = np.arange(1500), np.tile(np.arange(0, 600, 20), (1500, 1))
        chance = Truth(world).shortlist(every, jobs, np.full(1500, world.config.end_us)).mean(axis=1)
        rates[name] = chance[Truth(world).group_b].mean() / chance[~Truth(world).group_b].mean()
    assert abs(rates["fair"] - 1) < 0.12
    assert rates["biased"] < 0.5


def test_no_column_of_a_table_is_named_like_a_truth(world: World, tmp_path: Path) -> None:
    write_truth(world, tmp_path)
    names = {column for file in tmp_path.glob("*.parquet") for column in pq.read_schema(file).names}
    keys = {"candidate_id", "job_id", "event_id", "position"}
    hidden = names - keys
    assert {"group", "spam", "duplicate_of", "examined", "phase_0_target", "capacity"} <= hidden
    for schema in TABLES.values():
        assert not hidden & set(schema.columns.names)


def test_ingest_refuses_the_folder_of_the_truth(world: World, tmp_path: Path) -> None:
    write_truth(world, tmp_path / "truth")
    store = TableStore(str(tmp_path / "tables"))
    with pytest.raises(InputError, match="nothing in"):
        ingest(tmp_path / "truth", load_mapping("native"), store)
