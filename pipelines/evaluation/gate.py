"""The gate: what a release must show before it may be promoted, and why one was refused.

A loss counts only where it is sure: where even the upper end of the paired 95% interval lies below what is allowed.
With few targets an interval is wide, hence the least number of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rolecall.pipelines.evaluation.judge import FUNNEL, MAIN_METRIC, Evaluation
from rolecall.pipelines.evaluation.metrics import Interval
from rolecall.platform.errors import GateRefusedError, InputError
from rolecall.platform.settings import GateSettings


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All checks; a release passes when each of them does."""

    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        return all(check.ok for check in self.checks)

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


def judge_release(
    challenger: Evaluation,
    champion: Evaluation | None,
    *,
    settings: GateSettings,
    size_bytes: int,
    schema_errors: Sequence[str] = (),
    people: tuple[Evaluation, Evaluation] | None = None,
    rival: Evaluation | None = None,
) -> Verdict:
    """The verdict on a release. `champion`: the served release on the same targets, None where nothing is served.

    `people`: challenger and champion asked for people, where both recommend them.
    `rival`: the release on the targets it is compared with the champion on, where these are others: what candidates
    did with jobs the champion showed them speaks for the champion alone.
    `schema_errors`: columns or tables the release and this code do not agree about, in words.
    Raises InputError where champion and challenger were not asked the same.
    """
    rival = rival or challenger
    if champion is not None and champion.targets != rival.targets:
        raise InputError("champion and challenger evaluated on different targets", "the same targets")
    checks = [
        _enough_targets(challenger, settings),
        *_baselines(challenger, settings),
        *([] if champion is None else _champion(rival, champion, settings)),
        *([] if people is None else _people(*people, settings)),
        _latency(challenger, settings),
        _size(size_bytes, settings),
        _schema(schema_errors),
    ]
    return Verdict(checks=tuple(checks))


def judge_refresh(
    refreshed: Evaluation,
    served: Evaluation,
    *,
    settings: GateSettings,
    size_bytes: int,
    people: tuple[Evaluation, Evaluation] | None = None,
    schema_errors: Sequence[str] = (),
) -> Verdict:
    """The verdict on the served rankers over a new catalogue: they may not surely lose to themselves over the old one,
    which they would where an ingest brought rubbish. Arguments as of `judge_release`."""
    if served.targets != refreshed.targets:
        raise InputError("champion and refreshed release evaluated on different targets", "the same targets")
    ours, theirs = refreshed.systems[FUNNEL][MAIN_METRIC], served.systems[FUNNEL][MAIN_METRIC]
    checks = [
        _loss("against champion", refreshed.interval(ours - theirs), settings.max_quality_loss),
        *([] if people is None else _people(*people, settings)),
        _latency(refreshed, settings),
        _size(size_bytes, settings),
        _schema(schema_errors),
    ]
    return Verdict(checks=tuple(checks))


def _schema(errors: Sequence[str]) -> Check:
    return Check(name="schema", ok=not errors, detail="; ".join(errors) or "columns agree")


def _enough_targets(challenger: Evaluation, settings: GateSettings) -> Check:
    count = len(challenger.targets)
    return Check(name="targets", ok=count >= settings.min_targets, detail=f"{count}, at least {settings.min_targets}")


def _baselines(challenger: Evaluation, settings: GateSettings) -> Iterator[Check]:
    for name in challenger.systems:
        if name != FUNNEL:
            yield _loss(f"against {name}", challenger.difference(name), settings.max_quality_loss)


def _champion(challenger: Evaluation, champion: Evaluation, settings: GateSettings) -> Iterator[Check]:
    ours, theirs = challenger.systems[FUNNEL][MAIN_METRIC], champion.systems[FUNNEL][MAIN_METRIC]
    yield _loss("against champion", challenger.interval(ours - theirs), settings.max_quality_loss)
    for name in sorted(set(challenger.slices) & set(champion.slices)):
        paired = challenger.interval(challenger.slices[name] - champion.slices[name])
        if paired.count >= settings.min_targets:
            yield _loss(f"slice {name}", paired, settings.max_slice_loss)


def _people(challenger: Evaluation, champion: Evaluation, settings: GateSettings) -> Iterator[Check]:
    """Employers' side: judged where enough jobs found somebody to say anything."""
    if champion.targets != challenger.targets:
        raise InputError("champion and challenger asked for people of different jobs", "the same targets")
    paired = challenger.interval(challenger.systems[FUNNEL][MAIN_METRIC] - champion.systems[FUNNEL][MAIN_METRIC])
    if paired.count >= settings.min_targets:
        yield _loss("people against champion", paired, settings.max_quality_loss)


def _loss(name: str, difference: Interval, allowed: float) -> Check:
    detail = f"{MAIN_METRIC} {difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    return Check(name=name, ok=not difference.high < -allowed, detail=f"{detail}, may lose {allowed:g}")


def _latency(challenger: Evaluation, settings: GateSettings) -> Check:
    p99 = challenger.latency(99)
    return Check(name="p99", ok=not p99 > settings.max_p99_ms, detail=f"{p99:.1f} ms, at most {settings.max_p99_ms:g}")


def _size(size_bytes: int, settings: GateSettings) -> Check:
    size = size_bytes / 2**20
    return Check(
        name="size", ok=size <= settings.max_size_mb, detail=f"{size:.1f} MB, at most {settings.max_size_mb:g}"
    )
