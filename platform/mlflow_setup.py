"""How RoleCall uses MLflow: no telemetry, no pickles, one experiment with its artifacts below the artifact store."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rolecall.platform.file_tree import FileTree
from rolecall.platform.object_store import mlflow_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.logged_model import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

EVALUATION_ARTIFACTS = "evaluation"
"""The folder of a run's artifacts that says how its release was judged."""

RELEASE_TAG = "rolecall.release"
_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "GIT_PYTHON_REFRESH": "quiet",
}


def configure_mlflow(tracking_uri: str, storage: Mapping[str, str] | None = None) -> MlflowClient:
    """Point MLflow's global functions at `tracking_uri` and return a client of it.

    `storage`: the options of the object store that artifacts are in, for which MLflow knows no place but the
    environment. That is set before MLflow is first imported, because its telemetry starts at import.
    """
    os.environ.update(_ENVIRONMENT | mlflow_environment(storage or {}))
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("mlflow.pyfunc").setLevel(logging.ERROR)  # it warns that a DataFrame is no type hint it knows
    logging.getLogger("alembic").setLevel(logging.WARNING)
    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    return mlflow.MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)


def ensure_experiment(client: MlflowClient, name: str, artifacts_uri: str) -> str:
    """The experiment's id; created with its artifacts below `artifacts_uri`, not in the working directory."""
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    return str(client.create_experiment(name, artifact_location=f"{artifacts_uri.rstrip('/')}/mlflow"))


def log_release_model(
    *,
    run_id: str,
    release_folder: Path,
    code_file: Path,
    code_paths: Sequence[Path] = (),
    metadata: Mapping[str, str] | None = None,
) -> str:
    """Log a release as a pyfunc model from code, under an existing run, and return its model URI.

    `code_file` holds the model class and `mlflow.models.set_model(...)`; it finds the release's folder as
    `context.artifacts["release"]`. The logged model owns a copy, so it loads in a process that knows only MLflow's URI.
    """
    import mlflow

    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="release",
            python_model=str(code_file),
            artifacts={"release": str(release_folder)},
            code_paths=[str(path) for path in code_paths] or None,
            pip_requirements=[],
            metadata=dict(metadata or {}),
            tags=release_tags(release_folder.name),
        )
    return str(info.model_uri)


def release_tags(release_id: str) -> dict[str, str]:
    """The tags of a logged model that belongs to a release: by them its bytes are found again."""
    return {RELEASE_TAG: release_id}


def erase_logged_models(
    client: MlflowClient,
    experiment_id: str,
    release_id: str,
    version: ModelVersion | None,
    options: Mapping[str, str],
) -> int:
    """Delete the files of every model logged for a release. The entries stay, and load no more. Returns files gone."""
    gone = 0
    for model in _logged_models(client, experiment_id):
        if model.tags.get(RELEASE_TAG) == release_id or (version is not None and _is_of(model, version)):
            gone += _erase_artifacts(model.artifact_location, options)
    return gone


def erase_evaluation(client: MlflowClient, run_id: str, options: Mapping[str, str]) -> int:
    """Delete what a run logged of its evaluation: its samples tell what people did. Returns files gone."""
    from mlflow.exceptions import MlflowException

    try:
        location = client.get_run(run_id).info.artifact_uri
    except MlflowException:  # the run is gone, and with it what it logged
        return 0
    return _erase_artifacts(f"{location.rstrip('/')}/{EVALUATION_ARTIFACTS}", options) if location else 0


def _logged_models(client: MlflowClient, experiment_id: str) -> Iterator[LoggedModel]:
    token: str | None = None
    while True:
        page = client.search_logged_models([experiment_id], page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def _is_of(model: LoggedModel, version: ModelVersion) -> bool:
    """Whether a model that says no release was logged by the run that made a version, before it was made."""
    before = model.creation_timestamp <= version.creation_timestamp
    return RELEASE_TAG not in model.tags and model.source_run_id == version.run_id and before


def _erase_artifacts(location: str, options: Mapping[str, str]) -> int:
    if location.startswith(("/", "file://", "s3://")):
        return FileTree(location, options).delete_folder("")
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    get_artifact_repository(location).delete_artifacts()
    return 1
