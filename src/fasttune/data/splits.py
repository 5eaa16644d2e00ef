"""Which rows go where: a held-out part, and a sample.

All give indices only, fixed by the rows and a seed, so that a run can be repeated.
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
    """Training rows and validation rows, ascending, every class in both in about the proportion of the whole.

    At least one validation row per class is taken, also where `fraction` of a small data set would be fewer.
    `names` are the names of the classes, for messages; without names the numbers are strata that are to be shared out
    evenly, and those of one row join others.
    """
    labels = labels if names else _without_lonely(labels)
    if not 0 < fraction < 1:
        raise DataError(
            Problem(code="E255", where="data.validation_fraction", found=f"{fraction}", expected="above 0 and below 1")
        )
    counts = Counter(labels)
    problems = Problems(where)
    for label in sorted(label for label, count in counts.items() if count < 2 and len(counts) > 1):
        problems.add(
            Problem(
                code="E213",
                where=where,
                found=f"1 row of class {shown(names[label]) if names else label}",
                expected="2 rows or more of each class, to hold one out for validation",
                hint="add rows of this class, take it out, or give the validation rows yourself: data.validation=FILE",
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
                found=f"{num_rows:,} rows of {num_classes} classes, too few to hold {fraction:g} of them out",
                expected="enough rows for every class on both sides",
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


def _without_lonely(strata: Sequence[int]) -> list[int]:
    """The same, with each stratum of one row put to the next larger number, or of the largest to the one below."""
    numbers, counts = np.unique(np.asarray(strata, dtype=np.int64), return_counts=True)
    several = numbers[counts > 1]
    if not len(several):
        return [0] * len(strata)
    joined = several[np.minimum(np.searchsorted(several, numbers), len(several) - 1)]
    of_number = dict(zip(numbers.tolist(), joined.tolist(), strict=True))
    return [of_number[int(number)] for number in strata]


def _with_every_class(
    side: np.ndarray, other: np.ndarray, classes: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Sorted; of each class that only the `other` side has, one row is taken over: its proportion came to none."""
    missing = np.setdiff1d(classes, classes[side])
    taken = [generator.choice(other[classes[other] == label]) for label in missing]
    return np.sort(np.concatenate([side, np.array(taken, dtype=side.dtype)]))


def holdout_together(
    same: np.ndarray, labels: Sequence[int], fraction: float, seed: int, names: Sequence[str], where: str
) -> tuple[list[int], list[int]]:
    """As `holdout`, with rows of equal `same` on one side: only the first of each is drawn, the others follow it.

    What would fill the held-out rows by itself stays in training. Of a class with less than two others to draw from,
    rows are drawn one by one.
    """
    classes, same = np.asarray(labels), np.asarray(same)
    wanted = fraction * len(same)
    firsts, position, counts = np.unique(same, return_index=True, return_counts=True)
    few = counts <= max(1, wanted)
    present, sizes = np.unique(classes[position[few]], return_counts=True)
    in_need = np.setdiff1d(classes, present[sizes > 1])
    if len(in_need):
        alone = np.isin(classes, in_need)
        same = np.where(alone, same.max() + 1 + np.arange(len(same)), same)
        firsts, position, counts = np.unique(same, return_index=True, return_counts=True)
        few = counts <= max(1, wanted)
    number = int(counts[few].sum())
    if len(firsts) == len(same) or wanted >= number:
        return holdout(labels, fraction, seed, names, where)
    _, held_out = holdout(classes[position[few]].tolist(), wanted / number, seed, names, where)
    is_held_out = np.isin(same, firsts[few][held_out])
    return np.flatnonzero(~is_held_out).tolist(), np.flatnonzero(is_held_out).tolist()


def united(ties: Sequence[Sequence[Any]]) -> list[str]:
    """Rows that share a value in one of several columns, directly or by others, get one name; nothing ties no rows."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    number = len(ties[0])
    nodes: dict[tuple[int, str], int] = {}
    edges = [
        (row, nodes.setdefault((column, str(value)), number + len(nodes)))
        for column, values in enumerate(ties)
        for row, value in enumerate(values)
        if value is not None and str(value).strip()
    ]
    rows, others = zip(*edges, strict=True) if edges else ((), ())
    size = number + len(nodes)
    graph = coo_array((np.ones(len(edges), bool), (rows, others)), shape=(size, size))
    return [str(group) for group in connected_components(graph, directed=False)[1][:number]]


def grouped_holdout(
    groups: Sequence[str], fraction: float, seed: int, where: str = "data.train"
) -> tuple[list[int], list[int]]:
    """Training rows and validation rows, ascending: whole groups, drawn as near to `fraction` of the rows as they come.

    At least one group is on either side.
    """
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise DataError(
            Problem(
                code="E255",
                where=where,
                found=f"{len(groups):,} rows that all belong together",
                expected="two groups or more (texts, or values of data.columns.group), to hold one out",
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
    """The rows before a point in time, and the latest ones: `fraction` of them, and all others of that very time."""
    order = _time_values(times, where, place)
    begin = np.sort(order)[len(order) - max(1, round(fraction * len(order)))]
    late = order >= begin
    if late.all():
        raise DataError(
            Problem(
                code="E255",
                where=where,
                found=f"{len(times):,} rows, of which the latest {fraction:g} are all of one time",
                expected="rows of several times",
                hint="another data.columns.time, or none",
            )
        )
    return np.flatnonzero(~late).tolist(), np.flatnonzero(late).tolist()


def _time_values(times: Sequence[Any], where: str, place: Callable[[int], str]) -> np.ndarray:
    """(N,) float64, comparable: numbers as they are, dates in the forms of ISO 8601 as seconds."""
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
        # A time without a zone is compared with others without one, whatever the zone of this machine.
        has_zone = time.tzinfo is not None
        return ("dates with a zone", time.timestamp()) if has_zone else ("dates", time.replace(tzinfo=UTC).timestamp())
    if isinstance(time, int | float | Decimal) and not isinstance(time, bool) and math.isfinite(time):
        return "numbers", float(time)
    raise ValueError


def sample(num_rows: int, limit: int | None, seed: int) -> list[int]:
    """`limit` random rows of `num_rows`: those that `datasets.Dataset.shuffle(seed=seed).select(range(limit))` draws.

    Without a limit all rows in their order; with one above `num_rows` all rows, shuffled.
    """
    if limit is None:
        return list(range(num_rows))
    return np.random.default_rng(seed).permutation(num_rows)[:limit].tolist()
