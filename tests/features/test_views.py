"""The feature views in words: whatever a view holds is explained, and comes from columns that exist."""

from __future__ import annotations

from rolecall.features.schema import TABLES
from rolecall.features.views import ALL_VIEWS, VIEWS, candidate_feature_columns, job_feature_columns


def test_every_feature_is_explained_once_and_has_a_source_that_exists() -> None:
    seen: set[str] = set()
    for view in ALL_VIEWS:
        assert view.owner
        assert set(view.source.columns) <= set(TABLES[view.source.table].columns.names), view.name
        for feature in (*view.features, *view.derived):
            assert feature.name not in seen, feature.name  # a bare name says which feature is meant
            seen.add(feature.name)
            assert feature.meaning
            assert not feature.meaning.endswith(".")
            assert feature.window
            assert feature.unit or feature.kind != "number", feature.name
        assert sorted(view.columns) == sorted(feature.name for feature in view.features)


def test_rankers_read_no_internal_column_and_every_other_number() -> None:
    """`CandidateContext.activity` and job columns hold exactly these."""
    ranked = [*candidate_feature_columns("ranker_full"), *job_feature_columns("ranker_full")]
    internal = {one.name for view in VIEWS for one in (*view.features, *view.derived) if one.internal}
    assert not internal & set(ranked)
    assert len(set(ranked)) == len(ranked)
    assert "hours_since_engagement" in ranked
    assert "days_before" not in ranked
