"""Scores of predicted numbers, as pure functions on arrays, by SciPy and scikit-learn."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

METRICS = ("pearson", "spearman", "rmse", "mae")
DEFAULT = ("pearson", "spearman", "rmse")


def score(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The named metrics of (N,) numbers: correlations in -1..1, errors in the unit of the labels.

    A correlation with numbers that are all equal is not defined; it counts as 0.
    """
    from scipy import stats

    found = {}
    for name in names:
        if name == "rmse":
            found[name] = float(np.sqrt(np.mean(np.square(labels - predicted))))
        elif name == "mae":
            found[name] = float(np.mean(np.abs(labels - predicted)))
        elif np.ptp(labels) == 0 or np.ptp(predicted) == 0:
            found[name] = 0.0
        else:
            function = stats.pearsonr if name == "pearson" else stats.spearmanr
            found[name] = float(function(labels, predicted).statistic)
    return found
