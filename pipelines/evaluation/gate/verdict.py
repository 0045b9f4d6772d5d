"""What the gate says of a release: one outcome, every check with its evidence, the rules it was judged by."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from rolecall.pipelines.evaluation.gate.evidence import Evidence
from rolecall.platform.errors import GateRefusedError
from rolecall.platform.gate_rules import GateRules

Outcome = Literal["first", "better", "equal", "newer", "refused"]

VERDICT_FILE = "verdict.json"
EVIDENCE_FILE = "evidence.npz"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at. `evidence`: the numbers behind `detail` by name; None: not known."""

    name: str
    ok: bool
    detail: str
    evidence: Mapping[str, float | str | None] = field(default_factory=dict)

    def to_dict(self) -> dict[str, object]:
        plain = {name: _plain(value) for name, value in self.evidence.items()}
        return {"name": self.name, "ok": self.ok, "detail": self.detail, "evidence": plain}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All checks. A release passes, and may be promoted, when each of them does.

    `outcome`: `first` (no champion), `better` beyond noise, `equal` and with a reason to replace the champion,
    `newer` where the log is too small to tell, else `refused`. `evidence`: what it was judged from.
    """

    checks: tuple[Check, ...]
    outcome: Outcome
    rules: GateRules
    evidence: Evidence = field(repr=False, compare=False)

    @property
    def passed(self) -> bool:
        return self.outcome != "refused"

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why it was refused; empty where it passed."""
        return tuple(f"{check.name}: {check.detail}" for check in self.checks if not check.ok)

    def require(self) -> None:
        """Raise GateRefusedError with the reasons where the release did not pass."""
        if not self.passed:
            raise GateRefusedError(
                "; ".join(self.reasons),
                "a release that passes every check",
                "the release is kept: rolecall releases show",
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "outcome": self.outcome,
            "passed": self.passed,
            "reasons": list(self.reasons),
            "checks": [check.to_dict() for check in self.checks],
            "rules": self.rules.model_dump(mode="json"),
        }

    def write(self, folder: Path, **more: Any) -> None:
        """`verdict.json`, with `more` beside it, and `evidence.npz`, from which it can be judged anew."""
        (folder / VERDICT_FILE).write_text(json.dumps(self.to_dict() | more, indent=1))
        self.evidence.save(folder / EVIDENCE_FILE)


def _plain(value: float | str | None) -> float | str | None:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
