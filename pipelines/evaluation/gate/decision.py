"""The verdict: every check, and what the release is to the champion."""

from __future__ import annotations

from collections.abc import Sequence

from rolecall.pipelines.evaluation.gate.champion import against_champion, not_surely_worse
from rolecall.pipelines.evaluation.gate.checks import other_checks
from rolecall.pipelines.evaluation.gate.evidence import CHAMPION, Evidence, FairnessAudit, gather
from rolecall.pipelines.evaluation.gate.verdict import Outcome, Verdict
from rolecall.pipelines.evaluation.judge import Evaluation
from rolecall.platform.gate_rules import GateRules


def judge_release(
    challenger: Evaluation,
    champion: Evaluation | None,
    *,
    rules: GateRules,
    size_bytes: int,
    champion_size_bytes: int | None = None,
    champion_age_days: float | None = None,
    champion_must_go: bool = False,
    schema_errors: Sequence[str] = (),
    leak_findings: Sequence[object] = (),
    fairness: FairnessAudit | None = None,
    people: tuple[Evaluation, Evaluation] | None = None,
    rival: Evaluation | None = None,
    opponent: str = CHAMPION,
    served: Evaluation | None = None,
    live_jobs: int | None = None,
    champion_live_jobs: int | None = None,
) -> Verdict:
    """The verdict on a release. `champion`: the served release on the same targets, None where nothing is served;
    `opponent`: REFRESHED where these are its rankers over the release's own catalogue; `served`: then the served
    release as it is, to which nothing may be surely lost: on a catalogue that an ingest spoiled both do badly.

    `champion_size_bytes`, `champion_age_days` (of its models, at the instant of the run): an equal release may replace
    a larger or an old champion. `champion_must_go`: it learned from somebody who was forgotten and may not be served
    on; it is replaced unless that surely loses more than the margin.
    `schema_errors`: columns or tables the release and this code do not agree about, in words. `leak_findings`: of the
    leak audit, with `kind`, `column`, `evidence`, or in words.
    `people`: challenger and champion asked for people, where both recommend them.
    `rival`: the release on the targets it is compared with the champion on, where these are others: what candidates
    did with jobs the champion showed them speaks for the champion alone.
    `live_jobs`: in the release, and in the served one at its own instant; None: not looked at.
    Raises InputError where champion and challenger were not asked the same.
    """
    evidence = gather(
        challenger,
        champion,
        rival=rival,
        people=people,
        fairness=fairness,
        leak_findings=leak_findings,
        size_bytes=size_bytes,
        champion_size_bytes=champion_size_bytes,
        champion_age_days=champion_age_days,
        champion_must_go=champion_must_go,
        schema_errors=tuple(schema_errors),
        opponent=opponent,
        served=served,
        live_jobs=live_jobs,
        champion_live_jobs=champion_live_jobs,
    )
    return judge(evidence, rules)


def judge_refresh(
    refreshed: Evaluation,
    served: Evaluation,
    *,
    rules: GateRules,
    size_bytes: int,
    people: tuple[Evaluation, Evaluation] | None = None,
    schema_errors: Sequence[str] = (),
    live_jobs: int | None = None,
    champion_live_jobs: int | None = None,
) -> Verdict:
    """The verdict on the served rankers over a new catalogue: they may not surely lose more than the margin to
    themselves over the old one, which they would where an ingest brought rubbish, and the jobs must be there. Arguments
    as of `judge_release`."""
    evidence = gather(
        refreshed,
        served,
        people=people,
        size_bytes=size_bytes,
        schema_errors=tuple(schema_errors),
        live_jobs=live_jobs,
        champion_live_jobs=champion_live_jobs,
        refresh=True,
    )
    return judge(evidence, rules)


def judge(evidence: Evidence, rules: GateRules) -> Verdict:
    """The verdict of these rules on what is known of a release."""
    checks = [check for check in other_checks(evidence, rules) if not evidence.refresh or check.name in _OF_A_REFRESH]
    found: Outcome = "first"
    if evidence.champion is not None and evidence.refresh:
        check, found = not_surely_worse(evidence.champion, rules)
        checks.insert(0, check)
    elif evidence.champion is not None:
        check, found = against_champion(evidence, evidence.champion, rules)
        checks.insert(1, check)
        if evidence.served is not None:
            checks.insert(2, not_surely_worse(evidence.served, rules)[0])
    outcome: Outcome = found if all(check.ok for check in checks) else "refused"
    return Verdict(checks=tuple(checks), outcome=outcome, rules=rules, evidence=evidence)


_OF_A_REFRESH = (f"people against {CHAMPION}", "catalogue", "p99", "size", "schema")
