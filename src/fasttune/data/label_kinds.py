"""Infer whether the labels of a column are one class per row, several labels, or a number, and report it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttune.data.formats.text_file import Place
from fasttune.data.labels import Vocabulary, check_one_each, encode_all, is_number
from fasttune.data.problems import Problems, row_name, some_of
from fasttune.errors import DataError, Problem, shown, suggestion

SINGLE, ORDINAL, MULTI, REGRESSION = "single-label", "ordinal", "multi-label", "regression"
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d")  # one decimal only: 2,25 is more often two labels
COMMA_NUMBER = re.compile(r"[+-]?\d+,\d+")
SEPARATORS = (",", ";", "|")
ROWS_OF_GRADES = 10  # a single fraction among so many whole numbers is more likely a total or a slip
MAX_GRADES = 20  # different numbers with fractions that may be classes, such as 0.5 to 5 stars in halves

Cell = str | tuple[str, ...]


@dataclass(frozen=True)
class LabelKind:
    """`problem` as in the recipe; `separator` divides the labels of a cell if cells are texts with several labels."""

    problem: str
    separator: str | None
    note: str = ""


def kind_of(
    cells: Sequence[Cell],
    problem: str,
    separator: str | None,
    has_names: bool,
    where: str,
    is_declared: bool = False,
) -> LabelKind:
    """The kind that the recipe asks for (`problem` other than `auto`), or the one that the cells suggest.

    Lists are several labels. So are texts such as `2,25` if each part is also the only label of other rows. Numbers
    with fractions are a regression, unless `has_names`: the recipe names them. `is_declared`: the data set declares
    its classes, so a comma in a name separates nothing. DataError if the cells contradict `problem` or are ambiguous.
    """
    if problem in (SINGLE, ORDINAL, REGRESSION):
        check_one_each(cells, where)
        if problem != REGRESSION and not has_names:
            _check_not_measured(cells, where)
        return LabelKind(problem, None)
    # An empty tuple may be an empty cell among texts with several labels.
    has_lists = any(isinstance(cell, tuple) and cell for cell in cells) or all(
        isinstance(cell, tuple) for cell in cells
    )
    if is_declared and problem == "auto" and not has_lists:
        return LabelKind(SINGLE, None)
    if has_lists:
        return LabelKind(MULTI, None, f"{where}: multi-label, because labels are lists")
    texts = [cell for cell in cells if isinstance(cell, str)]
    if problem == "auto" and separator is None:
        _check_no_decimal_commas(texts, where)
    mark = separator or next((mark for mark in SEPARATORS if _separates(texts, mark)), None)
    if problem == MULTI or mark is not None:
        several = sum(mark in text for text in texts) if mark else 0
        note = f"{where}: multi-label, because {several:,} rows hold labels with {mark!r} between them"
        return LabelKind(MULTI, mark or ",", note if problem == "auto" else "")
    different = dict.fromkeys(texts)
    if not has_names:
        _check_not_mixed(list(different), where)
        _check_not_combined(list(different), where)
    if not has_names and all(map(is_number, different)):
        fraction = next((text for text in different if float(text) % 1), None)
        if fraction is not None and sum(bool(float(text) % 1) for text in texts) == 1 and len(texts) >= ROWS_OF_GRADES:
            found = f"{shown(fraction)} in one row, and whole numbers in all others"
            hint = f"correct the row, or problem={REGRESSION} if labels are numbers"
            raise DataError(Problem(code="E217", where=where, found=found, hint=hint))
        if fraction is not None:
            return LabelKind(REGRESSION, None, f"{where}: regression, because labels are numbers such as {fraction}")
    return LabelKind(SINGLE, None)


def _separates(texts: Sequence[str], mark: str) -> bool:
    """Whether some cells hold several parts, and each part is the only label of another cell."""
    cells = set(texts)
    several = [cell for cell in cells if mark in cell]
    return bool(several) and all(part in cells for cell in several for part in parts_of(cell, mark))


def _check_no_decimal_commas(cells: Sequence[str], where: str) -> None:
    """DataError for cells such as 1,5: either a number with a decimal comma or two labels."""
    with_comma = [cell for cell in dict.fromkeys(cells) if "," in cell]
    if (
        with_comma
        and all(DECIMAL_COMMA.fullmatch(cell.strip()) for cell in with_comma)
        and all(is_number(cell.replace(",", ".")) for cell in dict.fromkeys(cells))
    ):
        raise DataError(
            Problem(
                code="E218",
                where=where,
                found=f"labels such as {shown(with_comma[0])} are ambiguous: a decimal comma, or two labels",
                hint=f"problem={MULTI} if the comma separates labels; otherwise write a decimal point",
            )
        )


def _check_not_mixed(cells: Sequence[str], where: str) -> None:
    """DataError if a cell looks like several labels, but only some of them occur alone in other rows."""
    known = set(cells)
    for mark in SEPARATORS:
        for cell in cells:
            parts = parts_of(cell, mark)
            alone = [part for part in parts if part in known]
            if len(parts) > 1 and alone:
                found = f"label {shown(cell)} contains label {shown(alone[0])}: it may be one label or several"
                hint = f"problem={MULTI} if {mark!r} separates labels, problem={SINGLE} if it does not"
                raise DataError(Problem(code="E218", where=where, found=found, hint=hint))


def _check_not_combined(cells: Sequence[str], where: str) -> None:
    """DataError if labels seem to be several in a cell, or numbers with a decimal comma, though none stands alone."""
    if len(cells) > 2 and all(COMMA_NUMBER.fullmatch(cell.strip()) for cell in cells):
        found = f"labels such as {shown(cells[0])} may be numbers with a decimal comma, or several labels"
        hint = f"write a decimal point; or problem={MULTI} if the comma separates labels"
        raise DataError(Problem(code="E218", where=where, found=found, hint=hint))
    for mark in SEPARATORS:
        parts = [set(parts_of(cell, mark)) for cell in cells if mark in cell]
        shared = Counter(part for of_cell in parts for part in of_cell)
        again = [part for part, count in shared.items() if count > 1]
        if len(parts) > 1 and 2 * len(parts) > len(cells) and len(again) > 1:
            cell = next(cell for cell in cells if again[0] in parts_of(cell, mark))
            found = f"label {shown(cell)} may be several: {shown(again[0])} is also part of other labels"
            hint = f"problem={MULTI} if {mark!r} separates labels, problem={SINGLE} if it does not"
            raise DataError(Problem(code="E218", where=where, found=found, hint=hint))


def _check_not_measured(cells: Sequence[Cell], where: str) -> None:
    """DataError if there are more different fractional numbers than grades have."""
    different = [str(cell) for cell in dict.fromkeys(cells)]
    if len(different) > MAX_GRADES and all(map(is_number, different)) and any(float(cell) % 1 for cell in different):
        raise DataError(
            Problem(
                code="E217",
                where=where,
                found=f"{len(different):,} different numbers such as {different[0]} look measured, not like classes",
                hint=f"problem={REGRESSION}",
            )
        )


def parts_of(cell: Cell, separator: str | None) -> tuple[str, ...]:
    """The labels of one cell."""
    if isinstance(cell, tuple):
        return cell
    if separator is None:
        return (cell,)
    return tuple(part for part in (part.strip() for part in cell.split(separator)) if part)


def encode_label_sets(
    cells: Sequence[tuple[str, ...]], vocabulary: Vocabulary, where: str, place: Place = row_name
) -> np.ndarray:
    """(N, K) uint8, 1 where row n has label k."""
    encoded = np.zeros((len(cells), len(vocabulary.names)), dtype=np.uint8)
    for row, numbers in enumerate(encode_all(cells, vocabulary, where, place)):
        encoded[row, numbers] = 1
    return encoded


def encode_numbers(
    cells: Sequence[Cell], where: str, bounds: Sequence[float] | None = None, place: Place = row_name
) -> np.ndarray:
    """(N,) float64; DataError for cells that are not numbers or lie outside `bounds`."""
    wrong = [row for row, cell in enumerate(cells) if not isinstance(cell, str) or not is_number(cell)]
    if wrong:
        raise DataError(
            Problem(
                code="E222",
                where=where,
                found=f"{shown(cells[wrong[0]])} ({some_of([place(row) for row in wrong])})",
                expected="a number in every row, for a regression",
                hint=f"problem={SINGLE} if labels are classes",
            )
        )
    numbers = np.array([float(str(cell)) for cell in cells])
    if bounds is not None:
        outside = np.flatnonzero((numbers < bounds[0]) | (numbers > bounds[1])).tolist()
        if outside:
            found = f"{cells[outside[0]]} ({some_of([place(row) for row in outside])})"
            expected = f"{bounds[0]:g} to {bounds[1]:g} (data.label_range)"
            hint = "correct these rows, or widen data.label_range"
            raise DataError(Problem(code="E232", where=where, found=found, expected=expected, hint=hint))
    return numbers


def check_table(table: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """DataError if a table by label has a label that the data does not have."""
    problems = Problems(where)
    for name in table:
        if name not in names:
            problems.add(
                Problem(
                    code="E223",
                    where=where,
                    found=f"label {shown(name)}, which the data does not have",
                    expected=f"one of {some_of([shown(known) for known in names])}",
                    hint=suggestion(name, names),
                )
            )
    problems.raise_if_any()
