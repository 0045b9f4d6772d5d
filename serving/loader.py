"""From a release's folder to objects that answer: everything is verified first, nothing is unpickled.

    with load_release(folder, settings, scratch) as release:
        release.funnel.recommend(...)

The folder is never written to: the index is opened as a private copy below `scratch`.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from rolecall.features.catalogue import Catalogue
from rolecall.features.context import CandidateContext, JobQuestion
from rolecall.features.embedder import Embedder
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import Lexicon
from rolecall.features.pairs import PairFeatures
from rolecall.platform.errors import IntegrityError, SchemaError
from rolecall.platform.release import Manifest, verify
from rolecall.platform.settings import EmbedderSettings, Settings
from rolecall.platform.vectors.backends import open_index
from rolecall.platform.vectors.protocol import VectorIndex
from rolecall.serving import parts
from rolecall.serving.answers.passages import PassageSource
from rolecall.serving.funnel import Funnel, FunnelRequest, SnapshotJobFeatures
from rolecall.serving.parts import EmbedderPart, FeaturesPart, PolicyPart
from rolecall.serving.people_funnel import PeopleFunnel, PeopleRequest
from rolecall.serving.people_loader import has_people, load_people
from rolecall.serving.policy import Policy
from rolecall.serving.profiles import Encoder, ProfileVectors
from rolecall.serving.ranker import Calibrator, Ranker
from rolecall.serving.recall import Recall
from rolecall.serving.search import Search

WARM_UP = CandidateContext(desired_titles=("engineer",), resume_text="warm up", skills=("planning",))
WARM_UP_JOB = JobQuestion(title="engineer", skills=("planning",))


class NamedEncoder(Encoder, Protocol):
    """An encoder that says by a hash which vectors it makes, as Embedder does."""

    @property
    def hash(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class LoadedRelease:
    """One release, open and warm. `people`: None where it recommends nobody to employers.

    `close` ends the indexes and removes their private copies; closing twice is harmless.
    """

    manifest: Manifest
    funnel: Funnel
    search: Search
    embedder: NamedEncoder
    index: VectorIndex
    people: PeopleFunnel | None = None
    people_index: VectorIndex | None = None

    @cached_property
    def passages(self) -> PassageSource:
        """What answers may rest on."""
        return PassageSource(self.search, self.funnel.pairs.vectors)

    def close(self) -> None:
        self.index.close()
        if self.people_index is not None:
            self.people_index.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def load_release(
    folder: Path,
    settings: Settings,
    scratch: Path,
    *,
    embedder: NamedEncoder | None = None,
    seal: str | None = None,
    threads: int = 1,
) -> LoadedRelease:
    """Verify a release's every byte, open its parts and answer one question of each kind with them.

    `embedder`: an open one, used instead of a second copy where it is the release's. `seal`: the manifest's sha256
    as the registry recorded it. `threads`: of the embedder and of each ranker.
    Raises NotFoundError without a manifest; IntegrityError where a file changed, parts do not fit each other, or
    this machine's embedder is not the one that made the vectors.
    """
    manifest = verify(folder, seal=seal)
    used = _embedder(EmbedderPart.read(folder), settings.embedder, embedder, threads)
    pairs = _pairs(folder)
    with contextlib.ExitStack() as opened:
        index = _open(opened, settings, folder / parts.INDEX, scratch)
        release = _assemble(folder, manifest, pairs, index, used, threads)
        if has_people(folder):
            people = _open(opened, settings, folder / parts.PEOPLE_INDEX, scratch)
            funnel = load_people(folder, pairs, people, used, release_id=manifest.id, threads=threads)
            release = replace(release, people=funnel, people_index=people)
        warm_up(release, manifest.as_of)
        opened.pop_all()
    return release


def _open(opened: contextlib.ExitStack, settings: Settings, file: Path, scratch: Path) -> VectorIndex:
    """An index that is closed again unless everything else opens too."""
    index = open_index(settings.vectors, file, scratch=scratch)
    opened.callback(index.close)
    return index


def warm_up(release: LoadedRelease, at: datetime) -> None:
    """Ask what a visitor will ask: loads the model's weights, touches every array."""
    release.funnel.recommend(FunnelRequest(context=WARM_UP, at=at, request_id="warm-up"))
    release.passages.find("warm up", at=at)  # searches too
    if release.people is not None:
        release.people.recommend(PeopleRequest(context=WARM_UP_JOB, at=at, request_id="warm-up"))


