"""Confidence intervals of metrics, and of the differences of two models on the same rows.

A share of rows has Wilson's interval. All other metrics are bootstrapped: the rows, or clusters of rows that belong
together, are drawn again with replacement (Efron & Tibshirani, 1993), and the interval is the value +- the quantile of
Student's t times the standard deviation over the samples, on the scale of logits, where a metric near its bound is not
skewed; for correlations that is Fisher's transformation. benchmarks/intervals.py checks all by simulation.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from fasttune.tasks.metrics.sums import ANSWERS, CLASSES, RowSums

LEVEL = 0.95
CORRELATIONS = ("pearson", "spearman", "matthews_correlation", "quadratic_kappa")  # in -1..1
NUM_SAMPLES = 2000
# More units than this are put together at random into as many blocks, whose sums vary as much.
MAX_UNITS = 4000
CHUNK = 250  # samples; bounds the memory of their weights


def intervals(sums: RowSums, seed: int = 0) -> dict[str, tuple[float, float]]:
    """Metric -> the lower and upper end of its interval of LEVEL."""
    values = sums.measure()
    found = {}
    deviations, num_units = standard_errors([sums], seed)
    for name, deviation in deviations.items():
        value = float(values[name])
        if name in ("accuracy", "f1_micro") and sums.kind == CLASSES and sums.clusters is None:
            found[name] = wilson(value * len(sums), len(sums))
        else:
            found[name] = around(value, deviation, num_units, bounds_of(name, sums.kind))
    return found


def around(value: float, deviation: float, num_units: int, bounds: tuple[float, float]) -> tuple[float, float]:
    """The interval of a value with this standard deviation, within its bounds."""
    margin, (bottom, top) = quantile(num_units) * deviation, bounds
    if np.isinf(top):  # an error, on the scale of logarithms
        factor = float(np.exp(margin / value)) if value > 0 else 1.0
        return value / factor, value * factor
    share = (value - bottom) / (top - bottom)
    if not 0 < share < 1:  # every unit says the same, so only their number counts
        low, high = wilson(round(share) * num_units, num_units)
    else:
        margin /= (top - bottom) * share * (1 - share)
        middle = np.log(share / (1 - share))
        low, high = (1 / (1 + np.exp(-(middle + sign * margin))) for sign in (-1, 1))
    return float(bottom + low * (top - bottom)), float(bottom + high * (top - bottom))


def wilson(successes: float, number: int) -> tuple[float, float]:
    """The interval of a share (Wilson, 1927)."""
    share, z_squared = successes / number, special.ndtri((1 + LEVEL) / 2) ** 2
    middle = (share + z_squared / (2 * number)) / (1 + z_squared / number)
    margin = np.sqrt(z_squared * (share * (1 - share) / number + z_squared / (4 * number**2))) / (
        1 + z_squared / number
    )
    return max(float(middle - margin), 0.0), min(float(middle + margin), 1.0)


def bounds_of(metric: str, kind: str) -> tuple[float, float]:
    """The smallest and largest possible value of a metric."""
    if kind == ANSWERS:
        return 0.0, 100.0
    if metric in ("rmse", "mae"):
        return 0.0, np.inf
    return (-1.0, 1.0) if metric in CORRELATIONS else (0.0, 1.0)


def quantile(num_units: int) -> float:
    """Of Student's t, for an interval of LEVEL; matters for few clusters."""
    return float(special.stdtrit(max(num_units - 1, 1), (1 + LEVEL) / 2))


def standard_errors(both: list[RowSums], seed: int = 0) -> tuple[dict[str, float], int]:
    """Metric -> the standard deviation over samples of the rows, and the number of units they were drawn from.

    With two, the deviation of their difference; both have the same rows, of which each sample draws the same ones.
    """
    units = [_units(sums) for sums in both]
    num_units, generator = len(units[0]), np.random.default_rng(seed)
    samples: dict[str, list[np.ndarray]] = {}
    for first in range(0, NUM_SAMPLES, CHUNK):
        size = min(CHUNK, NUM_SAMPLES - first)
        drawn = generator.integers(num_units, size=(size, num_units)) + num_units * np.arange(size)[:, None]
        weights = np.bincount(drawn.ravel(), minlength=size * num_units).reshape(size, num_units).astype(np.float64)
        measured = [sums.measure(weights @ unit) for sums, unit in zip(both, units, strict=True)]
        for name, values in measured[0].items():
            if all(name in one for one in measured):
                difference = values if len(both) == 1 else values - measured[1][name]
                samples.setdefault(name, []).append(difference)
    return {name: float(np.std(np.concatenate(parts), ddof=1)) for name, parts in samples.items()}, num_units


