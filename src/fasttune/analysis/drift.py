"""Drift: do the rows of two splits look as if they came from the same place?

Properties are compared by the test of Kolmogorov and Smirnov, labels by a chi-square test, both corrected for their
number (Bonferroni). With many rows every small difference is certain, so a difference must also be large.
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
MIN_LABEL_DISTANCE = 0.1  # half the sum of the differences of the shares of labels


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


def shifts(
    train: Properties,
    other: Properties,
    train_labels: Mapping[str, int] | None = None,
    other_labels: Mapping[str, int] | None = None,
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


def _label_shift(before: Mapping[str, int], after: Mapping[str, int], num_tests: int) -> list[Shift]:
    names = [name for name in {**before, **after} if before.get(name, 0) + after.get(name, 0)]
    counts = np.array([[side.get(name, 0) for name in names] for side in (before, after)], dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    if len(names) < 2 or not totals.all():
        return []
    expected = totals * counts.sum(axis=0) / counts.sum()
    p_value = float(special.chdtrc(len(names) - 1, (np.square(counts - expected) / expected).sum()))
    shares = counts / totals
    change = np.abs(shares[0] - shares[1])
    distance = float(change.sum() / 2)
    if distance < MIN_LABEL_DISTANCE or p_value * num_tests >= SIGNIFICANT:
        return []
    most = int(change.argmax())
    before_most, after_most = float(shares[0, most]), float(shares[1, most])
    return [Shift("labels", distance, min(1.0, p_value * num_tests), before_most, after_most, names[most])]
