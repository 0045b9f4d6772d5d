"""The join of O*NET and ESCO: what every occupation has, and what kinship means."""

from __future__ import annotations

import numpy as np
import pytest

from rolecall.pipelines.market.groups import MAJOR_GROUPS
from rolecall.pipelines.market.taxonomy import SKILLS_PER_OCCUPATION, Taxonomy, build_taxonomy


@pytest.fixture(scope="module")
def taxonomy() -> Taxonomy:
    return build_taxonomy(120)


def test_every_occupation_can_be_written_about(taxonomy: Taxonomy) -> None:
    assert len(taxonomy.occupations) == 120
    for occupation in taxonomy.occupations:
        assert len(occupation.titles) >= 4
        assert occupation.tasks
        assert occupation.activities
        assert occupation.description
        assert occupation.group in MAJOR_GROUPS.values()


def test_skills_are_distinct_within_an_occupation_and_all_are_used(taxonomy: Taxonomy) -> None:
    used = {skill for occupation in taxonomy.occupations for skill in occupation.skills}
    assert used == set(range(len(taxonomy.skills)))
    assert all(len(set(occupation.skills)) == SKILLS_PER_OCCUPATION for occupation in taxonomy.occupations)
    assert len(set(taxonomy.skills)) == len(taxonomy.skills)


def test_no_two_occupations_share_their_titles(taxonomy: Taxonomy) -> None:
    assert len({occupation.titles for occupation in taxonomy.occupations}) == len(taxonomy.occupations)


def test_kinship_is_symmetric_at_most_one_and_one_with_itself(taxonomy: Taxonomy) -> None:
    kinship_OO = taxonomy.kinship
    np.testing.assert_allclose(kinship_OO, kinship_OO.T, atol=1e-6)
    assert (np.diag(kinship_OO) == 1.0).all()
    assert (kinship_OO >= 0).all()
    assert kinship_OO.max() == 1.0


def test_work_of_one_group_is_closer_than_work_of_another(taxonomy: Taxonomy) -> None:
    group = np.array([occupation.group for occupation in taxonomy.occupations])
    same_OO = (group[:, None] == group) & ~np.eye(len(group), dtype=bool)
    other_OO = group[:, None] != group
    assert taxonomy.kinship[same_OO].mean() > 2 * taxonomy.kinship[other_OO].mean()
