"""Rows without a text or without a label: which they are, and whether they are dropped or refused.

A few empty texts and any number of rows without a label are dropped and counted. In multi-label data an empty cell is a
row to which no label applies.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Sequence
from typing import Any

from fasttune.data.column_names import TOTAL_NAMES, plain_name, words_of_name
from fasttune.data.columns import as_texts, cells_of, class_names, different_values, empty_rows
from fasttune.data.labels import is_number
from fasttune.data.problems import counted, some_of
from fasttune.data.sources import Source
from fasttune.errors import DataError, Problem, shown

# What corpora write for "no label": SNLI for texts on which the annotators disagree, pandas for an empty cell.
NO_LABEL_MARKS = ("-", "?", "nan", "NaN", "#N/A", "#VALUE!", "#REF!")
OPPOSITE = re.compile(r"\++|!|o")  # beside which a mark is a class
MAX_UNLABELLED = 0.5  # of the rows: more may be merged cells, or another column
MAX_MARKED = 0.2  # of the rows: more may be a class
WORDS_OF_TOTAL = 3  # such as "Average rating"
MAX_EMPTY_TEXTS = 0.05  # of the rows: more are a sign of a wrong column


def rows_without_text(source: Source, columns: Sequence[str]) -> list[int]:
    """The rows in which any of these columns is empty, in order."""
    found: set[int] = set()
    for column in columns:
        found.update(empty_rows(source.dataset, column, lists=True))
    return sorted(found)


def rows_without_label(
    source: Source,
    column: str,
    where: str,
    *,
    no_label: Sequence[str] | None,
    has_names: bool,
    are_numbers: bool,
    is_multi: Callable[[Sequence[Any]], bool],
) -> tuple[list[int], str]:
    """The rows of a label column that hold no label, and what they hold, in words.

    `no_label`: further values that mean this (data.no_label). `has_names`: the recipe names all labels, so a mark such
    as "-" is one of them. `are_numbers`: labels are numbers to predict, so -1 is one of them. `is_multi`: whether
    labels are sets of labels, in which an empty cell has a meaning.
    DataError for -1 beside other whole numbers, which may be a class.
    """
    dataset = source.dataset
    names = class_names(dataset, column)
    empty = empty_rows(dataset, column, lists=False)
    if empty and len(empty) < len(dataset) and is_multi(_others(cells_of(dataset, column), empty)):
        empty = []
    marks = set(no_label or ())
    if names is None and not has_names:
        different = different_values(dataset, column)
        values = {str(as_texts(value, None)) for value in different if isinstance(value, str | int | float)}
        found = values & set(NO_LABEL_MARKS) if not any(map(OPPOSITE.fullmatch, values)) else set()
        _check_not_a_class(source, column, where, found - marks)
        marks |= found
        minus = {value for value in values - marks if is_number(value) and float(value) == -1}
        if minus and len(values) > 2 and not are_numbers and all(map(is_number, values)):
            _ask_about_minus_one(source, column, where, minus.pop(), sorted(values - {"-1", "-1.0"}, key=float))
    if not marks:
        return empty, "empty"
    marked = [
        row
        for row, value in enumerate(cells_of(dataset, column))
        if isinstance(value, str | int | float) and str(as_texts(value, names)).strip() in marks
    ]
    if len(marked) + len(empty) == len(dataset):
        return empty, "empty"
    return sorted({*empty, *marked}), " or ".join([*(["empty"] if empty else []), *map(shown, sorted(marks))])


def _others(cells: Sequence[Any], left_out: Sequence[int]) -> list[Any]:
    dropped = set(left_out)
    return [cell for row, cell in enumerate(cells) if row not in dropped]


def _check_not_a_class(source: Source, column: str, where: str, marks: set[str]) -> None:
    """DataError if so many rows hold a mark such as "?" that it may be a class."""
    cells = [str(as_texts(value, None)) for value in cells_of(source.dataset, column)] if marks else []
    for mark in sorted(marks):
        number = cells.count(mark)
        if number > MAX_MARKED * len(cells):
            raise DataError(
                Problem(
                    code="E219",
                    where=f"{where}, column {shown(column)}",
                    found=f"label {shown(mark)} in {number:,} of {counted(len(cells), 'row')}: is it a class, or does "
                    "it mean that the row has no label?",
                    hint=f"{shlex.quote(f'data.no_label={json.dumps(mark)}')} drops these rows; data.label_names with "
                    "all labels makes it a class",
                )
            )


def _ask_about_minus_one(source: Source, column: str, where: str, minus: str, others: Sequence[str]) -> None:
    if any(float(value) < 0 for value in others):
        return
    cells = cells_of(source.dataset, column)
    names = json.dumps([minus, *others])
    rows = [row for row, value in enumerate(cells) if str(as_texts(value, None)) == minus]
    raise DataError(
        Problem(
            code="E219",
            where=f"{where}, column {shown(column)}",
            found=f"label -1 in {counted(len(rows), 'row')} ({some_of([source.place(row) for row in rows])}) beside "
            f"{', '.join(others[:5])}: is it a class, or does it mean that the row has no label?",
            hint=f"data.no_label={minus} drops these rows; {shlex.quote(f'data.label_names={names}')} makes it a class",
        )
    )


def total_row(source: Source) -> int | None:
    """The last row if a cell of it names a total, in a column that has no such cell elsewhere; otherwise None."""
    last = source.dataset.num_rows - 1
    if last < 2:
        return None
    row = source.dataset.select([last]).with_format("arrow")[:].to_pylist()[0]
    for name, cell in row.items():
        if isinstance(cell, str) and len(cell.split()) <= WORDS_OF_TOTAL and _names_total(cell):
            return last if cells_of(source.dataset, name).count(cell) == 1 else None
    return None


def _names_total(cell: str) -> bool:
    return plain_name(cell).rstrip(":") in TOTAL_NAMES or not TOTAL_NAMES.isdisjoint(words_of_name(cell))


def without_total(source: Source, choice: str, where: str) -> tuple[Source, str]:
    """The source without its total row if `choice` is drop, and a note; DataError if it is ask."""
    row = total_row(source) if choice != "keep" else None
    if row is None:
        return source, ""
    cells = source.dataset.select([row]).with_format("arrow")[:].to_pylist()[0]
    if choice == "ask":
        raise DataError(
            Problem(
                code="E145",
                where=f"{where} {source.place(row)}",
                found=f"the last row looks like a total ({', '.join(map(shown, cells.values()))})",
                hint="data.total_row=drop leaves it out, data.total_row=keep keeps it",
            )
        )
    return source.take(range(row)), f"{where}: left out the last row, a total (data.total_row)"


def note_of(where: str, num_texts: int, num_labels: int, held: str) -> str:
    parts = []
    if num_texts:
        parts.append(f"{counted(num_texts, 'row')} without a text")
    if num_labels:
        parts.append(f"{counted(num_labels, 'row')} without a label ({held})")
    return f"{where}: dropped {' and '.join(parts)}"
