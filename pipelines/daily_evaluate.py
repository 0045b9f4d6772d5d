"""The step of the daily run that judges: every release on the same targets, and what the gate says of them."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from rolecall.features.schema import CANDIDATES, JOBS
from rolecall.pipelines import assemble
from rolecall.pipelines.daily_judges import Answers, Judges, ask
from rolecall.pipelines.drift.steps import DriftSteps
from rolecall.pipelines.evaluation.fairness import Fairness, audit_fairness
from rolecall.pipelines.evaluation.gate import judge_refresh, judge_release
from rolecall.pipelines.evaluation.gate.evidence import CHAMPION, REFRESHED
from rolecall.pipelines.evaluation.groups import Groups
from rolecall.pipelines.evaluation.judge import FUNNEL, Evaluation
from rolecall.pipelines.judged_release import JudgedRelease
from rolecall.pipelines.knowledge import Versions, read_ids
from rolecall.pipelines.leaks.findings import leaks_of
from rolecall.pipelines.refresh import models_as_of
from rolecall.pipelines.steps import StepContext, StepResult
from rolecall.platform.errors import IntegrityError
from rolecall.platform.release import MANIFEST_FILE, Manifest, read_manifest
from rolecall.serving import parts
from rolecall.serving.loader import load_release

REFRESHED_FOLDER = "refreshed"
"""Of the evaluate step: the same files, of the refreshed release."""

_NOBODY = "the champion recommends people for jobs and this release nobody: did an ingest lose the consent column?"
_SHOWN = ("recall@10", "hr@10", "ndcg@10", "mrr")


@dataclass(frozen=True, kw_only=True)
class _Challenger:
    """Today's rankers on every target with every baseline, and what names and groups change in their answers."""

    jobs: Evaluation
    answers: Answers
    fairness: Fairness


@dataclass(frozen=True, kw_only=True)
class _Champion:
    """What is served. `served`: its answers, None where nothing is, or it cannot be asked (`unread` says why);
    `refreshed`: those of its rankers over today's catalogue; `live`: jobs that today's catalogue and its own offer."""

    id: str | None
    served: Answers | None
    unread: tuple[str, ...]
    refreshed: Answers | None
    live: tuple[int | None, int | None]


