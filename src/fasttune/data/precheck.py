"""What can be refused before torch is imported: a wrong setting, a recipe that does not load, a missing file.

`api.fit` and `api.check` raise the same errors, seconds later; the commands ask here first.
"""

from __future__ import annotations

from collections.abc import Sequence

from fasttune.data.formats.storage import is_address
from fasttune.data.sources import files_of
from fasttune.errors import DataError, Problem, RecipeError
from fasttune.recipe import Recipe, is_recipe, load
from fasttune.recipe.load import is_recipe_name
from fasttune.recipe.types import TASK_NAMES

STARTER = "starter"  # generated rows, which no file holds


def refuse_early(source: str, overrides: Sequence[str]) -> None:
    """Raise RecipeError or DataError for a wrong recipe or setting, or for files that do not exist."""
    names_recipe = is_recipe(source) or is_recipe_name(source)
    recipe = load(source, overrides) if names_recipe else _recipe_of_data(source, overrides)
    problems: list[Problem] = []
    for split in ("train", "validation", "test"):
        place = getattr(recipe.data, split)
        if place is None or (isinstance(place, str) and (is_address(place) or place.partition(":")[0] == STARTER)):
            continue
        try:
            files_of(place, split)
        except DataError as error:
            problems += error.problems
    if problems:
        raise DataError(*problems)


def _recipe_of_data(source: str, overrides: Sequence[str]) -> Recipe:
    """The task is not known before columns are read: an error counts where every task has one."""
    errors = []
    for task in TASK_NAMES:
        try:
            return load(load({"task": task, "data": {"train": source}}), overrides)
        except RecipeError as error:
            errors.append(error)
    raise min(errors, key=lambda error: len(error.problems))
