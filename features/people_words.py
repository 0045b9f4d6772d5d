"""What people write, in the word spaces of a release's jobs: computed once a release, read by row.

    words = PeopleWords.fit(lexicon, contexts, careers)
    words.similarity("desired", query, rows)       # float32[len(rows)]: the best phrase of each person

A query is a job's (`TextField.query`), so the cosine is the number that `PairFeatures` computes the other way round.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from rolecall.features.catalogue import Floats, Rows
from rolecall.features.context import CandidateContext
from rolecall.features.lexicon import LexicalQuery, Lexicon, TextField
from rolecall.features.pairs import RESUME_WORDS, profile_words
from rolecall.features.people import flat_places
from rolecall.features.text import desired_titles, resume_words
from rolecall.platform.errors import IntegrityError

SPACES: Mapping[str, str] = {"full": "full", "desired": "title", "career": "title", "resume": "title"}
"""What people write, and the lexicon field it is read in."""


@dataclass(frozen=True, kw_only=True)
class Phrases:
    """Texts of people: person r has the rows `starts[r]:starts[r + 1]` of `field`'s matrix."""

    starts: npt.NDArray[np.int64]
    field: TextField


class PeopleWords:
    """The texts of a release's people, by space (see SPACES)."""

    def __init__(self, spaces: Mapping[str, Phrases]) -> None:
        self.spaces = dict(spaces)

    def __len__(self) -> int:
        return len(self.spaces["full"].starts) - 1

    @classmethod
    def fit(
        cls, lexicon: Lexicon, contexts: Sequence[CandidateContext], careers: Sequence[Sequence[str]]
    ) -> PeopleWords:
        """`contexts`: profiles in row order; `careers`: the titles of each person's past positions."""
        texts: dict[str, list[Sequence[str]]] = {
            "full": [_given(profile_words(context)) for context in contexts],
            "desired": [desired_titles(context) for context in contexts],
            "career": list(careers),
            "resume": [_given(resume_words(context, RESUME_WORDS)) for context in contexts],
        }
        return cls({space: _phrases(lexicon.fields[SPACES[space]], lists) for space, lists in texts.items()})

    def take(self, rows: Rows) -> PeopleWords:
        """The words of some people, in the order given."""
        return PeopleWords({space: _taken(phrases, rows) for space, phrases in self.spaces.items()})

    def similarity(self, space: str, query: LexicalQuery, rows: Rows) -> Floats:
        """Cosine with the query's first vector: of each person the best phrase, NaN where they wrote nothing."""
        phrases = self.spaces[space]
        places, owner = flat_places(phrases.starts, rows)
        cosines = phrases.field.similarity(query, places.astype(np.int32))[:, 0]
        best = np.full(len(rows), -1.0, np.float32)
        np.maximum.at(best, owner, cosines)
        return np.where(best < 0, np.nan, best).astype(np.float32)

    def save(self, path: Path) -> None:
        """One .npz without pickle; the same words give the same bytes."""
        arrays: dict[str, npt.NDArray[np.generic]] = {}
        for space, phrases in self.spaces.items():
            matrix = phrases.field.matrix
            arrays |= {
                f"{space}.starts": phrases.starts,
                f"{space}.data": matrix.data,
                f"{space}.indices": matrix.indices,
                f"{space}.indptr": matrix.indptr,
            }
        np.savez(path, allow_pickle=False, **arrays)

    @classmethod
    def load(cls, path: Path, lexicon: Lexicon) -> PeopleWords:
        """Read what `save` wrote. Raises IntegrityError where the words are not of this lexicon."""
        with np.load(path, allow_pickle=False) as arrays:
            return cls({space: _loaded(space, lexicon.fields[name], arrays) for space, name in SPACES.items()})


def _given(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _phrases(field: TextField, lists: Iterable[Sequence[str]]) -> Phrases:
    lists = list(lists)
    starts = np.zeros(len(lists) + 1, np.int64)
    np.cumsum([len(texts) for texts in lists], out=starts[1:])
    vectors = [field.vector(text) for texts in lists for text in texts]
    indptr = np.zeros(len(vectors) + 1, np.int32)
    np.cumsum([len(vector.columns) for vector in vectors], out=indptr[1:])
    indices = np.concatenate([np.zeros(0, np.int32), *(vector.columns for vector in vectors)])
    data = np.concatenate([np.zeros(0, np.float32), *(vector.values for vector in vectors)])
    return Phrases(starts=starts, field=_field(field, data, indices, indptr))


def _taken(phrases: Phrases, rows: Rows) -> Phrases:
    places, owner = flat_places(phrases.starts, rows)
    starts = np.zeros(len(rows) + 1, np.int64)
    np.cumsum(np.bincount(owner, minlength=len(rows)), out=starts[1:])
    return Phrases(starts=starts, field=phrases.field.over(phrases.field.matrix[places]))


def _field(field: TextField, data: Floats, indices: Rows, indptr: Rows) -> TextField:
    matrix = csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, len(field.terms)))
    return field.over(matrix)


def _loaded(space: str, field: TextField, arrays: Mapping[str, npt.NDArray[np.generic]]) -> Phrases:
    starts, data, indices, indptr = (
        np.asarray(arrays[f"{space}.{key}"]) for key in ("starts", "data", "indices", "indptr")
    )
    fits = len(data) == len(indices) == indptr[-1] and starts[-1] == len(indptr) - 1
    if not fits or (len(indices) and int(indices.max()) >= len(field.terms)):
        raise IntegrityError(f"people's words {space} are not of this lexicon", "parts of one release")
    return Phrases(
        starts=starts.astype(np.int64),
        field=_field(field, data.astype(np.float32), indices.astype(np.int32), indptr.astype(np.int32)),
    )
