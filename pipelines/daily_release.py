"""The last steps of the daily run: release, gate, promote."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path

from rolecall.pipelines import assemble
from rolecall.pipelines.daily_evaluate import REFRESHED_FOLDER, EvaluateSteps
from rolecall.pipelines.drift.statistics import STATISTICS_FILE, STATISTICS_PART
from rolecall.pipelines.drift.steps import DRIFT_FILE, DRIFT_PART
from rolecall.pipelines.evaluation.gate.verdict import EVIDENCE_FILE, VERDICT_FILE
from rolecall.pipelines.evaluation.report.write import REPORT
from rolecall.pipelines.judged_release import FAIRNESS
from rolecall.pipelines.steps import StepContext, StepResult
from rolecall.platform.errors import ConflictError
from rolecall.platform.mlflow_setup import EVALUATION_ARTIFACTS, log_release_model, release_tags
from rolecall.platform.release import MANIFEST_FILE, ReleaseBuilder, read_manifest
from rolecall.serving import parts

_JUDGED = {
    "evaluation": assemble.EVALUATION,
    "verdict": VERDICT_FILE,
    "evidence": EVIDENCE_FILE,
    "fairness": FAIRNESS,
    "report": REPORT,
}
"""What is kept of a release's judgement, beside its parts."""
_COUNTED = {STATISTICS_PART: STATISTICS_FILE, DRIFT_PART: DRIFT_FILE}
"""What its features were on its newest day and the days before, and what changed."""
_MODEL_CODE = "rolecall.serving.pyfunc_model"
_KEPT = "the champion's rankers over this day's catalogue, since the gate refused the new ones"


class ReleaseSteps(EvaluateSteps):
    """All steps of the daily run."""

    def release(self, step: StepContext) -> StepResult:
        """Publish the folder with its evaluation, and enter it in the registry with alias `built`; the refreshed one
        too where it is needed."""
        judged, counted = step.inputs["evaluate"], step.inputs["drift"].folder
        source, folder = step.file("assemble", assemble.RELEASE_FOLDER), step.folder / assemble.RELEASE_FOLDER
        built = self._publish(source, folder, judged.folder, counted, judged.metrics)
        refreshed = ""
        if not judged.values["passed"] and judged.values["refresh_passed"]:
            source, folder = step.file("refresh", assemble.RELEASE_FOLDER), step.folder / REFRESHED_FOLDER
            told = judged.values["refresh_metrics"]
            refreshed = self._publish(source, folder, judged.folder / REFRESHED_FOLDER, counted, told)
        for name in (assemble.EVALUATION, VERDICT_FILE, FAIRNESS, REPORT):
            self.registry.client.log_artifact(self.mlflow_run, str(step.file("evaluate", name)), EVALUATION_ARTIFACTS)
        return StepResult(values={"release": built, "refreshed": refreshed})

    def gate(self, step: StepContext) -> StepResult:
        """Record the verdicts; a release that passed becomes `challenger`, a refused one is kept with its reasons."""
        passed, reasons = step.value("evaluate", "passed"), step.value("evaluate", "reasons")
        self.registry.judge(step.value("release", "release"), passed=passed, reasons=reasons)
        if refreshed := step.value("release", "refreshed"):
            self.registry.judge(refreshed, passed=True, reasons=step.value("evaluate", "refresh_reasons"))
        return StepResult(values={"passed": passed}, metrics={"gate.passed": float(passed)})

    def promote(self, step: StepContext) -> StepResult:
        """Make the release that passed the champion, if the champion is still the one it was judged against and not of
        a later day: a backfill is built and judged, but must not serve the past."""
        passed, expected = step.value("gate", "passed"), step.value("evaluate", "champion")
        release = step.value("release", "release" if passed else "refreshed")
        champion = self.registry.reconcile()
        if not release:
            return StepResult(values={"promoted": False, "why": "the gate refused it"})
        if champion == release:
            return StepResult(values={"promoted": True, "why": "it is the champion"})
        if champion is not None and (later := self.registry.releases.manifest(champion).as_of) > step.as_of:
            why = f"the champion {champion} is of a later day, {later:%Y-%m-%d %H:%M}: promote this one by hand"
            return StepResult(values={"promoted": False, "why": why})
        why = f"daily run as of {step.as_of:%Y-%m-%d %H:%M}" + ("" if passed else f": {_KEPT}")
        try:
            self.registry.promote(release, expected=expected, why=why, automatic=True)
        except ConflictError as conflict:
            return StepResult(values={"promoted": False, "why": str(conflict)})
        return StepResult(values={"promoted": True, "why": why})

    def _publish(self, source: Path, folder: Path, judged: Path, counted: Path, metrics: Mapping[str, float]) -> str:
        """Seal the assembled parts of `source` with what was `judged` of them and `counted` of their features, publish
        and register them. Returns the id, which stays what it was."""
        manifest = read_manifest((source / MANIFEST_FILE).read_bytes())
        builder = ReleaseBuilder(folder)
        for part in manifest.parts:
            builder.add(part.name, part.file, source=source / part.file, content=part.content)
        for name, file in _COUNTED.items():
            builder.add(name, file, source=counted / file, identity=False)
        for name, file in _JUDGED.items():
            if (judged / file).is_file():  # names and groups are not audited again for rankers that were
                builder.add(name, file, source=judged / file, identity=False)
        assemble.seal(
            builder,
            self.settings,
            as_of=manifest.as_of,
            tables=manifest.tables,
            metrics=metrics,
            notes=manifest.notes,
        )
        self.registry.releases.publish(folder)
        self.registry.register(manifest.id, run_id=self.mlflow_run, log_model=lambda: self._log_models(manifest.id))
        return manifest.id

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


def _code_file() -> Path:
    spec = importlib.util.find_spec(_MODEL_CODE)
    if spec is None or spec.origin is None:
        raise ConflictError(f"{_MODEL_CODE} cannot be found", todo="install rolecall again")
    return Path(spec.origin)
