"""Errors that need no torch import: a wrong setting, a recipe that does not load, a missing file.

`api.fit` and `api.check` raise the same errors a few seconds later; the commands call `refuse_early` first.
"""

from __future__ import annotations

from collections.abc import Sequence

from fasttune.data.formats.storage import is_address
from fasttune.data.sources import files_of
from fasttune.errors import DataError, Problem, RecipeError
from fasttune.recipe import Recipe, is_recipe, load
from fasttune.recipe.load import is_recipe_name
from fasttune.recipe.types import TASK_NAMES

STARTER = "starter"  # generated rows, without a file


def refuse_early(source: str, overrides: Sequence[str]) -> None:
    """Raise RecipeError or DataError for a wrong recipe or setting, or for files that do not exist."""
    names_recipe = is_recipe(source) or is_recipe_name(source)
    recipe = load(source, overrides) if names_recipe else _recipe_of_data(source, overrides)
    problems: list[Problem] = []
    for split in ("train", "validation", "test"):
        spec = getattr(recipe.data, split)
        if spec is None or (isinstance(spec, str) and (is_address(spec) or spec.partition(":")[0] == STARTER)):
            continue
        try:
            files_of(spec, split)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)


def _recipe_of_data(source: str, overrides: Sequence[str]) -> Recipe:
    """A recipe for a data file. The columns that tell the task are not read yet, so raise only if every task fails."""
    errors = []
    for task in TASK_NAMES:
        try:
            return load(load({"task": task, "data": {"train": source}}), overrides)
        except RecipeError as error:
            errors.append(error)
    raise min(errors, key=lambda error: len(error.problems))
