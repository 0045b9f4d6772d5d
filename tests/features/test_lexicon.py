"""The lexicon against scikit-learn, its definition."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from rolecall.features.catalogue import Catalogue
from rolecall.features.lexicon import Lexicon, TextField
from rolecall.features.schema import JOBS
from rolecall.platform.errors import IntegrityError

WORDS = ["Data", "engineer", "Café", "a", "senior", "data", "x1", "&", "New York", "naïve", "-", "NY"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), max_size=6).map(" ".join), min_size=1, max_size=12)


def catalogue(*jobs: tuple[str, str | None]) -> Catalogue:
    rows = [
        dict.fromkeys(JOBS.columns.names) | {"job_id": f"j{n:03}", "title": title, "city": city, "updated_at": 0}
        for n, (title, city) in enumerate(jobs)
    ]
    return Catalogue.from_table(pa.Table.from_pylist(rows, schema=JOBS.columns))


def dense(field: TextField, texts: list[str]) -> np.ndarray:
    rows = np.zeros((len(texts), len(field.terms)), np.float32)
    for row, text in zip(rows, texts, strict=True):
        vector = field.vector(text)
        row[vector.columns] = vector.values
    return rows


@given(texts=TEXTS, others=TEXTS)
@settings(max_examples=100, deadline=None)
def test_vectors_are_those_of_scikit_learn(texts: list[str], others: list[str]) -> None:
    texts = [*texts, "data engineer"]  # scikit-learn refuses an empty vocabulary
    oracle = TfidfVectorizer(ngram_range=(1, 2))
    expected = oracle.fit_transform(texts)
    field = TextField.fit(texts)
    assert list(field.terms) == oracle.get_feature_names_out().tolist()
    np.testing.assert_allclose(field.matrix.toarray(), expected.toarray(), atol=1e-6)
    np.testing.assert_allclose(dense(field, others), oracle.transform(others).toarray(), atol=1e-6)


@given(texts=TEXTS, others=st.lists(st.sampled_from(WORDS), max_size=3), data=st.data())
@settings(max_examples=100, deadline=None)
def test_similarity_is_the_product_of_the_vectors(texts: list[str], others: list[str], data: st.DataObject) -> None:
    field = TextField.fit(texts)
    numbers = st.lists(st.integers(0, len(texts) - 1), max_size=5).map(lambda rows: np.array(rows, np.int32))
    history, rows = data.draw(numbers), data.draw(numbers)
    whole = field.matrix.toarray()
    expected = whole[rows] @ np.concatenate([whole[history], dense(field, others)]).T
    found = field.similarity(field.query(rows=history, texts=others), rows)
    assert found.shape == (len(rows), len(history) + len(others))
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_saved_lexicon_is_the_same_bytes_and_the_same_numbers(tmp_path: Path) -> None:
    lexicon = Lexicon.fit(catalogue(("data engineer", "Berlin"), ("cook", None), ("", "Bonn")))
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        lexicon.save(tmp_path / name)
    again = Lexicon.load(tmp_path / "one")
    for file in ("lexicon.json", "lexicon.npz"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()
    for name, field in lexicon.fields.items():
        assert again.fields[name].terms == field.terms
        assert (again.fields[name].matrix != field.matrix).nnz == 0
        query = again.fields[name].query(rows=np.array([0], np.int32), texts=["data berlin"])
        assert again.fields[name].similarity(query, np.arange(3, dtype=np.int32)).shape == (3, 2)


def test_fields_read_title_and_place_apart_and_together() -> None:
    lexicon = Lexicon.fit(catalogue(("cook", "Berlin"), ("waiter", None)))
    assert lexicon.fields["title"].terms == ("cook", "waiter")
    assert lexicon.fields["place"].terms == ("berlin",)
    assert lexicon.fields["full"].terms == ("berlin", "cook", "cook berlin", "waiter")


def test_terms_that_do_not_fit_the_arrays_are_refused(tmp_path: Path) -> None:
    Lexicon.fit(catalogue(("cook", "Berlin"))).save(tmp_path)
    text = (tmp_path / "lexicon.json").read_text().replace('"cook",', "")
    (tmp_path / "lexicon.json").write_text(text)
    with pytest.raises(IntegrityError, match="terms"):
        Lexicon.load(tmp_path)
