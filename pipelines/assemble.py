"""Puts the parts of a release into one folder, and seals it.

The order in which parts are added does not matter; what stands for a part in the release id is the sha256 of its
file, but for the index: its files differ from build to build, so the digest of its ordered vectors stands for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rolecall.features.embedder import Embedder
from rolecall.platform.release import Manifest, ReleaseBuilder, code_version
from rolecall.platform.settings import Settings
from rolecall.serving import parts
from rolecall.serving.parts import EmbedderPart, FeaturesPart, PeoplePart, PolicyPart

RELEASE_FOLDER = "release"
EVALUATION = "evaluation.json"
TRAINED_ON = "trained_on"
"""Note of a release: the table versions, window and digest of each training set its rankers learned from, as JSON."""

_SECRETS = {"api_key", "url", "redis_url", "registry_url"}


def published_settings(settings: Settings) -> dict[str, Any]:
    """The settings that determine a release: no address, no secret, nothing of serving."""
    return {
        "vectors": settings.vectors.model_dump(mode="json", exclude=_SECRETS),
        "features": settings.features.model_dump(mode="json", exclude=_SECRETS | {"online_store", "memory"}),
        "embedder": settings.embedder.model_dump(mode="json", exclude={"actors", "batch_size"}),
        "ranking": settings.ranking.model_dump(mode="json"),
        "policy": settings.policy.model_dump(mode="json"),
    }


@dataclass(frozen=True, kw_only=True)
class PeopleSources:
    """The same of the other direction."""

    people: Path
    rankers: Path
    index_digest: str


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where finished parts lie: folders of earlier steps, and what `features.json` says.

    `people`: None where the release recommends nobody.
    """

    catalogue: Path
    job_features: Path
    index: Path
    coarse: Path
    fine: Path
    index_digest: str
    features: FeaturesPart
    people: PeopleSources | None = None


def assemble(
    folder: Path,
    sources: Sources,
    settings: Settings,
    *,
    as_of: datetime,
    tables: Mapping[str, int],
    notes: Mapping[str, str] | None = None,
) -> Manifest:
    """Write, add and seal every part below `folder`. The same parts give the same id, whatever the notes say."""
    builder = ReleaseBuilder(folder)
    embedder = Embedder(settings.embedder)
    small = (
        EmbedderPart(model=settings.embedder.model, hash=embedder.hash, max_tokens=settings.embedder.max_tokens),
        sources.features,
        PolicyPart(
            policy=settings.policy,
            recall_limit=settings.ranking.recall_limit,
            coarse_limit=settings.ranking.coarse_limit,
        ),
    )
    for part in small:
        part.write(folder)
        builder.add(part.name().removesuffix(".json"), part.name())
    for name, file, source in (
        ("jobs", parts.JOBS, sources.catalogue),
        ("job_features", parts.JOB_FEATURES, sources.job_features),
        ("vectors", parts.VECTORS, sources.index),
        ("lexicon_terms", "lexicon.json", sources.catalogue),
        ("lexicon", "lexicon.npz", sources.catalogue),
        ("coarse", parts.COARSE, sources.coarse),
        ("fine", parts.FINE, sources.fine),
        ("calibrator", parts.CALIBRATOR, sources.fine),
    ):
        if (source / file).exists():
            builder.add(name, file, source=source / file)
    builder.add("index", parts.INDEX, source=sources.index / parts.INDEX, content=sources.index_digest)
    if sources.people is not None:
        _add_people(builder, sources.people)
    return seal(builder, settings, as_of=as_of, tables=tables, notes=notes)


def _add_people(builder: ReleaseBuilder, sources: PeopleSources) -> None:
    for name, file, source in (
        ("people", parts.PEOPLE, sources.people),
        ("people_words", parts.PEOPLE_WORDS, sources.people),
        ("people_vectors", parts.PEOPLE_VECTORS, sources.people),
        ("people_rankers", PeoplePart.name(), sources.rankers),
        ("people_coarse", parts.PEOPLE_COARSE, sources.rankers),
        ("people_fine", parts.PEOPLE_FINE, sources.rankers),
        ("people_calibrator", parts.PEOPLE_CALIBRATOR, sources.rankers),
    ):
        if (source / file).exists():
            builder.add(name, file, source=source / file)
    index = sources.people / parts.PEOPLE_INDEX
    builder.add("people_index", parts.PEOPLE_INDEX, source=index, content=sources.index_digest)


def seal(
    builder: ReleaseBuilder,
    settings: Settings,
    *,
    as_of: datetime,
    tables: Mapping[str, int],
    metrics: Mapping[str, float] | None = None,
    notes: Mapping[str, str] | None = None,
) -> Manifest:
    """Seal with this code's version and the settings that determine a release."""
    return builder.seal(
        as_of=as_of,
        code_version=code_version(),
        tables=tables,
        settings=published_settings(settings),
        metrics=metrics,
        notes=notes,
    )
