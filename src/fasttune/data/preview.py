"""Random rows of a data set, for people to look at: no row twice, class names in place of their numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fasttune.data.splits import sample
from fasttune.errors import Problem, UsageError

if TYPE_CHECKING:
    import datasets


def sample_rows(dataset: datasets.Dataset, num_rows: int, seed: int) -> list[dict[str, Any]]:
    if not 1 <= num_rows <= dataset.num_rows:
        raise UsageError(
            Problem(
                where="the number of rows to show",
                found=f"{num_rows:,}",
                expected=f"1 to {dataset.num_rows:,}, the rows there are",
            )
        )
    indices = sample(dataset.num_rows, num_rows, seed)
    rows = dataset.select(indices).with_format("arrow")[:].to_pylist()
    for name, feature in dataset.features.items():
        names = getattr(feature, "names", None)
        if type(feature).__name__ == "ClassLabel" and names:
            for row in rows:
                # -1 and null stand for rows without a label
                row[name] = names[row[name]] if row[name] is not None and row[name] >= 0 else None
    return rows
