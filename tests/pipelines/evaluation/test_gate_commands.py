"""`rolecall releases show|diff|gate` on releases as the daily run keeps them, in a registry of their own."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from rolecall.pipelines.evaluation.gate import Verdict, judge_release
from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC, Evaluation
from rolecall.pipelines.evaluation.targets import Target
from rolecall.platform.cli import build
from rolecall.platform.cli_releases import with_pairs
from rolecall.platform.errors import NotFoundError, SettingsError
from rolecall.platform.gate_rules import GateRules
from rolecall.platform.registry import Registry
from rolecall.platform.release import ReleaseBuilder
from rolecall.platform.settings import load_settings
from tests.empty_mlflow import WithMlflow

DAY = datetime(2026, 3, 1, tzinfo=UTC)
COUNT = 900
TARGETS = tuple(Target(candidate_id=f"c{n}", at=DAY, job_ids=("j",), labels=(1,)) for n in range(COUNT))
QUALITY = np.random.default_rng(0).beta(2, 2, COUNT)
RULES = GateRules.model_validate({})


def evaluation(values: np.ndarray) -> Evaluation:
    return Evaluation(
        targets=TARGETS,
        systems={FUNNEL: {MAIN_METRIC: values}},
        stages={},
        slices={"history=none": np.where(np.arange(COUNT) < 300, values, np.nan)},
        milliseconds=np.full(COUNT, 12.0),
    )


@dataclass(frozen=True, kw_only=True)
class Kept:
    """Three nights: the first release, one that was refused, and one made before verdicts were kept."""

    home: Path
    first: str
    refused: str
    bare: str


def keep(registry: Registry, folder: Path, verdict: Verdict | None, number: int, champion: str | None) -> str:
    builder = ReleaseBuilder(folder)
    builder.path("model.txt").write_text(f"{number}")
    builder.add("model", "model.txt")
    if verdict is not None:
        verdict.write(folder, champion=champion)
        mean = 0.5 - number / 100
        slices = {"history=none": {"mean": mean, "low": mean - 0.01, "high": mean + 0.01, "count": 300}}
        (folder / "evaluation.json").write_text(json.dumps({"slices": slices}))
        for name, file in (
            ("verdict", "verdict.json"),
            ("evidence", "evidence.npz"),
            ("evaluation", "evaluation.json"),
        ):
            builder.add(name, file, identity=False)
    settings = {"ranking": {"evaluation_days": 3, "seed": number}}
    release = builder.seal(
        as_of=DAY + timedelta(days=number), code_version="1", tables={}, settings=settings, metrics={"ndcg": 0.5}
    ).id
    registry.releases.publish(folder)
    run_id = registry.client.create_run(registry.experiment_id).info.run_id
    registry.register(release, run_id=run_id, log_model=lambda: f"runs:/{run_id}/release")
    if verdict is not None:
        registry.judge(release, passed=verdict.passed, reasons=verdict.reasons)
    return release


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, with_mlflow: WithMlflow) -> Kept:
    home = with_mlflow(tmp_path_factory.mktemp("home"))
    registry = Registry.from_settings(load_settings(environ={}, home=home))
    moved = np.random.default_rng(1).normal(-0.03, 0.1, COUNT)
    first = judge_release(evaluation(QUALITY), None, rules=RULES, size_bytes=1 << 20)
    second = judge_release(evaluation(QUALITY + moved), evaluation(QUALITY), rules=RULES, size_bytes=1 << 20)
    one = keep(registry, home / "a", first, 1, None)
    return Kept(
        home=home,
        first=one,
        refused=keep(registry, home / "b", second, 2, one),
        bare=keep(registry, home / "c", None, 3, None),
    )


@pytest.fixture
def ask(kept: Kept, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ROLECALL_HOME", str(kept.home))

    def asked(*words: str) -> str:
        done = CliRunner().invoke(build(), ["releases", *words], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    return asked


def test_a_refused_release_shows_its_verdict_with_the_evidence(kept: Kept, ask) -> None:
    document = json.loads(ask("show", kept.refused, "--json"))
    assert (document["gate"], document["verdict"]["outcome"]) == ("refused", "refused")
    check = next(check for check in document["verdict"]["checks"] if check["name"] == "against champion")
    assert check["evidence"]["difference"] == pytest.approx(-0.03, abs=0.01)
    told = ask("show", kept.refused)
    assert "NO" in told
    assert "against champion" in told
    assert json.loads(ask("show", kept.bare, "--json"))["verdict"] is None


def test_a_diff_has_settings_parts_and_paired_differences_of_slices(kept: Kept, ask) -> None:
    rows = {row["where"]: row for row in json.loads(ask("diff", kept.first, kept.refused, "--json"))}
    assert (rows["settings.ranking.seed"]["before"], rows["settings.ranking.seed"]["after"]) == (1, 2)
    assert "parts.model" in rows
    part = rows["slices.history=none"]
    assert part["difference"] == pytest.approx(-0.01)
    assert part["paired [95%]"].startswith("-0.0")
    assert rows["paired targets"]["difference"] == pytest.approx(-0.03, abs=0.01)
    back = {row["where"]: row for row in json.loads(ask("diff", kept.refused, kept.first, "--json"))}
    assert "paired targets" not in back
    assert back["slices.history=none"]["paired [95%]"] is None
    assert "paired" in ask("diff", kept.first, kept.refused)


def test_the_gate_judges_again_by_other_rules_and_records_nothing(kept: Kept, ask, tmp_path: Path) -> None:
    lenient = tmp_path / "lenient.toml"
    lenient.write_text("[champion]\nmargin = 0.5\nolder_than_days = 0\ncheaper_by = 0.01\n[slices]\nmax_loss = 0.9\n")
    before = json.loads(ask("show", kept.refused, "--json"))
    assert json.loads(ask("gate", kept.refused, "--json"))["outcome"] == "refused"
    again = json.loads(ask("gate", kept.refused, "--rules", str(lenient), "--json"))
    assert again["rules"]["champion"]["margin"] == 0.5
    assert "equal" in next(c["detail"] for c in again["checks"] if c["name"] == "against champion")
    assert "verdict on" in ask("gate", kept.first)
    assert json.loads(ask("show", kept.refused, "--json")) == before


def test_power_says_what_was_seen_and_what_it_takes(kept: Kept, ask) -> None:
    document = json.loads(ask("gate", kept.refused, "--power", "--json"))
    assert (document["targets"], document["days"]) == (COUNT, 3)
    assert document["rows"][0]["targets needed"] > document["rows"][-1]["targets needed"]
    assert "with your 900 targets an effect of" in ask("gate", kept.refused, "--power")


def test_a_diff_bears_a_verdict_that_no_target_could_tell() -> None:
    """Champion and challenger had no target in common that both have a value of."""
    nothing = np.full(COUNT, np.nan)
    verdict = judge_release(evaluation(nothing), evaluation(nothing), rules=RULES, size_bytes=1)
    assert not verdict.passed
    told = json.loads(json.dumps(verdict.to_dict())) | {"champion": "0" * 16}
    row = {"where": "slices.history=none", "before": None, "after": None, "difference": None}
    assert with_pairs([row], told, "0" * 16) == [{"paired [95%]": None} | row]


def test_what_cannot_be_asked_says_why_and_what_next(kept: Kept, ask, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[champion]\nmargin = 2\n")
    with pytest.raises(SettingsError, match=r"margin.*Allowed.*Next"):
        ask("gate", kept.refused, "--rules", str(wrong))
    with pytest.raises(NotFoundError, match=r"keeps no evidence.*Next"):
        ask("gate", kept.bare)
    with pytest.raises(NotFoundError, match=r"compared with no champion.*Next"):
        ask("gate", kept.first, "--power")
    for command in ("show", "gate"):
        with pytest.raises(NotFoundError, match="not registered"):
            ask(command, "0123456789abcdef")
