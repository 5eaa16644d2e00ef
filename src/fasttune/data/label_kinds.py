"""What the labels of a column are: one class a row, several labels, or a number. Inferred from the data, and said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttune.data.labels import NUMBER, Vocabulary
from fasttune.data.text_file import Problems, row_name, some_of
from fasttune.errors import DataError, Problem, nearest, shown

SINGLE, MULTI, REGRESSION = "single-label", "multi-label", "regression"
SEPARATORS = (",", ";", "|")

Cell = str | tuple[str, ...]


@dataclass(frozen=True)
class LabelKind:
    """`problem` as the recipe names it; `separator` stands between the labels of one cell, where they are texts."""

    problem: str
    separator: str | None
    note: str = ""


def kind_of(cells: Sequence[Cell], problem: str, separator: str | None, has_names: bool, where: str) -> LabelKind:
    """As asked (`problem` other than `auto`), else by what the cells hold.

    Lists are several labels. So are texts such as `2,25` where every part also stands alone in other rows. Numbers with
    fractions are a regression, unless names were given to them.
    """
    lists = any(isinstance(cell, tuple) for cell in cells)
    if problem in (SINGLE, REGRESSION):
        if lists:
            first = next(index for index, cell in enumerate(cells) if isinstance(cell, tuple))
            found = f"{shown(list(cells[first]))} ({row_name(first)})"
            expected = "one label a row: a text or a number"
            raise DataError(Problem(code="E205", where=where, found=found, expected=expected, hint=f"problem={MULTI}"))
        return LabelKind(problem, None)
    if lists:
        return LabelKind(MULTI, None, f"{where}: multi-label, because labels come in lists")
    texts = [cell for cell in cells if isinstance(cell, str)]
    found_separator = separator or next((mark for mark in SEPARATORS if _separates(texts, mark)), None)
    if problem == MULTI or separator is not None or found_separator is not None:
        several = sum(found_separator in text for text in texts) if found_separator else 0
        note = f"{where}: multi-label, because {several:,} rows hold labels with {found_separator!r} between them"
        return LabelKind(MULTI, found_separator or ",", note if problem == "auto" else "")
    fractions = [text for text in dict.fromkeys(texts) if "." in text or "e" in text.lower()]
    if not has_names and all(map(is_number, dict.fromkeys(texts))) and any(float(text) % 1 for text in fractions):
        return LabelKind(REGRESSION, None, f"{where}: regression, because labels are numbers such as {fractions[0]}")
    return LabelKind(SINGLE, None)


def is_number(text: str) -> bool:
    return bool(NUMBER.fullmatch(text.strip()))


def _separates(texts: Sequence[str], mark: str) -> bool:
    """Whether some cells hold several parts, each of which is the whole of another cell."""
    cells = set(texts)
    several = [cell for cell in cells if mark in cell]
    return bool(several) and all(part in cells for cell in several for part in parts_of(cell, mark))


def parts_of(cell: Cell, separator: str | None) -> tuple[str, ...]:
    """The labels of one cell."""
    if isinstance(cell, tuple):
        return cell
    if separator is None:
        return (cell,)
    return tuple(part for part in (part.strip() for part in cell.split(separator)) if part)


def encode_label_sets(cells: Sequence[tuple[str, ...]], vocabulary: Vocabulary, where: str) -> np.ndarray:
    """(N, K) uint8, 1 where row n has label k; a label that training never saw is a DataError."""
    encoded = np.zeros((len(cells), len(vocabulary.names)), dtype=np.uint8)
    unseen: dict[str, list[int]] = {}
    for row, labels in enumerate(cells):
        for label in labels:
            if label in vocabulary.index:
                encoded[row, vocabulary.index[label]] = 1
            else:
                unseen.setdefault(label, []).append(row)
    problems = Problems(where)
    for label, rows in unseen.items():
        near = nearest(label, vocabulary.index)
        problems.add(
            Problem(
                code="E214",
                where=where,
                found=f"label {shown(label)} in {len(rows):,} rows (first: {row_name(rows[0])}), never in training",
                expected=f"one of {some_of([shown(name) for name in vocabulary.index])}",
                hint=f"did you mean {near}?" if near is not None else "",
            )
        )
    problems.raise_if_any()
    return encoded


def encode_numbers(cells: Sequence[Cell], where: str) -> np.ndarray:
    """(N,) float64; a cell that is no number is a DataError."""
    wrong = [row for row, cell in enumerate(cells) if not isinstance(cell, str) or not is_number(cell)]
    if wrong:
        raise DataError(
            Problem(
                code="E218",
                where=where,
                found=f"{shown(cells[wrong[0]])} ({some_of([row_name(row) for row in wrong])})",
                expected="a number in every row, as a regression has it",
                hint=f"problem={SINGLE} where labels are classes",
            )
        )
    return np.array([float(str(cell)) for cell in cells])


def check_table(asked: Mapping[str, Any], names: Sequence[str], where: str) -> None:
    """A table by label may name only labels that there are."""
    for name in asked:
        if name not in names:
            near = nearest(name, names)
            raise DataError(
                Problem(
                    code="E219",
                    where=where,
                    found=f"label {shown(name)}, which the data do not have",
                    expected=f"one of {some_of([shown(known) for known in names])}",
                    hint=f"did you mean {near}?" if near is not None else "",
                )
            )
