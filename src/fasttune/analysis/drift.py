"""Drift: do the rows of two splits look as if they came from the same place?

Properties are compared by the test of Kolmogorov and Smirnov, the share of each label by a test of two proportions, all
corrected for their number (Bonferroni). With many rows every small difference is certain, so it must also be large.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from fasttune.analysis.properties import Properties, words_of

SIGNIFICANT = 0.01
MIN_DISTANCE = 0.15  # between the distributions of a property, in 0..1
MIN_LABEL_DISTANCE = 0.1  # half the sum of the differences of the shares of labels; of several labels the largest one


@dataclass(frozen=True)
class Shift:
    """`name`: a property, or "labels". `distance`: between the two distributions, in 0..1.

    `before`, `after`: the medians of a property; for labels, the largest change of a share, that of `label`.
    """

    name: str
    distance: float
    p_value: float
    before: float
    after: float
    label: str = ""


@dataclass(frozen=True)
class LabelCounts:
    """In how many of `num_rows` rows each label occurs."""

    counts: Mapping[str, int]
    num_rows: int

    @property
    def is_one_each(self) -> bool:
        return sum(self.counts.values()) == self.num_rows


def shifts(
    train: Properties,
    other: Properties,
    train_labels: LabelCounts | None = None,
    other_labels: LabelCounts | None = None,
) -> list[Shift]:
    """The properties and labels that differ between training rows and other rows, largest distance first."""
    names = [name for name in train if name in other and name != "rare words"]  # training rows count their own words
    num_tests = len(names) + 1
    found = []
    for name in names:
        distance, p_value = _kolmogorov_smirnov(train[name], other[name])
        if distance >= MIN_DISTANCE and p_value * num_tests < SIGNIFICANT:
            before, after = (float(np.median(values)) for values in (train[name], other[name]))
            found.append(Shift(name, distance, min(1.0, p_value * num_tests), before, after))
    if train_labels and other_labels:
        found += _label_shift(train_labels, other_labels, num_tests)
    return sorted(found, key=lambda one: -one.distance)


def unseen_share(texts: Sequence[str], known: Counter[str]) -> float:
    """The share of the words of these texts that occur in no training text."""
    words = [word for text in texts for word in words_of(text)]
    return sum(word not in known for word in words) / len(words) if words else 0.0


def _kolmogorov_smirnov(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """The largest distance of the two distribution functions, and its asymptotic p-value."""
    values = np.sort(np.concatenate([a, b]))
    functions = [np.searchsorted(np.sort(sample), values, "right") / len(sample) for sample in (a, b)]
    distance = float(np.abs(functions[0] - functions[1]).max())
    return distance, float(special.kolmogorov(distance * np.sqrt(len(a) * len(b) / (len(a) + len(b)))))


def _label_shift(before: LabelCounts, after: LabelCounts, num_tests: int) -> list[Shift]:
    """The label whose share of the rows changed most, if the labels differ: each label is a test of its own."""
    names = [name for name in {**before.counts, **after.counts} if before.counts.get(name) or after.counts.get(name)]
    if not names or not before.num_rows or not after.num_rows:
        return []
    sizes = np.array([[before.num_rows], [after.num_rows]], dtype=float)
    counts = np.array([[side.counts.get(name, 0) for name in names] for side in (before, after)], dtype=float)
    shares, pooled = counts / sizes, counts.sum(axis=0) / sizes.sum()
    deviation = np.sqrt(pooled * (1 - pooled) * (1 / sizes).sum())
    change = np.abs(shares[0] - shares[1])
    statistics = np.divide(change, deviation, out=np.zeros_like(change), where=deviation > 0)
    p_values = 2 * special.ndtr(-statistics) * len(names)
    distance = float(change.sum() / 2) if before.is_one_each and after.is_one_each else float(change.max())
    most = int(change.argmax())
    p_value = float(p_values.min()) * num_tests
    if distance < MIN_LABEL_DISTANCE or p_value >= SIGNIFICANT:
        return []
    return [Shift("labels", distance, min(1.0, p_value), float(shares[0, most]), float(shares[1, most]), names[most])]
