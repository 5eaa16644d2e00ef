"""`data.corrections`: labels of training rows, corrected by a person in the file that `fasttune labels` writes."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.data.formats.delimited import long_fields
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
    texts = list(map(_plain, task.input_texts(train.rows)))
    ids = list(train.rows.ids)
    # An id may be that of a user or a conversation, so rows are found by id and text; equal ones in their order.
    position: dict[tuple[str, str], list[int]] = {}
    for row in range(len(ids) - 1, -1, -1):
        position.setdefault((ids[row], texts[row]), []).append(row)
    known, labels, num_changed = {*ids}, list(train.rows.values["label"]), 0
    for line, entry in enumerate(read_ranking(path), start=2):
        if entry["row"] not in known:
            problems.add(_problem(f"{where} line {line}", f"row {shown(entry['row'])} is not a training row"))
            continue
        readings = (entry["text"], _unescaped(entry["text"]))
        rows = next((at for text in readings if (at := position.get((entry["row"], _plain(text))))), None)
        if rows is None:
            found = f"row {shown(entry['row'])} has another text in the data"
            problems.add(_problem(f"{where} line {line}", found, "run fasttune labels again: the data have changed"))
            continue
        row = rows.pop()
        before, given = cell_text(labels[row]), entry["label"]
        if not given.strip():
            problems.add(_problem(f"{where} line {line}", "no label", "write a label, or delete the line to keep it"))
        elif before not in (given, _unescaped(given)):
            try:
                labels[row] = _label(_unescaped(given), labels[row])
            except ValueError:
                found, hint = f"{shown(given)} is not a list of labels", 'write it as ["one", "other"]'
                problems.add(_problem(f"{where} line {line}", found, hint))
            num_changed += 1
    problems.raise_if_any()
    notes.append(f"data.corrections: {counted(num_changed, 'label')} changed by {path}")
    return replace(train, rows=replace(train.rows, values={**train.rows.values, "label": labels}))


def read_ranking(path: str) -> list[dict[str, str]]:
    """The lines of a file that `fasttune labels` has written and a spreadsheet may have saved again.

    DataError if it cannot be read or lacks one of COLUMNS.
    """
    where = f"data.corrections {path}"
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(_problem(where, f"cannot read the file ({error.strerror})")) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise DataError(_problem(where, "the file is not UTF-8", "save it again as CSV in UTF-8")) from None
    delimiter = max(",;\t", key=text.partition("\n")[0].count)  # a spreadsheet may have changed it
    with long_fields():
        rows = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter)
        missing = [name for name in NEEDED if name not in (rows.fieldnames or ())]
        if missing:
            found = f"no column {missing[0]}; columns: {', '.join(rows.fieldnames or ())}"
            raise DataError(_problem(where, found, "edit the file that fasttune labels RUN has written"))
        try:
            return [{name: row.get(name) or "" for name in COLUMNS} for row in rows]
        except csv.Error as error:
            raise DataError(_problem(where, f"cannot read the file as CSV ({error})")) from None


def _unescaped(cell: str) -> str:
    """The cell without the apostrophe that kept spreadsheets from evaluating it."""
    return cell[1:] if cell.startswith("'") and cell[1:].startswith(FORMULA) else cell


def _plain(text: str) -> str:
    return " ".join(text.split())  # spreadsheets change line ends


def _label(cell: str, before: Any) -> Any:
    """A label in the form of the one that it replaces; ValueError for what should be a list and is none."""
    if not isinstance(before, tuple | list):
        return cell
    found = json.loads(cell) if cell.lstrip().startswith("[") else [cell]
    if not all(isinstance(label, str | int) for label in found):
        raise ValueError
    return type(before)(map(str, found))


def _problem(where: str, found: str, hint: str = "") -> Problem:
    return Problem(code="E148", where=where, found=found, hint=hint)
