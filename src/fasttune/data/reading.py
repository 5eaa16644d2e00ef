"""Open one source of a recipe's data section, find its columns, and read its rows."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from fasttune.data.columns import Column, cells_of, empty_rows, has_no_label, resolve, some_cells
from fasttune.data.formats.delimited import numbered_columns
from fasttune.data.formats.storage import ReadOptions
from fasttune.data.holdout import GROUP, TIME, Split
from fasttune.data.problems import counted
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
    named = tuple(filter(None, recipe.data.columns.model_dump().values()))
    return ReadOptions(recipe.data.encoding, recipe.data.header, recipe.data.max_bytes, named)


@dataclass
class Reader:
    """Reads the sources of one recipe for its task, and collects notes.

    `roles_of_run`: roles whose columns a finished run named for its own files; another file may name them differently.
    """

    recipe: Recipe
    tasks: Mapping[str, type[Task]]  # all tasks, by name
    notes: list[str] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)
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
        names = self.names_in(source, where, split, need_labels)
        rows = self.rows_of(source, names, where)
        return Split(split, where, rows, source.fingerprint, source.licence, read_as=split)

    def is_unlabelled(self, source: Source) -> bool:
        """Whether no row has a target, as in the test splits of GLUE (-1) and Kaggle (no label column)."""
        roles = [column.role for column in self.task_class.columns if column.is_target and column.required]
        names = [self.columns[role] for role in roles if role in self.columns]
        missing = [name for name in names if name not in source.dataset.column_names]
        return bool(missing) or any(has_no_label(source.dataset, name) for name in names)

    def rows_of(self, source: Source, names: dict[str, str], where: str) -> Rows:
        """The values that the task reads from a source, checked; `names`: role -> column."""
        if self.recipe.data.drop_empty:
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
        given = {**self.recipe.data.columns.model_dump(), **self.columns}
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
        if self.roles_of_run:
            columns, given = self._for_run(columns, given, source, where)
        try:
            cells = partial(some_cells, source.dataset)
            resolved = resolve(columns, given, source.dataset.column_names, where, cells)
        except DataError as error:
            raise self._with_other_task(error, source.dataset.column_names) from None
        if split == TRAIN:
            self.columns = dict(resolved.names)
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

    def _without_empty(self, source: Source, names: dict[str, str], where: str) -> Source:
        empty: set[int] = set()
        for column in self.task_class.columns:
            if column.role in names and not column.may_be_empty:
                empty.update(empty_rows(source.dataset, names[column.role], lists=not column.is_target))
        if not empty:
            return source
        self.notes.append(
            f"{where}: dropped {counted(len(empty), 'row')} with an empty text or label (data.drop_empty)"
        )
        return source.take([row for row in range(len(source.dataset)) if row not in empty])

    def _with_other_task(self, error: DataError, available: list[str]) -> DataError:
        """The error, or one that names the other task to which all these columns belong."""
        task = task_of(available, self.tasks)
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


def task_of(available: Sequence[str], tasks: Mapping[str, type[Task]]) -> type[Task] | None:
    """The task whose required roles are all among these column names, if it is not the default task; else None."""
    names = {name.strip().lower() for name in available}
    for name, task in tasks.items():
        if name != DEFAULT_TASK and {column.role for column in task.columns if column.required} <= names:
            return task
    return None
