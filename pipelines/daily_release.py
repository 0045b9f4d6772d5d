"""The steps of the daily run that judge what was built: evaluate, release, gate, promote."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from rolecall.features.schema import EVENTS
from rolecall.pipelines import assemble
from rolecall.pipelines.daily_steps import VIEWS
from rolecall.pipelines.evaluation.gate import judge_release
from rolecall.pipelines.evaluation.judge import FUNNEL, Evaluation, Judge
from rolecall.pipelines.evaluation.people_judge import PeopleJudge, people_metrics
from rolecall.pipelines.evaluation.people_targets import collect_people_targets
from rolecall.pipelines.evaluation.targets import collect_targets, fair_targets
from rolecall.pipelines.materialize import feature_store, read_as_of
from rolecall.pipelines.people import newest_profiles, people_as_of
from rolecall.pipelines.people_steps import PeopleSteps, known_jobs
from rolecall.pipelines.people_training import people_cutoff
from rolecall.pipelines.steps import StepContext, StepResult
from rolecall.platform.errors import ConflictError
from rolecall.platform.mlflow_setup import log_release_model, release_tags
from rolecall.platform.release import ReleaseBuilder, read_manifest
from rolecall.serving import parts
from rolecall.serving.loader import load_release

VERDICT = "verdict.json"
MANIFEST = "manifest.json"
_MODEL_CODE = "rolecall.serving.pyfunc_model"
_NOBODY = "the champion recommends people for jobs and this release nobody: did an ingest lose the consent column?"
_SHOWN = ("recall@10", "hr@10", "ndcg@10", "mrr")


@dataclass(frozen=True, kw_only=True)
class _Judges:
    """One for each direction, and the one that champion and challenger are compared by."""

    jobs: Judge
    rivals: Judge
    people: PeopleJudge


class ReleaseSteps(PeopleSteps):
    """All steps of the daily run."""

    def evaluate(self, step: StepContext) -> StepResult:
        """The release and the champion on the same targets, and what the gate says of it."""
        judges = self._judges(step)
        folder = step.file("assemble", assemble.RELEASE_FOLDER)
        challenger, people = self._evaluate(step, folder, judges.jobs, judges.people)
        champion = self.registry.reconcile()
        against, people_against = self._champion(step, judges, champion)
        again = against is not None and judges.rivals is not judges.jobs
        rival = self._evaluate(step, folder, judges.rivals, None, baselines=())[0] if again else challenger
        manifest = read_manifest((folder / MANIFEST).read_bytes())
        verdict = judge_release(
            challenger,
            against,
            settings=self.settings.gate,
            size_bytes=sum(part.bytes for part in manifest.parts),
            people=(people, people_against) if people and people_against else None,
            schema_errors=[_NOBODY] if people_against and not people else (),
            rival=rival,
        )
        report = challenger.to_dict() | ({"people": people.to_dict()} if people else {})
        (step.folder / assemble.EVALUATION).write_text(json.dumps(report, indent=1))
        checks = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in verdict.checks]
        (step.folder / VERDICT).write_text(json.dumps({"champion": champion, "checks": checks}, indent=1))
        return StepResult(
            values={
                "champion": champion,
                "passed": verdict.passed,
                "reasons": list(verdict.reasons),
                "rows": [*evaluation_rows(challenger), *(people_rows(people) if people and people.targets else ())],
            },
            metrics=mlflow_names(challenger.metrics())
            | (mlflow_names(people_metrics(people)) if people else {})
            | {"evaluation.p50_ms": challenger.latency(50), "evaluation.p99_ms": challenger.latency(99)},
        )

    def release(self, step: StepContext) -> StepResult:
        """Publish the folder with its evaluation, and enter it in the registry with alias `built`."""
        folder = step.folder / assemble.RELEASE_FOLDER
        manifest = self._with_evaluation(step, folder)
        self.registry.releases.publish(folder)
        version = self.registry.register(
            manifest.id, run_id=self.mlflow_run, log_model=lambda: self._log_models(manifest.id)
        )
        for name in (assemble.EVALUATION, VERDICT):
            self.registry.client.log_artifact(self.mlflow_run, str(step.file("evaluate", name)), "evaluation")
        return StepResult(values={"release": manifest.id, "version": version})

    def gate(self, step: StepContext) -> StepResult:
        """Record the verdict; a release that passed becomes `challenger`, a refused one is kept with its reasons."""
        passed, reasons = step.value("evaluate", "passed"), step.value("evaluate", "reasons")
        self.registry.judge(step.value("release", "release"), passed=passed, reasons=reasons)
        return StepResult(values={"passed": passed}, metrics={"gate.passed": float(passed)})

    def promote(self, step: StepContext) -> StepResult:
        """Make a release that passed the champion, if the champion is still the one it was judged against and not
        of a later day: a backfill is built and judged, but must not serve the past."""
        release, expected = step.value("release", "release"), step.value("evaluate", "champion")
        champion = self.registry.reconcile()
        if champion == release:
            return StepResult(values={"promoted": True, "why": "it is the champion"})
        if not step.value("gate", "passed"):
            return StepResult(values={"promoted": False, "why": "the gate refused it"})
        if champion is not None and (later := self.registry.releases.manifest(champion).as_of) > step.as_of:
            why = f"the champion {champion} is of a later day, {later:%Y-%m-%d %H:%M}: promote this one by hand"
            return StepResult(values={"promoted": False, "why": why})
        why = f"daily run as of {step.as_of:%Y-%m-%d %H:%M}"
        try:
            self.registry.promote(release, expected=expected, why=why, automatic=True)
        except ConflictError as conflict:
            return StepResult(values={"promoted": False, "why": str(conflict)})
        return StepResult(values={"promoted": True, "why": why})

    def _judges(self, step: StepContext) -> _Judges:
        """Champion and challenger are compared on jobs that candidates found without being shown them, else the
        champion would be asked about nothing but its own choices; on all targets where too few were found."""
        versions, ranking = step.value("ingest", "versions"), self.settings.ranking
        events = read_as_of(self.tables, EVENTS, versions, step.as_of)
        start = step.as_of - timedelta(days=ranking.evaluation_days)
        collect = partial(collect_targets, events, start=start, end=step.as_of, seed=ranking.seed)
        targets, unprompted = collect(), collect(unprompted=True)
        store = feature_store(self.settings, step.file("features", VIEWS))
        candidates = newest_profiles(self.tables, versions, step.as_of)
        visible = people_as_of(candidates, events.clear(), known_jobs(self.tables, versions, step.as_of))
        people = collect_people_targets(
            events,
            visible["candidate_id"].to_pylist(),
            start=people_cutoff(step.as_of, ranking),
            end=step.as_of,
            seed=ranking.seed,
        )
        rounds = self.settings.gate.bootstrap_rounds
        jobs = Judge.prepare(targets, store, rounds=rounds)
        fair = fair_targets(targets, unprompted, least=self.settings.gate.min_targets)
        return _Judges(
            jobs=jobs,
            rivals=jobs if fair is targets else Judge.prepare(fair, store, rounds=rounds),
            people=PeopleJudge(targets=people, rounds=rounds),
        )

    def _evaluate(
        self, step: StepContext, folder: Path, jobs: Judge, people: PeopleJudge | None, **options: Any
    ) -> tuple[Evaluation, Evaluation | None]:
        """Jobs for people, and where the release recommends them (and `people` asks) people for jobs."""
        with contextlib.closing(load_release(folder, self.settings, self.settings.scratch_dir)) as release:
            progress = partial(_told, step)
            found = jobs.evaluate(release.funnel, progress=progress, **options)
            if people is None or release.people is None:
                return found, None
            return found, people.evaluate(release.people, progress=progress, **options)

    def _champion(
        self, step: StepContext, judges: _Judges, champion: str | None
    ) -> tuple[Evaluation | None, Evaluation | None]:
        if champion is None or champion == step.value("assemble", "release"):
            return None, None
        folder = self.registry.releases.fetch(champion)
        return self._evaluate(step, folder, judges.rivals, judges.people, baselines=())

    def _with_evaluation(self, step: StepContext, folder: Path) -> Any:
        """The assembled parts and the evaluation beside them; the id stays what it was."""
        source = step.file("assemble", assemble.RELEASE_FOLDER)
        manifest = read_manifest((source / MANIFEST).read_bytes())
        builder = ReleaseBuilder(folder)
        for part in manifest.parts:
            builder.add(part.name, part.file, source=source / part.file, content=part.content)
        builder.add(
            "evaluation", assemble.EVALUATION, source=step.file("evaluate", assemble.EVALUATION), identity=False
        )
        return assemble.seal(
            builder,
            self.settings,
            as_of=step.as_of,
            tables=manifest.tables,
            metrics=step.inputs["evaluate"].metrics,
        )

    def _log_models(self, release_id: str) -> str:
        """The release as a pyfunc model, and each ranker in its native flavour. Returns the pyfunc model's URI."""
        import lightgbm
        import mlflow
        import mlflow.lightgbm as native

        folder = self.registry.releases.fetch(release_id)
        with mlflow.start_run(run_id=self.mlflow_run):
            for name, file in (("coarse", parts.COARSE), ("fine", parts.FINE)):
                native.log_model(
                    lightgbm.Booster(model_file=folder / file),
                    name=name,
                    pip_requirements=[],
                    tags=release_tags(release_id),
                )
        return log_release_model(run_id=self.mlflow_run, release_folder=folder, code_file=_code_file())


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


def _told(step: StepContext, done: int, total: int) -> None:
    step.report(f"{done:,}/{total:,} targets")


def mlflow_names(metrics: dict[str, float]) -> dict[str, float]:
    """MLflow allows no @ in a metric's name."""
    return {f"evaluation.{name.replace('@', '_at_')}": value for name, value in metrics.items()}


def _code_file() -> Path:
    spec = importlib.util.find_spec(_MODEL_CODE)
    if spec is None or spec.origin is None:
        raise ConflictError(f"{_MODEL_CODE} cannot be found", todo="install rolecall again")
    return Path(spec.origin)
