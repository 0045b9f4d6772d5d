"""A ledger on each database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine

from rolecall.platform.ledger import METADATA, open_ledger


@pytest.fixture(params=["sqlite", "postgresql"])
def ledger(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """An empty ledger on each database."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    if request.param == "postgresql":
        url = str(request.getfixturevalue("ledger_database"))
        emptied = create_engine(url)
        METADATA.drop_all(emptied)
        emptied.dispose()
    engine = open_ledger(url)
    yield engine
    engine.dispose()
