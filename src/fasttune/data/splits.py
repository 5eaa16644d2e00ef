"""Choose rows to hold out or to sample.

Every function returns row indices that depend only on the rows and a seed, so that runs are reproducible.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np

from fasttune.data.formats.text_file import Place
from fasttune.data.labels import is_number
from fasttune.data.problems import Problems, row_name
from fasttune.errors import DataError, Problem, shown


def holdout(
    labels: Sequence[int], fraction: float, seed: int, names: Sequence[str] = (), where: str = "data.train"
) -> tuple[list[int], list[int]]:
    """Training rows and validation rows, ascending, with about the same share of every class on both sides.

    Every class has at least one validation row, even if `fraction` of a small data set would be fewer. `names` are the
    names of the classes, for messages. Without names, the labels are strata, and strata of one row are merged.
    """
    labels = labels if names else _without_single_rows(labels)
    if not 0 < fraction < 1:
        expected = "a number between 0 and 1"
        raise DataError(Problem(code="E255", where="data.validation_fraction", found=f"{fraction}", expected=expected))
    counts = Counter(labels)
    problems = Problems(where)
    for label in sorted(label for label, count in counts.items() if count < 2 and len(counts) > 1):
        problems.add(
            Problem(
                code="E213",
                where=where,
                found=f"1 row of class {shown(names[label]) if names else label}",
                expected="at least 2 rows of each class, so that one can be held out for validation",
                hint="add or remove rows of this class, or give the validation rows yourself: data.validation=FILE",
            )
        )
    problems.raise_if_any()
    num_rows, num_classes = len(labels), len(counts)
    num_validation = max(math.ceil(num_rows * fraction), num_classes)
    if num_rows == 0 or num_rows - num_validation < num_classes:
        raise DataError(
            Problem(
                code="E255",
                where=where,
                found=f"{num_rows:,} rows of {num_classes} classes are too few to hold out {fraction:g} of them with "
                "every class on both sides",
                hint="lower data.validation_fraction, or give the validation rows yourself: data.validation=FILE",
            )
        )
    from sklearn.model_selection import train_test_split

    train, validation = train_test_split(
        np.arange(num_rows), test_size=num_validation, stratify=np.asarray(labels), random_state=seed
    )
    classes, generator = np.asarray(labels), np.random.default_rng(seed)
    validation = _with_every_class(validation, train, classes, generator)
    train = _with_every_class(np.setdiff1d(train, validation), validation, classes, generator)
    return train.tolist(), np.setdiff1d(validation, train).tolist()


def _without_single_rows(strata: Sequence[int]) -> list[int]:
    """The strata, with each stratum of one row merged into the next larger one, or else into the largest."""
    numbers, counts = np.unique(np.asarray(strata, dtype=np.int64), return_counts=True)
    several = numbers[counts > 1]
    if not len(several):
        return [0] * len(strata)
    merged = several[np.minimum(np.searchsorted(several, numbers), len(several) - 1)]
    merged_of = dict(zip(numbers.tolist(), merged.tolist(), strict=True))
    return [merged_of[int(number)] for number in strata]


def _with_every_class(
    side: np.ndarray, other_side: np.ndarray, classes: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """`side` and one row of each class that it lacks, drawn from `other_side`; sorted."""
    missing = np.setdiff1d(classes, classes[side])
    moved = [generator.choice(other_side[classes[other_side] == label]) for label in missing]
    return np.sort(np.concatenate([side, np.array(moved, dtype=side.dtype)]))


def holdout_together(
    same: np.ndarray, labels: Sequence[int], fraction: float, seed: int, names: Sequence[str], where: str
) -> tuple[list[int], list[int]]:
    """Like `holdout`, but rows of equal `same` stay on one side: the first of them is drawn, the others follow it.

    A set of equal rows larger than the whole held-out split stays in training. The rows of a class that has fewer than
    two sets to draw from are drawn one by one.
    """
    classes, same = np.asarray(labels), np.asarray(same)
    wanted = fraction * len(same)
    firsts, position, counts = np.unique(same, return_index=True, return_counts=True)
    is_small = counts <= max(1, wanted)
    present, sizes = np.unique(classes[position[is_small]], return_counts=True)
    scarce = np.setdiff1d(classes, present[sizes > 1])
    if len(scarce):
        same = np.where(np.isin(classes, scarce), same.max() + 1 + np.arange(len(same)), same)
        firsts, position, counts = np.unique(same, return_index=True, return_counts=True)
        is_small = counts <= max(1, wanted)
    num_drawable = int(counts[is_small].sum())
    if len(firsts) == len(same) or wanted >= num_drawable:
        return holdout(labels, fraction, seed, names, where)
    _, held_out = holdout(classes[position[is_small]].tolist(), wanted / num_drawable, seed, names, where)
    is_held_out = np.isin(same, firsts[is_small][held_out])
    return np.flatnonzero(~is_held_out).tolist(), np.flatnonzero(is_held_out).tolist()


def merged_groups(ties: Sequence[Sequence[Any]]) -> list[str]:
    """One group name per row: rows that share a value in any of the columns, directly or through others, are a group.

    An empty value ties no rows together.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number = len(ties[0])
    nodes: dict[tuple[int, str], int] = {}
    edges = []
    for column, values in enumerate(ties):
        for row, value in enumerate(values):
            if value is not None and str(value).strip():
                edges.append((row, nodes.setdefault((column, str(value)), number + len(nodes))))
    rows, value_nodes = zip(*edges, strict=True) if edges else ((), ())
    size = number + len(nodes)
    graph = coo_array((np.ones(len(edges), bool), (rows, value_nodes)), shape=(size, size))
    return [str(group) for group in connected_components(graph, directed=False)[1][:number]]


