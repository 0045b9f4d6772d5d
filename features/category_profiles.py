"""What the postings of a category have in common: the middle of their vectors and of their titles, what they ask for.

A posting's title is one of the many names of its work, and few people use the same one; all postings of the category
together use most of them. So a candidate is also held against the category. Content of the release alone: no
candidate's behaviour moves it.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from rolecall.features.catalogue import Catalogue, Floats, Rows
from rolecall.features.job_vectors import JobVectors
from rolecall.features.lexicon import LexicalQuery, TextField

_BLOCK = 8192


class CategoryProfiles:
    """Of each category (`catalogue.category`) with c categories: immutable, serves any number of threads."""

    def __init__(self, catalogue: Catalogue, titles: TextField, vectors: JobVectors, skills: csr_matrix) -> None:
        """`titles`: the lexicon's field; `skills` float32 CSR [jobs, skills]: which skill each job asks for."""
        codes = catalogue.category.codes
        jobs = np.flatnonzero(codes >= 0)
        shape = (len(catalogue.category.names), len(codes))
        members = csr_matrix((np.ones(len(jobs), np.float32), (codes[jobs], jobs)), shape=shape)
        sizes = np.maximum(np.diff(members.indptr), 1).astype(np.float32)
        self._dense = _middles(codes, vectors, shape[0])
        self._titles = titles.over(_unit_rows(csr_matrix(members @ titles.matrix)))
        self._skills = csr_matrix(members @ skills).multiply(1 / sizes[:, None]).tocsr()

    def cosines(self, categories: Rows, profile: Floats) -> Floats:
        """Of the middle of each category's vectors with a unit vector, float32[len(categories)]."""
        return np.asarray(self._dense[categories] @ profile, np.float32)

    def titles(self, categories: Rows, query: LexicalQuery) -> Floats:
        """Of the middle of each category's titles with each text of a query, float32[len(categories), k]."""
        return self._titles.similarity(query, categories)

    def skills(self, categories: Rows, listed: Floats) -> Floats:
        """How many of the skills marked in `listed` float32[skills] a posting of each category asks for on average."""
        return np.asarray(self._skills[categories] @ listed, np.float32)


def _middles(codes: Rows, vectors: JobVectors, categories: int) -> Floats:
    """Unit mean vector of each category, float32[categories, d]."""
    sums = np.zeros((categories, vectors.width), np.float64)
    for first in range(0, len(codes), _BLOCK):
        rows = np.arange(first, min(first + _BLOCK, len(codes)), dtype=np.int32)
        rows = rows[codes[rows] >= 0]
        np.add.at(sums, codes[rows], vectors.rows(rows))
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.asarray(sums / np.maximum(lengths, 1e-12), np.float32)


def _unit_rows(matrix: csr_matrix) -> csr_matrix:
    matrix.sort_indices()
    squares = np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel()
    scale = 1 / np.sqrt(np.maximum(squares, 1e-24))
    values = (matrix.data * np.repeat(scale, np.diff(matrix.indptr))).astype(np.float32)
    return csr_matrix((values, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int32)), shape=matrix.shape)
