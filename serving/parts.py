"""The files of a release that the funnel reads: their names and the shape of the small ones.

A file is an edge: unknown keys and values out of range are refused with IntegrityError.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from rolecall.platform.errors import IntegrityError
from rolecall.platform.settings import PolicySettings

JOBS = "jobs.parquet"
VECTORS = "vectors.npz"
INDEX = "index.tar"
COARSE = "coarse.txt"
FINE = "fine.txt"
CALIBRATOR = "calibrator.json"
JOB_FEATURES = "job_features.parquet"
PEOPLE = "people.parquet"
PEOPLE_WORDS = "people_words.npz"
PEOPLE_VECTORS = "people_vectors.npz"
PEOPLE_INDEX = "people_index.tar"
PEOPLE_COARSE = "people_coarse.txt"
PEOPLE_FINE = "people_fine.txt"
PEOPLE_CALIBRATOR = "people_calibrator.json"


class _PartFile(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @classmethod
    def name(cls) -> str:
        """Name of the file in the release."""
        raise TypeError(f"{cls.__name__} is no file of its own")

    def write(self, folder: Path) -> Path:
        """Write the file; equal values give equal bytes."""
        path = folder / self.name()
        path.write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")
        return path

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Raises IntegrityError where the file is missing or not what this code version writes."""
        try:
            return cls.model_validate_json((folder / cls.name()).read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise IntegrityError(f"a release without {cls.name()}", cls.name(), "build the release again") from error
        except ValidationError as error:
            raise IntegrityError(
                f"{cls.name()}: {error.errors()[0]['msg']} at {error.errors()[0]['loc']}",
                str(list(cls.model_fields)),
                "load the release with the code version of its manifest",
            ) from error


class EmbedderPart(_PartFile):
    """Which embedder made the vectors. `hash`: Embedder.hash; another embedder's questions fit no index."""

    model: str
    hash: str
    max_tokens: int = Field(ge=1)

    @classmethod
    def name(cls) -> str:
        return "embedder.json"


class FeaturesPart(_PartFile):
    """What the rankers read, in training order. `job_feature_columns`: without prefix, as the views name them.
    `ranker`: `ranker_version` of the fine one."""

    service: str
    coarse_columns: tuple[str, ...]
    fine_columns: tuple[str, ...]
    job_feature_columns: tuple[str, ...] = ()
    ranker: str = ""

    @classmethod
    def name(cls) -> str:
        return "features.json"


class PolicyPart(_PartFile):
    """The re-rank policy and the widths of the funnel."""

    policy: PolicySettings
    recall_limit: int = Field(ge=1)
    coarse_limit: int = Field(ge=1)

    @classmethod
    def name(cls) -> str:
        return "policy.json"


class PeoplePart(_PartFile):
    """The other direction: people for jobs. A release without this file recommends nobody.

    `trained`: the people rankers learned from outcomes; else people come in the order of their content.
    """

    trained: bool
    coarse_columns: tuple[str, ...]
    fine_columns: tuple[str, ...]

    @classmethod
    def name(cls) -> str:
        return "people.json"
