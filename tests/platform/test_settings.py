"""The settings tree: what wins, what is refused, and that every refusal says why."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest

from rolecall.platform.errors import SettingsError
from rolecall.platform.settings import load_settings


def test_arguments_win_over_the_environment_and_that_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "rolecall.toml"
    file.write_text('log_level = "error"\nserve = { port = 1, replicas = 2, max_limit = 7 }\n')
    settings = load_settings(
        file, environ={"ROLECALL_SERVE__PORT": "3", "ROLECALL_SERVE__REPLICAS": "4"}, serve={"port": 5}
    )
    assert (settings.serve.port, settings.serve.replicas, settings.serve.max_limit) == (5, 4, 7)
    assert settings.log_level == "error"


@pytest.mark.parametrize(
    "environ",
    [
        {"ROLECALL_COLOUR": "red"},
        {"ROLECALL_SERVE__COLOUR": "red"},
        {"ROLECALL_SERVE__PORT": "70000"},
        {"ROLECALL_SERVE__API_KEYS": "[unclosed"},
        {"ROLECALL_SERVE": "x", "ROLECALL_SERVE__PORT": "1"},
        {"ROLECALL_SERVE__PORT": "1", "ROLECALL_SERVE": "x"},
        {"ROLECALL_STORAGE__ARTIFACTS_URI": "gs://bucket/releases"},
        {"ROLECALL_LLM__NUM_GPUS": "1.5"},
        {"ROLECALL_LLM__DEVICE": "cuda", "ROLECALL_LLM__PLACEMENT": "deployment"},
    ],
)
def test_what_cannot_be_a_setting_is_refused_as_one(environ: dict[str, str]) -> None:
    with pytest.raises(SettingsError):
        load_settings(environ=environ)


@pytest.mark.parametrize("content", [b"home = ", b'home = "\xff"', b"colour = 1", b"serve = 5"])
def test_a_file_that_is_no_settings_file_is_refused_as_one(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "rolecall.toml"
    file.write_bytes(content)
    with pytest.raises(SettingsError):
        load_settings(file, environ={})


@pytest.mark.parametrize("name", ["", "missing.toml"])
def test_a_folder_or_nothing_is_no_settings_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError):
        load_settings(tmp_path / name, environ={})


@pytest.mark.parametrize("text", ['{"AWS_SECRET_ACCESS_KEY": "hunter2"}', '["hunter2'])
def test_a_value_that_cannot_be_read_is_named_and_never_printed(text: str) -> None:
    with pytest.raises(SettingsError, match="ROLECALL_STORAGE__OPTIONS") as refused:
        load_settings(environ={"ROLECALL_STORAGE__OPTIONS": text})
    assert "hunter2" not in "".join(traceback.format_exception(refused.value))


def test_an_empty_variable_is_as_if_it_were_not_set() -> None:
    empty = {"ROLECALL_HOME": "", "ROLECALL_VECTORS__URL": "", "ROLECALL_SERVE__PORT": ""}
    assert load_settings(environ=empty) == load_settings(environ={})


def test_every_local_folder_is_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    relative = {"tables_uri": "data/tables", "artifacts_uri": "data/artifacts"}
    settings = load_settings(environ={"ROLECALL_HOME": "house"}, storage=relative)
    assert settings.home == tmp_path / "house"
    assert settings.tables_uri == str(tmp_path / "data/tables")
    assert settings.artifacts_uri == str(tmp_path / "data/artifacts")


@pytest.mark.parametrize("uri", ["s3://bucket/prefix", "file:///data"])
def test_an_address_stays_as_it_is(uri: str) -> None:
    settings = load_settings(environ={}, storage={"tables_uri": uri, "artifacts_uri": uri})
    assert (settings.tables_uri, settings.artifacts_uri) == (uri, uri)


@pytest.mark.parametrize("name", ["a%20b", "a?b", "[a]"])
def test_a_folder_that_stores_would_misread_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingsError, match="another folder"):
        load_settings(environ={}, home=tmp_path / name)
    with pytest.raises(SettingsError, match="another folder"):
        load_settings(environ={}, storage={"tables_uri": str(tmp_path / name)})
