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
NUM_SAMPLES = 30
MOST_DECISIONS = 100_000  # drawn at random; more change a threshold little and cost seconds
SMALLEST = 1e-6  # a threshold
PER_LABEL = ("f1_macro", "f1_weighted", "precision_macro", "recall_macro")  # metrics to which each label adds its own


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


def best_thresholds(probabilities: np.ndarray, labels: np.ndarray, per_label: bool) -> np.ndarray:
    """(K,) thresholds for the F1 of new rows like these; `probabilities`, `labels` (N, K).

    With `per_label` each label has a threshold of its own, for means over labels such as macro F1; a label with fewer
    than MIN_ROWS rows uses the shared one. Otherwise all labels share the threshold for micro F1, whose optimum is the
    same for all labels (Koyejo et al., 2015).
    """
    shared = chosen_threshold(probabilities.ravel(), labels.ravel())
    thresholds = np.full(labels.shape[1], shared)
    if per_label:
        for number in np.flatnonzero(labels.sum(axis=0) >= MIN_ROWS):
            thresholds[number] = chosen_threshold(probabilities[:, number], labels[:, number])
    return thresholds


def chosen_threshold(probabilities: np.ndarray, labels: np.ndarray) -> float:
    """The threshold for the F1 of new decisions like these N, or DEFAULT_THRESHOLD if these do not show a gain.

    The best threshold of the rows themselves follows their accidents, and on other rows it is often worse than none. So
    the best ones of random samples with replacement are averaged, on the scale of logits (bagging; Breiman, 1996), and
    they count only if they gain on the rows that their samples left out.
    """
    from scipy.special import expit, logit

    generator, number = np.random.default_rng(0), len(labels)
    if number > MOST_DECISIONS:
        kept = generator.choice(number, MOST_DECISIONS, replace=False)
        probabilities, labels, number = probabilities[kept], labels[kept], MOST_DECISIONS
    thresholds, gains = [], []
    for _ in range(NUM_SAMPLES):
        drawn = generator.integers(number, size=number)
        left_out = np.ones(number, dtype=bool)
        left_out[drawn] = False
        threshold = best_cut(probabilities[drawn], labels[drawn])
        thresholds.append(threshold)
        f1 = [_f1(probabilities[left_out] >= limit, labels[left_out]) for limit in (threshold, DEFAULT_THRESHOLD)]
        gains.append(f1[0] - f1[1])
    if np.mean(gains) <= 0:
        return DEFAULT_THRESHOLD
    return float(expit(np.mean(logit(np.clip(thresholds, SMALLEST, 1 - SMALLEST)))))


def _f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    number = int(predicted.sum() + labels.sum())
    return 2 * int((predicted & labels).sum()) / number if number else 0.0


def best_cut(probabilities: np.ndarray, labels: np.ndarray) -> float:
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