def _assemble(
    folder: Path, manifest: Manifest, pairs: PairFeatures, index: VectorIndex, embedder: NamedEncoder, threads: int
) -> LoadedRelease:
    if index.count() != len(pairs.catalogue):
        raise IntegrityError(f"an index of {index.count()} jobs for a catalogue of {len(pairs.catalogue)}", "the same")
    features, widths = FeaturesPart.read(folder), PolicyPart.read(folder)
    calibrator = folder / parts.CALIBRATOR
    funnel = Funnel(
        release_id=manifest.id,
        pairs=pairs,
        profiles=ProfileVectors(embedder),
        recall=Recall(index, pairs.catalogue, pairs.vectors),
        coarse=Ranker((folder / parts.COARSE).read_text(), features.coarse_columns, threads=threads),
        fine=Ranker(
            (folder / parts.FINE).read_text(),
            features.fine_columns,
            calibrator=Calibrator.from_json(calibrator.read_text()) if calibrator.exists() else None,
            threads=threads,
        ),
        policy=Policy(widths.policy, pairs.catalogue, pairs.vectors),
        job_features=_job_features(folder, pairs.catalogue, features),
        recall_limit=widths.recall_limit,
        coarse_limit=widths.coarse_limit,
    )
    return LoadedRelease(
        manifest=manifest,
        funnel=funnel,
        search=Search(index, pairs.catalogue, embedder),
        embedder=embedder,
        index=index,
    )


def _pairs(folder: Path) -> PairFeatures:
    try:
        catalogue = Catalogue.from_table(pq.read_table(folder / parts.JOBS))
    except (pa.ArrowInvalid, SchemaError) as error:
        raise IntegrityError(f"{parts.JOBS}: {error}", "the JOBS columns", "build the release again") from error
    return PairFeatures(catalogue, Lexicon.load(folder), JobVectors.load(folder / parts.VECTORS))


def _embedder(part: EmbedderPart, settings: EmbedderSettings, given: NamedEncoder | None, threads: int) -> NamedEncoder:
    if given is not None and given.hash == part.hash:
        return given
    wanted = settings.model_copy(update={"model": part.model, "max_tokens": part.max_tokens})
    embedder = Embedder(wanted, threads=threads)
    if embedder.hash != part.hash:
        raise IntegrityError(
            f"embedder {part.model} here has hash {embedder.hash[:16]}",
            f"{part.hash[:16]}, which made the release's vectors",
            "install the model version of the release, or build it again",
        )
    return embedder


def _job_features(folder: Path, catalogue: Catalogue, features: FeaturesPart) -> SnapshotJobFeatures:
    """The columns of `job_features.parquet` by catalogue row; a job the file lacks is unknown."""
    path = folder / parts.JOB_FEATURES
    if not features.job_feature_columns or not path.exists():
        return SnapshotJobFeatures({})
    table = pq.read_table(path, columns=["job_id", *features.job_feature_columns])
    rows = [catalogue.row_of(job_id) for job_id in table["job_id"].to_pylist()]
    known = np.array([row is not None for row in rows], np.bool_)
    places = np.array([row for row in rows if row is not None], np.int32)
    columns = {}
    for name in features.job_feature_columns:
        column = np.full(len(catalogue), np.nan, np.float32)
        column[places] = table[name].cast(pa.float32()).fill_null(float("nan")).to_numpy()[known]
        columns[name] = column
    return SnapshotJobFeatures(columns)
