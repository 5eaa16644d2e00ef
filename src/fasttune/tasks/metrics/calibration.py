"""Calibration: do predictions with probability p come true in p of the cases?

One temperature divides all logits (Guo et al., 2017): it changes no prediction, and repairs most of the over-confidence
of a fine-tuned encoder on texts like its own (Desai & Durrett, 2020). Letters: N rows, K classes or labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

NUM_BINS = 15
MIN_ROWS = 50  # fewer say too little about a temperature
MOST_ROWS = 20_000  # drawn at random; more change a temperature by less than a hundredth
# Log temperatures are shrunk towards 0 as by a normal prior of this deviation, which matters when nearly all rows are
# right and the likelihood alone would ask for certainty.
PRIOR_DEVIATION = 0.5
LOWEST, HIGHEST = 0.1, 10.0


@dataclass(frozen=True)
class Bin:
    """Predictions of similar confidence: how many, their mean probability, and the share that is right."""

    num_predictions: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Calibration:
    """`before`, `after`: the expected calibration error; after it, each half has the temperature of the other half."""

    temperature: float
    num_rows: int
    before: float
    after: float
    reliability: tuple[Bin, ...]

    def as_json(self) -> dict[str, Any]:
        """The content of calibration.json, besides `temperature` only for people."""
        return {
            "temperature": self.temperature,
            "num_rows": self.num_rows,
            "ece_before": self.before,
            "ece_after": self.after,
            "reliability_before": [asdict(one) for one in self.reliability],
        }


Probabilities = Callable[[np.ndarray], np.ndarray]  # of logits (N, K), whose rows are independent


def fit_temperature(logits: np.ndarray, right: np.ndarray, probabilities: Probabilities, one_of: bool) -> float:
    """The temperature with the best likelihood. `right` (N, K) bool: the class of each row or, without `one_of`, its
    labels, each of which is a decision."""
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        given = probabilities(logits / np.exp(log_temperature))
        likelihoods = given[right] if one_of else np.where(right, given, 1 - given)
        return float(-np.log(np.maximum(likelihoods, 1e-12)).sum() + (log_temperature / PRIOR_DEVIATION) ** 2 / 2)

    found = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded")
    return float(np.exp(found.x))


def calibrate(logits: np.ndarray, right: np.ndarray, probabilities: Probabilities, one_of: bool) -> Calibration | None:
    """The temperature of these rows, and what it changes; None for fewer than MIN_ROWS."""
    number = len(logits)
    if number < MIN_ROWS:
        return None
    if number > MOST_ROWS:
        chosen = np.random.default_rng(0).choice(number, MOST_ROWS, replace=False)
        logits, right, number = logits[chosen], right[chosen], MOST_ROWS
    logits = logits.astype(np.float64)
    half = np.random.default_rng(0).permutation(number) % 2 == 0
    after = np.empty_like(probabilities(logits))
    for rows in (half, ~half):
        after[rows] = probabilities(logits[rows] / fit_temperature(logits[~rows], right[~rows], probabilities, one_of))
    before = confidences(probabilities(logits), right, one_of)
    return Calibration(
        temperature=fit_temperature(logits, right, probabilities, one_of),
        num_rows=number,
        before=expected_error(*before),
        after=expected_error(*confidences(after, right, one_of)),
        reliability=tuple(reliability(*before)),
    )


def confidences(given: np.ndarray, right: np.ndarray, one_of: bool) -> tuple[np.ndarray, np.ndarray]:
    """The probability of each prediction, and whether it is right: of each row's best class, or of every label."""
    if not one_of:
        return given.ravel(), right.ravel()
    best = given.argmax(axis=1)
    rows = np.arange(len(given))
    return given[rows, best], right[rows, best]


def reliability(confidence: np.ndarray, is_right: np.ndarray) -> list[Bin]:
    """NUM_BINS bins with equally many predictions, by rising confidence."""
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, NUM_BINS) if len(part)]
    return [Bin(len(part), float(confidence[part].mean()), float(is_right[part].mean())) for part in parts]


def expected_error(confidence: np.ndarray, is_right: np.ndarray) -> float:
    """The mean distance of confidence and accuracy over the bins (expected calibration error; Naeini et al., 2015)."""
    bins = reliability(confidence, is_right)
    return sum(one.num_predictions * abs(one.confidence - one.accuracy) for one in bins) / len(confidence)
