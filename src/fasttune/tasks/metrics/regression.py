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

    is_defined = np.ptp(labels) > 0 and np.ptp(predicted) > 0
    functions = {
        "pearson": lambda: stats.pearsonr(labels, predicted).statistic if is_defined else 0.0,
        "spearman": lambda: stats.spearmanr(labels, predicted).statistic if is_defined else 0.0,
        "rmse": lambda: np.sqrt(np.mean(np.square(labels - predicted))),
        "mae": lambda: np.mean(np.abs(labels - predicted)),
    }
    return {name: float(functions[name]()) for name in names}
