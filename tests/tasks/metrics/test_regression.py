"""Scores of numbers beside their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, root_mean_squared_error

from fasttune.tasks.metrics import regression

RNG = np.random.default_rng(1)
LABELS = RNG.random(50) * 5
PREDICTED = LABELS + RNG.normal(size=50)


def test_scores_follow_their_definitions() -> None:
    ranks = [np.argsort(np.argsort(values)) for values in (LABELS, PREDICTED)]
    assert regression.score(LABELS, PREDICTED, regression.METRICS) == {
        "pearson": pytest.approx(np.corrcoef(LABELS, PREDICTED)[0, 1]),
        "spearman": pytest.approx(np.corrcoef(*ranks)[0, 1]),
        "rmse": pytest.approx(root_mean_squared_error(LABELS, PREDICTED)),
        "mae": pytest.approx(mean_absolute_error(LABELS, PREDICTED)),
    }


def test_a_correlation_with_equal_numbers_is_0() -> None:
    constant = np.full(50, 2.0)
    assert regression.score(LABELS, constant, ["pearson", "spearman"]) == {"pearson": 0.0, "spearman": 0.0}
