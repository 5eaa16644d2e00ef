"""Training rows that are read while they are needed: `data.streaming`."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fasttune.data.bad_rows import BadRows
from fasttune.data.batching.plan import Indices
from fasttune.data.holdout import Split
from fasttune.data.reading import TRAIN, Reader, is_starter, name_of, open_source, reading_of
from fasttune.data.rows import Rows
from fasttune.data.sources import Source, check_has_splits
from fasttune.data.stream import Stream, open_stream
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import DataError, Problem, UsageError
from fasttune.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fasttune.tasks.base import Task


@dataclass(frozen=True)
class RowStream:
    """`columns`: role -> the name of its column, as the sample showed them."""

    files: Stream
    reader: Reader
    columns: dict[str, str]

    @property
    def where(self) -> str:
        return name_of(self.reader.recipe.data.train)

    def rows(self, source: Source) -> Rows:
        """Checked; what was changed or left out is not said again, as it was of the sample."""
        return good_rows(replace(self.reader, notes=[]), source, self.columns, self.where, self.files.bad)


def good_rows(reader: Reader, source: Source, columns: dict[str, str], where: str, bad: BadRows) -> Rows:
    """The rows of a source without those that are bad, where some may be left out."""
    everything = range(len(source.dataset))
    kept = (
        bad.good(everything, lambda rows: reader.rows_of(source.take(rows), columns, where)) if bad.most else everything
    )
    return reader.rows_of(source if len(kept) == len(everything) else source.take(kept), columns, where)


def rows_to_see(spec: str | list[str], split: str | None, recipe: Recipe, head: int | None = None) -> Source:
    """All rows that a spec names; of a stream a sample, and with `head` of a file those of so many first bytes.

    DataError where a `split` is asked for of files that have none.
    """
    reading, data = replace(reading_of(recipe), head=head), recipe.data
    if split is not None and not is_starter(spec):
        check_has_splits(spec, split)
    split = split or TRAIN
    if not data.streaming or is_starter(spec):
        return open_source(spec, split, reading)
    files = open_stream(spec, split, reading, data.shuffle_buffer_size, recipe.training.seed)
    described = f"{files.sample.description}, a sample of {files.size}"
    return replace(files.sample, description=described, notes=(*files.notes, *files.sample.notes))


def open_row_stream(reader: Reader) -> tuple[RowStream, Split]:
    """The stream, and a sample of its rows: what the task learns of the data, it learns of them."""
    data = reader.recipe.data
    if is_starter(data.train):
        found, expected = "generated rows", "files; these few fit into memory"
        hint = "data.streaming=false"
        raise UsageError(Problem(where="data.streaming", found=found, expected=expected, hint=hint, code="E138"))
    seed = reader.recipe.training.seed
    reading = reading_of(reader.recipe)
    files = open_stream(data.train, TRAIN, reading, data.shuffle_buffer_size, seed, data.max_bad_rows)
    reader.notes += [*files.notes, *files.sample.notes]
    where = name_of(data.train)
    names = reader.names_in(files.sample, where, TRAIN, need_labels=True)
    rows = good_rows(reader, files.sample, names, where, files.bad)
    reader.notes.append(
        f"{where}: {files.size}, read as they are needed; labels, lengths and what is doubtful are "
        f"told by a sample of {len(rows):,}"
    )
    return RowStream(files, reader, names), Split(TRAIN, where, rows, files.fingerprint, files.licence, is_sample=True)


def _of_stream(problem: Problem) -> Problem:
    """A label that the sample did not have is no fault of its row."""
    if problem.code != "E214":
        return problem
    found = problem.found.replace("never in the training data", "which the sample at the start did not have")
    return replace(problem, found=found, hint="name all labels in data.label_names, and start a new run")


@dataclass(frozen=True)
class TaskWindow:
    """Rows of one window in shuffled order; a `batching.stream.Window`."""

    rows: Rows
    sizes: np.ndarray = field(repr=False)  # characters
    windows: TaskWindows = field(repr=False)

    def encode(self, rows: Indices) -> TokenStore:
        return self.windows.encode(self.rows.take(rows))

    def place(self, row: int) -> str:
        return self.rows.place(row)


@dataclass(frozen=True)
class TaskWindows:
    """A stream as a model's tokenizer reads it; `batching.stream.Windows`."""

    stream: RowStream
    task: Task
    tokenizer: PreTrainedTokenizerBase
    max_length: int

    @property
    def num_windows(self) -> int:
        return self.stream.files.num_windows

    def encode(self, rows: Rows) -> TokenStore:
        try:
            return self.task.encode(rows, self.tokenizer, self.max_length, self.stream.where)
        except DataError as error:
            raise DataError(*(_of_stream(problem) for problem in error.problems)) from None

    def read(self, epoch: int, number: int) -> TaskWindow:
        source = self.stream.files.window(epoch, number)
        if not source.dataset.num_rows:
            return TaskWindow(Rows([], {}), np.zeros(0, np.int64), self)
        rows, bad = self.stream.rows(source), self.stream.files.bad
        if bad.most:  # found by every process alike, though each then encodes its own share alone
            everything = rows
            rows = rows.take(bad.good(range(len(rows)), lambda places: self.encode(everything.take(places))))
        rows = rows.take(np.random.default_rng([self.stream.files.seed, epoch, 1 + number]).permutation(len(rows)))
        sizes = np.fromiter(map(len, self.task.input_texts(rows)), np.int64, len(rows))
        return TaskWindow(rows, sizes, self)


def windows_of(stream: RowStream, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TaskWindows:
    """With a tokenizer of its own: one cannot be used by two threads at once."""
    return TaskWindows(stream, task, copy.deepcopy(tokenizer), max_length)
