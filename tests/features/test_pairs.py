"""Pair features: the values against a plain reference, and what they may not depend on."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from rolecall.features.candidate_state import Sighting
from rolecall.features.catalogue import Catalogue
from rolecall.features.context import CandidateContext
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import Lexicon
from rolecall.features.pair_columns import NOT_RANKED
from rolecall.features.pairs import COARSE_COLUMNS, PAIR_COLUMNS, PairFeatures, fine_columns
from rolecall.features.schema import JOBS
from rolecall.platform.errors import InputError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DIMENSION = 16
SIZE = 40
TITLES = ("data engineer", "senior data engineer", "line cook", "cook", "night nurse", "nurse manager")
CITIES = (
    ("Berlin", "Berlin", 52.52, 13.40),
    ("Potsdam", "Brandenburg", 52.39, 13.06),
    ("Munich", "Bavaria", 48.14, 11.58),
)
SKILLS = ("sql", "python", "knives", "triage", "grilling")


def jobs(seed: int = 0) -> list[dict[str, Any]]:
    random = np.random.default_rng(seed)
    rows = []
    for number in range(SIZE):
        city, region, lat, lon = CITIES[random.integers(len(CITIES))]
        rows.append(
            dict.fromkeys(JOBS.columns.names)
            | {
                "job_id": f"j{number:03}",
                "title": TITLES[random.integers(len(TITLES))],
                "employer_id": f"e{random.integers(5)}",
                "skills": [SKILLS[k] for k in np.flatnonzero(random.random(len(SKILLS)) < 0.4)],
                "category_path": ["work", f"branch {random.integers(3)}"],
                "seniority": ("junior", "mid", "senior", None)[random.integers(4)],
                "city": city, "region": region, "country": "DE", "lat": lat, "lon": lon,
                "remote": bool(random.integers(2)),
                "salary_min": float(random.integers(30, 60) * 1000),
                "posted_at": NOON - timedelta(days=int(random.integers(1, 30))),
                "expires_at": NOON + timedelta(days=int(random.integers(1, 30))),
                "updated_at": NOON,
            }
        )  # fmt: skip
    rows[-1] |= {"city": None, "region": None, "lat": None, "lon": None, "skills": None, "posted_at": None}
    return rows


def features(rows: list[dict[str, Any]], codes: np.ndarray | None = None) -> PairFeatures:
    catalogue = Catalogue.from_table(pa.Table.from_pylist(rows, schema=JOBS.columns))
    if codes is None:
        codes = np.random.default_rng(1).integers(-127, 128, (SIZE, DIMENSION)).astype(np.int8)
    return PairFeatures(catalogue, Lexicon.fit(catalogue), JobVectors(codes, np.ones(len(codes), np.float32)))


PAIRS = features(jobs())
PERSON = CandidateContext(
    candidate_id="c",
    known=True,
    desired_titles=("data engineer", "nurse"),
    resume_text="ran a cook line, then data",
    skills=("SQL", "python", "chess"),
    seniority="mid",
    city="berlin",
    region="Berlin",
    country="DE",
    lat=52.52,
    lon=13.40,
    history=("j003", "unknown", "j017", "j005"),
    activity={"applies_7d": 2.0},
    sightings={"j010": Sighting(3, 1), "j011": Sighting(2, 0b101), "unknown": Sighting(9, 1)},
)
PROFILE = np.eye(DIMENSION, dtype=np.float32)[0]
ROWS = np.random.default_rng(2).permutation(SIZE).astype(np.int32)
ALL = tuple(PAIR_COLUMNS)


def columns(
    person: CandidateContext = PERSON,
    *,
    pairs: PairFeatures = PAIRS,
    rows: np.ndarray = ROWS,
    names: tuple[str, ...] = ALL,
    at: datetime = NOON,
    profile: np.ndarray | None = PROFILE,
) -> dict[str, np.ndarray]:
    matrix = pairs.matrix(pairs.prepare(person, profile), rows, at=at, job_features={}, columns=names)
    assert matrix.shape == (len(rows), len(names))
    assert matrix.dtype == np.float32
    return dict(zip(names, matrix.T, strict=True))


def test_every_documented_column_is_computed() -> None:
    missing = [name for name, column in columns().items() if np.isnan(column).all()]
    assert missing == []
    assert set(COARSE_COLUMNS) <= set(PAIR_COLUMNS)


def test_a_column_is_the_same_alone_in_company_and_for_any_choice_of_rows() -> None:
    whole = columns()
    for name in ALL:
        np.testing.assert_allclose(columns(names=(name,), rows=ROWS[5:9])[name], whole[name][5:9], rtol=1e-5, atol=1e-6)


def test_dense_columns_are_cosines_with_the_profile_and_the_history() -> None:
    found = columns()
    codes = PAIRS.vectors.codes.astype(np.float64)
    unit = codes / np.linalg.norm(codes, axis=1, keepdims=True)
    cosines = unit[ROWS] @ unit[[3, 17, 5]].T
    weights = np.array([0.49, 0.7, 1.0]) / 2.19
    for name, expected in {
        "dense_profile": unit[ROWS, 0],
        "dense_mean": cosines.mean(1),
        "dense_max": cosines.max(1),
        "dense_last": cosines[:, 2],
        "dense_recent": cosines @ weights,
    }.items():
        np.testing.assert_allclose(found[name], expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("field", ["full", "title", "place"])
def test_lexical_columns_are_tf_idf_cosines_with_the_history(field: str) -> None:
    found = columns()
    whole = PAIRS.lexicon.fields[field].matrix.toarray()
    cosines = whole[ROWS] @ whole[[3, 17, 5]].T
    np.testing.assert_allclose(found[f"{field}_mean"], cosines.mean(1), atol=1e-6)
    np.testing.assert_allclose(found[f"{field}_max"], cosines.max(1), atol=1e-6)
    np.testing.assert_allclose(found[f"{field}_last"], cosines[:, 2], atol=1e-6)


def test_the_mean_column_orders_jobs_as_tf_idf_of_the_mean_history_does() -> None:
    whole = PAIRS.lexicon.fields["full"].matrix.toarray()
    mean = whole[[3, 17, 5]].mean(axis=0)
    expected = whole[ROWS] @ mean
    np.testing.assert_allclose(columns()["full_mean"], expected, atol=1e-6)


def test_plain_columns_are_what_their_meaning_says() -> None:
    found, catalogue = columns(), PAIRS.catalogue
    seen = [catalogue.job(row) for row in (3, 17, 5)]
    pay = float(np.median([math.log(job["salary_min"]) for job in seen]))
    for place, row in enumerate(ROWS):
        job = catalogue.job(int(row))
        asked = set(job["skills"] or ())
        mine = {"sql", "python"} & asked
        shared = sum(len(asked.intersection(s["skills"] or ())) for s in seen)
        expected = {
            "same_city": math.nan if job["city"] is None else float(job["city"] == "Berlin"),
            "city_last": math.nan if job["city"] is None else float(job["city"] == seen[-1]["city"]),
            "city_share": math.nan if job["city"] is None else sum(s["city"] == job["city"] for s in seen) / 3,
            "employer_share": sum(s["employer_id"] == job["employer_id"] for s in seen) / 3,
            "category_last": float(job["category_path"] == seen[-1]["category_path"]),
            "category_root_share": 1.0,
            "skill_overlap": len(mine),
            "skill_count": len(asked),
            "skill_share": len(mine) / len(asked) if asked else math.nan,
            "skill_cover": len(mine) / 3,
            "skill_history": shared / 3 / len(asked) if asked else math.nan,
            "seniority_gap": {"junior": -1, "mid": 0, "senior": 1, None: math.nan}[job["seniority"]],
            "remote": float(job["remote"]),
            "log_salary": math.log(job["salary_min"]),
            "salary_to_history": math.log(job["salary_min"]) - pay,
            "age_days": math.nan if job["posted_at"] is None else (NOON - job["posted_at"]).days,
            "remaining_days": (job["expires_at"] - NOON).days,
            "history_length": 3,
            "seen_shown": {10: 3, 11: 2}.get(int(row), 0),
            "seen_ignored": {10: 3}.get(int(row), 0),
            "salary_to_usual": usual(job),
            "words_desired": cosine_of_words(job["title"]),
        }  # fmt: skip
        for name, value in expected.items():
            assert found[name][place] == pytest.approx(value, abs=1e-5, nan_ok=True), (name, row)


def test_category_columns_hold_the_candidate_against_all_jobs_of_the_category() -> None:
    found, catalogue = columns(), PAIRS.catalogue
    titles = PAIRS.lexicon.fields["title"]
    asked = [titles.vector(text) for text in ("ran a cook line, then data", *PERSON.desired_titles)]
    vectors = PAIRS.vectors.rows(np.arange(SIZE, dtype=np.int32))
    for place, row in enumerate(ROWS):
        members = np.flatnonzero(catalogue.category.codes == catalogue.category.codes[row])
        middle = titles.matrix[members].toarray().sum(axis=0)
        cosines = [middle[text.columns] @ text.values / np.linalg.norm(middle) for text in asked]
        mean = vectors[members].sum(axis=0)
        mine = [len({"sql", "python"}.intersection(catalogue.job(int(member))["skills"] or ())) for member in members]
        expected = {
            "category_resume": cosines[0],
            "category_desired": max(cosines[1:]),
            "category_skills": np.mean(mine),
            "category_profile": mean @ PROFILE / np.linalg.norm(mean),
        }
        for name, value in expected.items():
            assert found[name][place] == pytest.approx(value, abs=1e-5), (name, row)


def test_a_job_without_a_category_says_nothing_of_one() -> None:
    rows = jobs()
    for row in rows[:3]:
        row["category_path"] = None
    found = columns(pairs=features(rows))
    for name in ("category_desired", "category_resume", "category_skills", "category_profile"):
        assert (np.isnan(found[name]) == np.isin(ROWS, [0, 1, 2])).all(), name


def test_leans_compare_what_came_of_jobs_with_what_was_to_be_expected() -> None:
    found, catalogue = columns(), PAIRS.catalogue
    every = range(SIZE)
    category = [{o for o in every if catalogue.category.codes[o] == catalogue.category.codes[row]} for row in every]
    remote = [{o for o in every if catalogue.remote[o] == catalogue.remote[row]} for row in every]
    asking = [{o for o in every if skill in catalogue.skills.of(o)} for skill in range(len(catalogue.skills.names))]
    rate = (1 + 1) / (5 + 10)  # one job of two was engaged with, in five showings
    flat = {10: rate * 3, 11: rate * 2}
    within = {row: count * math.exp(lean(flat, category[row])) for row, count in flat.items()}
    for place, row in enumerate(ROWS.tolist()):
        asked = catalogue.skills.of(row).tolist()
        expected = {
            "lean_category": lean(flat, category[row]),
            "lean_remote": lean(flat, remote[row]),
            "lean_skills": sum(lean(flat, asking[skill]) for skill in asked),
            "lean_skills_within": sum(lean(within, asking[skill]) for skill in asked),
        }
        for name, value in expected.items():
            assert found[name][place] == pytest.approx(value, abs=1e-5), (name, row)
    unit = PAIRS.vectors.rows(np.arange(SIZE, dtype=np.int32))
    np.testing.assert_allclose(found["lean_meaning"], unit[ROWS] @ (unit[11] - unit[10]), atol=1e-5)


def lean(expected: dict[int, float], jobs_like: set[int]) -> float:
    """To some jobs, where job 11 was engaged with."""
    return math.log(((11 in jobs_like) + 2) / (sum(n for row, n in expected.items() if row in jobs_like) + 2))


def usual(job: dict[str, Any]) -> float:
    """A job's log salary less the median of its category's."""
    same = [j for j in jobs() if j["category_path"] == job["category_path"]]
    return math.log(job["salary_min"]) - float(np.median([math.log(j["salary_min"]) for j in same]))


def cosine_of_words(title: str) -> float:
    """With the better of the desired titles `data engineer` and `nurse`."""
    words = set(title.split())
    return max(len(words & mine) / math.sqrt(len(words) * len(mine)) for mine in ({"data", "engineer"}, {"nurse"}))


def test_distances_are_great_circles() -> None:
    found = columns()
    cities = [PAIRS.catalogue.job(int(row))["city"] for row in ROWS]
    for city, kilometres in {"Berlin": 0, "Potsdam": 27, "Munich": 504}.items():
        assert found["distance_km"][cities.index(city)] == pytest.approx(kilometres, abs=2)
    assert math.isnan(found["distance_km"][cities.index(None)])
    assert (found["distance_near_km"] <= found["distance_last_km"] + 1e-3)[[c is not None for c in cities]].all()


def test_of_a_stranger_only_the_jobs_own_columns_are_known() -> None:
    found = columns(CandidateContext(), profile=None)
    known = {name for name, column in found.items() if not np.isnan(column).all()}
    assert known == {
        "history_length", "title_words", "remote", "log_salary", "age_days", "remaining_days", "skill_count",
        "salary_to_usual", "seen_shown", "seen_ignored",
    }  # fmt: skip


def test_columns_know_neither_job_ids_nor_row_order() -> None:
    shuffled = np.random.default_rng(3).permutation(SIZE)
    rows, names = jobs(), {f"j{old:03}": f"x{new:03}" for old, new in enumerate(shuffled)}
    renamed = [row | {"job_id": names[row["job_id"]]} for row in rows]
    codes = np.empty_like(PAIRS.vectors.codes)
    codes[shuffled] = PAIRS.vectors.codes
    seen = {names.get(job, job): sighting for job, sighting in PERSON.sightings.items()}
    person = replace(PERSON, history=tuple(names.get(job, job) for job in PERSON.history), sightings=seen)
    again = columns(person, pairs=features(renamed, codes), rows=shuffled[ROWS].astype(np.int32))
    for name, column in columns().items():
        np.testing.assert_allclose(again[name], column, rtol=1e-4, atol=1e-5, err_msg=name)


def test_only_ages_change_with_the_instant() -> None:
    now, later = columns(), columns(at=NOON + timedelta(days=2))
    changed = {name for name in ALL if not np.array_equal(now[name], later[name], equal_nan=True)}
    assert changed == {"age_days", "remaining_days"}


def test_features_of_views_come_in_by_their_prefix_and_are_unknown_where_absent() -> None:
    names = ("job.rating", "job.absent", "candidate.applies_7d", "candidate.absent")
    rating = np.arange(SIZE, dtype=np.float32)
    matrix = PAIRS.matrix(PAIRS.prepare(PERSON), ROWS, at=NOON, job_features={"rating": rating}, columns=names)
    np.testing.assert_array_equal(matrix[:, 0], rating)
    assert (matrix[:, 2] == 2.0).all()
    assert np.isnan(matrix[:, [1, 3]]).all()


def test_fine_columns_are_the_pair_columns_that_rank_and_the_service_features() -> None:
    ranked = tuple(name for name in ALL if name not in NOT_RANKED)
    assert fine_columns(job=("rating",), candidate=("applies_7d",)) == (*ranked, "job.rating", "candidate.applies_7d")
    assert set(ALL) > NOT_RANKED


def test_a_column_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="popularity"):
        columns(names=("popularity",))


def test_no_rows_give_an_empty_matrix() -> None:
    assert columns(rows=np.zeros(0, np.int32))["full_mean"].shape == (0,)


def test_vectors_of_another_catalogue_are_refused() -> None:
    with pytest.raises(InputError, match="vectors"):
        features(jobs(), np.ones((SIZE - 1, DIMENSION), np.int8))
