"""BM25 as sparse vectors: the engine multiplies by inverse document frequency, we weigh terms.

    score(q, d) = sum over terms t of q:  idf(t) * tf (k + 1) / (tf + k (1 - b + b |d| / avg))

Robertson and Zaragoza, The Probabilistic Relevance Framework (2009). The document side holds the
fraction, the query side ones. A term's dimension is the CRC-32 of its UTF-8 bytes, so no
vocabulary has to travel with an index; two of 100,000 terms collide with probability about 1 in 6
hundred thousand each, and then merely share their counts.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

K = 1.2
B = 0.75


@dataclass(frozen=True, kw_only=True)
class SparseTerms:
    """Dimensions in rising order, each once, with their weights."""

    indices: list[int]
    values: list[float]


def document(terms: Sequence[str], average_terms: float) -> SparseTerms:
    """The weights of an indexed text, BM25's fraction for each distinct term."""
    norm = K * (1 - B + B * len(terms) / max(average_terms, 1.0))
    counts = Counter(map(dimension, terms))
    indices = sorted(counts)
    return SparseTerms(indices=indices, values=[counts[i] * (K + 1) / (counts[i] + norm) for i in indices])


def query(terms: Sequence[str]) -> SparseTerms:
    """One for each distinct term."""
    indices = sorted(set(map(dimension, terms)))
    return SparseTerms(indices=indices, values=[1.0] * len(indices))


def dimension(term: str) -> int:
    """The sparse dimension of a term, the same in every process and on every machine."""
    return zlib.crc32(term.encode())
