"""A name changes nothing, an embedder that reads names is told on, and a planted group bias is found where it is."""

from __future__ import annotations

import ast
import math
import os
import re
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rolecall.features.catalogue import Catalogue, Floats
from rolecall.features.context import CandidateContext
from rolecall.features.names import GIVEN_NAMES
from rolecall.features.pairs import profile_words
from rolecall.features.text import candidate_lexical_text, candidate_text, desired_titles
from rolecall.pipelines.evaluation import parity
from rolecall.pipelines.evaluation.fairness import BOUND, Fairness, audit_fairness, audit_log
from rolecall.pipelines.evaluation.groups import Groups
from rolecall.pipelines.evaluation.name_swaps import NAMES, PLACES, renamed, under_name
from rolecall.pipelines.evaluation.parity import ExposureGap, Shares, attention, gaps, listed, paid
from rolecall.pipelines.evaluation.statistics import Interval
from rolecall.pipelines.market import MarketConfig, Truth
from rolecall.pipelines.market import World as Market
from rolecall.pipelines.market.config import Bias
from rolecall.pipelines.market.event_rows import candidate_id
from rolecall.pipelines.train import TrainedRankers
from rolecall.pipelines.training_set import read_contexts
from rolecall.serving.people_funnel import PeopleFunnel
from rolecall.serving.profiles import ProfileVectors

if TYPE_CHECKING:
    from conftest import World

ROOT = Path(__file__).resolve().parents[3]


class ReadsNames(ProfileVectors):
    """Profile vectors of the resume as it was written."""

    def of(self, context: CandidateContext) -> Floats | None:
        return self.vector(context.resume_text)


class KnowsAList(ProfileVectors):
    """Profile vectors of the resume without the given names of a list, wherever they stand."""

    def of(self, context: CandidateContext) -> Floats | None:
        return self.vector(
            re.sub(r"\w+", lambda word: "" if word.group() in GIVEN_NAMES else word.group(), _told(context))
        )


def _told(context: CandidateContext) -> str:
    """Without pronouns, which this view knows too."""
    return re.sub(r"\b(?:[Hh](?:e|is|im|er|ers)|[Ss]he|M[rs]s?)\b", "", context.resume_text)


@pytest.fixture(scope="module")
def asked(world: World) -> list[tuple[CandidateContext, datetime]]:
    who = world.candidates["candidate_id"].sort().to_list()[:12]
    contexts = read_contexts(world.store, [(name, world.as_of) for name in who], "ranker_full")
    return [(context, world.as_of) for context in contexts]


def test_a_name_changes_no_answer_in_either_direction(
    world: World, rankers: TrainedRankers, people: PeopleFunnel, asked: list[tuple[CandidateContext, datetime]]
) -> None:
    jobs = world.pairs.catalogue.job_ids[:3]
    found = audit_fairness(world.funnel(rankers), asked, at=world.as_of, people=people, jobs=jobs, swaps=10)
    assert found == Fairness(swaps=20, changed=0, exposure={}, overlap=1.0)


def test_an_embedder_that_reads_names_is_told_on(
    world: World, rankers: TrainedRankers, asked: list[tuple[CandidateContext, datetime]], encoder: Any
) -> None:
    funnel = world.funnel(rankers)
    funnel.profiles = ReadsNames(encoder)
    found = audit_fairness(funnel, asked, at=world.as_of, swaps=10)
    assert found.changed > 3
    assert found.overlap < 1


def test_groups_of_the_lists_are_compared_where_they_are_given(
    world: World, rankers: TrainedRankers, people: PeopleFunnel, asked: list[tuple[CandidateContext, datetime]]
) -> None:
    """Groups drawn by lot: parity lies within every interval, or close to it."""
    catalogue, lot = world.pairs.catalogue, np.random.default_rng(4)
    groups = Groups(
        candidates={name: "AB"[lot.integers(2)] for name in world.candidates["candidate_id"]},
        jobs={name: "XY"[lot.integers(2)] for name in catalogue.job_ids},
    )
    found = audit_fairness(
        world.funnel(rankers),
        asked * 2,
        at=world.as_of,
        people=people,
        jobs=catalogue.job_ids[:40],
        events=world.events,
        groups=groups,
        swaps=0,
    )
    assert found.swaps == 0
    assert {"log: well-paid jobs group=B", "log: wanted by employers group=B", "people shown group=B"} <= set(
        found.exposure
    )
    assert all(gap.ratio.low < 1.15 and gap.ratio.high > 0.87 for gap in found.exposure.values())
    assert found.to_dict()["swaps"] == 0


