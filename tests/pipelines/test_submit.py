"""What a submitted job is told: the settings it finds in another folder are those it was submitted with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rolecall.pipelines.submit import _environment
from rolecall.platform.settings import load_settings


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder without the source tree, with a settings file that names relative folders."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in [name for name in os.environ if name.startswith("ROLECALL_")]:
        monkeypatch.delenv(name)
    text = 'home = "house"\nstorage = { tables_uri = "tables" }\nranking = { seed = 99 }\n'
    (here / "rolecall.toml").write_text(text)
    return here


def test_a_job_in_another_folder_has_the_settings_it_was_submitted_with(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings()
    environment = _environment(settings)
    monkeypatch.chdir(tmp_path)
    assert load_settings(environ=environment) == settings
    assert settings.ranking.seed == 99


def test_in_a_copy_of_the_source_tree_the_folders_are_still_those_of_the_submitter(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "infra/import_root").mkdir(parents=True)
    settings = load_settings()
    environment = _environment(settings)
    copy = tmp_path / "copy"
    folder.rename(copy)
    monkeypatch.chdir(copy)
    assert load_settings(environ=environment) == settings


def test_a_settings_file_named_by_a_variable_is_named_absolutely(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROLECALL_CONFIG", "rolecall.toml")
    assert _environment(load_settings())["ROLECALL_CONFIG"] == str(folder / "rolecall.toml")


@pytest.mark.parametrize("send", ["true", "false"])
def test_in_cluster_mode_credentials_travel_only_when_told_to(
    folder: Path, monkeypatch: pytest.MonkeyPatch, send: str
) -> None:
    monkeypatch.setenv("ROLECALL_MODE", "cluster")
    monkeypatch.setenv("ROLECALL_RAY__SEND_CREDENTIALS", send)
    monkeypatch.setenv("ROLECALL_REGISTRY__LEDGER_URL", "postgresql+psycopg://me:secret@db/ledger")
    monkeypatch.setenv("ROLECALL_STORAGE__OPTIONS", '{AWS_SECRET_ACCESS_KEY = "secret"}')
    told = _environment(load_settings())
    assert any("secret" in value for value in told.values()) == (send == "true")
    assert told["ROLECALL_MODE"] == "cluster"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ROLECALL_REGISTRY", '{ledger_url = "postgresql+psycopg://me:secret@db/ledger"}'),
        ("ROLECALL_STORAGE", '{options = {AWS_SECRET_ACCESS_KEY = "secret"}}'),
        ("ROLECALL_serve__api_keys", '["secret"]'),
    ],
)
def test_a_credential_inside_a_whole_table_does_not_travel_either(
    folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    monkeypatch.setenv("ROLECALL_MODE", "cluster")
    monkeypatch.setenv("ROLECALL_RANKING__WORKERS", "2")
    monkeypatch.setenv(name, text)
    told = _environment(load_settings())
    assert [value for value in told.values() if "secret" in value] == []
    assert told["ROLECALL_RANKING__WORKERS"] == "2"
