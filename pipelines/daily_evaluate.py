"""The step of the daily run that judges: every release on the same targets, and what the gate says of them."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from rolecall.pipelines import assemble
from rolecall.pipelines.daily_judges import Answers, Judges, ask
from rolecall.pipelines.evaluation.counterfactual.log_value import LogValue
from rolecall.pipelines.evaluation.fairness import Fairness, audit_fairness
from rolecall.pipelines.evaluation.gate import Verdict, judge_refresh, judge_release
from rolecall.pipelines.evaluation.gate.power import Power
from rolecall.pipelines.evaluation.groups import Groups
from rolecall.pipelines.evaluation.judge import FUNNEL, Evaluation
from rolecall.pipelines.evaluation.people_judge import people_metrics
from rolecall.pipelines.evaluation.report.write import REPORT, gather_report, write_report
from rolecall.pipelines.refresh import RefreshSteps, models_as_of
from rolecall.pipelines.steps import StepContext, StepResult
from rolecall.platform.errors import IntegrityError
from rolecall.platform.release import MANIFEST_FILE, Manifest, read_manifest
from rolecall.serving import parts
from rolecall.serving.loader import load_release

REFRESH_EVALUATION = "refresh_evaluation.json"
FAIRNESS = "fairness.json"
_NOBODY = "the champion recommends people for jobs and this release nobody: did an ingest lose the consent column?"
_SHOWN = ("recall@10", "hr@10", "ndcg@10", "mrr")


@dataclass(frozen=True, kw_only=True)
class _Challenger:
    """Today's rankers on every target with every baseline, and what names and groups change in their answers."""

    jobs: Evaluation
    answers: Answers
    fairness: Fairness


class EvaluateSteps(RefreshSteps):
    """The steps up to a judged release."""

    def evaluate(self, step: StepContext) -> StepResult:
        """Today's rankers, the champion's over today's catalogue and the champion as it is, all on the same targets,
        and what the gate says of the first two."""
        judges = Judges.prepare(step, self.tables, self.settings)
        folder = step.file("assemble", assemble.RELEASE_FOLDER)
        champion = self.registry.reconcile()
        served, unread = self._champion(step, judges, champion)
        challenger = self._challenger(step, folder, judges, compared=served is not None)
        ours, people = challenger.answers, challenger.answers.people
        refreshed = self._refreshed(step, judges, champion) if served is not None else None
        against = refreshed or served
        verdict = judge_release(
            challenger.jobs,
            against.rivals if against else None,
            rules=self.settings.gate,
            size_bytes=_size(folder),
            **self._of_champion(step, champion),
            people=_both(ours, against),
            fairness=challenger.fairness.of_release(),
            schema_errors=[*unread, *_lost_people(ours, served)],
            rival=ours.rivals,
        )
        again = self._judge_refresh(step, refreshed, served) if refreshed and served else None
        if again and step.value("refresh", "release") == step.value("assemble", "release"):
            verdict = again  # today's rankers are the champion's: only the catalogue is judged
        log = LogValue(release=ours.log, champion=against.log if against else {}, why=judges.log.why)
        power = Power.of(verdict.evidence, self.settings.gate, days=self.settings.ranking.evaluation_days)
        _write_report(step.folder / assemble.EVALUATION, challenger.jobs, people, log)
        (step.folder / FAIRNESS).write_text(json.dumps(challenger.fairness.to_dict(), indent=1))
        if refreshed:
            _write_report(step.folder / REFRESH_EVALUATION, refreshed.rivals, refreshed.people)
        verdict.write(
            step.folder,
            champion=champion,
            refresh=again.to_dict() if again else None,
            power=power.to_dict() if power else None,
        )
        report = gather_report(
            manifest=read_manifest((folder / MANIFEST_FILE).read_bytes()),
            evaluation=challenger.jobs,
            champion=against.rivals if against else None,
            rival=ours.rivals if against else None,
            verdict=verdict,
            titles=_titles(folder),
            people=(people, against.people if against else None) if people else None,
            fairness=challenger.fairness,
            log=log,
            power=power,
            champion_id=champion or "",
        )
        write_report(step.folder / REPORT, report)
        return StepResult(
            values={
                "champion": champion,
                "passed": verdict.passed,
                "reasons": list(verdict.reasons),
                "refresh_passed": bool(again and again.passed),
                "refresh_reasons": list(again.reasons) if again else [],
                "refresh_metrics": _metrics(refreshed.rivals, refreshed.people) if refreshed else {},
                "rows": [
                    *evaluation_rows(challenger.jobs),
                    *(people_rows(people) if people and people.targets else ()),
                ],
            },
            metrics=_metrics(challenger.jobs, people) | mlflow_names(log.metrics()),
        )

    def _challenger(self, step: StepContext, folder: Path, judges: Judges, *, compared: bool) -> _Challenger:
        """`compared`: something is served, so the targets of the comparison are asked too where they are others."""
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

    def _champion(
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

    def _judge_refresh(self, step: StepContext, refreshed: Answers, served: Answers) -> Verdict:
        return judge_refresh(
            refreshed.rivals,
            served.rivals,
            rules=self.settings.gate,
            size_bytes=_size(step.file("refresh", assemble.RELEASE_FOLDER)),
            people=_both(refreshed, served),
            schema_errors=_lost_people(refreshed, served),
        )

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


def _titles(folder: Path) -> dict[str, str]:
    jobs = pq.read_table(folder / parts.JOBS, columns=["job_id", "title"])
    return {job: title or "" for job, title in zip(*(column.to_pylist() for column in jobs.columns), strict=True)}


def _both(ours: Answers, theirs: Answers | None) -> tuple[Evaluation, Evaluation] | None:
    return (ours.people, theirs.people) if ours.people and theirs and theirs.people else None


def _lost_people(ours: Answers, served: Answers | None) -> list[str]:
    return [_NOBODY] if served and served.people and not ours.people else []


def _size(folder: Path) -> int:
    """Bytes of what serves: reports and verdicts stand for nothing in a release's id."""
    return served_bytes(read_manifest((folder / MANIFEST_FILE).read_bytes()))


def served_bytes(manifest: Manifest) -> int:
    return sum(part.bytes for part in manifest.parts if part.content)


def _write_report(file: Path, jobs: Evaluation, people: Evaluation | None, log: LogValue | None = None) -> None:
    report = jobs.to_dict() | ({"people": people.to_dict()} if people else {}) | ({"log": log.to_dict()} if log else {})
    file.write_text(json.dumps(report, indent=1))


def _metrics(jobs: Evaluation, people: Evaluation | None) -> dict[str, float]:
    return (
        mlflow_names(jobs.metrics())
        | (mlflow_names(people_metrics(people)) if people else {})
        | {"evaluation.p50_ms": jobs.latency(50), "evaluation.p99_ms": jobs.latency(99)}
    )


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


def mlflow_names(metrics: dict[str, float]) -> dict[str, float]:
    """MLflow allows no @ in a metric's name."""
    return {f"evaluation.{name.replace('@', '_at_')}": value for name, value in metrics.items()}
