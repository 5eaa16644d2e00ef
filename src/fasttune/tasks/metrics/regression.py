"""Metrics of a regression, computed by SciPy and NumPy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

METRICS = ("pearson", "spearman", "rmse", "mae")
DEFAULT = ("pearson", "spearman", "rmse")


def score(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The named metrics of (N,) numbers: correlations in -1..1, errors in the unit of the labels.

    A correlation is undefined if all labels or all predictions are equal, and is then 0.
    """
    from scipy import stats

    values = {}
    for name in names:
        if name == "rmse":
            values[name] = float(np.sqrt(np.mean(np.square(labels - predicted))))
        elif name == "mae":
            values[name] = float(np.mean(np.abs(labels - predicted)))
        elif np.ptp(labels) == 0 or np.ptp(predicted) == 0:
            values[name] = 0.0
        else:
            function = stats.pearsonr if name == "pearson" else stats.spearmanr
            values[name] = float(function(labels, predicted).statistic)
    return values
