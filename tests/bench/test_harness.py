"""The last line of every benchmark, and where it looks for data."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def harness() -> ModuleType:
    spec = importlib.util.spec_from_file_location("harness", Path(__file__).with_name("harness.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_last_line_is_one_json_object(harness: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    harness.finish("speed", {"p50_ms": 1.5, "qps": 2000.0}, goals={"p50_ms": ("<=", 3.0), "qps": (">=", 9000.0)})
    *table, last = capsys.readouterr().out.splitlines()
    line = json.loads(last)
    assert (line["bench"], line["metrics"]) == ("speed", {"p50_ms": 1.5, "qps": 2000.0})
    assert line["commit"]
    assert "cores" in line["machine"]
    assert [row.rsplit(": ", 1)[1] for row in table] == ["met", "MISSED"]


def test_a_metric_that_is_no_number_fails(harness: ModuleType) -> None:
    with pytest.raises(SystemExit, match="p50_ms"):
        harness.finish("speed", {"p50_ms": float("nan")})


def test_data_is_named_by_argument_then_environment(
    harness: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "sjr").mkdir(parents=True)
    monkeypatch.setenv("BENCH_DATA", str(tmp_path / "b"))
    assert harness.data_folder(tmp_path / "a") == tmp_path / "a"
    assert harness.data_folder(None) == tmp_path / "b"


def test_missing_data_exits_with_2_and_the_reason(
    harness: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit:
        harness.data_folder(tmp_path)
    assert exit.value.code == 2
    assert "--data" in capsys.readouterr().out
