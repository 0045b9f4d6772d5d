"""The point-in-time join against its definition, on drawn frames."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rolecall.features.asof.join import asof_join
from rolecall.features.asof.view import AsofInputError, AsofView
from tests.features.asof.cases import AT, Case, cases, got

DRAWN = settings(deadline=None, suppress_health_check=list(HealthCheck), derandomize=False)
NOON = datetime(2024, 1, 10, 12, tzinfo=UTC)


def joined(case: Case, **options: Any) -> pa.Table:
    return asof_join(case.entities, case.views, timestamp=AT, known_only=case.known_only, **options)


@given(cases())
@settings(DRAWN, max_examples=150)
def test_every_entity_row_sees_what_the_definition_says(case: Case) -> None:
    assert got(case, joined(case)) == case.expected()


@pytest.mark.slow
@given(cases())
@settings(DRAWN, max_examples=2000)
def test_every_entity_row_sees_what_the_definition_says_in_two_thousand_cases(case: Case) -> None:
    assert got(case, joined(case)) == case.expected()


@given(cases(), st.sampled_from((1, 2000, 4000, 8000)))
@settings(DRAWN, max_examples=50)
def test_a_join_in_parts_is_the_same_however_little_memory_it_has(case: Case, memory: int) -> None:
    assert got(case, joined(case, memory=memory)) == case.expected()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@given(cases(), st.integers(2000, 12_000))
@settings(DRAWN, max_examples=2000)
def test_a_join_in_parts_is_the_same_in_two_thousand_cases(case: Case, memory: int) -> None:
    assert got(case, joined(case, memory=memory)) == case.expected()


def view(rows: pl.DataFrame, **changed: Any) -> AsofView:
    given = {"name": "v", "keys": {"key": "key"}, "timestamp": "at", "created": None, "ttl": None}
    return AsofView(rows=rows.lazy(), **(given | {"columns": {"value": "value"}} | changed))


def rows(at: list[datetime | None], **columns: list[Any]) -> pl.DataFrame:
    count = len(at)
    return pl.DataFrame({"key": ["k"] * count, "at": at, "value": list(range(count))} | columns, strict=False)


def asked(*at: datetime | None, **columns: Any) -> pa.Table:
    return pl.DataFrame({"key": ["k"] * len(at), "asked_at": list(at)} | columns).to_arrow()


def values(entities: pa.Table, *views: AsofView, **options: Any) -> list[Any]:
    return asof_join(entities, views, timestamp=AT, **options)["value"].to_pylist()


def test_a_row_is_seen_from_its_instant_until_its_ttl_has_passed_both_included() -> None:
    moments = [NOON - timedelta(microseconds=1), NOON, NOON + timedelta(days=1)]
    late = NOON + timedelta(days=1, microseconds=1)
    assert values(asked(*moments, late), view(rows([NOON]), ttl=timedelta(days=1))) == [None, 0, 0, None]


def test_a_nanosecond_is_not_rounded_into_the_future() -> None:
    stamp = pl.DataFrame({"key": ["k"], "value": [0], "at": [1]}).with_columns(pl.col("at").cast(pl.Datetime("ns")))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert values(asked(epoch, epoch + timedelta(microseconds=1)), view(stamp)) == [None, 0]


def test_instants_past_the_range_of_nanoseconds_keep_their_order() -> None:
    stamps = pl.DataFrame({"key": ["k"], "value": [0], "at": [NOON]}).with_columns(pl.col("at").dt.cast_time_unit("ns"))
    far = datetime(9999, 12, 31, tzinfo=UTC)
    long_ago = datetime(1600, 1, 1, tzinfo=UTC)
    assert values(asked(far, long_ago), view(stamps)) == [0, None]
    assert values(asked(far, NOON), view(stamps, ttl=timedelta(days=30))) == [None, 0]


def test_a_ttl_longer_than_time_itself_never_expires() -> None:
    assert values(asked(datetime(9999, 1, 1, tzinfo=UTC)), view(rows([NOON]), ttl=timedelta.max)) == [0]


def test_a_key_that_is_not_a_number_matches_nothing() -> None:
    nan = view(pl.DataFrame({"key": [float("nan"), 1.0], "at": [NOON, NOON], "value": [0, 1]}))
    assert values(asked(NOON, NOON, key=[float("nan"), 1.0]), nan) == [None, 1]


def test_a_key_that_the_other_type_cannot_hold_matches_nothing() -> None:
    small = view(pl.DataFrame({"key": pl.Series([1, 2], dtype=pl.Int8), "at": [NOON, NOON], "value": [0, 1]}))
    assert values(asked(NOON, NOON, NOON, key=[257, 2, None]), small) == [None, 1, None]
    assert values(asked(NOON, NOON, key=[1.5, 2.0]), small) == [None, 1]


def test_an_untyped_column_of_nulls_matches_nothing() -> None:
    assert values(asked(NOON, key=[None]), view(rows([NOON]))) == [None]
    assert values(asked(NOON), view(rows([NOON], key=[None]))) == [None]
    assert values(asked(None), view(rows([NOON]))) == [None]


@pytest.mark.parametrize("kind", [pl.Enum(["k"]), pl.Categorical()])
@pytest.mark.parametrize("memory", [None, 1])
def test_an_untyped_column_of_nulls_matches_no_key_of_categories(kind: pl.DataType, memory: int | None) -> None:
    stored = view(rows([NOON]).with_columns(pl.col("key").cast(kind)))
    assert values(asked(NOON, key=[None]), stored, memory=memory) == [None]


def test_a_column_that_is_not_joined_may_be_of_any_type() -> None:
    spans = pa.array([(1, 2, 3)], pa.month_day_nano_interval())
    joined = asof_join(asked(NOON).append_column("span", spans), [view(rows([NOON]))], timestamp=AT)
    assert joined.column("span").to_pylist() == spans.to_pylist()
    assert joined.column("value").to_pylist() == [0]


def test_many_parts_of_a_key_still_tell_keys_apart() -> None:
    parts = {f"part{place}": np.arange(40) * (place + 1) % 37 for place in range(14)}
    frame = pl.DataFrame(parts | {"at": [NOON] * 40, "value": list(range(40))})
    asks = frame.drop("value").rename({"at": AT}).to_arrow()
    assert values(asks, view(frame, keys={name: name for name in parts})) == _last_of_each(parts)


def _last_of_each(parts: dict[str, Any]) -> list[int]:
    keys = list(zip(*(column.tolist() for column in parts.values()), strict=True))
    last = {key: place for place, key in enumerate(keys)}
    return [last[key] for key in keys]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"timestamp": "when"}, "no column when"),
        ({"created": "written"}, "no column written"),
        ({"columns": {"score": "score"}}, "no column score"),
        ({"columns": {"value": "key"}}, "named twice in the result: key"),
        ({"keys": {"person": "key"}}, "no column person"),
        ({"keys": {"key": "value"}}, "key key is String in the entity rows and Int64"),
        ({"timestamp": "value"}, "value is Int64: an instant is a timestamp"),
        ({"ttl": timedelta(days=-1)}, "ttl is -1 day"),
    ],
)
def test_inputs_that_cannot_be_joined_are_refused_with_the_reason(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(AsofInputError, match=said):
        asof_join(asked(NOON), [view(rows([NOON]), **changed)], timestamp=AT)


def test_two_views_with_the_same_output_column_are_refused() -> None:
    twice = [view(rows([NOON])), view(rows([NOON]), name="w")]
    with pytest.raises(AsofInputError, match="named twice in the result: value"):
        asof_join(asked(NOON), twice, timestamp=AT)
