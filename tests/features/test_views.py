"""The feature views in words: whatever a view holds is explained, and comes from columns that exist."""

from __future__ import annotations

from rolecall.features.schema import TABLES
from rolecall.features.views import VIEWS


def test_every_feature_is_explained_once_and_has_a_source_that_exists() -> None:
    seen: set[str] = set()
    for view in VIEWS:
        assert view.owner
        assert set(view.source.columns) <= set(TABLES[view.source.table].columns.names), view.name
        for feature in view.features:
            assert feature.name not in seen, feature.name  # a bare name says which feature is meant
            seen.add(feature.name)
            assert feature.meaning
            assert not feature.meaning.endswith(".")
            assert feature.window
            assert feature.unit or feature.kind != "number", feature.name
        assert sorted(view.columns) == sorted(feature.name for feature in view.features)
