"""Open one source of a recipe's data section, find its columns, and read its rows."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fasttune.data import label_columns
from fasttune.data.columns import Column, cells_of, guess_name, has_no_label, resolve, some_cells
from fasttune.data.formats.delimited import numbered_columns
from fasttune.data.formats.storage import ReadOptions
from fasttune.data.holdout import GROUP, TIME, Split
from fasttune.data.missing import (
    MAX_EMPTY_TEXTS,
    MAX_UNLABELLED,
    note_of,
    rows_without_label,
    rows_without_text,
    without_total,
)
from fasttune.data.rows import Rows
from fasttune.data.sources import Source, from_rows, load_source, with_split
from fasttune.data.starter import pairs, questions, reviews
from fasttune.errors import DataError, Problem, UsageError, shown
from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.recipe.yaml_text import write_inline

if TYPE_CHECKING:
    from fasttune.tasks.base import Task

STARTERS: dict[str, Callable[[], dict[str, Any]]] = {  # generated data sets, as `data.train` names them
    "starter": reviews.generate,
    "starter:pairs": pairs.generate,
    "starter:questions": questions.generate,
}
DEFAULT_TASK = "text-classification"
TRAIN, VALIDATION, TEST = "train", "validation", "test"
ROWS_FOR_TASK = 20  # whose cells may show the task
LABEL = "label"  # the role whose values may be in several columns
ANY = "data"  # rows outside of any split, such as a file to predict


def is_starter(spec: str | list[str]) -> bool:
    return isinstance(spec, str) and spec in STARTERS


def own_split(spec: str | list[str], split: str) -> str | list[str]:
    """The spec of another split of the same data set."""
    return spec if is_starter(spec) else with_split(spec, split)


def open_source(spec: str | list[str], split: str, reading: ReadOptions | None = None) -> Source:
    """Open a file, glob, folder, address or hub id, or generate the rows."""
    if not is_starter(spec):
        return load_source(spec, split, reading)
    splits = STARTERS[str(spec)]()
    split = TEST if split == ANY else split
    if split not in splits:
        raise UsageError(Problem(where="--split", found=repr(split), expected=f"one of {', '.join(splits)}"))
    return from_rows(splits[split], f"{spec}:{split}")


def name_of(spec: str | list[str]) -> str:
    return spec if isinstance(spec, str) else ", ".join(spec)


def reading_of(recipe: Recipe) -> ReadOptions:
    named = tuple(named_columns(recipe))
    data = recipe.data
    return ReadOptions(data.encoding, data.header, data.max_bytes, named, data.sheet)


def named_columns(recipe: Recipe) -> Iterator[str]:
    """The names of all columns that the recipe gives a role."""
    for name in recipe.data.columns.model_dump().values():
        if isinstance(name, list):
            yield from name
        elif name is not None:
            yield name


@dataclass
class Reader:
    """Reads the sources of one recipe for its task, and collects notes.

    `roles_of_run`: roles whose columns a finished run named for its own files; another file may name them differently.
    """

    recipe: Recipe
    tasks: Mapping[str, type[Task]]  # all tasks, by name
    notes: list[str] = field(default_factory=list)
    columns: dict[str, str | list[str]] = field(default_factory=dict)  # role -> column; of labels, several columns
    roles_of_run: frozenset[str] = frozenset()

    @property
    def task_class(self) -> type[Task]:
        return self.tasks[self.recipe.task]

    def open(self, spec: str | list[str], split: str) -> Source:
        return open_source(spec, split, reading_of(self.recipe))

    def rows(self, spec: str | list[str], split: str, need_labels: bool = True) -> tuple[Split, Source]:
        source = self.open(spec, split)
        return self.split_of(source, spec, split, need_labels), source

    def split_of(self, source: Source, spec: str | list[str], split: str, need_labels: bool = True) -> Split:
        """The checked rows of an open source."""
        self.notes += source.notes
        where = name_of(spec)
        if split == TRAIN and source.settings:
            self.recipe = load_recipe(self.recipe, source.settings)
        if need_labels:
            source, note = without_total(source, self.recipe.data.total_row, where)
            self.notes += [note] if note else []
            source = self._with_label_lists(source, where, split)
        names = self.names_in(source, where, split, need_labels)
        rows = self.rows_of(source, names, where)
        return Split(split, where, rows, source.fingerprint, source.licence, read_as=split)

    def is_unlabelled(self, source: Source) -> bool:
        """Whether no row has a target, as in the test splits of GLUE (-1) and Kaggle (no label column)."""
        roles = [column.role for column in self.task_class.columns if column.is_target and column.required]
        known = [self.columns[role] for role in roles if role in self.columns]
        names = [name for column in known for name in (column if isinstance(column, list) else [column])]
        missing = [name for name in names if name not in source.dataset.column_names]
        return len(missing) == len(names) > 0 or any(has_no_label(source.dataset, n) for n in names if n not in missing)

    def rows_of(self, source: Source, names: dict[str, str], where: str) -> Rows:
        """The values that the task reads from a source, checked; `names`: role -> column."""
        unreadable = [source.unreadable[name] for name in names.values() if name in source.unreadable]
        if unreadable:
            raise DataError(*unreadable)
        data = self.recipe.data
        if data.drop_empty is True or (data.drop_empty == "auto" and not data.streaming):
            source = self._without_empty(source, names, where)
        rows = self.task_class.read(source, names, self.recipe)
        self.notes += rows.notes
        if rows.settings:
            self.recipe = load_recipe(self.recipe, rows.settings)
        ties = {role: cells_of(source.dataset, names[role]) for role in (GROUP, TIME) if role in names}
        return replace(rows, values={**rows.values, **ties}, place=source.place)

    def names_in(self, source: Source, where: str, split: str, need_labels: bool) -> dict[str, str]:
        """The column of each role of the task and, for training rows, of `group` and `time`."""
        # Every split has the columns of the training rows.
        given: dict[str, str | None] = {
            role: label_columns.column_of(name) if isinstance(name, list) else name
            for role, name in {**self.recipe.data.columns.model_dump(), **self.columns}.items()
        }
        ties = tuple(
            Column(role, "splits the rows", required=True)
            for role in (GROUP, TIME)
            if given.pop(role) is not None and split == TRAIN
        )
        given |= {tie.role: getattr(self.recipe.data.columns, tie.role) for tie in ties}
        columns = (*self.task_class.columns, *ties)
        if not need_labels:
            targets = {column.role for column in columns if column.is_target}
            columns = tuple(column for column in columns if column.role not in targets)
            given = {role: name for role, name in given.items() if role not in targets}
            required = [column.role for column in columns if column.required]
            if len(required) == 1 and source.dataset.column_names == numbered_columns(1):
                given[required[0]] = source.dataset.column_names[0]  # a file of one text per line has no column names
        available = [*source.dataset.column_names, *source.unreadable]

        def cells(name: str) -> list[Any]:
            return [] if name in source.unreadable else some_cells(source.dataset, name)

        if self.roles_of_run:
            columns, given = self._for_run(columns, given, source, where)
        try:
            resolved = resolve(columns, given, available, where, cells)
        except DataError as error:
            raise self._with_other_task(error, available) from None
        if split == TRAIN:
            kept = {role: name for role, name in self.columns.items() if isinstance(name, list)}
            self.columns = {**resolved.names, **kept}
            self.notes += resolved.notes
        return resolved.names

    def _for_run(
        self, columns: tuple[Column, ...], given: dict[str, str | None], source: Source, where: str
    ) -> tuple[tuple[Column, ...], dict[str, str | None]]:
        """Find the columns of a finished run that this file names differently; the columns to read, and their names.

        DataError has the settings to type as its hint if one of them is unclear.
        """
        available = source.dataset.column_names
        # A model for single texts never reads a second text, however its column is called.
        columns = tuple(
            column for column in columns if column.is_target or not column.follows or given.get(column.role)
        )
        lacking = {role for role in self.roles_of_run if given.get(role) is not None and given[role] not in available}
        opened = [replace(column, follows=None) for column in columns if column.role in lacking]
        taken = {name for role, name in given.items() if role not in lacking}
        left = [name for name in available if name not in taken]
        names = self._guessed(opened, left, source, where)
        unclear = [role for role, name in names.items() if name is None]
        if unclear and all(column.required for column in opened):
            settings = (f"data.columns.{role}={write_inline(name or 'COLUMN')}" for role, name in names.items())
            found = f"cannot tell which column is the {' or the '.join(unclear)}; the columns are "
            raise DataError(
                Problem(
                    code="E201",
                    where=where,
                    found=f"{found}{', '.join(map(shown, available))}",
                    hint=" ".join(map(shlex.quote, settings)),
                )
            )
        for role, name in names.items():
            if name is not None:
                self.notes.append(
                    f"{where}: column {shown(name)} is used as the {role}; in the run it was {shown(given[role])}"
                )
                given[role] = name
        return columns, given

    def _guessed(self, columns: list[Column], left: list[str], source: Source, where: str) -> dict[str, str | None]:
        """The column of each role among those left; None if it is unclear."""
        if len(columns) == len(left) == 1 and columns[0].required:
            return {columns[0].role: left[0]}
        cells = partial(some_cells, source.dataset)
        try:
            found = resolve(tuple(columns), {}, left, where, cells).names
        except DataError:
            if len(columns) == 1:
                return {columns[0].role: None}
            alone = [self._guessed([column], left, source, where) for column in columns]
            found = {role: name for guess in alone for role, name in guess.items() if name is not None}
            if len({*found.values()}) < len(found):  # one column for two roles
                found = {}
        return {column.role: found.get(column.role) for column in columns}

    def _with_label_lists(self, source: Source, where: str, split: str) -> Source:
        """The source with one column of labels for several columns of 0 and 1, as named or found in training rows."""
        roles = {column.role: column for column in self.task_class.columns}
        if LABEL not in roles:
            return source
        names = self.columns.get(LABEL) or self.recipe.data.columns.label
        if names is None and split == TRAIN and guess_name(roles[LABEL], source.dataset.column_names) is None:
            names, are_labels = label_columns.flag_columns(source, [*named_columns(self.recipe)])
            if names and not are_labels:
                raise DataError(label_columns.question(names, where))
            if names:
                self.notes.append(
                    f"{where}: the columns {', '.join(map(shown, names))} hold only 0 and 1, so each is a label"
                )
        if not isinstance(names, list) or not names:
            return source
        self.columns[LABEL] = list(names)
        return label_columns.with_label_lists(source, names, where)

    def _without_empty(self, source: Source, names: dict[str, str], where: str) -> Source:
        """The source without rows that hold no label, and without the few that hold no text."""
        data = self.recipe.data
        columns = [column for column in self.task_class.columns if column.role in names and not column.may_be_empty]
        texts = rows_without_text(source, [names[column.role] for column in columns if not column.is_target])
        if data.drop_empty == "auto" and len(texts) > MAX_EMPTY_TEXTS * len(source.dataset):
            texts = []  # reported as an error, with their rows
        labels, held = list[int](), ""
        for column in columns:
            if column.is_target:
                found, held = rows_without_label(
                    source,
                    names[column.role],
                    where,
                    no_label=data.no_label,
                    has_names=data.label_names is not None,
                    are_numbers=self.recipe.problem == "regression",
                    # Of several columns of 0 and 1, an empty cell says nothing about its label.
                    is_multi=lambda cells: (
                        not isinstance(self.columns.get(LABEL), list)
                        and self.task_class.may_have_no_label(cells, self.recipe)
                    ),
                )
                if len(found) <= MAX_UNLABELLED * len(source.dataset) or data.drop_empty is True:
                    labels += found  # otherwise reported as an error, with their rows
        dropped = {*texts, *labels}
        if not dropped or len(dropped) == len(source.dataset):
            return source
        self.notes.append(note_of(where, len(texts), len(labels), held))
        return source.take([row for row in range(len(source.dataset)) if row not in dropped])

    def _with_other_task(self, error: DataError, available: list[str]) -> DataError:
        """The error, or one that names the other task to which all these columns belong."""
        task = task_of(available, self.tasks) or _task_with("answers", available, self.tasks)
        if task is None or task is self.task_class:
            return error
        found = f"the columns of {task.name}: {', '.join(column.role for column in task.columns if column.required)}"
        if task.name == "question-answering":
            found += ", as in SQuAD"
        expected, hint = f"those of {self.task_class.name}", f"task={task.name}"
        problems = []
        for problem in error.problems:
            if problem.code == "E201":
                problem = replace(problem, code="E116", found=found, expected=expected, hint=hint)
            problems.append(problem)
        return DataError(*problems)


def task_of(
    available: Sequence[str], tasks: Mapping[str, type[Task]], rows: Sequence[Mapping[str, Any]] = ()
) -> type[Task] | None:
    """The task that recognises these columns, or the cells of some rows, if it is not the default task; else None."""
    others = (task for name, task in tasks.items() if name != DEFAULT_TASK)
    return next((task for task in others if task.recognises(available, rows)), None)


def task_of_source(source: Source, tasks: Mapping[str, type[Task]]) -> type[Task] | None:
    """The task of the rows of a source, as `task_of`."""
    some = source.dataset.select(range(min(ROWS_FOR_TASK, source.dataset.num_rows)))
    return task_of([*source.dataset.column_names, *source.unreadable], tasks, some.with_format("arrow")[:].to_pylist())


def _task_with(role: str, available: Sequence[str], tasks: Mapping[str, type[Task]]) -> type[Task] | None:
    """The task that has this role, if the columns of the role and of all required ones have common names."""
    for task in tasks.values():
        with suppress(DataError):
            if role in resolve(task.columns, {}, available, "").names:
                return task
    return None
