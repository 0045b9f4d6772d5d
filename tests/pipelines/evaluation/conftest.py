"""The other direction of the small marketplace: people for jobs, in the order of their content."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import polars as pl
import pytest

from rolecall.features.catalogue import Floats
from rolecall.features.people_pairs import PeoplePairs
from rolecall.pipelines.people import build_people, open_people, people_as_of
from rolecall.platform.settings import PolicySettings, VectorSettings
from rolecall.platform.vectors.backends import open_index
from rolecall.serving import parts
from rolecall.serving.people_funnel import PeopleFunnel
from rolecall.serving.people_loader import untrained_part
from rolecall.serving.people_policy import PeoplePolicy
from rolecall.serving.people_recall import PeopleRecall
from rolecall.serving.profiles import TextVectors
from rolecall.serving.ranker import ColumnSum

if TYPE_CHECKING:
    from conftest import World


class Words:
    """The world's embedder as the funnel's."""

    def __init__(self, world: World) -> None:
        self._world = world

    def encode(self, texts: Sequence[str]) -> Floats:
        return self._world.embed(texts)


@pytest.fixture(scope="module")
def encoder(world: World) -> Words:
    return Words(world)


@pytest.fixture(scope="module")
def people(world: World, encoder: Words, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PeopleFunnel]:
    """The people of the world ordered by content, all of whom agreed."""
    folder = tmp_path_factory.mktemp("people")
    agreed = world.candidates.with_columns(pl.lit(True).alias("consent"), pl.lit(None).alias("visibility"))
    table = people_as_of(
        agreed, world.events, pl.DataFrame(world.pairs.catalogue.table).select("job_id", "employer_id")
    )
    build_people(table, world.pairs, world.embed, VectorSettings(), folder)
    everybody, words, vectors = open_people(folder, world.pairs)
    index, part = open_index(VectorSettings(), folder / parts.PEOPLE_INDEX, scratch=folder / "s"), untrained_part()
    yield PeopleFunnel(
        release_id="small",
        pairs=PeoplePairs(everybody, words, vectors, world.pairs),
        texts=TextVectors(encoder),
        recall=PeopleRecall(index),
        coarse=ColumnSum(part.coarse_columns),
        fine=ColumnSum(part.fine_columns),
        policy=PeoplePolicy(PolicySettings(), everybody, vectors),
        recall_limit=60,
        coarse_limit=40,
        trained=False,
    )
    index.close()
