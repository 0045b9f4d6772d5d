"""The gate: whether a release may become champion, by rules in one file, with the evidence for every check."""

from rolecall.pipelines.evaluation.gate.decision import judge, judge_refresh, judge_release
from rolecall.pipelines.evaluation.gate.verdict import Check, Outcome, Verdict

__all__ = ["Check", "Outcome", "Verdict", "judge", "judge_refresh", "judge_release"]
