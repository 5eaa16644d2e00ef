"""The run that a recipe's `model` names: its rows for `training.replay`, and the held-out rows it has trained on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fasttune.data.duplicates import exact_groups
from fasttune.data.holdout import GROUP, TIME, Split, without_copies
from fasttune.data.problems import counted
from fasttune.data.reading import TRAIN, VALIDATION
from fasttune.data.splits import sample
from fasttune.errors import Error, Problem, RecipeError
from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder, read_json
from fasttune.security.addresses import is_remote
from fasttune.security.cache import was_made_here

if TYPE_CHECKING:
    from fasttune.tasks.base import Task

    Read = Callable[[Recipe, str, Mapping[str, object], Path], Split]  # `pipeline.read_kept` for some tasks

# Settings that say what the values of the target column mean.
OF_LABELS = ("label_names", "label_separator")


@dataclass(frozen=True)
class EarlierRun:
    """The rows that a run was trained and chosen on; `name`: as the recipe names it."""

    name: str
    recipe: Recipe
    train: Split
    validation: Split


def earlier_run(recipe: Recipe, read: Read, run: RunFolder | None = None) -> EarlierRun | str | None:
    """The run that `model` names, with its rows; None if it names no run, and the reason if its rows cannot be read.

    `run`: the finished run that has this recipe, if it is read again. Another run may be at the place of its model now.
    """
    folder = RunFolder(Path(recipe.model).expanduser())
    if not folder.is_run or not folder.environment.exists() or not folder.data_report.exists():
        return None
    started_from = None if run is None else _parent_id(run)
    if started_from is not None and read_json(folder.environment).get("run_id") != started_from:
        return "another run is there now"
    saved = load_recipe(folder.recipe)
    splits = read_json(folder.data_report)["splits"]
    if saved.data.streaming:
        return "its training rows were a stream"
    if not was_made_here(read_json(folder.environment).get("run_id")) and any(map(is_remote, addresses(saved))):
        return "it comes from another machine, and its data from the network"
    try:
        own = {name: read(saved, name, splits[name], folder.path) for name in (TRAIN, VALIDATION)}
    except Error:  # whose message may name places of this machine
        return "its rows cannot be read again"
    return EarlierRun(recipe.model, saved, own[TRAIN], own[VALIDATION])


def _parent_id(run: RunFolder) -> str | None:
    """The id of the run that a run started from, by the lineage in its environment.json; None for early runs."""
    lineage = read_json(run.environment).get("lineage") if run.environment.exists() else None
    return lineage[-1].get("run_id") if lineage else None


def addresses(recipe: Recipe) -> list[str]:
    """The files and addresses of a recipe's data."""
    data = recipe.data
    values = (data.train, data.validation, data.test)
    return [spec for value in values for spec in ([value] if isinstance(value, str) else value or [])]


def to_replay(recipe: Recipe, found: EarlierRun | str | None, train: Split) -> EarlierRun:
    """The earlier run whose rows go among those of `train`; RecipeError if they cannot."""

    def refuse(what: str, expected: str) -> RecipeError:
        problem = Problem(
            where=f"training.replay={recipe.training.replay:g}",
            found=f"model {recipe.model}: {what}",
            expected=expected,
            hint="training.replay=0",
            code="E418",
        )
        return RecipeError(problem)

    if not isinstance(found, EarlierRun):
        raise refuse(found or "no run of this machine", "a run whose training rows can be read again")
    if found.recipe.task != recipe.task:
        raise refuse(f"a run of {found.recipe.task}", f"a run of {recipe.task}")
    for name in OF_LABELS:
        own, its = getattr(recipe.data, name), getattr(found.recipe.data, name)
        if own != its and not (name == "label_separator" and own is None):
            raise refuse(f"its data.{name} is {its}", f"the same data.{name} as here, {own}")
    roles = [set(split.rows.values) - {GROUP, TIME} for split in (train, found.train)]
    if roles[0] != roles[1]:
        raise refuse(f"rows with {', '.join(sorted(roles[1]))}", f"rows with {', '.join(sorted(roles[0]))}, as here")
    return found


def with_replayed(
    share: float, earlier: EarlierRun, train: Split, held_out: dict[str, Split], task: Task, seed: int, notes: list[str]
) -> Split:
    """Training rows, and `share` times as many of the earlier run's, drawn with `seed`; the same for validation.

    Its validation rows go into `held_out`, so that the best weights are chosen by what they still know. Rows whose text
    is among the new ones are left out.
    """
    splits = {TRAIN: (train, earlier.train), VALIDATION: (held_out[VALIDATION], earlier.validation)}
    for name, (own, its) in splits.items():
        its = without_copies(replace(its, name="replay"), [train, *held_out.values()], task, notes)
        number = min(round(share * len(own.rows)), len(its.rows))
        rows = its.rows.take(sample(len(its.rows), number, seed)) if number < len(its.rows) else its.rows
        notes.append(f"{name}: {counted(len(rows), 'row')} of {earlier.name} added (training.replay={share:g})")
        splits[name] = replace(own, rows=own.rows.with_more(rows), positions=None), its
    held_out[VALIDATION] = splits[VALIDATION][0]
    return splits[TRAIN][0]


def seen_before(earlier: EarlierRun | str | None, held_out: Mapping[str, Split], task: Task, model: str) -> list[str]:
    """Notes on held-out rows that the earlier run was trained on: the new model knows them through its weights."""
    if isinstance(earlier, str):
        return [f"cannot tell whether {model}, which this run starts from, was trained on held-out rows: {earlier}"]
    if earlier is None or earlier.recipe.task != task.name:
        return []
    notes = []
    trained_on = list(task.input_texts(earlier.train.rows))
    for name, split in held_out.items():
        groups = exact_groups([*trained_on, *task.input_texts(split.rows)])
        number = int(np.isin(groups[len(trained_on) :], groups[: len(trained_on)]).sum())
        if number:
            notes.append(
                f"warning: {name}: {model}, which this run starts from, was trained on {number:,} of "
                f"{counted(len(split.rows), 'row')}: scores on them are optimistic"
            )
    return notes
