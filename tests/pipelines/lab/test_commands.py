"""`rolecall lab generate`, and what `lab simulate` refuses before it starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from rolecall.features.mapping import load_mapping
from rolecall.pipelines.ingest import ingest
from rolecall.pipelines.lab.commands import lab
from rolecall.pipelines.lab.config import LabConfig, arm_names
from rolecall.pipelines.market.config import MarketConfig
from rolecall.platform.errors import InputError
from rolecall.platform.settings import Settings
from rolecall.platform.tables import TableStore

RUN = CliRunner()


def called(*arguments: str) -> typer.testing.Result:
    return RUN.invoke(lab(), arguments, catch_exceptions=False)


def test_what_is_generated_is_ingested_whole_and_the_truth_lies_elsewhere(tmp_path: Path) -> None:
    out, truth = tmp_path / "market", tmp_path / "truth"
    arguments = ["--jobs", "120", "--candidates", "60", "--seed", "3", "--config", "small", "--days", "4", "--json"]
    told = json.loads(called("generate", "--out", str(out), "--truth", str(truth), *arguments).stdout)
    report = ingest(out, load_mapping("native"), TableStore(str(tmp_path / "tables")))
    assert {one.table: one.accepted for one in report.tables} == told["rows"]
    assert (told["rows"]["jobs"], told["rows"]["candidates"]) == (120, 60)
    assert list(truth.glob("*.truth.parquet"))
    with pytest.raises(InputError):
        ingest(truth, load_mapping("native"), TableStore(str(tmp_path / "truth-tables")))


def test_the_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        called("generate", "--out", str(tmp_path / name), "--jobs", "60", "--candidates", "20", "--days", "2")
    one, other = ({f.name: f.read_bytes() for f in (tmp_path / name).iterdir()} for name in ("one", "other"))
    assert one == other


@pytest.mark.parametrize("seeds", ["", "7,7", "-1", "seven"])
def test_seeds_that_are_none_are_refused(seeds: str) -> None:
    with pytest.raises(InputError, match="seeds"):
        called("simulate", "--seeds", seeds)


@pytest.mark.parametrize("names", ["", "retrained,nobody"])
def test_arms_that_do_not_exist_are_refused(names: str) -> None:
    with pytest.raises(InputError, match="arms"):
        arm_names(names)


def test_finished_days_are_found_again_only_for_what_they_depend_on() -> None:
    config = LabConfig(market=MarketConfig(), seeds=(1,), arms=("random",))
    more = config.model_copy(update={"seeds": (1, 2), "arms": ("random", "oracle")})
    other = config.model_copy(update={"exploration": 0.5})
    settings = Settings()
    assert config.digest(settings) == more.digest(settings) != other.digest(settings)
