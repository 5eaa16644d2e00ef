"""Rows of another file, read for a finished run: its columns and labels may have other names than the run's."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from fasttune.data.columns import cells_of, empty_rows
from fasttune.data.file_stream import BLOCKS_A_WINDOW, Stream, open_stream
from fasttune.data.formats.delimited import numbered_columns
from fasttune.data.formats.header import is_usual_name
from fasttune.data.holdout import GROUP, TIME, Split
from fasttune.data.problems import counted
from fasttune.data.reading import ANY, Reader, name_of, reading_of
from fasttune.data.rows import NumbersAsIds, Rows, ids_of
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

    def between(self, first: int, end: int) -> Unlabelled:
        """The rows at positions [first, end)."""
        empty = np.asarray(self.empty, dtype=np.int64)
        end = min(end, len(self.rows))
        own = empty[(empty >= first) & (empty < end)] - first
        begin = first - int((empty < first).sum())
        texts = self.split.rows.take(range(begin, begin + end - first - len(own)))
        return Unlabelled(replace(self.split, rows=texts), self.rows.take(range(first, end)), own.tolist())


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
    read = _read(predictor, reader, source, names, where)
    if read.empty:
        reader.notes.append(without_text(where, len(read.empty)))
    _log_notes(predictor, reader.notes)
    return read


def _read(
    predictor: Predictor, reader: Reader, source: Source, names: dict[str, str], where: str, before: int = 0
) -> Unlabelled:
    """The rows of a source; without a column `id`, their ids count from `before`."""
    empty = [] if predictor.recipe.data.drop_empty is True else _empty_rows(reader, source, names)
    if len(empty) == len(source.dataset):
        empty = []  # reading them raises the error
    kept = sorted({*range(len(source.dataset))} - {*empty})
    rows = all_rows = reader.rows_of(source.take(kept) if empty else source, names, where)
    if empty:
        all_rows = _with_empty(rows, source, names, empty)
    if before and "id" not in source.dataset.column_names:
        numbers = np.arange(before, before + len(all_rows))
        all_rows, rows = replace(all_rows, ids=NumbersAsIds(numbers)), replace(rows, ids=NumbersAsIds(numbers[kept]))
    split = Split(ANY, where, rows, source.fingerprint, source.licence, read_as=ANY)
    return Unlabelled(split, all_rows, empty)


def in_place(
    predictions: Iterator[Prediction], read: Unlabelled, nothing: Prediction | None = None
) -> Iterator[Prediction]:
    """The predictions with one for each row: the empty rows get one in which every value is None.

    `nothing`: such a prediction; by default it is made from the first of the others.
    """
    if not read.empty:
        return predictions
    if nothing is None:
        first = next(predictions)
        nothing, predictions = without_values(first), chain([first], predictions)
    empty = {*read.empty}
    return (
        {**nothing, "id": row_id} if row in empty else next(predictions) for row, row_id in enumerate(read.rows.ids)
    )


def without_text(where: str, number: int) -> str:
    return f"{where}: {counted(number, 'row')} without a text: the prediction is empty"


def without_values(prediction: Prediction) -> Prediction:
    return {key: dict.fromkeys(value) if isinstance(value, dict) else None for key, value in prediction.items()}


@dataclass(frozen=True)
class Pieces:
    """All rows of a source in order, piece by piece. `fingerprint`: of all of them; `example`: some row with a text.

    `num_rows`: None if the pieces are read from the file one by one. `read`: takes the number of a piece and how many
    rows there are before it.
    """

    where: str
    fingerprint: str
    num_pieces: int
    num_rows: int | None
    example: Rows
    read: Callable[[int, int], Unlabelled]


def pieces_to_predict(
    predictor: Predictor, spec: str | list[str], command: str, num_rows: int, most_bytes: int
) -> Pieces:
    """Pieces of about `num_rows` rows.

    A local file of more than `most_bytes` is never in memory as a whole, if it is a CSV, TSV or JSON lines file without
    cells of several lines, or a Parquet file, of which a piece is a row group.
    """
    reader = _reader(predictor)
    stream = _stream_of(reader, spec, num_rows, most_bytes)
    if stream is not None:
        return _streamed(predictor, reader, stream, command)
    read = read_to_predict(predictor, spec, command)
    bounds = range(0, len(read.rows), num_rows)

    def piece(number: int, before: int) -> Unlabelled:
        return read if len(bounds) == 1 else read.between(bounds[number], bounds[number] + num_rows)

    example = read.split.rows.take([0])
    return Pieces(read.split.where, read.split.fingerprint, len(bounds), len(read.rows), example, piece)


def _stream_of(reader: Reader, spec: str | list[str], num_rows: int, most_bytes: int) -> Stream | None:
    """None for what is read as a whole, which also says what is wrong with a file."""
    if not isinstance(spec, str) or not Path(spec).is_file() or Path(spec).stat().st_size <= most_bytes:
        return None

    def opened() -> Stream:
        return open_stream(spec, ANY, reading_of(reader.recipe), num_rows * BLOCKS_A_WINDOW, 0)

    try:
        stream = opened()
        if _begins_with_names(stream.piece(0)):
            _read_with_header(reader, spec)
            stream = opened()
        return None if stream.has_cells_of_several_lines() else stream
    except DataError:
        return None


def _streamed(predictor: Predictor, reader: Reader, stream: Stream, command: str) -> Pieces:
    where = stream.described_as
    with _whole_command(command):
        first = stream.piece(0)
        names = reader.names_in(first, where, ANY, need_labels=False)
    example = _read(predictor, reader, first, names, where).split.rows.take([0])
    _log_notes(predictor, [*stream.notes, *reader.notes])

    def piece(number: int, before: int) -> Unlabelled:
        source = stream.piece(number)
        if not source.dataset.num_rows:  # a line is longer than the block
            rows = Rows([], {})
            return Unlabelled(Split(ANY, where, rows, ""), rows)
        return _read(predictor, replace(reader, notes=[]), source, names, where, before)

    # The fingerprint of a stream is that of its beginning, end and size.
    times = {Path(block.file.name).stat().st_mtime_ns for block in stream.blocks}
    return Pieces(where, f"{stream.fingerprint}-{max(times)}", len(stream.blocks), None, example, piece)


def _reader(predictor: Predictor) -> Reader:
    named = {role for role, name in predictor.recipe.data.columns.model_dump().items() if name is not None}
    return Reader(predictor.recipe, TASKS, roles_of_run=frozenset(named - predictor.roles_named_now - {GROUP, TIME}))


def _opened(reader: Reader, spec: str | list[str]) -> Source:
    """The source, read with a header if the run's file had none but this one begins with common column names."""
    source = reader.open(spec, ANY)
    if _begins_with_names(source):
        _read_with_header(reader, spec)
        source = reader.open(spec, ANY)
    return source


def _begins_with_names(source: Source) -> bool:
    names = source.dataset.column_names
    return names == numbered_columns(len(names)) and all(map(is_usual_name, map(str, source.dataset[0].values())))


def _read_with_header(reader: Reader, spec: str | list[str]) -> None:
    reader.recipe = load_recipe(reader.recipe, {"data": {"header": True}})
    reader.notes.append(f"{name_of(spec)}: the first row is read as the header, unlike in the run")


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
