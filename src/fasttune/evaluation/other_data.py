"""Rows of another file, read for a finished run: its columns and labels may have other names than the run's."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from fasttune.data.columns import cells_of, empty_rows
from fasttune.data.formats.delimited import numbered_columns
from fasttune.data.formats.header import is_usual_name
from fasttune.data.holdout import GROUP, TIME, Split
from fasttune.data.problems import counted
from fasttune.data.reading import ANY, Reader, name_of
from fasttune.data.rows import Rows, ids_of
from fasttune.data.sources import Source
from fasttune.errors import DataError
from fasttune.evaluation.predictor import Predictor
from fasttune.recipe import load as load_recipe
from fasttune.tasks import TASKS, Prediction

SETTING = re.compile(r"'?data\.[a-z_.]+=")


@dataclass(frozen=True)
class Unlabelled:
    """Rows to predict: `split` holds those with a text, `rows` all of them, `empty` the positions of the others."""

    split: Split
    rows: Rows
    empty: Sequence[int] = ()


def read_to_score(predictor: Predictor, spec: str | list[str], command: str = "") -> Split:
    """All labelled rows of a source; `data.max_eval_samples` does not apply. `command`: what to type with a setting."""
    reader = _reader(predictor)
    with _whole_command(command):
        source = _opened(reader, spec)
        split = reader.split_of(replace(source, notes=()), spec, ANY)
        rows, note = predictor.task.with_labels_of_run(split.rows, predictor.label_names, split.where)
    _log_notes(predictor, [*reader.notes, note])
    return replace(split, rows=rows)


def read_to_predict(predictor: Predictor, spec: str | list[str], command: str = "") -> Unlabelled:
    """All rows of a source; a label column is ignored. `command`: what to type with a setting."""
    reader, where = _reader(predictor), name_of(spec)
    with _whole_command(command):
        source = _opened(reader, spec)
        names = reader.names_in(source, where, ANY, need_labels=False)
    empty = [] if predictor.recipe.data.drop_empty is True else _empty_rows(reader, source, names)
    if len(empty) == len(source.dataset):
        empty = []  # reading them raises the error
    chosen = sorted({*range(len(source.dataset))} - {*empty}) if empty else None
    read = source if chosen is None else source.take(chosen)
    rows = reader.rows_of(read, names, where)
    split = Split(ANY, where, rows, source.fingerprint, source.licence, read_as=ANY)
    if not empty:
        _log_notes(predictor, reader.notes)
        return Unlabelled(split, rows)
    note = f"{where}: {counted(len(empty), 'row')} without a text: the prediction is empty"
    _log_notes(predictor, [*reader.notes, note])
    return Unlabelled(split, _with_empty(rows, source, names, empty), empty)


def in_place(predictions: Iterator[Prediction], read: Unlabelled) -> Iterator[Prediction]:
    """The predictions with one for each row: the empty rows get one in which every value is None."""
    if not read.empty:
        return predictions
    first = next(predictions)
    nothing = {key: dict.fromkeys(value) if isinstance(value, dict) else None for key, value in first.items()}
    filled, empty = chain([first], predictions), {*read.empty}
    return ({**nothing, "id": row_id} if row in empty else next(filled) for row, row_id in enumerate(read.rows.ids))


def _reader(predictor: Predictor) -> Reader:
    named = {role for role, name in predictor.recipe.data.columns.model_dump().items() if name is not None}
    return Reader(predictor.recipe, TASKS, roles_of_run=frozenset(named - predictor.roles_named_now - {GROUP, TIME}))


def _opened(reader: Reader, spec: str | list[str]) -> Source:
    """The source, read with a header if the run's file had none but this one begins with common column names."""
    source = reader.open(spec, ANY)
    names = source.dataset.column_names
    if names == numbered_columns(len(names)) and all(map(is_usual_name, map(str, source.dataset[0].values()))):
        reader.recipe = load_recipe(reader.recipe, {"data": {"header": True}})
        reader.notes.append(f"{name_of(spec)}: the first row is read as the header, unlike in the run")
        source = reader.open(spec, ANY)
    return source


def _log_notes(predictor: Predictor, notes: Sequence[str]) -> None:
    for note in filter(None, notes):
        predictor.log(note)


def _empty_rows(reader: Reader, source: Source, names: dict[str, str]) -> list[int]:
    read = [names[column.role] for column in reader.task_class.columns if column.role in names]
    return sorted({row for name in read for row in empty_rows(source.dataset, name, lists=True)})


def _with_empty(rows: Rows, source: Source, names: dict[str, str], empty: Sequence[int]) -> Rows:
    """All rows of the source with the columns of `rows`; a missing text is ""."""
    values: dict[str, Sequence[Any]] = {}
    for role, column in rows.values.items():
        cells = dict(zip(empty, cells_of(source.dataset.select(empty), names[role]), strict=True))
        read = iter(column)
        values[role] = [_as_text(cells[row]) if row in cells else next(read) for row in range(len(source.dataset))]
    return Rows(ids_of(source), values, place=source.place)


def _as_text(cell: Any) -> str:
    return cell if isinstance(cell, str) else ""


@contextmanager
def _whole_command(command: str) -> Iterator[None]:
    """Complete hints that are settings to the command to type."""
    try:
        yield
    except DataError as error:
        problems = [
            replace(problem, hint=f"{command} {problem.hint}") if SETTING.match(problem.hint) else problem
            for problem in error.problems
        ]
        raise (DataError(*problems) if command else error) from None
