"""Word overlap between jobs and people: TF-IDF of 1- and 2-word terms, the strongest plain baseline we know.

A field reproduces scikit-learn's `TfidfVectorizer(ngram_range=(1, 2))`: lower case, words of two or more
characters, idf = ln((1 + n) / (1 + df)) + 1, rows of length 1 (tests hold the two against each other).

    lexicon = Lexicon.fit(catalogue)
    query = lexicon.fields["title"].query(texts=["data engineer"], rows=history)
    lexicon.fields["title"].similarity(query, rows)        # float32[len(rows), queries]
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix

from rolecall.features.catalogue import Catalogue, Floats, Rows
from rolecall.platform.errors import IntegrityError

FIELDS: Mapping[str, tuple[str, ...]] = {
    "full": ("title", "city", "region"),
    "title": ("title",),
    "place": ("city", "region"),
}
"""The text spaces and the job columns each is made of."""

LEXICON_JSON = "lexicon.json"
LEXICON_ARRAYS = "lexicon.npz"
_WORD = re.compile(r"(?u)\b\w\w+\b")


@dataclass(frozen=True, kw_only=True)
class SparseVector:
    """The terms of one text, each once: `columns` int32[m], `values` float32[m]."""

    columns: Rows
    values: Floats


@dataclass(frozen=True, kw_only=True)
class LexicalQuery:
    """k query vectors restricted to the terms that occur in them.

    `lookup` int32[V]: a term's row in `weights`, or the last row, which is zero. `weights` float32[m + 1, k].
    """

    lookup: Rows
    weights: Floats


class TextField:
    """One TF-IDF space over the texts of all jobs. `matrix` float32 CSR [jobs, terms], rows of length 1 or 0."""

    def __init__(
        self, terms: Sequence[str], idf: Floats, matrix: csr_matrix, *, columns: Mapping[str, int] | None = None
    ) -> None:
        self.terms = tuple(terms)
        self.idf = idf
        self.matrix = matrix
        self._lengths = np.diff(matrix.indptr)
        self._column = {term: column for column, term in enumerate(self.terms)} if columns is None else columns

    @classmethod
    def fit(cls, texts: Sequence[str]) -> TextField:
        """Learn terms and weights from one text a job."""
        counts = [Counter(terms_of(text)) for text in texts]
        frequency = Counter(term for count in counts for term in count)
        terms = sorted(frequency)
        column = {term: index for index, term in enumerate(terms)}
        seen = np.array([frequency[term] for term in terms], np.float64)
        idf = np.log((1 + len(texts)) / (1 + seen)) + 1
        starts = np.zeros(len(counts) + 1, np.int32)
        np.cumsum([len(count) for count in counts], out=starts[1:])
        columns = np.array([column[term] for count in counts for term in count], np.int32)
        values = np.array([times for count in counts for times in count.values()], np.float64) * idf[columns]
        matrix = csr_matrix((values, columns, starts), shape=(len(texts), len(terms)))
        matrix.sort_indices()
        return cls(terms, idf.astype(np.float32), _unit_rows(matrix))

    def over(self, matrix: csr_matrix) -> TextField:
        """The same space over other texts' vectors: `matrix` has this field's terms as columns."""
        return TextField(self.terms, self.idf, matrix, columns=self._column)

    def vector(self, text: str) -> SparseVector:
        """Unit vector of another text; zero for a text without known terms."""
        counts = Counter(self._column[term] for term in terms_of(text) if term in self._column)
        columns = np.fromiter(counts, np.int32, len(counts))
        values = np.fromiter(counts.values(), np.float32, len(counts)) * self.idf[columns]
        return SparseVector(columns=columns, values=values / max(float(np.sqrt(values @ values)), 1e-12))

    def query(self, *, rows: Rows, texts: Sequence[str] = ()) -> LexicalQuery:
        """Queries for `similarity`: the vectors of jobs `rows`, then of `texts`, in this order."""
        vectors = [*map(self._row, rows), *map(self.vector, texts)]
        used = np.concatenate([vector.columns for vector in vectors]) if vectors else np.zeros(0, np.int32)
        columns, places = np.unique(used, return_inverse=True)
        lookup = np.full(len(self.terms), len(columns), np.int32)
        lookup[columns] = np.arange(len(columns), dtype=np.int32)
        weights = np.zeros((len(columns) + 1, len(vectors)), np.float32)
        if vectors:
            owner = np.repeat(np.arange(len(vectors)), [len(vector.columns) for vector in vectors])
            weights[places, owner] = np.concatenate([vector.values for vector in vectors])
        return LexicalQuery(lookup=lookup, weights=weights)

    def words(self) -> tuple[csr_matrix, Floats]:
        """Which single words each job's text has: float32 CSR of ones [jobs, terms], and how many of them."""
        single = np.array([" " not in term for term in self.terms], np.bool_)
        kept = single[self.matrix.indices] if self.matrix.nnz else np.zeros(0, np.bool_)
        starts = np.concatenate([[0], np.cumsum(kept)])[self.matrix.indptr].astype(np.int32)
        ones = np.ones(int(kept.sum()), np.float32)
        matrix = csr_matrix((ones, self.matrix.indices[kept], starts), shape=self.matrix.shape)
        return matrix, np.diff(starts).astype(np.float32)

    def columns_of(self, terms: Iterable[str]) -> list[int]:
        """Columns of those terms that some job has."""
        return [self._column[term] for term in terms if term in self._column]

    def _row(self, row: int) -> SparseVector:
        inside = slice(self.matrix.indptr[row], self.matrix.indptr[row + 1])
        return SparseVector(
            columns=np.asarray(self.matrix.indices[inside], np.int32),
            values=np.asarray(self.matrix.data[inside], np.float32),
        )

    def similarity(self, query: LexicalQuery, rows: Rows) -> Floats:
        """Cosines of jobs `rows` with each query, float32[len(rows), k]."""
        if not len(rows) or not query.weights.shape[1]:
            return np.zeros((len(rows), query.weights.shape[1]), np.float32)
        lengths = self._lengths[rows]
        ends = np.cumsum(lengths)
        entries = np.arange(ends[-1]) + np.repeat(self.matrix.indptr[rows] - (ends - lengths), lengths)
        terms = query.lookup[self.matrix.indices[entries]]
        hit = np.flatnonzero(terms < len(query.weights) - 1)
        starts = np.searchsorted(hit, np.concatenate(([0], ends))).astype(np.int32)
        hits = csr_matrix((self.matrix.data[entries[hit]], terms[hit], starts), shape=(len(rows), len(query.weights)))
        return np.asarray(hits @ query.weights, np.float32)


