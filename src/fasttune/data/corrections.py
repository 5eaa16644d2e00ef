"""`data.corrections`: labels of training rows, corrected by a person in the file that `fasttune labels` writes."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.data.holdout import Split
from fasttune.data.problems import Problems, counted
from fasttune.errors import DataError, Problem, shown
from fasttune.security.text import FORMULA

if TYPE_CHECKING:
    from fasttune.tasks.base import Task

COLUMNS = ("row", "label", "suggestion", "loss", "text")
NEEDED = ("row", "label", "text")


def cell_text(label: Any) -> str:
    """A label as a cell: several labels become a JSON list."""
    return json.dumps(list(label), ensure_ascii=False) if isinstance(label, tuple | list) else str(label)


def corrected(train: Split, path: str, task: Task, notes: list[str]) -> Split:
    """The training rows with the labels of the file; a row that the file lacks keeps its label.

    DataError if the file has no such columns, names a row that is not a training row, or was made for another text.
    """
    problems, where = Problems(path), f"data.corrections {path}"
    entries = _read(path, where)
    position = {row_id: number for number, row_id in enumerate(train.rows.ids)}
    texts = list(task.input_texts(train.rows))
    labels = list(train.rows.values["label"])
    num_changed = 0
    for line, entry in enumerate(entries, start=2):
        row = position.get(entry["row"])
        if row is None:
            problems.add(_problem(f"{where} line {line}", f"row {shown(entry['row'])} is not a training row"))
        elif _plain(entry["text"]) != _plain(texts[row]):
            found = f"row {shown(entry['row'])} has another text in the data"
            problems.add(_problem(f"{where} line {line}", found, "run fasttune labels again: the data have changed"))
        elif not entry["label"].strip():
            problems.add(_problem(f"{where} line {line}", "no label", "write a label, or delete the line to keep it"))
        elif entry["label"] != cell_text(labels[row]):
            labels[row] = _label(entry["label"], labels[row])
            num_changed += 1
    problems.raise_if_any()
    notes.append(f"data.corrections: {counted(num_changed, 'label')} changed by {path}")
    return replace(train, rows=replace(train.rows, values={**train.rows.values, "label": labels}))


def _read(path: str, where: str) -> Sequence[Mapping[str, str]]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(_problem(where, f"cannot read the file ({error.strerror})")) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        hint = "save it again as CSV in UTF-8"
        raise DataError(_problem(where, "the file is not UTF-8", hint)) from None
    delimiter = max(",;\t", key=text.partition("\n")[0].count)  # a spreadsheet may have changed it
    rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
    missing = [name for name in NEEDED if name not in (rows.fieldnames or ())]
    if missing:
        found = f"no column {missing[0]}; columns: {', '.join(rows.fieldnames or ())}"
        raise DataError(_problem(where, found, "edit the file that fasttune labels RUN has written"))
    return [{name: _unescaped(row[name] or "") for name in NEEDED} for row in rows]


def _unescaped(cell: str) -> str:
    """The cell without the apostrophe that kept spreadsheets from evaluating it."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def _plain(text: str) -> str:
    return " ".join(text.split())  # spreadsheets change line ends


def _label(cell: str, before: Any) -> Any:
    """A label in the form of the one that it replaces."""
    if isinstance(before, tuple | list):
        try:
            return type(before)(json.loads(cell))
        except ValueError:
            return type(before)([cell])
    return cell


def _problem(where: str, found: str, hint: str = "") -> Problem:
    return Problem(code="E148", where=where, found=found, hint=hint)
