"""A recipe to start from: what the data shows, the settings of another tool, and the usual settings as comments."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import MISSING
from dataclasses import fields as dataclass_fields
from pathlib import Path
from typing import Any

from fasttune import __version__
from fasttune.data.pipeline import read_splits
from fasttune.data.recipe_source import recipe_from
from fasttune.errors import Problem, RecipeError
from fasttune.recipe import Overrides, Recipe, fields
from fasttune.recipe import load as load_recipe
from fasttune.recipe.foreign import Translated, translate
from fasttune.recipe.messages import nested
from fasttune.recipe.schema import FieldPath
from fasttune.recipe.yaml_text import write_inline
from fasttune.security.text import printable
from fasttune.tasks import TASKS
from fasttune.tasks.preview import decided
from fasttune.training.model import load_config
from fasttune.training.presets import FILLED, with_preset

# Written with the value that they have anyway, so that each section has one to begin with.
WRITTEN = ("task", "training.preset", "training.seed", "evaluation.eval_strategy", "output.save_total_limit")
# Shown as comments.
USUAL = (
    *("model", "data.validation", "data.test", "data.validation_fraction"),
    *(f"training.{name}" for name in ("num_train_epochs", "batch_size", "learning_rate", "max_time")),
    *("evaluation.metrics", "evaluation.metric_for_best_model", "evaluation.early_stopping_patience", "output.dir"),
)
WIDTH = 110


def draft(data: str, *, task: str | None = None, arguments: Path | None = None, overrides: Overrides = ()) -> str:
    """The YAML of a recipe for a data file, which is read as `train` reads it.

    `arguments`: a JSON file with the names and values of transformers' TrainingArguments (`to_dict()`) or of one of its
    example scripts. DataError and RecipeError as in training.
    """
    translated = Translated() if arguments is None else _translated(arguments)
    if task is None:
        task = recipe_from(data, TASKS, overrides)[0].task
    source: dict[FieldPath, Any] = {("task",): task, ("data", "train"): data}
    if arguments is not None:
        source["training", "preset"] = "tutorial"  # the Trainer's defaults
    recipe = load_recipe(load_recipe(nested({**translated.settings, **source})), overrides)
    splits = read_splits(recipe, TASKS)
    filled = splits.filled(recipe)
    number = len(splits.train.rows) if splits.stream is None else splits.stream.files.num_rows
    with_values, preset = with_preset(filled, number, load_config(filled.model))
    about = [f"{split.name}: {len(split.rows):,} rows" for split in splits.all()]
    about += [f"{name}: {text}" for name, text in decided(splits.task, splits.columns).items()]
    lines = [f"# Made by fasttune {__version__}. Next: fasttune check FILE, then fasttune train FILE", "#"]
    lines += [line for text in about for line in _comment(text)]
    if preset is not None:
        lines += _comment(f"training.preset {preset.value}: {preset.reason}")
    lines += ["#", *_comment("A setting behind '#' has that value anyway; docs/reference/recipe.md describes all.")]
    if translated.left_out:
        lines += ["#", f"# Left out of {printable(str(arguments))}:"]
        lines += [line for name, why in translated.left_out.items() for line in _comment(f"{printable(name)}: {why}")]
    return "\n".join([*lines, "format: 1", *_body(filled, with_values)]) + "\n"


def _translated(path: Path) -> Translated:
    from transformers import TrainingArguments

    try:
        given = json.loads(path.read_text("utf-8"))
    except ValueError:
        given = None
    if not isinstance(given, Mapping):
        expected = "a JSON object with names and values, such as json.dump(training_args.to_dict(), file) writes"
        raise RecipeError(Problem(where=str(path), found="no JSON object", expected=expected, code="E312"))
    defaults = {
        one.name: one.default_factory()
        if one.default is MISSING and one.default_factory is not MISSING
        else one.default
        for one in dataclass_fields(TrainingArguments)
    }
    return translate(given, defaults)


def _body(recipe: Recipe, with_values: Recipe) -> Iterator[str]:
    """The sections: what is set as it is, the usual rest as comments."""
    begun: set[FieldPath] = set()
    for path, field in fields():
        value, is_set = _value(recipe, path)
        name, full = path[-1], ".".join(path)
        is_written = is_set or full in WRITTEN
        if path == ("format",) or not (is_written or full in USUAL):
            continue
        for depth in range(1, len(path)):
            if path[:depth] not in begun:
                begun.add(path[:depth])
                yield f"{'  ' * (depth - 1)}{path[depth - 1]}:"
        indent = "  " * (len(path) - 1)
        if is_written:
            yield f"{indent}{name}: {write_inline(value)}"
            continue
        if path[0] == "training" and name in FILLED:
            value = _value(with_values, path)[0]
        yield from _comment(_first_sentence(field.description or ""), indent)
        yield f"{indent}# {name}: {write_inline(value)}"


def _value(recipe: Recipe, path: FieldPath) -> tuple[Any, bool]:
    """The value of a field, as it is written, and whether the recipe sets it."""
    section: Any = recipe
    for name in path[:-1]:
        section = getattr(section, name)
    value = section.model_dump(mode="json")[path[-1]]
    return value, path[-1] in section.model_fields_set and value is not None


def _first_sentence(text: str) -> str:
    return text.partition(". ")[0].rstrip(".")


def _comment(text: str, indent: str = "") -> list[str]:
    lines = textwrap.wrap(text, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)
    return [f"{indent}# {line}" for line in lines]
