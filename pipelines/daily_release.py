"""The steps of the daily run that judge what was built: evaluate, release, gate, promote."""

from __future__ import annotations

import contextlib
import importlib.util
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

from rolecall.features.schema import EVENTS
from rolecall.pipelines import assemble
from rolecall.pipelines.daily_steps import VIEWS, DailySteps
from rolecall.pipelines.evaluate import FUNNEL, Evaluation, Judge
from rolecall.pipelines.gate import judge_release
from rolecall.pipelines.materialize import feature_store, read_as_of
from rolecall.pipelines.steps import StepContext, StepResult
from rolecall.pipelines.targets import collect_targets
from rolecall.platform.errors import ConflictError
from rolecall.platform.mlflow_setup import log_release_model, release_tags
from rolecall.platform.release import ReleaseBuilder, read_manifest
from rolecall.serving import parts
from rolecall.serving.loader import load_release

VERDICT = "verdict.json"
MANIFEST = "manifest.json"
_MODEL_CODE = "rolecall.serving.pyfunc_model"
_SHOWN = ("recall@10", "hr@10", "ndcg@10", "mrr")


class ReleaseSteps(DailySteps):
    """All steps of the daily run."""

    def evaluate(self, step: StepContext) -> StepResult:
        """The release and the champion on the same targets, and what the gate says of it."""
        judge = self._judge(step)
        folder = step.file("assemble", assemble.RELEASE_FOLDER)
        challenger = self._evaluate(step, judge, folder)
        champion = self.registry.reconcile()
        fair = self._fair(step, judge)
        against = self._champion(step, fair, champion)
        rival = challenger if against is None or fair is judge else self._evaluate(step, fair, folder, baselines=())
        manifest = read_manifest((folder / MANIFEST).read_bytes())
        verdict = judge_release(
            challenger,
            against,
            settings=self.settings.gate,
            size_bytes=sum(part.bytes for part in manifest.parts),
            rival=rival,
        )
        (step.folder / assemble.EVALUATION).write_text(json.dumps(challenger.to_dict(), indent=1))
        checks = [{"name": check.name, "ok": check.ok, "detail": check.detail} for check in verdict.checks]
        (step.folder / VERDICT).write_text(json.dumps({"champion": champion, "checks": checks}, indent=1))
        return StepResult(
            values={
                "champion": champion,
                "passed": verdict.passed,
                "reasons": list(verdict.reasons),
                "rows": evaluation_rows(challenger),
            },
            metrics=mlflow_names(challenger.metrics())
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

    def _fair(self, step: StepContext, judge: Judge) -> Judge:
        """What champion and challenger are compared on: jobs that candidates found without being shown them, else
        the champion would be asked about nothing but its own choices. All targets where too few were found."""
        own = self._judge(step, unprompted=True)
        return own if len(own.targets) >= self.settings.gate.min_targets else judge

    def _judge(self, step: StepContext, *, unprompted: bool = False) -> Judge:
        events = read_as_of(self.tables, EVENTS, step.value("ingest", "versions"), step.as_of)
        start = step.as_of - timedelta(days=self.settings.ranking.evaluation_days)
        seed = self.settings.ranking.seed
        targets = collect_targets(events, start=start, end=step.as_of, seed=seed, unprompted=unprompted)
        store = feature_store(self.settings, step.file("features", VIEWS))
        return Judge.prepare(targets, store, rounds=self.settings.gate.bootstrap_rounds)

    def _evaluate(self, step: StepContext, judge: Judge, folder: Path, **options: Any) -> Evaluation:
        with contextlib.closing(load_release(folder, self.settings, self.settings.scratch_dir)) as release:
            return judge.evaluate(
                release.funnel, progress=lambda done, total: step.report(f"{done:,}/{total:,} targets"), **options
            )

    def _champion(self, step: StepContext, judge: Judge, champion: str | None) -> Evaluation | None:
        if champion is None or champion == step.value("assemble", "release"):
            return None
        return self._evaluate(step, judge, self.registry.releases.fetch(champion), baselines=())

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


def mlflow_names(metrics: dict[str, float]) -> dict[str, float]:
    """MLflow allows no @ in a metric's name."""
    return {f"evaluation.{name.replace('@', '_at_')}": value for name, value in metrics.items()}


def _code_file() -> Path:
    spec = importlib.util.find_spec(_MODEL_CODE)
    if spec is None or spec.origin is None:
        raise ConflictError(f"{_MODEL_CODE} cannot be found", todo="install rolecall again")
    return Path(spec.origin)
