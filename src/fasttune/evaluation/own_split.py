"""The rows that a finished run was trained and scored on, read again."""

from __future__ import annotations

import shlex

from fasttune.data.earlier_run import addresses
from fasttune.data.holdout import Split
from fasttune.data.pipeline import read_kept
from fasttune.data.reading import TEST, VALIDATION
from fasttune.errors import Problem, UsageError
from fasttune.evaluation.predictor import Predictor
from fasttune.recipe import Recipe
from fasttune.runs.folder import RunFolder, read_json
from fasttune.security.addresses import is_remote
from fasttune.security.cache import was_made_here
from fasttune.tasks import TASKS


def read_own_split(predictor: Predictor, name: str | None) -> Split:
    """The rows of a split, exactly those that the run was scored on. Default: test, or validation if there is no test.

    UsageError if the run has no such split, or if it comes from another machine and names addresses on the network.
    """
    recipe, folder = predictor.recipe, predictor.folder
    if not folder.data_report.exists():
        found = "it came from the hub, which does not have its rows"
        raise UsageError(Problem(where=f"run {folder.path}", found=found, hint="--data FILE"))
    refuse_foreign_addresses(folder, recipe)
    splits = read_json(folder.data_report)["splits"]
    names = [split for split, about in splits.items() if not about["is_sample"]]
    name = name or (TEST if TEST in names else VALIDATION)
    if name not in names:
        expected = f"one of {', '.join(names)}"
        raise UsageError(Problem(where="--split", found=repr(name), expected=expected, hint="--data FILE"))
    return read_kept(recipe, TASKS, name, splits[name], folder.path)


def refuse_foreign_addresses(folder: RunFolder, recipe: Recipe) -> None:
    """UsageError if a run from another machine would make this one open an address on the network."""
    if was_made_here(read_json(folder.environment).get("run_id")):
        return
    for spec in filter(is_remote, addresses(recipe)):
        raise UsageError(
            Problem(
                where=f"run {folder.path}",
                found=f"its recipe comes from another machine and reads {spec}, which is not opened unasked",
                hint=f"--data {shlex.quote(spec)}, if you trust it",
            )
        )
