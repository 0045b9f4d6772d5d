"""`rolecall features` on the command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from rolecall.features.pages import documented, page
from rolecall.platform import cli


def asked(arguments: list[str], monkeypatch: pytest.MonkeyPatch, home: Path) -> int:
    monkeypatch.setenv("ROLECALL_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["rolecall", "features", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert isinstance(ended.value.code, int)
    return ended.value.code


def test_the_list_holds_every_feature(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert asked(["list", "--json"], monkeypatch, tmp_path / "none") == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == [one.feature.name for one in documented()]
    assert not (tmp_path / "none").exists()


def test_one_feature_is_shown_without_a_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert asked(["show", "log_salary", "--json"], monkeypatch, tmp_path / "none") == 0
    told = json.loads(capsys.readouterr().out)
    assert {one["group"] for one in told["features"]} == {"pair", "people"}
    assert told["statistics"] == []


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["show", "log_salar"], "log_salary"),
        (["list", "--group", "cats"], "candidate_profile"),
        (["drift"], "rolecall run daily"),
        (["pages", "--to", "/nowhere/at/all.md"], "folder that exists"),
    ],
)
def test_bad_input_ends_with_2_and_says_what_is_allowed(
    arguments: list[str],
    names: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    assert asked(arguments, monkeypatch, tmp_path) == 2
    assert names in capsys.readouterr().err


def test_pages_are_written_and_checked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "pages.md"
    assert asked(["pages", "--to", str(file), "--check"], monkeypatch, tmp_path) == 1
    assert not file.exists()
    assert asked(["pages", "--to", str(file)], monkeypatch, tmp_path) == 0
    assert file.read_text(encoding="utf-8") == page()
    assert asked(["pages", "--to", str(file), "--check"], monkeypatch, tmp_path) == 0