@given(st.text(max_size=80), st.sampled_from(NAMES))
@settings(deadline=None)
def test_pronouns_of_one_side_and_back_are_those_of_the_other(text: str, names: tuple[str, str]) -> None:
    for side in (0, 1):
        assert renamed(renamed(text, (), 1 - side, names), (), side, names) == renamed(text, (), side, names)


PIECES = (
    *(
        "Anna",
        "Greg",
        "Jos\u00e9",
        "Joa\u0303o",
        "San",
        "St.",
        "Smith",
        "ms",
        "Ms.",
        "his",
        "Her",
        "HE",
        "85",
        "\u0301",
    ),
    *("Adaeze", "Okonkwo", "I am", "has", "at", "Dr", "van", "J.", "adaeze.o@mail.example", "Name:", "Nurse", "SAP"),
)
BETWEEN = (" ", ", ", ". ", "\n", "_", "-", "'", "@", ": ", "cook", "Julia")


@given(st.lists(st.sampled_from([*PIECES, *BETWEEN]), max_size=12), st.sampled_from(NAMES), st.sampled_from(PLACES))
@settings(deadline=None, max_examples=300)
def test_rankers_read_the_same_under_both_names(pieces: list[str], names: tuple[str, str], place: str) -> None:
    """Resume and titles: else the audit refuses every release over a word that is read as a name in one place alone."""
    text = "".join(pieces)
    for context in (
        CandidateContext(resume_text=text),
        CandidateContext(resume_text=text, desired_titles=(text, "cook")),
    ):
        he, she = (under_name(context, side, names, place) for side in (0, 1))
        assert candidate_text(he) == candidate_text(she)
        assert profile_words(he) == profile_words(she)
        assert candidate_lexical_text(he) == candidate_lexical_text(she)
        assert desired_titles(he) == desired_titles(she)


def test_rankers_read_the_same_of_real_accounts_of_work_under_both_names() -> None:
    file = Path(os.environ.get("BENCH_DATA", ROOT / "shared" / "data")) / "sjr" / "Experience.csv"
    if not file.is_file():
        pytest.skip(f"no {file}")
    told = pl.read_csv(file, columns=["Job.Description"], infer_schema=False)["Job.Description"].drop_nulls().unique()
    for number, text in enumerate(told.sort()[::3]):
        context, names = CandidateContext(resume_text=text[:4000]), NAMES[number % len(NAMES)]
        he, she = (under_name(context, side, names, PLACES[number % len(PLACES)]) for side in (0, 1))
        assert candidate_text(he) == candidate_text(she)


def test_half_of_the_names_are_ones_that_no_list_holds() -> None:
    unlisted = [both for both in NAMES if not any(name.split()[0] in GIVEN_NAMES for name in both)]
    assert len(unlisted) == len(NAMES) / 2
    assert math.gcd(len(NAMES), len(PLACES)) == 1


def test_both_versions_differ_in_name_and_pronoun_alone() -> None:
    context = CandidateContext(resume_text="Mary Smith knows her trade. She is HIS admin.", desired_titles=("Mr Cook",))
    he, she = (under_name(context, side, ("Greg", "Emily"), "{name}: {resume}") for side in (0, 1))
    assert he.resume_text.split() == ["Greg:", "Greg", "knows", "his", "trade.", "He", "is", "HIS", "admin."]
    assert she.resume_text.split() == ["Emily:", "Emily", "knows", "her", "trade.", "She", "is", "HIS", "admin."]
    assert (he.desired_titles[0].split(), she.desired_titles[0].split()) == (["Mr", "Greg"], ["Ms", "Emily"])


def test_a_text_view_that_knows_names_by_heart_is_told_on(
    world: World, rankers: TrainedRankers, asked: list[tuple[CandidateContext, datetime]], encoder: Any
) -> None:
    funnel = world.funnel(rankers)
    funnel.profiles = KnowsAList(encoder)
    found = audit_fairness(funnel, asked, at=world.as_of, swaps=10)
    assert 0 < found.changed < 10


def test_attention_of_a_list_is_shared_by_those_who_could_have_been_on_it() -> None:
    """One list of three, of five who could be shown; by hand."""
    shares = listed([(["a", "b", "c"], ["a", "b", "c", "d", "e"])], {"a": "X", "b": "Y", "c": "Y", "d": "Y", "e": "X"})
    one, two, three = attention(np.arange(1, 4))
    np.testing.assert_allclose(shares.got, [[one, two + three]])
    np.testing.assert_array_equal(shares.of, [[2, 3]])


