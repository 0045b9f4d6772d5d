"""What a ranker promises of its scores, its columns and its calibration."""

from __future__ import annotations

import lightgbm
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rolecall.platform.errors import InputError, IntegrityError
from rolecall.serving.ranker import Calibrator, Ranker

COLUMNS = ("full_mean", "dense_mean", "job.rating")


@pytest.fixture(scope="module")
def model() -> str:
    random = np.random.default_rng(0)
    matrix = random.random((400, len(COLUMNS))).astype(np.float32)
    label = (matrix[:, 0] > 0.5).astype(int)
    data = lightgbm.Dataset(matrix, label, group=[20] * 20)
    fitted = lightgbm.train({"objective": "lambdarank", "verbose": -1, "num_threads": 1}, data, 20)
    return str(fitted.model_to_string())


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    return np.random.default_rng(1).random((50, len(COLUMNS))).astype(np.float32)


def test_scores_are_the_boosters_whatever_the_threads(model: str, rows: np.ndarray) -> None:
    expected = lightgbm.Booster(model_str=model).predict(rows).astype(np.float32)
    for threads in (1, 2):
        np.testing.assert_array_equal(Ranker(model, COLUMNS, threads=threads).score(rows), expected)


def test_a_score_is_the_same_alone_and_in_company(model: str, rows: np.ndarray) -> None:
    ranker = Ranker(model, COLUMNS)
    np.testing.assert_array_equal(ranker.score(rows[7:8]), ranker.score(rows)[7:8])
    assert ranker.score(rows[:0]).shape == (0,)


def test_names_that_do_not_fit_the_model_are_refused_at_load(model: str) -> None:
    with pytest.raises(IntegrityError, match="columns"):
        Ranker(model, COLUMNS[:2])
    with pytest.raises(InputError, match="popularity"):
        Ranker(model, (*COLUMNS[:2], "popularity"))


def test_without_a_calibrator_a_probability_is_the_logistic_of_the_score(model: str) -> None:
    assert Ranker(model, COLUMNS).probability(np.zeros(1, np.float32)).tolist() == [0.5]


@given(scores=st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=20))
def test_calibration_never_turns_an_order_round(scores: list[float]) -> None:
    ordered = np.sort(np.array(scores, np.float32))
    for calibrator in (
        Calibrator(kind="isotonic", x=(-2.0, 0.0, 3.0), y=(0.01, 0.01, 0.6)),
        Calibrator(kind="platt", x=(1.5,), y=(-2.0,)),
    ):
        found = calibrator.probability(ordered)
        assert (np.diff(found) >= 0).all()
        assert ((found >= 0) & (found <= 1)).all()


def test_a_calibrator_survives_its_json() -> None:
    calibrator = Calibrator(kind="isotonic", x=(-1.0, 2.0), y=(0.1, 0.3))
    assert Calibrator.from_json(calibrator.to_json()) == calibrator
    assert calibrator.probability(np.array([-9, 0.5, 9], np.float32)).tolist() == pytest.approx([0.1, 0.2, 0.3])


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '{"kind": "isotonic"}', '{"kind": "isotonic", "x": [1, 0], "y": [0, 1]}',
        '{"kind": "isotonic", "x": [0, 1], "y": [1, 0]}', '{"kind": "platt", "x": [-1], "y": [0]}',
        '{"kind": "other", "x": [1], "y": [0]}', '{"kind": "isotonic", "x": ["a"], "y": [0]}',
        '{"kind": "isotonic", "x": [0, 1], "y": [0, 1.5]}',
    ],
)  # fmt: skip
def test_a_calibrator_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(IntegrityError):
        Calibrator.from_json(text)
