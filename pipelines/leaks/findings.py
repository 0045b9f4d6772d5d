"""What a leak audit found: the column, how it leaks, and the numbers that show it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rolecall.platform.errors import GateRefusedError

Kind = Literal["future", "profile", "others", "target", "identity", "order", "alone", "duplicate"]
KINDS: Mapping[Kind, str] = {
    "future": "columns that know what comes later",
    "profile": "columns that know a profile, or an employer, of later",
    "others": "ranker_content columns that know other candidates",
    "target": "columns computed from the labels",
    "identity": "columns that name who asks or what is ranked",
    "order": "columns that follow the order of the rows",
    "alone": "columns that order better alone than all others together",
    "duplicate": "pairs both learned from and judged on",
}
"""What each kind of finding says, in words."""


LEAKS = "leaks"
"""The value of a training step that holds what was found, in words."""

LEAKS_FILE = "leaks.json"

_TOLD = 10
"""Findings whose evidence a refusal tells."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One leak. `column`: its name, or in parentheses what else leaks; `evidence`: the numbers behind it."""

    kind: Kind
    column: str
    evidence: Mapping[str, float | str] = field(default_factory=dict)

    def __str__(self) -> str:
        told = ", ".join(f"{name} {_short(value)}" for name, value in self.evidence.items())
        return f"{self.kind}: {self.column}" + (f" ({told})" if told else "")

    def to_dict(self) -> dict[str, object]:
        """As JSON values."""
        return {"kind": self.kind, "column": self.column, "evidence": dict(self.evidence)}


def refuse(findings: Sequence[Finding], *, words: Mapping[Kind, str] = KINDS) -> None:
    """Raise GateRefusedError that names every leaking column by kind; nothing where nothing was found."""
    if not findings:
        return
    named: dict[Kind, set[str]] = {}
    for finding in findings:
        named.setdefault(finding.kind, set()).add(finding.column)
    raise GateRefusedError(
        "; ".join(f"{words[kind]}: {sorted(columns)}" for kind, columns in named.items()),
        "features of what was known strictly before the request, in ranker_content of the candidate alone",
        "correct the feature; pipelines/leaks says how each kind is found: " + "; ".join(map(str, findings[:_TOLD])),
    )


def leaks_of(*values: Mapping[str, Any]) -> tuple[str, ...]:
    """What training steps found, by the values they left."""
    return tuple(told for step in values for told in step.get(LEAKS, ()))


def keep_findings(folder: Path, findings: Sequence[Finding]) -> dict[str, list[str]]:
    """Write them into a step's folder, where there are any; returns the step's value."""
    if findings:
        (folder / LEAKS_FILE).write_text(json.dumps([finding.to_dict() for finding in findings], indent=1))
    return {LEAKS: [str(finding) for finding in findings]}


def _short(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.4g}"
