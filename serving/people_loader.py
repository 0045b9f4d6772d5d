"""The people of a release as a funnel that answers. Called by the loader, which has verified every byte."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from rolecall.features.job_vectors import JobVectors
from rolecall.features.pairs import PairFeatures
from rolecall.features.people import People
from rolecall.features.people_columns import PEOPLE_COARSE_COLUMNS, PEOPLE_COLUMNS, check_people_columns
from rolecall.features.people_pairs import PeoplePairs
from rolecall.features.people_words import PeopleWords
from rolecall.platform.errors import IntegrityError, SchemaError
from rolecall.platform.vectors.protocol import VectorIndex
from rolecall.serving import parts
from rolecall.serving.parts import PeoplePart, PolicyPart
from rolecall.serving.people_funnel import PeopleFunnel
from rolecall.serving.people_policy import PeoplePolicy
from rolecall.serving.people_recall import PeopleRecall
from rolecall.serving.profiles import Encoder, TextVectors
from rolecall.serving.ranker import Calibrator, ColumnSum, Ranker
from rolecall.serving.stages import RankStage

CONTENT_ORDER = ("dense_profile", "full_profile", "title_desired", "title_career", "skill_share")
"""What orders people before any outcome is known."""


def untrained_part() -> PeoplePart:
    """The part of a release whose people are ordered by content alone."""
    return PeoplePart(trained=False, coarse_columns=CONTENT_ORDER[:3], fine_columns=CONTENT_ORDER)


def trained_part() -> PeoplePart:
    """The part of a release whose people rankers learned from outcomes."""
    return PeoplePart(trained=True, coarse_columns=PEOPLE_COARSE_COLUMNS, fine_columns=tuple(PEOPLE_COLUMNS))


def has_people(folder: Path) -> bool:
    """Whether a release recommends people at all."""
    return (folder / PeoplePart.name()).exists()


def load_people(
    folder: Path, jobs: PairFeatures, index: VectorIndex, encoder: Encoder, *, release_id: str, threads: int = 1
) -> PeopleFunnel:
    """The funnel over a release's people. Raises IntegrityError where its parts do not fit each other."""
    part, widths = PeoplePart.read(folder), PolicyPart.read(folder)
    try:
        people = People.from_table(pq.read_table(folder / parts.PEOPLE), jobs.catalogue)
    except (pa.ArrowInvalid, SchemaError) as error:
        raise IntegrityError(f"{parts.PEOPLE}: {error}", "the people's columns", "build the release again") from error
    if index.count() != len(people):
        raise IntegrityError(f"an index of {index.count()} people for {len(people)}", "the same")
    vectors = JobVectors.load(folder / parts.PEOPLE_VECTORS)
    words = PeopleWords.load(folder / parts.PEOPLE_WORDS, jobs.lexicon)
    coarse, fine = _rankers(folder, part, threads)
    return PeopleFunnel(
        release_id=release_id,
        pairs=PeoplePairs(people, words, vectors, jobs),
        texts=TextVectors(encoder),
        recall=PeopleRecall(index),
        coarse=coarse,
        fine=fine,
        policy=PeoplePolicy(widths.policy, people, vectors),
        recall_limit=widths.recall_limit,
        coarse_limit=widths.coarse_limit,
        trained=part.trained,
    )


def _rankers(folder: Path, part: PeoplePart, threads: int) -> tuple[RankStage, RankStage]:
    check_people_columns((*part.coarse_columns, *part.fine_columns))
    if not part.trained:
        return ColumnSum(part.coarse_columns), ColumnSum(part.fine_columns)
    calibrator = folder / parts.PEOPLE_CALIBRATOR
    coarse, fine = (
        Ranker(
            (folder / file).read_text(),
            columns,
            calibrator=Calibrator.from_json(calibrator.read_text())
            if file == parts.PEOPLE_FINE and calibrator.exists()
            else None,
            threads=threads,
            check=check_people_columns,
        )
        for file, columns in ((parts.PEOPLE_COARSE, part.coarse_columns), (parts.PEOPLE_FINE, part.fine_columns))
    )
    return coarse, fine
