"""The release as an MLflow model: `mlflow.pyfunc.load_model("models:/rolecall@champion")` ranks as HTTP does.

MLflow logs this file as it is (models from code, no pickle) with the release folder as artifact `release`, and runs
it when the model is loaded; hence the call at its end.

    model.predict(pd.DataFrame({"candidate_id": ["c1"]}), params={"limit": 10})
    model.predict(pd.DataFrame({"profile": ['{"skills": ["sql"]}']}))

One row asks for one person: `candidate_id`, or `profile` and `filters` as JSON objects of the HTTP interface, or
both. The answer has one row a job, with `row` naming the asking row. Candidates are read from the stores of the
settings in force where the model is loaded; without a RoleCall home there, ids are unknown and profiles work.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel
from pydantic import ValidationError

from rolecall.platform.errors import InputError
from rolecall.platform.settings import load_settings
from rolecall.serving.job_features import use_online_job_features
from rolecall.serving.loader import LoadedRelease, load_release
from rolecall.serving.models import RecommendationReply, RecommendationRequest
from rolecall.serving.reader import CandidateReader
from rolecall.serving.state import online_features, open_reader, recommend

ARTIFACT = "release"
COLUMNS = ("row", "position", "job_id", "title", "score", "propensity", "reasons", "known", "release_id")
_JSON_COLUMNS = ("profile", "filters")
_PARAMETERS = ("limit", "at")


class ReleaseModel(PythonModel):
    """A release behind MLflow's `predict`."""

    _release: LoadedRelease
    _reader: CandidateReader

    def load_context(self, context: Any) -> None:
        """Open the release's own copy of everything; called once by MLflow."""
        self._scratch = tempfile.TemporaryDirectory(prefix="rolecall-model-")
        scratch, settings = Path(self._scratch.name), load_settings()
        self._release = load_release(Path(context.artifacts[ARTIFACT]), settings, scratch)
        if settings.home.is_dir():
            use_online_job_features(self._release, online_features(settings))
        else:  # leave no new home behind
            settings = settings.model_copy(update={"home": scratch})
        self._reader = open_reader(settings)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]  # MLflow's own returns nothing
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row a recommended job, best first within each asking row. `params`: `limit`, `at` (ISO 8601).

        Raises InputError where a row is not a request.
        """
        chosen = params or {}
        unknown = sorted(set(chosen) - set(_PARAMETERS))
        if unknown:
            raise InputError(f"parameters {unknown}", f"{_PARAMETERS}")
        at = _instant(chosen.get("at"))
        asked = model_input.to_dict(orient="records")
        found = [
            line
            for row, record in enumerate(asked)
            for line in _lines(row, self._recommend(row, _request(row, record, chosen.get("limit")), at))
        ]
        return pd.DataFrame(found, columns=list(COLUMNS))

    def _recommend(self, row: int, request: RecommendationRequest, at: datetime) -> RecommendationReply:
        return recommend(self._release, self._reader, request, request_id=f"row-{row}", at=at)


def _instant(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"at = {text!r}", "an instant in ISO 8601 with a zone") from error
    if at.tzinfo is None:
        raise InputError(f"at = {text!r} has no zone", "an instant in ISO 8601 with a zone", "append Z for UTC")
    return at


def _request(row: int, record: Mapping[Any, Any], limit: int | None) -> RecommendationRequest:
    given = {str(name): value for name, value in record.items() if not _is_missing(value)}
    try:
        fields = {name: json.loads(value) if name in _JSON_COLUMNS else value for name, value in given.items()}
        return RecommendationRequest.model_validate(fields if limit is None else {**fields, "limit": limit})
    except (ValidationError, ValueError, TypeError) as error:
        raise InputError(f"row {row}: {error}", "columns candidate_id, profile, filters (JSON)") from error


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _lines(row: int, reply: RecommendationReply) -> list[dict[str, Any]]:
    return [
        {
            **item.model_dump(include=set(COLUMNS)),
            "row": row,
            "reasons": "; ".join(item.reasons),
            "known": reply.known,
            "release_id": reply.release_id,
        }
        for item in reply.items
    ]


set_model(ReleaseModel())
