"""Alert rules and dashboard ask for metrics and labels that this code exposes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from rolecall.pipelines.schedule_commands import app as schedule
from rolecall.serving.llm.api.metrics import LLMMetrics
from rolecall.serving.llm.statistics import Counters, Statistics
from rolecall.serving.metrics import ServingMetrics
from rolecall.serving.models import EventReceipt, Readiness, Stage

from .manifests import INFRA

NOW = datetime(2026, 11, 22, tzinfo=UTC)
RULE = {"alert", "expr", "for", "labels", "annotations"}


def rules() -> list[dict[str, object]]:
    """Every alert."""
    groups = yaml.safe_load((INFRA / "prometheus/rules.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[str]:
    """Every PromQL expression of the rules and the dashboard."""
    yield from (str(rule["expr"]) for rule in rules())
    dashboard = json.loads((INFRA / "grafana/rolecall.json").read_text())
    yield from (target["expr"] for panel in dashboard["panels"] for target in panel["targets"])


@pytest.fixture(scope="module")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[str]]:
    """Each sample that serving and the schedule expose: name to its labels."""
    serving = ServingMetrics(replica="r")
    serving.answered("/v1/search", 200, 0.1)
    serving.ranked([Stage(stage="recall", count_in=1, count_out=1, milliseconds=1.0)], known=False)
    serving.received(EventReceipt(accepted=1, duplicate=0))
    text = serving.render(Readiness(ready=True, release_id="a", release_as_of=NOW), {"ranking": 0}).decode()
    idle = Statistics(
        waiting=0, waiting_tokens=0, running=0, blocks=1, blocks_free=1, preemptions=0, **asdict(Counters())
    )
    text += LLMMetrics("r").render({"r": idle}).decode()
    home = {"ROLECALL_HOME": str(tmp_path_factory.mktemp("home"))}
    for words in (["add", "daily"], ["list", "--metrics"]):
        told = CliRunner().invoke(schedule, words, env=home, catch_exceptions=False)
        assert told.exit_code == 0
    text += told.stdout
    families = list(text_string_to_metric_families(text))
    never_yet = {family.name: {"schedule"} for family in families if not family.samples}
    return never_yet | {sample.name: set(sample.labels) for family in families for sample in family.samples}


def test_every_metric_that_is_asked_for_is_exposed(exposed: dict[str, set[str]]) -> None:
    asked = {name for expression in expressions() for name in re.findall(r"\brolecall_\w+", expression)}
    assert asked
    assert asked - exposed.keys() == set()


def test_every_label_that_is_asked_for_is_one_of_its_metric(exposed: dict[str, set[str]]) -> None:
    for expression in expressions():
        known = {label for name in re.findall(r"\brolecall_\w+", expression) for label in exposed[name]}
        grouped = {label for found in re.findall(r"by \(([^)]*)\)", expression) for label in found.split(", ")}
        matched = {label for found in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)=", found)}
        assert grouped | matched <= known, expression


def test_every_rule_says_how_bad_it_is_and_what_to_do() -> None:
    assert len({rule["alert"] for rule in rules()}) == len(rules())
    for rule in rules():
        assert rule.keys() <= RULE
        assert rule["labels"]["severity"] in ("critical", "warning")  # type: ignore[index]
        assert rule["annotations"].keys() == {"summary", "action"}  # type: ignore[attr-defined]
        assert re.fullmatch(r"\d+[smhd]", str(rule.get("for", "0s")))


def test_expressions_are_closed_and_look_back_over_several_scrapes() -> None:
    for expression in expressions():
        assert all(expression.count(one) == expression.count(other) for one, other in ("()", "[]", "{}"))
        ranges = len(re.findall(r"\[\d+[mh]\]", expression))
        assert ranges == len(re.findall(r"\brolecall_\w+", expression)), expression


def test_each_panel_has_a_place_of_its_own() -> None:
    panels = json.loads(Path(INFRA / "grafana/rolecall.json").read_text())["panels"]
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert len({panel["id"] for panel in panels}) == len(panels)
