"""From what a user passes to `fit` (a recipe, a shipped recipe's name, a file, rows in memory) to a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.data.formats.in_memory import is_rows, stored
from fasttune.data.reading import task_of_source
from fasttune.data.row_stream import rows_to_see
from fasttune.errors import DataError
from fasttune.recipe import Overrides, Recipe, is_recipe, load
from fasttune.recipe.load import is_recipe_name

if TYPE_CHECKING:
    from fasttune.data.pipeline import Tasks

RecipeSource = Any  # str | Path | Mapping[str, Any] | Recipe | rows; see recipe_from

HEAD = 1 << 20  # bytes read from a file to learn its column names
OF_WORDS = ("E142", "E143", "E146")  # errors of files with one word per line
READING_FIELDS = ("encoding", "header", "max_bytes", "streaming")  # of `data`: how files are read


def recipe_from(source: RecipeSource, tasks: Tasks, overrides: Overrides = ()) -> tuple[Recipe, str]:
    """The recipe, and the stem of the run folder's name.

    `source`: a recipe file, the name of a shipped recipe, a mapping, a Recipe, or data itself: a file, glob or hub id,
    a frame of pandas or polars, an Arrow table, a dataset, or a list of dicts. For data, its columns decide the task.
    """
    if is_rows(source):
        source = stored(source)
    if isinstance(source, Mapping):
        source = with_stored_rows(source)
    if not isinstance(source, str | Path):
        recipe = load(source, overrides)
        return recipe, stem_of(recipe.data.train)
    if is_recipe(source) or is_recipe_name(source):
        return load(source, overrides), Path(source).stem
    sections: dict[str, Any] = {"data": {"train": str(source)}}
    if not _names_task(overrides):
        sections["task"] = _task_of_columns(str(source), tasks, overrides)
    recipe = load(load(sections), overrides)
    return recipe, stem_of(recipe.data.train)


def with_stored_rows(sections: Mapping[str, Any]) -> dict[str, Any]:
    """The same sections, in which rows in memory are replaced by the path of a file that holds them."""
    data = sections.get("data")
    if not isinstance(data, Mapping):
        return dict(sections)
    return {**sections, "data": {name: stored(value) if is_rows(value) else value for name, value in data.items()}}


def stem_of(data: str | list[str]) -> str:
    """A name for the run folder: reviews.csv -> reviews, hub/name:train -> name."""
    first = data if isinstance(data, str) else data[0]
    stem = Path(first).stem if Path(first).exists() else Path(first.partition(":")[0]).stem
    name = "".join(character if character.isalnum() or character in "-_." else "-" for character in stem).strip("-.")
    return name or "run"


def _task_of_columns(data: str, tasks: Tasks, overrides: Overrides) -> str:
    """The name of the task whose columns the data has, or the default task."""
    if isinstance(overrides, Mapping):
        reading = {name: value for name, value in overrides.get("data", {}).items() if name in READING_FIELDS}
        recipe = load({"data": {"train": data, **reading}})
    else:
        fields = tuple(f"data.{name}=" for name in READING_FIELDS)
        recipe = load({"data": {"train": data}}, [override for override in overrides if override.startswith(fields)])
    # The beginning of a file usually shows its columns. Errors are reported later, when all of it is read.
    heads = (HEAD, None) if Path(data).is_file() and not recipe.data.streaming else (None,)
    for head in heads:
        try:
            task = task_of_source(rows_to_see(data, None, recipe, head), tasks)
            return recipe.task if task is None else task.name
        except DataError as error:
            if error.problems[0].code in OF_WORDS:
                return "token-classification"
    return recipe.task


def _names_task(overrides: Overrides) -> bool:
    names = overrides if isinstance(overrides, Mapping) else [override.partition("=")[0] for override in overrides]
    return "task" in names
