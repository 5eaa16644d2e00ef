"""Which rows go where: a held-out part, and a sample.

Both give indices only, drawn from a seed, so that a run can be repeated.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from fasttune.data.text_file import Problems
from fasttune.errors import DataError, Problem, shown


def holdout(
    labels: Sequence[int], fraction: float, seed: int, names: Sequence[str] = (), where: str = "data.train"
) -> tuple[list[int], list[int]]:
    """Training rows and validation rows, ascending, every class in both in about the proportion of the whole.

    At least one validation row per class is taken, also where `fraction` of a small data set would be fewer.
    `names` are the names of the classes, for messages.
    """
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
    return sorted(train.tolist()), sorted(validation.tolist())


def grouped_holdout(
    groups: Sequence[str], fraction: float, seed: int, where: str = "data.train"
) -> tuple[list[int], list[int]]:
    """Training rows and validation rows, ascending: whole groups, drawn until they hold `fraction` of the rows.

    Groups that would make it twice that are left in training. At least one group is on either side.
    """
    sizes = Counter(groups)
    if len(sizes) < 2:
        raise DataError(
            Problem(
                code="E255",
                where=where,
                found=f"{len(groups):,} rows that all share one text",
                expected="two different texts or more, to hold the rows of one out for validation",
                hint="give the validation rows yourself: data.validation=FILE",
            )
        )
    names = sorted(sizes)
    held_out: set[str] = set()
    num_rows, wanted = 0, fraction * len(groups)
    for index in np.random.default_rng(seed).permutation(len(names))[:-1]:
        if num_rows >= wanted:
            break
        if num_rows + sizes[names[index]] <= 2 * wanted:
            held_out.add(names[index])
            num_rows += sizes[names[index]]
    held_out = held_out or {min(names, key=lambda name: sizes[name])}
    sides: tuple[list[int], list[int]] = ([], [])
    for row, group in enumerate(groups):
        sides[group in held_out].append(row)
    return sides


def sample(num_rows: int, limit: int | None, seed: int) -> list[int]:
    """`limit` random rows of `num_rows`: those that `datasets.Dataset.shuffle(seed=seed).select(range(limit))` draws.

    Without a limit all rows in their order; with one above `num_rows` all rows, shuffled.
    """
    if limit is None:
        return list(range(num_rows))
    return np.random.default_rng(seed).permutation(num_rows)[:limit].tolist()
