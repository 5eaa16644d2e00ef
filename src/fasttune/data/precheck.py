"""Refuses wrong settings, missing files and misnamed columns before torch is imported.

`api.fit` and `api.check` raise the same errors seconds later; the command line asks here first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fasttune.data.formats.storage import ReadOptions, is_address, suffix_of
from fasttune.data.sources import files_of
from fasttune.errors import DataError, Problem, RecipeError
from fasttune.recipe import Recipe, is_recipe, load
from fasttune.recipe.load import is_recipe_name
from fasttune.recipe.types import TASK_NAMES

STARTER = "starter"  # generated rows, which are in no file
HEAD = 1 << 16  # bytes read from a table for its column names


def refuse_early(source: str, overrides: Sequence[str]) -> None:
    """Raise RecipeError or DataError for a wrong recipe or setting, a missing file, or a column that does not exist."""
    names_recipe = is_recipe(source) or is_recipe_name(source)
    recipe = load(source, overrides) if names_recipe else _recipe_of_data(source, overrides)
    problems: list[Problem] = []
    for split in ("train", "validation", "test", "unlabelled"):
        spec = getattr(recipe.data, split)
        if spec is None or (isinstance(spec, str) and (is_address(spec) or spec.partition(":")[0] == STARTER)):
            continue
        try:
            files_of(spec, split)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)
    _check_columns(recipe)


def _recipe_of_data(source: str, overrides: Sequence[str]) -> Recipe:
    """The recipe of the first task that accepts the settings; the task is not known before columns are read."""
    errors = []
    for task in TASK_NAMES:
        try:
            return load(load({"task": task, "data": {"train": source}}), overrides)
        except RecipeError as error:
            errors.append(error)
    raise min(errors, key=lambda error: len(error.problems))


def _check_columns(recipe: Recipe) -> None:
    """DataError if `data.columns` names a column that a local table of training rows does not have."""
    train, data = recipe.data.train, recipe.data
    # Several columns of labels are checked when the rows are read.
    named = {role: name for role, name in data.columns.model_dump().items() if isinstance(name, str)}
    if not named or not isinstance(train, str) or suffix_of(train) not in (".csv", ".tsv") or not Path(train).is_file():
        return
    from fasttune.data.columns import Column, resolve  # imports numpy, which other commands do not need
    from fasttune.data.formats.files import read_file

    try:
        reading = ReadOptions(data.encoding, data.header, data.max_bytes, tuple(named.values()), head=HEAD)
        available = read_file(train, reading).table.column_names
    except DataError:
        return  # reported in full, with the row, when the file is read
    # Only names are compared here; which roles a task has is checked when the rows are read.
    resolve(tuple(Column(role, "", required=False) for role in named), named, available, train)
