"""Rows in the form that tasks read, independent of the file they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np

from fasttune.data.columns import Texts, cells_of
from fasttune.data.problems import row_name
from fasttune.data.sources import Source


@dataclass(frozen=True)
class Rows:
    """The user's records: `ids` and, for each role of the task's columns, one value per row.

    Training rows also have the values of the columns that the recipe splits them by, `group` and `time`.
    `notes`: what was changed or set aside while reading. `place`: names a row's place in its file. `class_names`: the
    classes of the target column in order, if the data set declares them. `settings`: choices made while reading that
    the recipe left open, as fields of the recipe; all other splits are read the same way.
    """

    ids: Sequence[str]
    values: Mapping[str, Sequence[Any]]
    notes: tuple[str, ...] = ()
    place: Callable[[int], str] = row_name
    class_names: tuple[str, ...] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, indices: Iterable[int]) -> Rows:
        """The rows at these positions, in this order."""
        chosen = np.fromiter(indices, dtype=np.int64)
        values = {role: _taken(column, chosen) for role, column in self.values.items()}
        place = partial(_place_of, self.place, chosen)
        return Rows(_taken(self.ids, chosen), values, place=place, class_names=self.class_names)

    def with_more(self, more: Rows) -> Rows:
        """These rows and then `more`, with the roles that both have."""
        values = {role: [*cells, *more.values[role]] for role, cells in self.values.items() if role in more.values}
        place = partial(_place_in, self.place, more.place, len(self))
        return replace(self, ids=[*self.ids, *more.ids], values=values, place=place)


class NumbersAsIds(Sequence[str]):
    """Row numbers that become strings on access; training never needs them."""

    def __init__(self, numbers: Sequence[int] | np.ndarray):
        self._numbers = np.asarray(numbers, dtype=np.int64)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: Any) -> Any:
        numbers = self._numbers[index]
        return list(map(str, numbers)) if isinstance(index, slice) else str(numbers)

    def take(self, rows: np.ndarray) -> NumbersAsIds:
        return NumbersAsIds(self._numbers[rows])


def _taken(values: Sequence[Any], rows: np.ndarray) -> Sequence[Any]:
    return values.take(rows) if isinstance(values, Texts | NumbersAsIds) else [values[row] for row in rows]


def _place_of(place: Callable[[int], str], chosen: np.ndarray, index: int) -> str:
    return place(int(chosen[index]))


def _place_in(first: Callable[[int], str], second: Callable[[int], str], length: int, index: int) -> str:
    return first(index) if index < length else second(index - length)


def ids_of(source: Source) -> Sequence[str]:
    """The values of the column `id`, or for rows without one their numbers in the source, from 0."""
    dataset = source.dataset
    numbers = source.kept if source.kept is not None else range(len(dataset))
    if "id" in dataset.column_names:
        values = cells_of(dataset, "id")
        return [str(row if value is None else value) for row, value in zip(numbers, values, strict=True)]
    return NumbersAsIds(numbers)
