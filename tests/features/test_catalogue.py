"""What the catalogue's columns promise."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest

from rolecall.features.catalogue import Catalogue, Codes
from rolecall.features.schema import JOBS
from rolecall.platform.errors import SchemaError

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def table(*given: dict[str, object]) -> pa.Table:
    rows = [dict.fromkeys(JOBS.columns.names) | {"title": "cook", "updated_at": NOON} | row for row in given]
    return pa.Table.from_pylist(rows, schema=JOBS.columns)


def test_rows_follow_job_ids_whatever_order_the_table_came_in() -> None:
    jobs = [{"job_id": name, "title": f"title {name}"} for name in "cab"]
    catalogue = Catalogue.from_table(table(*jobs))
    assert catalogue.job_ids == ("a", "b", "c")
    assert catalogue.titles == ("title a", "title b", "title c")
    assert [catalogue.row_of(name) for name in "abcd"] == [0, 1, 2, None]


def test_rows_of_keeps_the_given_order_and_drops_unknown_ids() -> None:
    catalogue = Catalogue.from_table(table(*({"job_id": name} for name in "abc")))
    assert catalogue.rows_of(["c", "x", "a"]).tolist() == [2, 0]
    assert catalogue.ids_of(catalogue.rows_of(["c", "a"])) == ["c", "a"]


def test_codes_are_equal_exactly_where_trimmed_lower_case_texts_are() -> None:
    codes = Codes.encode(pa.array(["Berlin", " berlin ", "Bonn", None, "", "  "]))
    assert codes.codes.tolist() == [0, 0, 1, -1, -1, -1]
    assert [codes.of(text) for text in ("BERLIN", "Rome", None, "")] == [0, -1, -1, -1]


def test_unknown_numbers_are_nan_and_known_ones_exact() -> None:
    catalogue = Catalogue.from_table(
        table(
            {"job_id": "a"},
            {"job_id": "b", "salary_min": 10.0, "seniority": "senior", "remote": True, "posted_at": NOON, "lat": 90.0},
            {"job_id": "c", "salary_min": 10.0, "salary_max": 30.0, "remote": False},
        )
    )
    assert np.isnan(catalogue.salary).tolist() == [True, False, False]
    assert catalogue.salary[1:].tolist() == [10.0, 20.0]
    assert catalogue.remote[1:].tolist() == [1.0, 0.0]
    assert catalogue.seniority[1] == 3
    assert catalogue.posted[1] == NOON.timestamp() * 1e6
    assert catalogue.latitude[1] == pytest.approx(np.pi / 2)
    assert np.isnan([catalogue.remote[0], catalogue.seniority[0], catalogue.posted[0], catalogue.latitude[0]]).all()


def test_a_job_is_live_from_its_posting_until_before_its_expiry() -> None:
    hour = timedelta(hours=1)
    catalogue = Catalogue.from_table(
        table(
            {"job_id": "always"},
            {"job_id": "future", "posted_at": NOON + hour},
            {"job_id": "now", "posted_at": NOON, "expires_at": NOON + hour},
            {"job_id": "over", "posted_at": NOON - hour, "expires_at": NOON},
        )
    )
    live = catalogue.live(np.arange(4, dtype=np.int32), NOON.timestamp() * 1e6)
    assert dict(zip(catalogue.job_ids, live.tolist(), strict=True)) == {
        "always": True, "future": False, "now": True, "over": False,
    }  # fmt: skip


def test_a_skill_counts_once_a_job_in_any_spelling_of_case() -> None:
    catalogue = Catalogue.from_table(
        table({"job_id": "a", "skills": ["SQL", "sql ", ""]}, {"job_id": "b"}, {"job_id": "c", "skills": ["go"]})
    )
    names = [[catalogue.skills.names[code] for code in catalogue.skills.of(row)] for row in range(3)]
    assert names == [["sql"], [], ["go"]]
    assert catalogue.skills.known(["Go", "go", "rust"]).tolist() == [catalogue.skills.index["go"]]


def test_the_employer_name_is_preferred_to_its_id() -> None:
    jobs = table({"job_id": "a", "employer_id": "e1"}, {"job_id": "b", "employer_id": "e2"}, {"job_id": "c"})
    assert Catalogue.from_table(jobs).employers == ("e1", "e2", "")
    named = Catalogue.from_table(jobs.append_column("employer_name", pa.array(["Acme", None, None])))
    assert named.employers == ("Acme", "e2", "")


def test_a_place_is_what_is_known_of_city_and_region() -> None:
    jobs = table({"job_id": "a", "city": "Bonn", "region": "NRW"}, {"job_id": "b", "region": "NRW"}, {"job_id": "c"})
    assert Catalogue.from_table(jobs).places == ("Bonn, NRW", "NRW", "")


def test_an_empty_table_is_an_empty_catalogue() -> None:
    assert len(Catalogue.from_table(table())) == 0


def test_a_repeated_job_or_a_missing_column_is_refused() -> None:
    with pytest.raises(SchemaError, match="twice"):
        Catalogue.from_table(table({"job_id": "a"}, {"job_id": "a"}))
    with pytest.raises(SchemaError, match="remote"):
        Catalogue.from_table(table({"job_id": "a"}).drop_columns(["remote"]))
