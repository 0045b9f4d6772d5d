"""The rules by themselves: each table has them, and null never breaks one."""

from __future__ import annotations

import polars as pl
import pyarrow as pa
import pytest

from rolecall.features.rules import row_rules
from rolecall.features.schema import TABLES
from rolecall.features.validation import REASONS


@pytest.mark.parametrize("name", sorted(TABLES))
def test_every_rule_has_a_documented_reason(name: str) -> None:
    assert {rule.reason for rule in row_rules(TABLES[name])} <= set(REASONS)


@pytest.mark.parametrize("name", sorted(TABLES))
def test_a_row_of_nulls_breaks_only_what_is_required(name: str) -> None:
    schema = TABLES[name]
    empty = pl.DataFrame(pa.table([pa.nulls(1, field.type) for field in schema.columns], schema=schema.columns))
    broken = {rule.reason for rule in row_rules(schema) if empty.select(rule.broken.fill_null(False)).item()}
    assert broken - {"unknown_kind"} <= {"missing_key", "missing_value"}
    assert broken
