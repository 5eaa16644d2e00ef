"""Weak slices: groups of rows, described by one or two properties, in which a model errs more often than elsewhere.

A shallow regression tree over the properties proposes the groups. Because it searches, even rows without any weak group
would give it one, so its groups are judged against those that the same search finds after the errors have been shuffled
among the rows (the largest statistic of each shuffle: Westfall & Young, 1993). Letters: N rows, P properties.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttune.analysis.properties import Properties, as_matrix, is_group

DEPTH = 2
NUM_SHUFFLES = 200
MOST_ROWS = 5_000  # searched, drawn at random; a search in more takes seconds for the same findings
MIN_ROWS, MIN_SHARE = 20, 0.03  # of a slice
MIN_TO_SEARCH = 100
SIGNIFICANT = 0.05


@dataclass(frozen=True)
class Condition:
    """`low` <= the property < `high`; None: no bound."""

    name: str
    low: float | None
    high: float | None

    def holds(self, properties: Properties) -> np.ndarray:
        values = properties[self.name]
        return (values >= (-np.inf if self.low is None else self.low)) & (
            values < (np.inf if self.high is None else self.high)
        )


@dataclass(frozen=True)
class Slice:
    """Rows that meet all conditions have a mean error of `inside`, the others of `outside`.

    `low` and `high`: the 95 % interval of inside - outside, and `p_value`, both corrected for the search.
    """

    conditions: tuple[Condition, ...]
    num_rows: int
    inside: float
    outside: float
    low: float
    high: float
    p_value: float

    def members(self, properties: Properties) -> np.ndarray:
        """(N,) bool: the rows of the slice."""
        holds = [condition.holds(properties) for condition in self.conditions]
        return np.logical_and.reduce(holds)


def weak_slices(
    properties: Properties, errors: np.ndarray, clusters: np.ndarray | None = None, seed: int = 0
) -> list[Slice]:
    """The slices with more errors than the other rows, weakest first. `errors` (N,); `clusters` (N,) as in RowSums."""
    names, values = as_matrix(properties)
    if len(errors) < MIN_TO_SEARCH or not names or np.ptp(errors) == 0:
        return []
    generator = np.random.default_rng(seed)
    if len(errors) > MOST_ROWS:
        chosen = np.sort(generator.choice(len(errors), MOST_ROWS, replace=False))
        values, errors, clusters = values[chosen], errors[chosen], None if clusters is None else clusters[chosen]
    # Rows of a cluster err together, which makes a difference less certain by this factor, unless it is one between the
    # clusters themselves.
    inflation = np.sqrt(_design_effect(errors, clusters))
    nodes = _nodes(values, errors)
    statistics = [_statistic(errors, node.inside) / (1.0 if _is_of_group(node, names) else inflation) for node in nodes]
    largest = np.array([_largest(values, generator.permutation(errors)) for _ in range(NUM_SHUFFLES)])
    quantile = float(np.quantile(largest, 1 - SIGNIFICANT))
    found: list[tuple[float, _Node, Slice]] = []
    for statistic, node in zip(statistics, nodes, strict=True):
        p_value = (1 + int((largest >= statistic).sum())) / (1 + NUM_SHUFFLES)
        if statistic <= 0 or p_value >= SIGNIFICANT:
            continue
        inside, outside = float(errors[node.inside].mean()), float(errors[~node.inside].mean())
        margin = quantile * (inside - outside) / statistic
        conditions = tuple(_conditions(node.bounds, names))
        difference = inside - outside
        one = Slice(
            conditions, int(node.inside.sum()), inside, outside, difference - margin, difference + margin, p_value
        )
        found.append((statistic, node, one))
    kept: list[tuple[_Node, Slice]] = []
    for _, node, one in sorted(found, key=lambda item: -item[0]):
        if not any(_nested(node, other) for other, _ in kept):
            kept.append((node, one))
    return [one for _, one in kept]


@dataclass(frozen=True)
class _Node:
    """`inside` (N,) bool; `bounds`: number of a property -> (low, high)."""

    inside: np.ndarray
    bounds: dict[int, tuple[float | None, float | None]]


def _is_of_group(node: _Node, names: list[str]) -> bool:
    return any(is_group(names[number]) for number in node.bounds)


def _nested(a: _Node, b: _Node) -> bool:
    return bool((a.inside <= b.inside).all() or (b.inside <= a.inside).all())


def _nodes(values: np.ndarray, errors: np.ndarray) -> list[_Node]:
    """All nodes of the tree but its root."""
    from sklearn.tree import DecisionTreeRegressor

    smallest = max(MIN_ROWS, int(MIN_SHARE * len(errors)))
    tree = DecisionTreeRegressor(max_depth=DEPTH, min_samples_leaf=smallest, random_state=0).fit(values, errors)
    return list(_below_root(tree.tree_, values))


def _below_root(tree: Any, values: np.ndarray) -> Iterator[_Node]:
    def walk(node: int, inside: np.ndarray, bounds: dict[int, tuple[float | None, float | None]]) -> Iterator[_Node]:
        if node:
            yield _Node(inside, bounds)
        number, threshold = int(tree.feature[node]), float(tree.threshold[node])
        if number < 0:
            return
        low, high = bounds.get(number, (None, None))
        # scikit-learn compares in float32: value <= threshold goes left.
        is_left = values[:, number].astype(np.float32) <= threshold
        yield from walk(int(tree.children_left[node]), inside & is_left, {**bounds, number: (low, threshold)})
        yield from walk(int(tree.children_right[node]), inside & ~is_left, {**bounds, number: (threshold, high)})

    yield from walk(0, np.ones(len(values), dtype=bool), {})


def _statistic(errors: np.ndarray, inside: np.ndarray) -> float:
    """How many standard errors more mistakes a group has than the other rows, whose variance is pooled."""
    num_inside, number = int(inside.sum()), len(errors)
    if not 0 < num_inside < number:
        return 0.0
    difference = errors[inside].mean() - errors[~inside].mean()
    deviation = errors.std() * np.sqrt(1 / num_inside + 1 / (number - num_inside))
    return float(difference / deviation)


def _largest(values: np.ndarray, errors: np.ndarray) -> float:
    return max((_statistic(errors, node.inside) for node in _nodes(values, errors)), default=0.0)


def _design_effect(errors: np.ndarray, clusters: np.ndarray | None) -> float:
    """The variance of a mean over clustered rows, over that of independent rows; at least 1 (Kish, 1965)."""
    if clusters is None:
        return 1.0
    residuals = errors - errors.mean()
    sums = np.bincount(np.unique(clusters, return_inverse=True)[1], weights=residuals)
    return max(1.0, float(np.square(sums).sum() / np.square(residuals).sum()))


def _conditions(bounds: dict[int, tuple[float | None, float | None]], names: list[str]) -> Iterator[Condition]:
    for number, (low, high) in bounds.items():
        yield Condition(names[number], low, high)
