"""What a leak audit found: the column, how it leaks, and the numbers that show it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["future", "profile", "others", "target", "identity", "order", "alone", "duplicate"]
"""The column knows: what comes later; a profile, or an employer, of later; other candidates, where it should know one
alone; the labels; who asks or what is ranked; the order of the rows. `alone`: it orders better alone than all others
together. `duplicate`: pairs are both learned from and judged on."""

LEAKS = "leaks"
"""The value of a training step that holds what was found, in words."""

LEAKS_FILE = "leaks.json"


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
