"""Scores of a classifier that gives each row any number of labels, and the thresholds of its labels.

Letters: N rows, K labels.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

METRICS = ("f1_micro", "f1_macro", "f1_weighted", "precision_macro", "recall_macro", "accuracy")
DEFAULT = ("f1_micro", "f1_macro", "accuracy")
DEFAULT_THRESHOLD = 0.5
# Rows with a label that its own threshold takes; of fewer, F1 says more about the rows than about the threshold
# (assumption), and the label shares one threshold with all others.
ENOUGH_ROWS = 20


def score(labels: np.ndarray, predicted: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    """The named metrics, each in 0..1; `labels`, `predicted` (N, K), true where a row has the label.

    `accuracy` is the share of rows whose labels are all right; a label never predicted has precision 0.
    """
    from sklearn import metrics

    found = {}
    for name in names:
        if name == "accuracy":
            found[name] = float(metrics.accuracy_score(labels > 0, predicted))
        else:
            kind, average = name.rsplit("_", 1)
            function = getattr(metrics, f"{kind}_score")
            found[name] = float(function(labels > 0, predicted, average=average, zero_division=0.0))
    return found


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities in float64."""
    from scipy.special import expit

    return expit(logits.astype(np.float64))


def best_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(K,) thresholds that give each label its best F1 on these rows; `probabilities`, `labels` (N, K).

    A label of few rows takes the one threshold that gives all labels together their best micro F1.
    """
    shared = _best_threshold(probabilities.ravel(), labels.ravel())
    return np.array(
        [
            _best_threshold(column, wanted) if wanted.sum() >= ENOUGH_ROWS else shared
            for column, wanted in zip(probabilities.T, labels.T, strict=True)
        ]
    )


def _best_threshold(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The exact maximum of F1 over all cuts; half way between the two probabilities that it separates."""
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
