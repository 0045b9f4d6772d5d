"""Feast's own tools over our definitions, and its on-demand views beside the rankers' columns."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest

from rolecall.features.activity import candidate_activity, candidate_profile, job_profile
from rolecall.features.candidates import candidate_context, microseconds
from rolecall.features.catalogue import Catalogue
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import Lexicon
from rolecall.features.pair_rows import PAIR_FIT, PAIR_SEEN, pair_fit, pair_seen
from rolecall.features.pairs import PairFeatures
from rolecall.features.schema import CANDIDATES, EVENTS, JOBS
from rolecall.features.views import ALL_VIEWS, SERVICES, ranker_version

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
FOLDER = Path(__file__).resolve().parents[2] / "features" / "feast"
SKILLS = ("sql", "Python", " knives", "grilling")


def table(schema: pa.Schema, rows: list[dict[str, Any]]) -> pl.DataFrame:
    return pl.DataFrame(pa.Table.from_pylist([dict.fromkeys(schema.names) | row for row in rows], schema=schema))


@pytest.fixture(scope="module")
def jobs() -> pl.DataFrame:
    random = np.random.default_rng(3)
    rows: list[dict[str, Any]] = [
        {
            "job_id": f"j{number:02}",
            "title": str(random.choice(["data engineer", "Senior Data Engineer", "line cook", "x"])),
            "skills": [skill for skill in SKILLS if random.random() < 0.5],
            "category_path": ["work", f"branch {number % 2}"],
            "seniority": str(random.choice(["mid", "senior"])),
            "lat": 50 + number / 10, "lon": 13.0,
            "salary_min": 30_000.0 + 1_000 * number, "currency": "EUR",
            "posted_at": NOW - timedelta(days=3), "updated_at": NOW - timedelta(days=2),
        }
        for number in range(20)
    ]  # fmt: skip
    rows[4] |= {"lat": None, "skills": None, "salary_min": None}
    return table(JOBS.columns, rows)


@pytest.fixture(scope="module")
def person() -> dict[str, Any]:
    """The rows of one candidate's views."""
    profile = table(
        CANDIDATES.columns,
        [
            {
                "candidate_id": "c", "desired_titles": ["data engineer", "chef"], "skills": ["SQL", "python", "chess"],
                "seniority": "mid", "lat": 52.5, "lon": 13.4,
                "experience": [{"title": "chef", "company": "Robert Bosch"}],
                "updated_at": NOW - timedelta(days=9),
            }
        ],
    )  # fmt: skip
    kinds = [("j01", "impression"), ("j01", "impression"), ("j02", "impression"), ("j02", "save"), ("j03", "view")]
    events = [
        {"event_id": str(n), "actor": "candidate", "candidate_id": "c", "job_id": job, "kind": kind}
        | {"occurred_at": NOW - timedelta(hours=n)}
        for n, (job, kind) in enumerate(kinds, start=1)
    ]
    views = (candidate_profile(profile), candidate_activity(table(EVENTS.columns, events), start=NOW))
    return {name: value for view in views for name, value in view.row(-1, named=True).items()}


def test_on_demand_views_say_what_the_rankers_columns_say(jobs: pl.DataFrame, person: dict[str, Any]) -> None:
    catalogue = Catalogue.from_table(jobs.to_arrow())
    size = len(catalogue)
    vectors = JobVectors(np.ones((size, 4), np.int8), np.ones(size, np.float32))
    pairs = PairFeatures(catalogue, Lexicon.fit(catalogue), vectors)
    context = candidate_context("c", person, at=NOW)
    names = [feature.name for feature in (*PAIR_FIT, *PAIR_SEEN)]
    rows = np.arange(size, dtype=np.int32)
    matrix = pairs.matrix(pairs.prepare(context), rows, at=NOW, job_features={}, columns=names)
    usual = [
        float(np.exp(np.nanmedian(np.log(catalogue.salary[catalogue.category.codes == code]))))
        for code in catalogue.category.codes
    ]
    inputs = {name: [value] * size for name, value in person.items()} | job_profile(jobs).to_dict(as_series=False)
    inputs |= {"usual_salary": usual, "asked_job_id": list(catalogue.job_ids)}
    inputs |= {"asked_at_us": [microseconds(NOW)] * size}
    found = pair_fit(inputs) | pair_seen(inputs)
    for name, column in zip(names, matrix.T, strict=True):
        np.testing.assert_allclose(found[name], column, rtol=1e-4, atol=1e-4, err_msg=name)
        assert np.isfinite(column).any(), name


@pytest.mark.slow
def test_feast_applies_the_definitions_and_computes_on_demand_views(
    tmp_path: Path, jobs: pl.DataFrame, person: dict[str, Any]
) -> None:
    home, repository = tmp_path / "home", tmp_path / "repository"
    (home / "feast").mkdir(parents=True)
    shutil.copytree(FOLDER, repository, ignore=shutil.ignore_patterns("__pycache__"))
    assert sorted(path.name for path in repository.iterdir()) == ["definitions.py", "feature_store.yaml"]
    environment = {**os.environ, "ROLECALL_HOME": str(home), "PYTHONPATH": str(FOLDER.parents[1] / "infra/import_root")}
    asked = [sys.executable, str(Path(__file__).with_name("feast_repository_check.py")), str(repository)]
    profile = {name: person[name] for name in ("desired_titles", "skills", "past_employers", "seniority", "lat", "lon")}
    rows = job_profile(jobs).head(3)
    rows.write_parquet(tmp_path / "jobs.parquet")
    pl.DataFrame([{"candidate_id": "c", "event_timestamp": NOW, **profile}]).write_parquet(tmp_path / "person.parquet")
    done = subprocess.run(asked, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    told = dict(line.split(" ", 1) for line in done.stdout.splitlines() if line.startswith(("views", "fit", "serv")))
    assert set(told["views"].split()) == {*(view.name for view in ALL_VIEWS), "pair_fit", "pair_seen"}
    assert set(told["services"].split()) == set(SERVICES)
    size = rows.height
    inputs = {name: [value] * size for name, value in person.items()} | rows.to_dict(as_series=False)
    expected = pair_fit(inputs | {"usual_salary": [40_000.0] * size})
    assert [float(one) for one in told["fit"].split()] == pytest.approx(expected["distance_km"], nan_ok=True)


def test_a_rankers_version_follows_from_its_service_and_columns() -> None:
    assert ranker_version("ranker_full", ["a", "b"]) == ranker_version("ranker_full", ["a", "b"])
    others = [("ranker_full", ["b", "a"]), ("ranker_content", ["a", "b"]), ("ranker_full", ["ab"])]
    assert ranker_version("ranker_full", ["a", "b"]) not in {ranker_version(*other) for other in others}
