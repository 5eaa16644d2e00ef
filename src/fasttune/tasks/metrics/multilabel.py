"""Metrics of a multi-label classifier, and the best threshold of each label. Shapes: N rows, K labels."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

METRICS = ("f1_micro", "f1_macro", "f1_weighted", "precision_macro", "recall_macro", "accuracy")
DEFAULT = ("f1_micro", "f1_macro", "accuracy")
DEFAULT_THRESHOLD = 0.5
# A label needs this many rows for a separate threshold. With fewer, F1 depends more on the rows than on the threshold
# (an assumption), and the label uses the threshold shared by all labels.
MIN_ROWS = 20


def score(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The named metrics, each in 0..1; `labels`, `predicted` (N, K): whether a row has a label.

    `accuracy` is the share of rows whose labels are all correct; a label never predicted has precision 0.
    """
    from sklearn import metrics

    values = {}
    for name in names:
        if name == "accuracy":
            values[name] = float(metrics.accuracy_score(labels > 0, predicted))
        else:
            kind, average = name.rsplit("_", 1)
            function = getattr(metrics, f"{kind}_score")
            values[name] = float(function(labels > 0, predicted, average=average, zero_division=0.0))
    return values


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities in float64."""
    from scipy.special import expit

    return expit(logits.astype(np.float64))


def best_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K,) thresholds with the best F1 of each label on these rows; `probabilities`, `labels` (N, K).

    A label with fewer than MIN_ROWS rows uses the threshold with the best micro F1 of all labels.
    """
    shared = _best_threshold(probabilities.ravel(), labels.ravel())
    thresholds = []
    for column, has_label in zip(probabilities.T, labels.T, strict=True):
        thresholds.append(_best_threshold(column, has_label) if has_label.sum() >= MIN_ROWS else shared)
    return np.array(thresholds)


def _best_threshold(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The threshold with the exact maximum of F1, halfway between the two probabilities that it separates."""
    if not labels.any():
        return DEFAULT_THRESHOLD
    order = np.argsort(-probabilities, kind="stable")
    ranked = probabilities[order]
    hits = np.cumsum(labels[order])
    f1 = 2 * hits / (np.arange(1, len(order) + 1) + labels.sum())
    can_cut = np.append(ranked[1:] < ranked[:-1], True)  # equal probabilities stay together
    last = int(np.where(can_cut, f1, -1.0).argmax())
    below = ranked[last + 1] if last + 1 < len(ranked) else 0.0
    return float((ranked[last] + below) / 2)
