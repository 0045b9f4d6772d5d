"""Occupations as the marketplace knows them: O*NET's codes and tasks joined to ESCO's titles, descriptions and skills.

O*NET and ESCO share no key in these files, so they are joined by TF-IDF cosine of their texts; only the occupations
with the clearest partner are kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from rolecall.pipelines.market.groups import MAJOR_GROUPS, MINOR_GROUPS
from rolecall.pipelines.market.sources import (
    EscoOccupation,
    EscoSkill,
    OnetOccupation,
    esco_occupations,
    esco_skills,
    onet_occupations,
)

SKILLS_PER_OCCUPATION = 12
_SAME_MINOR_GROUP = 0.25
_SAME_MAJOR_GROUP = 0.08


@dataclass(frozen=True, kw_only=True)
class Occupation:
    """One kind of work. `skills` are positions in `Taxonomy.skills`."""

    code: str
    name: str
    group: str
    minor: str | None
    titles: tuple[str, ...]
    description: str
    tasks: tuple[str, ...]
    activities: tuple[str, ...]
    skills: tuple[int, ...]

    @property
    def path(self) -> tuple[str, ...]:
        """Major group, minor group where it has a name of its own, occupation."""
        return tuple(dict.fromkeys(name for name in (self.group, self.minor, self.name) if name))


@dataclass(frozen=True, kw_only=True)
class Taxonomy:
    """All occupations, the skill labels they use, and `kinship` [O, O] in 0..1: how alike two kinds of work are."""

    occupations: tuple[Occupation, ...]
    skills: tuple[str, ...]
    kinship: npt.NDArray[np.float32]


def build_taxonomy(count: int) -> Taxonomy:
    """The `count` O*NET occupations that have the clearest ESCO partner, each with its closest ESCO skills."""
    onet, esco, skills = onet_occupations(), esco_occupations(), esco_skills()
    onet_rows, esco_rows, skill_rows = _vectors(onet, esco, skills)
    partner_of, chosen = _partners((onet_rows @ esco_rows.T).toarray(), count)
    wanted = onet_rows[chosen] + esco_rows[partner_of[chosen]]
    nearest = np.argsort(-(wanted @ skill_rows.T).toarray(), axis=1, kind="stable")[:, :SKILLS_PER_OCCUPATION]
    used, local = np.unique(nearest, return_inverse=True)
    local = local.reshape(nearest.shape)
    occupations = tuple(
        _occupation(onet[row], esco[partner_of[row]], tuple(local[number].tolist()))
        for number, row in enumerate(chosen.tolist())
    )
    return Taxonomy(
        occupations=occupations,
        skills=tuple(skills[number].label for number in used.tolist()),
        kinship=_kinship(onet_rows[chosen], [occupation.code for occupation in occupations]),
    )


def _vectors(
    onet: tuple[OnetOccupation, ...], esco: tuple[EscoOccupation, ...], skills: tuple[EscoSkill, ...]
) -> tuple[sparse.csr_matrix, sparse.csr_matrix, sparse.csr_matrix]:
    """L2-normalised TF-IDF rows; the title weighs like three sentences."""
    texts = [" ".join([(o.title + " ") * 6, *o.activities, *o.tasks]) for o in onet]
    texts += [" ".join([*o.titles, *o.titles[:1] * 3, o.description]) for o in esco]
    texts += [skill.text for skill in skills]
    weights = TfidfVectorizer(stop_words="english", sublinear_tf=True, min_df=2).fit_transform(texts)
    rows = weights.astype(np.float32)
    return rows[: len(onet)], rows[len(onet) : len(onet) + len(esco)], rows[len(onet) + len(esco) :]


def _partners(similarity_NE: npt.NDArray[np.float32], count: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Best ESCO partner of every O*NET occupation, and the occupations to keep, in code order.

    An ESCO occupation partners only the O*NET occupation that is closest to it, so that titles are not shared.
    """
    partner = similarity_NE.argmax(axis=1)
    strength = similarity_NE.max(axis=1)
    rows = np.arange(len(partner))
    mutual = similarity_NE[:, partner].argmax(axis=0) == rows
    order = np.argsort(-(strength * mutual), kind="stable")
    return partner, np.sort(order[: min(count, int(mutual.sum()))])


def _occupation(onet: OnetOccupation, esco: EscoOccupation, skills: tuple[int, ...]) -> Occupation:
    return Occupation(
        code=onet.code,
        name=onet.title,
        group=MAJOR_GROUPS[onet.code[:2]],
        minor=MINOR_GROUPS.get(onet.code[:4]),
        titles=esco.titles,
        description=esco.description,
        tasks=onet.tasks,
        activities=onet.activities,
        skills=skills,
    )


def _kinship(rows: sparse.csr_matrix, codes: list[str]) -> npt.NDArray[np.float32]:
    text = np.minimum((rows @ rows.T).toarray() * 1.5, 0.6)
    minor = np.array([code[:4] for code in codes])
    major = np.array([code[:2] for code in codes])
    same_minor = minor[:, None] == minor[None, :]
    same_major = major[:, None] == major[None, :]
    kinship = text + _SAME_MINOR_GROUP * same_minor + _SAME_MAJOR_GROUP * same_major
    np.fill_diagonal(kinship, 1.0)
    return np.asarray(kinship, dtype=np.float32)
