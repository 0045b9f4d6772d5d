"""`rolecall releases gate`: a kept release judged again, by the rules in force or by others, without a model."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any

import typer

from rolecall.platform.cli_releases import ReleaseId, open_registry, print_verdict
from rolecall.platform.console import Json, console, emit, table
from rolecall.platform.errors import NotFoundError
from rolecall.platform.gate_rules import GateRules, rules_of
from rolecall.platform.registry import Registry
from rolecall.platform.settings import load_settings

RELEASES = "releases"


def register(app: typer.Typer) -> None:
    """Add the command to the group `releases` of the command line."""
    for group in app.registered_groups:
        if group.name == RELEASES and group.typer_instance is not None:
            known = {command.name for command in group.typer_instance.registered_commands}
            if "gate" not in known:
                group.typer_instance.command("gate")(gate)


def gate(
    release: ReleaseId,
    rules: Annotated[Path | None, typer.Option("--rules", help="A rules file; default the rules in force.")] = None,
    power: Annotated[bool, typer.Option("--power", help="What the targets can see, and how many more need.")] = False,
    json: Json = False,
) -> None:
    """Judge a kept release again from its evidence. Nothing is recorded: the verdict of its own night stays."""
    from rolecall.pipelines.evaluation.gate.decision import judge
    from rolecall.pipelines.evaluation.gate.evidence import Evidence

    asked = rules_of(rules) if rules else load_settings().gate
    registry = open_registry()
    evidence = Evidence.load(io.BytesIO(_kept(registry, release)))
    if power:
        _print_power(registry, release, evidence, asked, json)
        return
    verdict = judge(evidence, asked).to_dict() | {"release": release}
    emit(verdict, json, lambda: print_verdict(release, verdict))


def _kept(registry: Registry, release: str) -> bytes:
    manifest = registry.releases.manifest(registry.get(release).release_id)
    if not any(part.name == "evidence" for part in manifest.parts):
        raise NotFoundError(
            f"release {release} keeps no evidence of its verdict",
            "a release that the daily run judged and kept with its evidence",
            "run its day again, or see `rolecall releases show`",
        )
    return registry.releases.read_part(release, "evidence")


def _print_power(registry: Registry, release: str, evidence: Any, rules: GateRules, json: bool) -> None:
    from rolecall.pipelines.evaluation.gate.power import Power

    days = registry.releases.manifest(release).settings.get("ranking", {}).get("evaluation_days", 1)
    power = Power.of(evidence, rules, days=days)
    if power is None:
        raise NotFoundError(
            f"release {release} was compared with no champion that found anything",
            "a release that was judged while another one was served",
            "ask about one of a later day: rolecall releases list",
        )
    rows = [row.told() for row in power.rows]

    def render() -> None:
        console.print(table(f"Power, {power.targets:,} targets of {days} days", rows))
        console.print("\n".join(power.words), markup=False, soft_wrap=True)

    document = {"release": release, "targets": power.targets, "days": days, "rows": rows, "words": list(power.words)}
    emit(document, json, render)