class EvaluateSteps(DriftSteps):
    """The steps up to a judged release."""

    def refuse_early(self, versions: Versions) -> None:
        """Raises InputError for files of groups that are wrong, or that name nobody known."""
        groups = Groups.from_settings(self.settings.fairness)
        known = {
            schema.name: set(read_ids(self.tables, schema, versions)) if given else set()
            for schema, given in ((CANDIDATES, groups.candidates), (JOBS, groups.jobs))
        }
        groups.require_known(known[CANDIDATES.name], known[JOBS.name])

    def evaluate(self, step: StepContext) -> StepResult:
        """Today's rankers, the champion's over today's catalogue and the champion as it is, all on the same targets,
        and what the gate says of the first two."""
        judges = Judges.prepare(step, self.tables, self.settings)
        champion = self._champion(step, judges)
        challenger = self._challenger(step, judges, compared=champion.served is not None)
        again = self._judged_refresh(step, judges, champion)
        today = self._judged_today(step, judges, challenger, champion, again)
        today.write(step.folder)
        if again:
            again.write(step.folder / REFRESHED_FOLDER)
        people = challenger.answers.people
        return StepResult(
            values={
                "champion": champion.id,
                "passed": today.verdict.passed,
                "reasons": list(today.verdict.reasons),
                "refresh_passed": bool(again and again.verdict.passed),
                "refresh_reasons": list(again.verdict.reasons) if again else [],
                "refresh_metrics": again.metrics() if again else {},
                "rows": [
                    *evaluation_rows(challenger.jobs),
                    *(people_rows(people) if people and people.targets else ()),
                ],
            },
            metrics=today.metrics(),
        )

    def _judged_today(
        self,
        step: StepContext,
        judges: Judges,
        challenger: _Challenger,
        champion: _Champion,
        again: JudgedRelease | None,
    ) -> JudgedRelease:
        """Compared with the refreshed champion where there is one: both differ in their rankers alone; and then it may
        not surely lose to the champion as it is, or both could be bad on a spoiled catalogue. Where
        today's rankers are the champion's too, only the catalogue is judged, against the champion as it is."""
        folder, ours = step.file("assemble", assemble.RELEASE_FOLDER), challenger.answers
        refreshed = champion.refreshed
        if again and step.value("refresh", "release") == step.value("assemble", "release"):
            against, against_id, verdict = champion.served, champion.id, again.verdict
        else:
            against = refreshed or champion.served
            against_id = step.value("refresh", "release") if refreshed else champion.id if champion.served else None
            verdict = judge_release(
                challenger.jobs,
                against.rivals if against else None,
                rules=self.settings.gate,
                size_bytes=_size(folder),
                **self._of_champion(step, champion.id),
                people=_both(ours, against),
                fairness=challenger.fairness.of_release(),
                schema_errors=[*champion.unread, *_lost_people(ours, champion.served)],
                rival=ours.rivals,
                opponent=REFRESHED if refreshed else CHAMPION,
                served=champion.served.rivals if champion.served and refreshed else None,
                leak_findings=leaks_of(step.inputs["training-set"].values, step.inputs["people-rankers"].values),
                live_jobs=champion.live[0],
                champion_live_jobs=champion.live[1],
            )
        return JudgedRelease(
            folder=folder,
            jobs=challenger.jobs,
            ours=ours,
            against=against,
            against_id=against_id,
            champion=champion.id,
            verdict=verdict,
            log_silent=judges.log.why,
            days=self.settings.ranking.evaluation_days,
            fairness=challenger.fairness,
            refresh=again.verdict if again else None,
            drift=tuple(step.value("drift", "warnings")),
        )

    def _judged_refresh(self, step: StepContext, judges: Judges, champion: _Champion) -> JudgedRelease | None:
        """The champion's rankers over today's catalogue against the champion as it is; None where there is none."""
        refreshed, served = champion.refreshed, champion.served
        if refreshed is None or served is None:
            return None
        folder = step.file("refresh", assemble.RELEASE_FOLDER)
        verdict = judge_refresh(
            refreshed.rivals,
            served.rivals,
            rules=self.settings.gate,
            size_bytes=_size(folder),
            people=_both(refreshed, served),
            schema_errors=_lost_people(refreshed, served),
            live_jobs=champion.live[0],
            champion_live_jobs=champion.live[1],
        )
        return JudgedRelease(
            folder=folder,
            jobs=refreshed.rivals,
            ours=refreshed,
            against=served,
            against_id=champion.id,
            champion=champion.id,
            verdict=verdict,
            log_silent=judges.log.why,
            days=self.settings.ranking.evaluation_days,
        )

    def _challenger(self, step: StepContext, judges: Judges, *, compared: bool) -> _Challenger:
        """`compared`: something is served, so the targets of the comparison are asked too where they are others."""
        folder = step.file("assemble", assemble.RELEASE_FOLDER)
        with contextlib.closing(load_release(folder, self.settings, self.settings.scratch_dir)) as release:
            found, people = ask(step, release, judges.jobs, judges.people)
            rivals = found
            if compared and judges.apart:
                rivals, _ = ask(step, release, judges.rivals, None, baselines=())
            step.report("logged visits")
            log = judges.log.estimates(release.funnel)
            step.report("fairness")
            fairness = audit_fairness(
                release.funnel,
                [
                    (context, target.at)
                    for context, target in zip(judges.jobs.contexts, judges.jobs.targets, strict=True)
                ],
                at=step.as_of,
                people=release.people,
                jobs=[target.job_id for target in judges.people.targets],
                events=judges.events,
                groups=Groups.from_settings(self.settings.fairness),
                swaps=self.settings.fairness.swaps,
                rounds=self.settings.gate.statistics.bootstrap_rounds,
            )
        answers = Answers(rivals=rivals, people=people, log=log)
        return _Challenger(jobs=found, answers=answers, fairness=fairness)

    def _champion(self, step: StepContext, judges: Judges) -> _Champion:
        champion = self.registry.reconcile()
        served, unread = self._served(step, judges, champion)
        return _Champion(
            id=champion,
            served=served,
            unread=unread,
            refreshed=self._refreshed(step, judges, champion) if served else None,
            live=self._live_jobs(step, None if unread else champion),
        )

    def _served(
        self, step: StepContext, judges: Judges, champion: str | None
    ) -> tuple[Answers | None, tuple[str, ...]]:
        """What is served answers; None where nothing is, or this very release. And why it cannot be asked: with another
        embedder or other code nothing can be compared, so nothing replaces it unless somebody says so."""
        if champion is None or champion == step.value("assemble", "release"):
            return None, ()
        try:
            return self._answers(step, judges, self.registry.releases.fetch(champion)), ()
        except IntegrityError as error:
            return None, (f"champion {champion} cannot be loaded, so promote this release by hand: {error}",)

    def _refreshed(self, step: StepContext, judges: Judges, champion: str | None) -> Answers | None:
        """The refreshed release answers; None where there is none, or the champion changed, or became one that must go,
        since it was assembled."""
        if not step.value("refresh", "release") or step.value("refresh", "champion") != champion:
            return None
        if champion is not None and self.registry.taints.find(champion) is not None:
            return None
        return self._answers(step, judges, step.file("refresh", assemble.RELEASE_FOLDER))

    def _answers(self, step: StepContext, judges: Judges, folder: Path) -> Answers:
        with contextlib.closing(load_release(folder, self.settings, self.settings.scratch_dir)) as release:
            return judges.answers(step, release)

    def _live_jobs(self, step: StepContext, champion: str | None) -> tuple[int | None, int | None]:
        """Live jobs of today's catalogue, and of the champion's at its own instant; None where none can be read."""
        today = live_jobs(step.file("assemble", assemble.RELEASE_FOLDER), step.as_of)
        if champion is None:
            return today, None
        served = self.registry.releases
        return today, live_jobs(served.fetch(champion), served.manifest(champion).as_of)

    def _of_champion(self, step: StepContext, champion: str | None) -> dict[str, Any]:
        """What the gate asks of the champion beside its answers."""
        if champion is None:
            return {}
        manifest = self.registry.releases.manifest(champion)
        return {
            "champion_size_bytes": served_bytes(manifest),
            "champion_age_days": (step.as_of - datetime.fromisoformat(models_as_of(manifest))) / timedelta(days=1),
            "champion_must_go": self.registry.taints.find(champion) is not None,
        }


