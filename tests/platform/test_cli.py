"""The command line as a shell sees it: bad input is exit code 2 with the reason, never a traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from rolecall.platform import cli


@pytest.mark.parametrize(
    "arguments",
    [
        ["recommend"],
        ["recommend", ""],
        ["recommend", "c\x00"],
        ["recommend", "--title", ""],
        ["recommend", "--skill", "x" * 1001],
        ["search", ""],
        ["search", "  "],
        ["run", "weekly"],
        ["run", "daily", "--as-of", "0001-01-01"],
        ["run", "daily", "--as-of", "9999-12-31T23:59:59-12:00"],
        ["run", "daily", "--as-of", "yesterday"],
    ],
)
def test_bad_input_is_told_with_exit_code_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ROLECALL_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(sys, "argv", ["rolecall", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert "Allowed" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
