"""Occupations and skills of a release, as its adverts show them: what goes with what, how often, for what pay.

Nothing is stored for them: an occupation is a category of the catalogue, a skill one that adverts ask for. Openings and
pay are of the adverts that are open when it is asked, what goes with what is counted in all. So every release has them,
older ones too.

concepts = Concepts(release.funnel.catalogue, release.funnel.pairs.vectors)
found = concepts.find(vector, {"forklift", "driver"}, limit=2)
concepts.text(found[0], at=now)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Literal

import numpy as np
from scipy.sparse import csr_matrix

from rolecall.features.catalogue import Catalogue, Floats, Rows
from rolecall.features.job_vectors import JobVectors
from rolecall.features.schema import SENIORITIES
from rolecall.features.text import tokens

Kind = Literal["occupation", "skill"]
TITLES = 20
"""Titles of an occupation by which it is found, the commonest first."""
NAMED, SKILLS, RELATED = 3, 8, 3
LEAST_PAID = 3
"""Open adverts that state a pay in one currency, from which it is typical."""
_BLOCK = 8_192
_RANKS = frozenset(word for name in SENIORITIES for word in tokens(name))


@dataclass(frozen=True, kw_only=True, eq=False)
class Concept:
    """`names`: the first is its own, by the others it is found too. `rows`: the adverts that are of it."""

    kind: Kind
    key: str
    names: tuple[str, ...]
    within: str
    rows: Rows

    @property
    def id(self) -> str:
        """No advert has such an id, by the kind before it."""
        return f"{self.kind}:{self.key}"


@dataclass(frozen=True, kw_only=True)
class FoundConcept:
    """`similarity`: the mean cosine of its adverts with the question. `named`: how many words of the question are one
    of its names; 0: it is found by meaning alone."""

    concept: Concept
    similarity: float
    named: int


class Concepts:
    """All of one release. Making it takes a pass over the catalogue; a question, one over the concepts."""

    def __init__(self, catalogue: Catalogue, vectors: JobVectors) -> None:
        self._catalogue = catalogue
        category, skills, adverts = catalogue.category, catalogue.skills, np.arange(len(catalogue), dtype=np.int32)
        owners = np.repeat(adverts, np.diff(skills.starts))
        self._occupations = _members(adverts, category.codes, (len(category.names), len(catalogue)))
        self._skills = _members(owners, skills.codes, (len(skills.names), len(catalogue)))
        self._all = [
            concept
            for concept in (*self._found("occupation", self._occupations), *self._found("skill", self._skills))
            if catalogue.row_of(concept.id) is None
        ]
        self._means = _means([concept.rows for concept in self._all], vectors)
        self._by_word = _words(self._all)

    def find(self, vector: Floats, wanted: Iterable[str], *, limit: int) -> list[FoundConcept]:
        """The best for a question, `vector` float32[d] and its telling words: those that it names, then the nearest."""
        if not self._all:
            return []
        similarities = self._means @ vector
        asked = {_stem(word) for word in wanted}
        named: Counter[int] = Counter()
        for word in asked:
            for place, name in self._by_word.get(word, ()):
                if name <= asked:
                    named[place] = max(named[place], len(name))
        order = sorted(range(len(self._all)), key=lambda place: (-named[place], -similarities[place]))
        return [
            FoundConcept(concept=self._all[place], similarity=float(similarities[place]), named=named[place])
            for place in order[:limit]
        ]

    def text(self, concept: Concept, at: datetime) -> str:
        """What its adverts say of it; openings and pay are of those open at an instant."""
        live = self._live(concept.rows, at)
        pay = self._pay(live)
        facts = self._occupation(concept, live) if concept.kind == "occupation" else self._skill(concept, live)
        return " ".join(f"{fact}." for fact in (*facts, f"Pay is mostly {pay}" if pay else None) if fact)

    def _occupation(self, concept: Concept, live: Rows) -> list[str | None]:
        others = [name for name in concept.names[1 : 1 + NAMED] if name.lower() != concept.names[0].lower()]
        called = f" (also {', '.join(others)})" if others else ""
        asked = self._commonest(self._asked(concept.rows), SKILLS)
        related = self._alike(self._catalogue.category.index[concept.key])
        return [
            f"{concept.names[0]}{called} is an occupation{f' in {concept.within}' if concept.within else ''}",
            f"Skills it needs, as its adverts ask: {', '.join(asked)}" if asked else None,
            f"{_count(live)} for it",
            f"Related occupations: {', '.join(related)}" if related else None,
        ]

    def _skill(self, concept: Concept, live: Rows) -> list[str | None]:
        together = self._asked(concept.rows)
        together.pop(concept.key, None)
        codes = self._catalogue.category.codes[concept.rows]
        occupations: Counter[str] = Counter()
        for code, adverts in _counted(codes[codes >= 0]):
            occupations[self._leaf(code)] += adverts
        beside, needed = self._commonest(together, SKILLS), self._commonest(occupations, NAMED)
        return [
            f"{concept.names[0]} is a skill",
            f"{_count(live)} that ask{'s' if len(live) == 1 else ''} for it",
            f"Occupations that need it: {', '.join(needed)}" if needed else None,
            f"Skills asked for with it: {', '.join(beside)}" if beside else None,
        ]

    def _found(self, kind: Kind, members: csr_matrix) -> Iterable[Concept]:
        keys = self._catalogue.category.names if kind == "occupation" else self._catalogue.skills.names
        for code, key in enumerate(keys):
            rows = members.indices[members.indptr[code] : members.indptr[code + 1]].astype(np.int32)
            own, within = self._name(code, int(rows[0])) if kind == "occupation" else (key, "")
            titles = self._titles(rows) if kind == "occupation" else ()
            names = tuple(dict.fromkeys((own, *titles)))
            yield Concept(kind=kind, key=key, names=names, within=within, rows=rows)

    def _name(self, code: int, row: int) -> tuple[str, str]:
        """The last part of a category as written, and what it is in."""
        path = self._catalogue.table["category_path"][row].as_py() or [self._catalogue.category.names[code]]
        return path[-1], ", ".join(reversed(path[:-1]))

    def _titles(self, rows: Rows) -> list[str]:
        counts = Counter(_plain(self._catalogue.titles[row]) for row in rows)
        counts.pop("", None)
        return self._commonest(counts, TITLES)

    def _leaf(self, code: int) -> str:
        return self._catalogue.category.names[code].rpartition(" > ")[2]

    def _asked(self, rows: Rows) -> Counter[str]:
        skills = self._catalogue.skills
        chosen = np.zeros(len(self._catalogue), np.bool_)
        chosen[rows] = True
        codes = skills.codes[np.repeat(chosen, np.diff(skills.starts))]
        return Counter({skills.names[code]: adverts for code, adverts in _counted(codes)})

    def _alike(self, code: int) -> list[str]:
        """The occupations whose adverts ask most nearly for the same skills."""
        likeness = (self._wants @ self._wants[code].T).toarray()[:, 0]
        likeness[code] = 0
        best = np.argsort(-likeness, kind="stable")[:RELATED]
        return [self._leaf(int(other)) for other in best if likeness[other] > 0]

    @cached_property
    def _wants(self) -> csr_matrix:
        """[occupations, skills]: shares of adverts, rows of length 1 or 0."""
        counts = (self._occupations @ self._skills.T).tocsr()
        lengths = np.sqrt(np.asarray(counts.multiply(counts).sum(axis=1)).ravel())
        return csr_matrix(counts.multiply(1 / np.maximum(lengths, 1e-9)[:, None]))

    def _live(self, rows: Rows, at: datetime) -> Rows:
        instant = at.timestamp() * 1e6
        posted, expires = self._catalogue.posted[rows], self._catalogue.expires[rows]
        return rows[~(posted > instant) & ~(expires <= instant)]  # an instant that is unknown (NaN) excludes nothing

    def _pay(self, rows: Rows) -> str | None:
        """The middle half of what adverts offer, in the currency that most of them name."""
        paid = rows[np.isfinite(self._catalogue.salary[rows])]
        currencies = self._catalogue.table["currency"].take(paid).to_pylist()
        currency, adverts = max(Counter(currencies).items(), key=lambda one: one[1], default=(None, 0))
        if adverts < LEAST_PAID:
            return None
        same = np.array([name == currency for name in currencies], np.bool_)
        low, high = np.quantile(self._catalogue.salary[paid[same]], (0.25, 0.75))
        return f"{low:,.0f} to {high:,.0f}{f' {currency}' if currency else ''}"

    def _commonest(self, counts: Mapping[str, int], most: int) -> list[str]:
        return sorted(counts, key=lambda name: (-counts[name], name))[:most]


def _members(rows: Rows, codes: Rows, shape: tuple[int, int]) -> csr_matrix:
    """[concepts, adverts]: ones. Codes below 0 are of none."""
    known = codes >= 0
    ones = np.ones(int(known.sum()), np.float32)
    return csr_matrix((ones, (codes[known], rows[known])), shape=shape)


def _means(rows: list[Rows], vectors: JobVectors) -> Floats:
    """float32[concepts, d]: the mean unit vector of each concept's adverts."""
    sizes = np.array([len(found) for found in rows], np.int64)
    places = np.repeat(np.arange(len(rows)), sizes)
    adverts = np.concatenate(rows) if rows else np.zeros(0, np.int32)
    shares = np.repeat(1 / np.maximum(sizes, 1), sizes).astype(np.float32)
    parts = csr_matrix((shares, (places, adverts)), shape=(len(rows), len(vectors))).tocsc()
    means = np.zeros((len(rows), vectors.width), np.float32)
    for first in range(0, len(vectors), _BLOCK):
        block = np.arange(first, min(first + _BLOCK, len(vectors)), dtype=np.int32)
        means += parts[:, block] @ vectors.rows(block)
    return means


def _words(concepts: list[Concept]) -> dict[str, list[tuple[int, frozenset[str]]]]:
    """By each word of a name: the concept's place, and all words of the name."""
    found: dict[str, list[tuple[int, frozenset[str]]]] = {}
    for place, concept in enumerate(concepts):
        for name in {frozenset(map(_stem, tokens(name))) for name in concept.names}:
            for word in name:
                found.setdefault(word, []).append((place, name))
    return found


def _counted(codes: Rows) -> Iterable[tuple[int, int]]:
    """Codes, each once, and how often they occur."""
    found, counts = np.unique(codes, return_counts=True)
    return zip(found.tolist(), counts.tolist(), strict=True)


def _plain(title: str) -> str:
    """A title without rank."""
    return " ".join(word for word in title.lower().split() if word not in _RANKS)


def _stem(word: str) -> str:
    """One and many are the same word."""
    return word.removesuffix("s") if len(word) > 3 else word


def _count(live: Rows) -> str:
    return f"There {'is' if len(live) == 1 else 'are'} {len(live) or 'no'} open advert{'' if len(live) == 1 else 's'}"
