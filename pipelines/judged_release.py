"""A release with what was found about it: the files that are kept beside its parts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from rolecall.features.text import neutral_title
from rolecall.pipelines import assemble
from rolecall.pipelines.daily_judges import Answers
from rolecall.pipelines.evaluation.counterfactual.log_value import LogValue
from rolecall.pipelines.evaluation.fairness import Fairness
from rolecall.pipelines.evaluation.gate import Verdict
from rolecall.pipelines.evaluation.gate.power import Power
from rolecall.pipelines.evaluation.judge import Evaluation
from rolecall.pipelines.evaluation.people_judge import people_metrics
from rolecall.pipelines.evaluation.report.write import REPORT, gather_report, write_report
from rolecall.platform.release import MANIFEST_FILE, read_manifest
from rolecall.serving import parts

FAIRNESS = "fairness.json"


@dataclass(frozen=True, kw_only=True)
class JudgedRelease:
    """`folder`: the sealed release; `jobs`: its evaluation on all targets; `ours`, `against`: what it and the release
    it was compared with (None: with none) answered to the targets of both; `against_id`: the latter's id; `champion`:
    what was served; `log_silent`: why logged visits say nothing; `days` that targets are from;
    `refresh`: the verdict on the refreshed release, kept beside today's too since it may not be published; `drift`:
    what the newest day of its features warns of."""

    folder: Path
    jobs: Evaluation
    ours: Answers
    against: Answers | None
    against_id: str | None
    champion: str | None
    verdict: Verdict
    log_silent: str
    days: float
    fairness: Fairness | None = None
    refresh: Verdict | None = None
    drift: tuple[str, ...] = ()

    @property
    def log(self) -> LogValue:
        """What logged visits say of both."""
        return LogValue(release=self.ours.log, champion=self.against.log if self.against else {}, why=self.log_silent)

    def metrics(self) -> dict[str, float]:
        """For the manifest and MLflow."""
        people = people_metrics(self.ours.people) if self.ours.people else {}
        latency = {"evaluation.p50_ms": self.jobs.latency(50), "evaluation.p99_ms": self.jobs.latency(99)}
        return mlflow_names(self.jobs.metrics() | people | self.log.metrics()) | latency

    def write(self, folder: Path) -> None:
        """Evaluation, verdict with its evidence, fairness where it was audited, and the report over all of it."""
        folder.mkdir(parents=True, exist_ok=True)
        people, log = self.ours.people, self.log
        power = Power.of(self.verdict.evidence, self.verdict.rules, days=self.days)
        told = self.jobs.to_dict() | ({"people": people.to_dict()} if people else {}) | {"log": log.to_dict()}
        (folder / assemble.EVALUATION).write_text(json.dumps(told, indent=1))
        if self.fairness is not None:
            (folder / FAIRNESS).write_text(json.dumps(self.fairness.to_dict(), indent=1))
        self.verdict.write(
            folder,
            champion=self.champion,
            against=self.against_id,
            opponent=self.verdict.evidence.opponent,
            refresh=self.refresh.to_dict() if self.refresh else None,
            power=power.to_dict() if power else None,
        )
        report = gather_report(
            manifest=read_manifest((self.folder / MANIFEST_FILE).read_bytes()),
            evaluation=self.jobs,
            champion=self.against.rivals if self.against else None,
            rival=self.ours.rivals if self.against else None,
            verdict=self.verdict,
            titles=_titles(self.folder),
            wishes=_wishes(self.folder),
            people=(people, self.against.people if self.against else None) if people else None,
            fairness=self.fairness,
            log=log,
            power=power,
            champion_id=self.against_id or "",
            opponent=self.verdict.evidence.opponent,
            drift=self.drift,
        )
        write_report(folder / REPORT, report)


def mlflow_names(metrics: dict[str, float]) -> dict[str, float]:
    """MLflow allows no @ in a metric's name."""
    return {f"evaluation.{name.replace('@', '_at_')}": value for name, value in metrics.items()}


def _wishes(folder: Path) -> dict[str, str] | None:
    """A title that each person looks for, without names; None where the release recommends nobody."""
    file = folder / parts.PEOPLE
    if not file.is_file():
        return None
    people = pq.read_table(file, columns=["candidate_id", "desired_titles"])
    rows = zip(*(column.to_pylist() for column in people.columns), strict=True)
    return {name: neutral_title((titles or [""])[0] or "") for name, titles in rows}


def _titles(folder: Path) -> dict[str, str]:
    jobs = pq.read_table(folder / parts.JOBS, columns=["job_id", "title"])
    return {job: title or "" for job, title in zip(*(column.to_pylist() for column in jobs.columns), strict=True)}
