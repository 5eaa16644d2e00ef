"""Keep the splits of generated rows apart: no held-out row may be a near-duplicate of a row in an earlier split."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np

from fasttune.data.duplicates import find

Row = dict[str, Any]


def replace_near_duplicates(
    splits: dict[str, list[Row]], text_of: Callable[[Row], str], draw: Callable[[], Row]
) -> None:
    """Redraw, in place, every row that repeats or nearly repeats a row of an earlier split.

    Templates and small vocabularies produce such rows by chance; scores on them would be too good. The criterion is
    that of the data audit (W250).
    """
    bounds = np.cumsum([0, *map(len, splits.values())])
    ranges = [np.arange(first, last) for first, last in pairwise(bounds)]
    while True:
        duplicates = find(text_of(row) for rows in splits.values() for row in rows)
        num_replaced = 0
        for rows, positions in list(zip(splits.values(), ranges, strict=True))[1:]:
            for index in np.flatnonzero(duplicates.similar_to(positions, np.arange(positions[0]))):
                rows[index] = draw()
                num_replaced += 1
        if not num_replaced:
            return


def numbered(splits: dict[str, list[Row]]) -> dict[str, list[Row]]:
    """The rows with an `id` such as train-0001 in front."""
    return {
        split: [{"id": f"{split}-{number:04d}", **row} for number, row in enumerate(rows, start=1)]
        for split, rows in splits.items()
    }
