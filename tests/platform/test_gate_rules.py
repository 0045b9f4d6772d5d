"""The gate's rules: what is shipped, what may change it, and what is refused."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from rolecall.platform.errors import SettingsError
from rolecall.platform.gate_rules import SHIPPED, GateRules, rules_of
from rolecall.platform.settings import Settings, load_settings


def test_the_shipped_file_is_the_default_and_names_every_rule() -> None:
    shipped = tomllib.loads(SHIPPED.read_text())
    assert GateRules.model_validate({}).model_dump(mode="json") == GateRules.model_validate(shipped).model_dump(
        mode="json"
    )
    assert {name: set(table) for name, table in GateRules.model_validate({}).model_dump().items()} == {
        name: set(table) for name, table in shipped.items()
    }
    assert Settings().gate == GateRules.model_validate({})


def test_single_values_win_over_a_named_file_and_that_over_what_is_shipped(tmp_path: Path) -> None:
    file = tmp_path / "strict.toml"
    file.write_text('[champion]\nmargin = 0.01\nequal_level = 0.001\n[slices.own]\n"place=DE" = 0.02\n')
    gate = load_settings(environ={"ROLECALL_GATE__CHAMPION__MARGIN": "0.02"}, gate={"file": str(file)}).gate
    assert (gate.champion.margin, gate.champion.equal_level, gate.champion.better_level) == (0.02, 0.001, 0.025)
    assert (gate.slices.bound("place=DE"), gate.slices.bound("place=FR")) == (0.02, gate.slices.max_loss)
    assert gate.slices.bound("history=none") == 0.05


def test_resolved_rules_no_longer_need_their_file(tmp_path: Path) -> None:
    file = tmp_path / "strict.toml"
    file.write_text("[size]\nmax_mb = 1.0\n")
    gate = rules_of(file)
    file.unlink()
    assert GateRules.model_validate(gate.model_dump(mode="json")) == gate


def test_a_kind_of_slices_has_one_bound_and_a_single_slice_its_own() -> None:
    rules = GateRules.model_validate({"slices": {"own": {"place": 0.2, "place=DE": 0.01}}}).slices
    assert [rules.bound(name) for name in ("place=DE", "place=FR", "job=cold")] == [0.01, 0.2, 0.1]


@pytest.mark.parametrize(
    "text",
    [
        "[champion]\nmargin = 0.0",
        "[champion]\nbetter = 1",
        "[colour]\nred = 1",
        "[slices]\ncorrection = 'bonferroni'",
        "[slices.own]\nplace = -0.1",
        "champion = 3",
        "[champion",
    ],
)
def test_what_cannot_be_a_rule_is_refused_with_what_is_allowed(text: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.toml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=r"rules.*Allowed"):
        rules_of(file)
    with pytest.raises(SettingsError):
        load_settings(environ={}, gate={"file": str(file)})


def test_rules_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read"):
        rules_of(tmp_path / "none.toml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_settings(environ={"ROLECALL_GATE__FILE": str(tmp_path / "none.toml")})


def test_changing_a_value_leaves_the_others(tmp_path: Path) -> None:
    before = GateRules.model_validate({})
    after = before.changed(latency={"max_p99_ms": 9.0})
    assert after.latency.max_p99_ms == 9
    assert after.changed(latency={"max_p99_ms": before.latency.max_p99_ms}) == before
