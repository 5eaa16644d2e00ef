"""Random rows of a data set to look at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fasttune.data.splits import sample
from fasttune.errors import Problem, UsageError

if TYPE_CHECKING:
    import datasets


def sample_rows(dataset: datasets.Dataset, num_rows: int, seed: int) -> list[dict[str, Any]]:
    """`num_rows` different rows, with class names instead of class numbers; UsageError if there are fewer rows."""
    if not 1 <= num_rows <= dataset.num_rows:
        raise UsageError(
            Problem(
                where="the number of rows to show",
                found=f"{num_rows:,}",
                expected=f"1 to {dataset.num_rows:,}",
            )
        )
    indices = sample(dataset.num_rows, num_rows, seed)
    rows = dataset.select(indices).with_format("arrow")[:].to_pylist()
    for name, feature in dataset.features.items():
        names = getattr(feature, "names", None)
        if type(feature).__name__ == "ClassLabel" and names:
            for row in rows:
                # -1 and null mean that the row has no label.
                row[name] = names[row[name]] if row[name] is not None and row[name] >= 0 else None
    return rows