def live_jobs(folder: Path, at: datetime) -> int | None:
    """Jobs of a release folder that are posted and not expired at an instant; None where it holds no table of jobs."""
    file = folder / parts.JOBS
    if not file.is_file():
        return None
    jobs = pl.read_parquet(file, columns=["posted_at", "expires_at"])
    gone = (pl.col("posted_at") > at).fill_null(False) | (pl.col("expires_at") <= at).fill_null(False)
    return int(jobs.select((~gone).sum()).item())


def _both(ours: Answers, theirs: Answers | None) -> tuple[Evaluation, Evaluation] | None:
    return (ours.people, theirs.people) if ours.people and theirs and theirs.people else None


def _lost_people(ours: Answers, served: Answers | None) -> list[str]:
    return [_NOBODY] if served and served.people and not ours.people else []


def _size(folder: Path) -> int:
    """Bytes of what serves: reports and verdicts stand for nothing in a release's id."""
    return served_bytes(read_manifest((folder / MANIFEST_FILE).read_bytes()))


def served_bytes(manifest: Manifest) -> int:
    return sum(part.bytes for part in manifest.parts if part.content)


def evaluation_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """A line a system: its metrics, and the funnel's paired difference to it with the 95% interval."""
    rows: list[dict[str, Any]] = []
    for system, table in evaluation.systems.items():
        row: dict[str, Any] = {"system": system}
        row |= {name: evaluation.interval(values).mean for name, values in table.items() if name in _SHOWN}
        if system == FUNNEL:
            row["funnel better by (ndcg@10)"] = ""
        else:
            gap = evaluation.difference(system)
            row["funnel better by (ndcg@10)"] = f"{gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
        rows.append(row)
    return rows


def people_rows(evaluation: Evaluation) -> list[dict[str, Any]]:
    """`evaluation_rows` of people for jobs."""
    return [row | {"system": f"people: {row['system']}"} for row in evaluation_rows(evaluation)]
