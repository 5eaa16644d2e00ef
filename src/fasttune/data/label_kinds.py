"""What the labels of a column are: one class a row, several labels, or a number. Inferred from the data, and said."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttune.data.formats.text_file import Place
from fasttune.data.labels import Vocabulary, check_one_each, encode_all, is_number
from fasttune.data.problems import Problems, row_name, some_of
from fasttune.errors import DataError, Problem, shown, suggestion

SINGLE, MULTI, REGRESSION = "single-label", "multi-label", "regression"
DECIMAL_COMMA = re.compile(r"[+-]?\d+,\d")  # one digit behind: 2,25 is more often two labels
SEPARATORS = (",", ";", "|")
MOST_GRADES = 20  # different numbers with fractions that may be classes, such as 0.5 to 5 stars by halves

Cell = str | tuple[str, ...]


@dataclass(frozen=True)
class LabelKind:
    """`problem` as the recipe names it; `separator` stands between the labels of one cell, where they are texts."""

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
    """As asked (`problem` other than `auto`), else by what the cells hold.

    `is_declared`: the data set itself says what its classes are, so that a comma in a name separates nothing.

    Lists are several labels. So are texts such as `2,25` where every part also stands alone in other rows. Numbers with
    fractions are a regression, unless names were given to them.
    """
    if problem in (SINGLE, REGRESSION):
        check_one_each(cells, where)
        if problem == SINGLE and not has_names:
            _check_not_measured(cells, where)
        return LabelKind(problem, None)
    if is_declared and problem == "auto" and not any(isinstance(cell, tuple) for cell in cells):
        return LabelKind(SINGLE, None)
    if any(isinstance(cell, tuple) for cell in cells):
        return LabelKind(MULTI, None, f"{where}: multi-label, because labels come in lists")
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
    if not has_names and all(map(is_number, different)):
        fraction = next((text for text in different if float(text) % 1), None)
        if fraction is not None:
            return LabelKind(REGRESSION, None, f"{where}: regression, because labels are numbers such as {fraction}")
    return LabelKind(SINGLE, None)


def _separates(texts: Sequence[str], mark: str) -> bool:
    """Whether some cells hold several parts, each of which is the whole of another cell."""
    cells = set(texts)
    several = [cell for cell in cells if mark in cell]
    return bool(several) and all(part in cells for cell in several for part in parts_of(cell, mark))


def _check_no_decimal_commas(cells: Sequence[str], where: str) -> None:
    """DataError for cells such as 1,5 that are numbers with a decimal comma, or two labels: both look alike."""
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
                found=f"labels such as {shown(with_comma[0])}",
                expected="numbers with a decimal point, or labels that cannot be taken for numbers",
                hint=f"problem={MULTI} where the comma stands between two labels",
            )
        )


def _check_not_mixed(cells: Sequence[str], where: str) -> None:
    """DataError where some cells look like several labels and others do not tell whether they are."""
    known = set(cells)
    for mark in SEPARATORS:
        for cell in cells:
            parts = parts_of(cell, mark)
            alone = [part for part in parts if part in known]
            if len(parts) > 1 and alone:
                found = f"{shown(cell)} beside {shown(alone[0])}"
                expected = "one label a row, or several with each of them on its own in other rows"
                hint = f"problem={MULTI} where {mark!r} stands between labels, problem={SINGLE} where it does not"
                raise DataError(Problem(code="E218", where=where, found=found, expected=expected, hint=hint))


def _check_not_measured(cells: Sequence[Cell], where: str) -> None:
    """DataError for numbers that are too many to be grades."""
    different = [str(cell) for cell in dict.fromkeys(cells)]
    if len(different) > MOST_GRADES and all(map(is_number, different)) and any(float(cell) % 1 for cell in different):
        raise DataError(
            Problem(
                code="E217",
                where=where,
                found=f"{len(different):,} different numbers such as {different[0]}",
                expected=f"at most {MOST_GRADES} numbers with fractions as classes: these look measured",
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
    """(N,) float64; a cell that is no number, or one out of `bounds`, is a DataError."""
    wrong = [row for row, cell in enumerate(cells) if not isinstance(cell, str) or not is_number(cell)]
    if wrong:
        raise DataError(
            Problem(
                code="E222",
                where=where,
                found=f"{shown(cells[wrong[0]])} ({some_of([place(row) for row in wrong])})",
                expected="a number in every row, as a regression has it",
                hint=f"problem={SINGLE} where labels are classes",
            )
        )
    numbers = np.array([float(str(cell)) for cell in cells])
    if bounds is not None:
        outside = np.flatnonzero((numbers < bounds[0]) | (numbers > bounds[1])).tolist()
        if outside:
            found = f"{cells[outside[0]]} ({some_of([place(row) for row in outside])})"
            expected = f"{bounds[0]:g} to {bounds[1]:g}, as data.label_range says"
            hint = "correct these rows, or widen data.label_range"
            raise DataError(Problem(code="E232", where=where, found=found, expected=expected, hint=hint))
    return numbers


def check_table(asked: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """A table by label may name only labels that there are."""
    problems = Problems(where)
    for name in asked:
        if name not in names:
            problems.add(
                Problem(
                    code="E223",
                    where=where,
                    found=f"label {shown(name)}, which the data do not have",
                    expected=f"one of {some_of([shown(known) for known in names])}",
                    hint=suggestion(name, names),
                )
            )
    problems.raise_if_any()