def grouped_holdout(
    groups: Sequence[str], fraction: float, seed: int, where: str = "data.train"
) -> tuple[list[int], list[int]]:
    """Training rows and validation rows, ascending: whole random groups that add up to about `fraction` of the rows.

    Each side has at least one group.
    """
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise DataError(
            Problem(
                code="E255",
                where=where,
                found=f"all {len(groups):,} rows belong to one group (a text, or a value of data.columns.group), so "
                "none can be held out",
                hint="give the validation rows yourself: data.validation=FILE",
            )
        )
    names = sorted(sizes)
    held_out: set[str] = set()
    num_rows, wanted = 0, fraction * len(groups)
    for index in np.random.default_rng(seed).permutation(len(names))[:-1]:
        size = sizes[names[index]]
        if abs(num_rows + size - wanted) < abs(num_rows - wanted):
            held_out.add(names[index])
            num_rows += size
    held_out = held_out or {min(names, key=lambda name: sizes[name])}
    sides: tuple[list[int], list[int]] = ([], [])
    for row, group in enumerate(groups):
        sides[group in held_out].append(row)
    return sides


def latest_holdout(
    times: Sequence[Any], fraction: float, where: str, place: Place = row_name
) -> tuple[list[int], list[int]]:
    """The rows before a point in time, and the latest `fraction` of the rows, with all others of the same time."""
    order = _time_values(times, where, place)
    begin = np.sort(order)[len(order) - max(1, round(fraction * len(order)))]
    late = order >= begin
    if late.all():
        raise DataError(
            Problem(
                code="E255",
                where=where,
                found=f"no row is older than the latest {fraction:g} of the {len(times):,} rows",
                hint="another data.columns.time, or none",
            )
        )
    return np.flatnonzero(~late).tolist(), np.flatnonzero(late).tolist()


def _time_values(times: Sequence[Any], where: str, place: Callable[[int], str]) -> np.ndarray:
    """(N,) float64: numbers unchanged, ISO 8601 dates in seconds; DataError for other values and for mixed kinds."""
    problems = Problems(where)
    values = []
    kinds: dict[str, int] = {}
    for row, time in enumerate(times):
        try:
            kind, value = _time_value(time)
        except ValueError:
            expected = "a number, or a date such as 2024-05-31 or 2024-05-31T12:00:00"
            at = f"{where} {place(row)}, data.columns.time"
            problems.add(Problem(code="E226", where=at, found=shown(time), expected=expected))
            continue
        kinds.setdefault(kind, row)
        values.append(value)
    if len(kinds) > 1:
        found = " and ".join(f"{kind} ({place(row)})" for kind, row in kinds.items())
        problems.add(
            Problem(code="E226", where=f"{where}, data.columns.time", found=found, expected="times of one kind")
        )
    problems.raise_if_any()
    return np.array(values)


def _time_value(time: Any) -> tuple[str, float]:
    if isinstance(time, str):
        text = time.strip()
        if is_number(text):
            return "numbers", float(text)
        time = datetime.fromisoformat(text)
    if isinstance(time, date) and not isinstance(time, datetime):
        time = datetime(time.year, time.month, time.day)
    if isinstance(time, datetime):
        # Times without a zone are compared as UTC, so that the result does not depend on the zone of this machine.
        has_zone = time.tzinfo is not None
        return ("dates with a zone", time.timestamp()) if has_zone else ("dates", time.replace(tzinfo=UTC).timestamp())
    if isinstance(time, int | float | Decimal) and not isinstance(time, bool) and math.isfinite(time):
        return "numbers", float(time)
    raise ValueError


def sample(num_rows: int, limit: int | None, seed: int) -> list[int]:
    """`limit` random rows of `num_rows`, the same as `datasets.Dataset.shuffle(seed=seed).select(range(limit))`.

    Without a limit: all rows in order. With a limit above `num_rows`: all rows, shuffled.
    """
    if limit is None:
        return list(range(num_rows))
    return np.random.default_rng(seed).permutation(num_rows)[:limit].tolist()
