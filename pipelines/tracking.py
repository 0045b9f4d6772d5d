"""A pipeline run as MLflow shows it: parameters, table versions, seconds a step, metrics, artifacts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rolecall.pipelines.examples import RECORDED
from rolecall.pipelines.steps import Run, Step, StepRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient

_TAG = "rolecall.run"
_NOT_IN_NAMES = re.compile(r"[^\w\-. :/]")
"""What MLflow takes in no parameter's name; settings name slices as `place=DE`."""


class MlflowRecord:
    """An observer that keeps one MLflow run a pipeline run, found again by its tag after a crash."""

    def __init__(self, client: MlflowClient, experiment_id: str, run: Run, parameters: Mapping[str, Any]) -> None:
        self.client = client
        self.run_id = _find_or_create(client, experiment_id, run)
        self._log_parameters(parameters)

    def started(self, step: Step, number: int, total: int) -> None: ...

    def reported(self, step: Step, message: str) -> None: ...

    def finished(self, record: StepRecord) -> None:
        """Log what the step measured; a skipped step has already been logged."""
        if record.skipped:
            return
        for name, value in record.metrics.items():
            self.client.log_metric(self.run_id, name, float(value))
        self.client.log_metric(self.run_id, f"seconds.{record.name}", record.seconds)
        if RECORDED in record.values:
            self._log_dataset(record.name, record.values[RECORDED])

    def _log_dataset(self, step: str, recorded: Mapping[str, Any]) -> None:
        """The training set as an input of the run: its digest, and the table versions it was read from."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        tables = json.dumps(recorded["tables"], sort_keys=True)
        size = json.dumps({name: recorded[name] for name in ("rows", "requests")})
        dataset = Dataset(
            name=step, digest=recorded["sha256"][:32], source_type="delta_tables", source=tables, profile=size
        )
        self.client.log_inputs(self.run_id, [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])])
        self.client.set_tag(self.run_id, f"rolecall.{step}.tables", tables)

    def log_file(self, file: Path, folder: str = "") -> None:
        self.client.log_artifact(self.run_id, str(file), folder or None)

    def close(self, status: str) -> None:
        """`status`: FINISHED, FAILED or KILLED."""
        self.client.set_terminated(self.run_id, status)

    def _log_parameters(self, parameters: Mapping[str, Any]) -> None:
        known = self.client.get_run(self.run_id).data.params
        for name, value in ((_NOT_IN_NAMES.sub(":", key), value) for key, value in _leaves("", parameters).items()):
            if name not in known:
                self.client.log_param(self.run_id, name, str(value)[:500])


def _find_or_create(client: MlflowClient, experiment_id: str, run: Run) -> str:
    found = client.search_runs([experiment_id], f"tags.`{_TAG}` = '{run.id}'", max_results=1)
    if found:
        run_id = str(found[0].info.run_id)
        client.update_run(run_id, status="RUNNING")
        return run_id
    made = client.create_run(experiment_id, run_name=run.id, tags={_TAG: run.id})
    return str(made.info.run_id)


def _leaves(prefix: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for name, inner in value.items():
        leaves |= _leaves(f"{prefix}.{name}" if prefix else str(name), inner)
    return leaves
