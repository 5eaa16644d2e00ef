"""Metrics of a single-label classifier, computed by scikit-learn. Shapes: N examples, K classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

MIN_ROWS = 20  # of predictions whose precision is judged


def _average(function: str, average: str) -> Callable[[np.ndarray, np.ndarray, int], float]:
    def score(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
        from sklearn import metrics

        # Average over all K classes, even those without rows in this split; a class never predicted scores 0.
        options = {"average": average, "labels": range(num_classes), "zero_division": 0.0}
        return float(getattr(metrics, function)(labels, predicted, **options))

    return score


def _accuracy(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    return float(np.mean(labels == predicted))


def _f1(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    """F1 of class 1; for two classes only."""
    from sklearn.metrics import f1_score

    return float(f1_score(labels, predicted, pos_label=1, zero_division=0.0))


def _matthews(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    from sklearn.metrics import matthews_corrcoef

    return float(matthews_corrcoef(labels, predicted))


def _mean_distance(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    """How many classes a prediction is off, on average; for ordered classes."""
    return float(np.mean(np.abs(labels - predicted)))


def _quadratic_kappa(labels: np.ndarray, predicted: np.ndarray, num_classes: int) -> float:
    """Cohen's kappa with squared distances of ordered classes; 0 where it is undefined, with one class only."""
    from sklearn.metrics import cohen_kappa_score

    if len(np.union1d(labels, predicted)) < 2:
        return 0.0
    return float(cohen_kappa_score(labels, predicted, labels=range(num_classes), weights="quadratic"))


ORDERED = ("quadratic_kappa", "mae")  # for ordered classes only
METRICS: dict[str, Callable[[np.ndarray, np.ndarray, int], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "f1_macro": _average("f1_score", "macro"),
    "f1_micro": _average("f1_score", "micro"),
    "f1_weighted": _average("f1_score", "weighted"),
    "precision_macro": _average("precision_score", "macro"),
    "recall_macro": _average("recall_score", "macro"),
    "matthews_correlation": _matthews,
    "quadratic_kappa": _quadratic_kappa,
    "mae": _mean_distance,
}


def default_metrics(num_classes: int) -> tuple[str, ...]:
    """Accuracy, and F1: of the second of two classes, or the mean over more than two."""
    return ("accuracy", "f1" if num_classes == 2 else "f1_macro")


def score(labels: np.ndarray, predicted: np.ndarray, num_classes: int, names: Sequence[str]) -> dict[str, float]:
    """The named metrics, each in 0..1 (`matthews_correlation` in -1..1); `labels`, `predicted` (N,) in 0..K-1."""
    return {name: METRICS[name](labels, predicted, num_classes) for name in names}


def confidence_for(confidence: np.ndarray, is_right: np.ndarray, precision: float) -> float | None:
    """The lowest confidence from which on at least `precision` of the predictions are right.

    `confidence`, `is_right` (N,). None if no MIN_ROWS of the most confident predictions reach it.
    """
    order = np.argsort(-confidence, kind="stable")
    ranked = confidence[order]
    shares = np.cumsum(is_right[order]) / np.arange(1, len(order) + 1)
    can_cut = np.append(ranked[1:] < ranked[:-1], True)  # equal confidences stay together
    enough = np.flatnonzero((shares >= precision) & can_cut & (np.arange(len(order)) >= MIN_ROWS - 1))
    if not len(enough):
        return None
    last = int(enough[-1])
    return float((ranked[last] + (ranked[last + 1] if last + 1 < len(ranked) else 0.0)) / 2)


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities [N, K] in float64."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)