class Lexicon:
    """The text spaces of a release, by name (see FIELDS)."""

    def __init__(self, fields: Mapping[str, TextField]) -> None:
        self.fields = dict(fields)

    @classmethod
    def fit(cls, catalogue: Catalogue) -> Lexicon:
        """Learn every field from the jobs of a release."""
        columns = {name: catalogue.table[name].to_pylist() for name in ("title", "city", "region")}
        return cls(
            {
                field: TextField.fit(
                    [" ".join(filter(None, texts)) for texts in zip(*(columns[name] for name in names), strict=True)]
                )
                for field, names in FIELDS.items()
            }
        )

    def save(self, folder: Path) -> tuple[Path, Path]:
        """Write `lexicon.json` and `lexicon.npz`: the same lexicon gives the same bytes."""
        terms = {name: list(field.terms) for name, field in self.fields.items()}
        arrays = {f"{name}.{key}": array for name, field in self.fields.items() for key, array in _arrays(field)}
        (folder / LEXICON_JSON).write_text(json.dumps(terms, ensure_ascii=False, sort_keys=True), encoding="utf-8")
        np.savez(folder / LEXICON_ARRAYS, allow_pickle=False, **arrays)
        return folder / LEXICON_JSON, folder / LEXICON_ARRAYS

    @classmethod
    def load(cls, folder: Path) -> Lexicon:
        """Read what `save` wrote. Raises IntegrityError where terms and arrays do not fit."""
        terms = json.loads((folder / LEXICON_JSON).read_text(encoding="utf-8"))
        with np.load(folder / LEXICON_ARRAYS, allow_pickle=False) as arrays:
            return cls({name: _field(name, words, arrays) for name, words in terms.items()})


def terms_of(text: str) -> list[str]:
    """Words of two or more characters in lower case, then each pair of neighbours."""
    words = _WORD.findall(text.lower())
    return words + [f"{a} {b}" for a, b in pairwise(words)]


def _unit_rows(matrix: csr_matrix) -> csr_matrix:
    squares = np.add.reduceat(np.append(matrix.data**2, 0.0), matrix.indptr[:-1]) if matrix.nnz else np.zeros(0)
    lengths = np.diff(matrix.indptr)
    norms = np.sqrt(np.repeat(squares, lengths)) if matrix.nnz else np.ones(0)
    values = (matrix.data / norms).astype(np.float32)
    return csr_matrix((values, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)), shape=matrix.shape)


def _arrays(field: TextField) -> Iterable[tuple[str, npt.NDArray[np.generic]]]:
    matrix = field.matrix
    return (("idf", field.idf), ("data", matrix.data), ("indices", matrix.indices), ("indptr", matrix.indptr))


def _field(name: str, terms: Sequence[str], arrays: Mapping[str, npt.NDArray[np.generic]]) -> TextField:
    idf, data, indices, indptr = (np.asarray(arrays[f"{name}.{key}"]) for key in ("idf", "data", "indices", "indptr"))
    if len(idf) != len(terms) or len(data) != len(indices) or indptr[-1] != len(data):
        raise IntegrityError(f"lexicon field {name}: {len(terms)} terms with arrays of other lengths", "one lexicon")
    matrix = csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, len(terms)))
    return TextField(terms, idf.astype(np.float32), matrix)
