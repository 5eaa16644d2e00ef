"""Read training rows while the model trains: `data.streaming`."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from fasttune.data.bad_rows import BadRows
from fasttune.data.batching.plan import Indices
from fasttune.data.file_stream import Stream, open_stream
from fasttune.data.holdout import Split
from fasttune.data.reading import TRAIN, Reader, is_starter, name_of, open_source, reading_of
from fasttune.data.rows import Rows
from fasttune.data.sources import Source, check_has_splits
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import DataError, Problem, UsageError
from fasttune.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fasttune.tasks.base import Task


@dataclass(frozen=True)
class RowStream:
    """A stream of files and how its rows are read. `columns`: role -> column name, as found in the sample."""

    files: Stream
    reader: Reader
    columns: dict[str, str]

    @property
    def where(self) -> str:
        return name_of(self.reader.recipe.data.train)

    def rows(self, source: Source) -> Rows:
        """Check the rows of a window and return them. Notes are dropped; those on the sample were reported already."""
        return good_rows(replace(self.reader, notes=[]), source, self.columns, self.where, self.files.bad)


def good_rows(reader: Reader, source: Source, columns: dict[str, str], where: str, bad: BadRows) -> Rows:
    """Return the rows of a source, without the bad ones if some may be skipped."""
    if bad.most:
        num_rows = len(source.dataset)
        kept = bad.good(range(num_rows), lambda rows: reader.rows_of(source.take(rows), columns, where))
        if len(kept) < num_rows:
            source = source.take(kept)
    return reader.rows_of(source, columns, where)


def rows_to_see(spec: str | list[str], split: str | None, recipe: Recipe, head: int | None = None) -> Source:
    """Return the rows of a spec to look at: a sample if data is streamed, otherwise all of them.

    `head` limits plain files to their first bytes. DataError if `split` is given for files that have no splits.
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
    """Open the stream; return it with a sample, from which the task learns the labels and lengths of the data."""
    data = reader.recipe.data
    if is_starter(data.train):
        found = "the generated starter data cannot be streamed; it fits in memory"
        raise UsageError(Problem(where="data.streaming", found=found, hint="data.streaming=false", code="E138"))
    seed = reader.recipe.training.seed
    reading = reading_of(reader.recipe)
    files = open_stream(data.train, TRAIN, reading, data.shuffle_buffer_size, seed, data.max_bad_rows)
    reader.notes += [*files.notes, *files.sample.notes]
    where = name_of(data.train)
    names = reader.names_in(files.sample, where, TRAIN, need_labels=True)
    rows = good_rows(reader, files.sample, names, where, files.bad)
    reader.notes.append(
        f"{where}: {files.size}, streamed; labels, lengths and data problems come from a sample of {len(rows):,}"
    )
    return RowStream(files, reader, names), Split(TRAIN, where, rows, files.fingerprint, files.licence, is_sample=True)


def _of_stream(problem: Problem) -> Problem:
    """Explain an unknown label: the sample may have missed it, so the row need not be wrong."""
    if problem.code != "E214":
        return problem
    label_and_rows = problem.found.rpartition(", ")[0] or problem.found  # without "never in the training data"
    found = f"{label_and_rows}, not in the sample at the start"
    return replace(problem, found=found, hint="name all labels in data.label_names, and start a new run")


@dataclass(frozen=True)
class TaskWindow:
    """The shuffled rows of a window; implements `batching.stream.Window`."""

    rows: Rows
    sizes: np.ndarray = field(repr=False)  # characters
    windows: TaskWindows = field(repr=False)

    def encode(self, rows: Indices) -> TokenStore:
        return self.windows.encode(self.rows.take(rows))

    def place(self, row: int) -> str:
        return self.rows.place(row)


@dataclass(frozen=True)
class TaskWindows:
    """A stream that is tokenised for a model; implements `batching.stream.Windows`."""

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
        if bad.most:  # every rank encodes all rows, so that all ranks skip the same ones
            all_rows = rows
            rows = rows.take(bad.good(range(len(rows)), lambda chosen: self.encode(all_rows.take(chosen))))
        rows = rows.take(np.random.default_rng([self.stream.files.seed, epoch, 1 + number]).permutation(len(rows)))
        sizes = np.fromiter(map(len, self.task.input_texts(rows)), np.int64, len(rows))
        return TaskWindow(rows, sizes, self)


def windows_of(stream: RowStream, task: Task, tokenizer: PreTrainedTokenizerBase, max_length: int) -> TaskWindows:
    """Wrap a stream with a copy of the tokenizer, because two threads cannot share one."""
    return TaskWindows(stream, task, copy.deepcopy(tokenizer), max_length)
