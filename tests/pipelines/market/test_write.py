"""A written marketplace is the generated one, file by file, and is read by `rolecall ingest` without a refusal."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from rolecall.features.mapping import load_mapping
from rolecall.features.schema import TABLES
from rolecall.pipelines.ingest import ingest
from rolecall.pipelines.market import write, write_market
from rolecall.platform.errors import InputError
from rolecall.platform.tables import TableStore

from .conftest import SMALL, Lived


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("market")


@pytest.fixture(scope="module")
def written(folder: Path) -> write.Written:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(write, "ROWS", 250)
        patch.setattr(write, "EVENT_ROWS", 3000)
        return write_market(SMALL, folder / "tables", truth=folder / "truth")


def test_many_small_files_hold_the_generated_rows(lived: Lived, folder: Path, written: write.Written) -> None:
    for name, table in lived.market.tables().items():
        files = sorted((folder / "tables").glob(f"{name}.*.parquet"))
        assert name == "employers" or len(files) > 1
        key = list(TABLES[name].key)
        assert pl.read_parquet(files).sort(key).equals(pl.DataFrame(table).sort(key))
        assert written.rows[name] == table.num_rows


def test_ingest_accepts_every_row_and_nothing_of_the_truth(folder: Path, written: write.Written) -> None:
    store = TableStore(str(folder / "store"))
    report = ingest(folder / "tables", load_mapping("native"), store)
    assert {one.table: one.accepted for one in report.tables} == written.rows
    assert sum(one.quarantined + one.duplicate for one in report.tables) == 0
    assert (folder / "truth" / "people.truth.parquet").is_file()
    behind = pl.read_parquet(folder / "truth" / "impressions.*.parquet")
    assert behind.height == store.read(TABLES["events"], columns=["kind"])["kind"].to_pylist().count("impression")


def test_a_folder_with_a_market_and_a_truth_among_tables_are_refused(folder: Path, written: write.Written) -> None:
    with pytest.raises(InputError, match="already holds"):
        write_market(SMALL, folder / "tables")
    with pytest.raises(InputError, match="truth"):
        write_market(SMALL, folder / "new", truth=folder / "new" / "truth")