def _units(sums: RowSums) -> np.ndarray:
    """(units, M): the sums of each row or cluster, or of random blocks of them."""
    values = sums.values
    groups: np.ndarray = (
        np.arange(len(sums)) if sums.clusters is None else np.unique(sums.clusters, return_inverse=True)[1]
    )
    num_groups = int(groups.max()) + 1
    if num_groups > MAX_UNITS:  # the same blocks for every model, so that pairs stay pairs
        blocks = np.random.default_rng(0).permutation(num_groups) % MAX_UNITS
        groups, num_groups = blocks[groups], MAX_UNITS
    elif sums.clusters is None:
        return np.asarray(values.toarray(), dtype=np.float64)
    from scipy import sparse

    member = sparse.csr_matrix(
        (np.ones(len(groups)), (groups, np.arange(len(groups)))), shape=(num_groups, len(groups))
    )
    return np.asarray((member @ values).toarray(), dtype=np.float64)


@dataclass(frozen=True)
class Difference:
    """How much larger `metric` is for `b` than for `a` on the same rows; interval of LEVEL and two-sided p-value."""

    metric: str
    a: float
    b: float
    low: float
    high: float
    p_value: float

    @property
    def difference(self) -> float:
        return self.b - self.a


def differences(a: RowSums, b: RowSums, seed: int = 0) -> list[Difference]:
    """Of every metric that both have; row n of `a` and of `b` are the same row.

    The p-value of accuracy is McNemar's mid-p (Fagerland et al., 2013) with the interval of Bonett & Price (2012); the
    others are those of Student's t on the bootstrap's deviation.
    """
    values = a.measure(), b.measure()
    deviations, num_units = standard_errors([b, a], seed)
    found = []
    for name, deviation in deviations.items():
        first, second = (float(value[name]) for value in values)
        margin = quantile(num_units) * deviation
        low, high = second - first - margin, second - first + margin
        statistic = abs(second - first) / deviation if deviation else (np.inf if second != first else 0.0)
        p_value = float(2 * special.stdtr(max(num_units - 1, 1), -statistic))
        if name in ("accuracy", "f1_micro") and a.kind == b.kind == CLASSES and a.clusters is None:
            only_a, only_b = _discordant(a, b)
            p_value = mid_p(only_a, only_b)
            low, high = bonett_price(only_a, only_b, len(a))
        found.append(Difference(name, first, second, low, high, p_value))
    return found


def _discordant(a: RowSums, b: RowSums) -> tuple[int, int]:
    """The numbers of rows that only `a`, and only `b`, classifies correctly."""
    right = [np.asarray(sums.values[:, : len(sums.names)].sum(axis=1)).ravel() > 0 for sums in (a, b)]
    return int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())


def mid_p(only_a: int, only_b: int) -> float:
    """McNemar's test on the discordant rows, two-sided, with half the probability of the observed numbers."""
    number, fewer = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    return float(special.bdtr(fewer, number, 0.5) + (special.bdtr(fewer - 1, number, 0.5) if fewer else 0.0))


def bonett_price(only_a: int, only_b: int, number: int) -> tuple[float, float]:
    """The interval of the difference of two shares of the same rows, b - a."""
    first, second = (only_a + 1) / (number + 2), (only_b + 1) / (number + 2)
    margin = special.ndtri((1 + LEVEL) / 2) * np.sqrt((first + second - (second - first) ** 2) / (number + 2))
    return max(second - first - margin, -1.0), min(second - first + margin, 1.0)
