"""A small model that says what some columns know: gradient-boosted trees, asked about rows they never saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from rolecall.pipelines.leaks.ranks import Array

_ROUNDS = 40
_PARAMETERS: dict[str, Any] = {
    "objective": "binary",
    "num_leaves": 15,
    "learning_rate": 0.1,
    "min_data_in_leaf": 20,
    "lambda_l2": 1.0,
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 1,
    "seed": 7,
    "verbosity": -1,
}


def cross_fitted(
    features: npt.NDArray[np.float32], positive: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64]
) -> Array:
    """A score for each row from a model that was fitted on the other folds; zeros where these hold one class only."""
    import lightgbm

    scores = np.zeros(len(features), np.float64)
    for number in np.unique(fold):
        asked, learned = fold == number, fold != number
        if not positive[learned].any() or positive[learned].all():
            continue
        data = lightgbm.Dataset(features[learned], label=positive[learned].astype(np.float32), free_raw_data=True)
        booster = lightgbm.train(_PARAMETERS, data, num_boost_round=_ROUNDS)
        scores[asked] = np.asarray(booster.predict(features[asked], num_threads=1), np.float64)
    return scores
