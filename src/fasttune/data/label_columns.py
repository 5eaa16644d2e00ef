"""Labels in several columns or in lists of 0 and 1: turned into lists of the labels that apply."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fasttune.data.columns import NO_LABEL, cells_of, some_cells
from fasttune.data.formats.text_file import Place
from fasttune.data.guess import look_of
from fasttune.data.labels import is_number
from fasttune.data.problems import some_of
from fasttune.data.sources import Source
from fasttune.errors import DataError, Problem, shown

SURELY_LABELS = 3  # columns of 0 and 1: fewer may be properties of the text, or one label and a property
IDS = ("id", "index", "unnamed: 0", "")
# Columns of 0 and 1 that are no labels: properties, raters, splits.
OTHERWISE = re.compile(
    r"(is|has|was|are)([_ ]|(?=[A-Z]))|.*(annotator|rater|coder|judge|train|test|split|fold|seed)", re.IGNORECASE
)
YES, NO = ("1", "1.0", "true", "True", "TRUE"), ("0", "0.0", "false", "False", "FALSE")


def flag_columns(source: Source, left_out: Sequence[str]) -> tuple[list[str], bool]:
    """The columns, besides these, that hold only 0 and 1, if there are at least two; and whether each is a label.

    That is so if there are several, and otherwise only texts and ids. None if another column looks like the label.
    """
    found, are_labels = [], True
    for name in source.dataset.column_names:
        if name in left_out or name.strip().lower() in IDS:
            continue
        cells = some_cells(source.dataset, name)
        values = {_flag(cell) for cell in cells}
        if values <= {True, False, None} and values - {None}:
            found.append(name)
            are_labels &= not OTHERWISE.match(name)
            continue
        look = look_of(cells)[0]
        if look == "label":
            return [], False
        are_labels &= look == "text"
    return (found, are_labels and len(found) >= SURELY_LABELS) if len(found) > 1 else ([], False)


def question(columns: Sequence[str], where: str) -> Problem:
    """The problem that asks whether each of these columns is a label."""
    quoted = json.dumps(list(columns), ensure_ascii=False)
    return Problem(
        code="E201",
        where=where,
        found=f"cannot tell the label: the columns {', '.join(map(shown, columns))} hold only 0 and 1",
        hint=f"{shlex.quote(f'data.columns.label={quoted}')} if each is a label; data.columns.label=COLUMN if one is",
    )


def column_of(columns: Sequence[str]) -> str:
    """The name of the column that `with_label_lists` adds."""
    return ", ".join(columns)


def with_label_lists(source: Source, columns: Sequence[str], where: str) -> Source:
    """The source with one more column: for each row, the names of those columns that hold 1.

    A row with -1 or an empty cell has no label. DataError for a column that does not exist, or other values than 0, 1.
    """
    available = source.dataset.column_names
    missing = [name for name in columns if name not in available]
    if missing:
        raise DataError(
            Problem(
                code="E202",
                where="data.columns.label",
                found=", ".join(map(shown, missing)),
                expected=f"columns of {where}: {', '.join(map(shown, available))}",
            )
        )
    flags = {name: [_flag(cell) for cell in cells_of(source.dataset, name)] for name in columns}
    for name, values in flags.items():
        wrong = [row for row, value in enumerate(values) if value == "other"]
        if wrong:
            cell = shown(cells_of(source.dataset, name)[wrong[0]])
            raise DataError(
                Problem(
                    code="E205",
                    where=f"{where}, column {shown(name)}",
                    found=f"{cell} ({some_of([source.place(row) for row in wrong])})",
                    expected="0 or 1, whether the label applies",
                )
            )
    lists = [
        None if None in row else [name for name, applies in zip(columns, row, strict=True) if applies]
        for row in zip(*flags.values(), strict=True)
    ]
    import datasets

    texts = datasets.List(datasets.Value("string"))
    added = source.dataset.add_column(column_of(columns), lists, feature=texts)
    return replace(source, dataset=added)


def _flag(cell: Any) -> bool | str | None:
    """Whether a label applies; None if the cell is empty or -1, "other" for anything else."""
    if cell is None or cell == NO_LABEL or cell == "":
        return None
    text = str(cell).strip()
    if text in YES:
        return True
    if text in NO:
        return False
    return None if text in ("", str(NO_LABEL)) else "other"


def from_multi_hot(cells: Sequence[Any], label_names: Any, where: str, place: Place) -> tuple[Sequence[Any], str]:
    """Lists of 0 and 1 of one length as lists of the labels that apply, and a note; other cells unchanged.

    A list such as [1, 0, 0] holds no label twice, so it cannot be a list of the labels 0 and 1. Only of two labels
    may it be both: DataError if no row tells.
    """
    lists = [cell for cell in cells if isinstance(cell, tuple)]
    if not lists or len(lists) < len(cells):
        return cells, ""
    soft = next(
        (row for row, cell in enumerate(lists) if any(is_number(part) and float(part) % 1 for part in cell)), None
    )
    if soft is not None:
        raise DataError(
            Problem(
                code="E205",
                where=where,
                found=f"a list of fractions, {shown(', '.join(lists[soft]))} ({place(soft)})",
                expected="the names of the labels that apply, or 0 and 1 for each label",
            )
        )
    width = len(lists[0])
    if width < 2 or any(len(cell) != width or not set(cell) <= {*YES, *NO} for cell in lists):
        return cells, ""
    if all(len(set(cell)) == width for cell in lists):  # only [0, 1] and [1, 0]
        raise DataError(
            Problem(
                code="E218",
                where=where,
                found=f"lists such as {shown(list(map(int, map(float, lists[0]))))} ({place(0)}) are ambiguous: two "
                "labels, or 0 and 1 for each of two labels",
                hint='write the names of the labels that apply, such as ["joy"]',
            )
        )
    is_named = isinstance(label_names, Sequence) and len(label_names) == width
    names = list(map(str, label_names)) if is_named else [str(number) for number in range(width)]
    sets = [tuple(name for name, flag in zip(names, cell, strict=True) if flag in YES) for cell in lists]
    note = f"{where}: lists of {width} zeros and ones are read as the labels {', '.join(names)} that apply"
    return sets, note if is_named else f"{note} ('data.label_names=[...]' names them)"