def test_a_log_that_counts_positions_from_0_is_compared() -> None:
    shown = pl.DataFrame({"candidate_id": [f"c{n // 2}" for n in range(120)], "job_id": ["a", "b"] * 60})
    shown = shown.with_columns(position=pl.Series([0, 1] * 60))
    shares = paid(shown, {"a": True, "b": False}, {f"c{n}": "XY"[n % 2] for n in range(60)})
    ((_, gap),) = gaps(shares, rounds=200, seed=1)
    assert gap.ratio.mean == pytest.approx(1.0)


def test_people_of_a_whole_board_are_drawn_in_the_memory_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """The draws are the same, however few of them are held at a time."""
    random = np.random.default_rng(3)
    member = np.eye(2)[random.integers(0, 2, 500)]
    shares = Shares(groups=("A", "B"), got=member * random.random((500, 1)), of=member)
    whole = list(gaps(shares, rounds=300, seed=1))
    monkeypatch.setattr(parity, "_BLOCK", 3500)
    ((_, one),), ((_, other),) = whole, list(gaps(shares, rounds=300, seed=1))
    assert one.ratio.mean == pytest.approx(other.ratio.mean)
    assert (one.ratio.low, one.ratio.high) == pytest.approx((other.ratio.low, other.ratio.high))
    assert list(gaps(Shares(groups=("A", "B"), got=shares.got[:0], of=shares.of[:0]), rounds=300, seed=1)) == []


@given(st.integers(0, 2**32 - 1), st.floats(0.3, 3.0))
@settings(deadline=None, max_examples=20)
def test_a_gap_is_found_in_its_size(seed: int, truth: float) -> None:
    """Rates that differ by a factor: the interval holds the factor, at a level where that fails once in 10,000."""
    random = np.random.default_rng(seed)
    member = np.eye(2)[random.integers(0, 2, 400)]
    of = member * random.integers(1, 10, (400, 1))
    got = of * np.array([1.0, truth]) * random.gamma(20, 1 / 20, (400, 1))
    ((name, gap),) = gaps(Shares(groups=("A", "B"), got=got, of=of), rounds=2000, seed=1, level=0.9999)
    assert name == "B"
    assert gap.ratio.low < truth < gap.ratio.high


def test_of_a_handful_of_people_nothing_is_said() -> None:
    few = Shares(groups=("A", "B"), got=np.eye(2).repeat(5, 0), of=np.eye(2).repeat(5, 0))
    assert list(gaps(few, rounds=100, seed=1)) == []


def test_unequal_means_surely_outside_the_bound() -> None:
    def gap(low: float, high: float) -> ExposureGap:
        return ExposureGap(ratio=Interval(mean=(low + high) / 2, low=low, high=high, count=9), count=9)

    told = {"worse": gap(0.5, 0.79), "unsure": gap(0.5, 0.81), "better": gap(1.26, 2.0), "equal": gap(0.9, 1.1)}
    assert Fairness(swaps=0, changed=0, exposure=told).unequal(0.8) == ("worse", "better")


@pytest.mark.parametrize(("bias", "expected"), [(Bias(), False), (Bias(employer=1.0, exposure=0.5), True)])
def test_the_bias_of_the_laboratory_is_found_where_it_is_planted(bias: Bias, expected: bool) -> None:
    config = MarketConfig(jobs=600, candidates=800, employers=40, occupations=60, requests_per_candidate=8.0, seed=11)
    market = Market(config.model_copy(update={"bias": bias}))
    events, _ = market.history()
    number, in_b = market.people.number.tolist(), Truth(market).group_b.tolist()
    groups = Groups(candidates={candidate_id(n): "B" if b else "A" for n, b in zip(number, in_b, strict=True)})
    catalogue = Catalogue.from_table(market.tables()["jobs"])
    compared = dict(audit_log(pl.DataFrame(events), catalogue, groups))
    found = {name: dict(gaps(shares, rounds=500, seed=1))["B"] for name, shares in compared.items()}
    assert {name: gap.unequal(BOUND) for name, gap in found.items()} == dict.fromkeys(compared, expected)


def test_only_the_audit_reads_groups() -> None:
    """A module that features or models are made by cannot know a group."""
    allowed = {"groups.py", "fairness.py", "daily_evaluate.py"}
    for area in ("features", "pipelines", "serving", "kernels"):
        for file in (ROOT / area).rglob("*.py"):
            named = {
                name
                for node in ast.walk(ast.parse(file.read_text()))
                if isinstance(node, ast.ImportFrom)
                for name in [node.module or ""]
            }
            assert "rolecall.pipelines.evaluation.groups" not in named or file.name in allowed, file
