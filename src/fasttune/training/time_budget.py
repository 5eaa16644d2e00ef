"""`training.max_time`: as many steps as end in time, with a learning rate that decays within them."""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from fasttune.data.problems import counted
from fasttune.data.reading import TEST, TRAIN, VALIDATION
from fasttune.errors import Problem, RecipeError
from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.recipe.types import seconds_of
from fasttune.runs.folder import RunFolder
from fasttune.training import signals
from fasttune.training.forecast import Forecast, measure, seconds_of_steps
from fasttune.training.precision import Choice
from fasttune.training.run import MAX_TIME, TrainingRun

FEWEST_STEPS = 10  # of a run that is worth starting
MARGIN = 0.02  # of the time, since steps vary
SCORED_AGAIN = 0.5  # how often the validation rows are scored once more at the end
SECONDS_TO_SAVE = 1.0  # the final model, predictions and card
# The report: the search for weak slices, loading the model again, charts; and the words behind ten mistakes, each of
# which takes about fourteen forward passes.
SECONDS_TO_REPORT, ROWS_TO_REPORT = 3.5, 140


def fit_into_time(run: TrainingRun, begin: float) -> None:
    """Replace `training.max_time` by the number of steps that end in time.

    `begin`: when the run began, by `time.perf_counter`. A few steps are timed and undone. RecipeError if too few fit.
    """
    asked = run.recipe.training.max_time
    if asked is None:
        return
    if run.setup.accelerator.num_processes > 1:
        raise RecipeError(
            Problem(
                where="training.max_time",
                found=f"{asked} with {run.setup.accelerator.num_processes} processes; it can be planned for one only",
                hint="training.max_steps, with the number of steps that fit",
                code="E414",
            )
        )
    measured = _measured_and_undone(run)
    signals.check()
    evaluation = measured.measured["evaluation_seconds"]
    finish = SECONDS_TO_SAVE + evaluation * _test_evaluations(run)
    if run.recipe.output.report:
        finish += SECONDS_TO_REPORT + evaluation * ROWS_TO_REPORT / len(run.stores[VALIDATION])
    used = time.perf_counter() - begin
    left = seconds_of(asked) * (1 - MARGIN) - used - finish
    planned, num_steps = measured.num_steps, most_steps(run.recipe, measured, left)
    if num_steps > measured.steps_per_epoch:
        # Of several evaluations the best is not always the last; then validation rows are scored once more.
        again = SCORED_AGAIN * measured.measured["evaluation_seconds"]
        num_steps = max(most_steps(run.recipe, measured, left - again), measured.steps_per_epoch)
    if num_steps < min(FEWEST_STEPS, planned):
        need = used + finish + _seconds(run.recipe, measured, min(FEWEST_STEPS, planned))
        minutes = math.ceil(need / (1 - MARGIN) / 60)
        raise RecipeError(
            Problem(
                where="training.max_time",
                found=f"{asked}, of which {used:.0f} s went into reading and measuring: {counted(num_steps, 'step')} "
                f"of {planned:,} would fit",
                hint=f"training.max_time={minutes}m, fewer rows (data.max_train_samples), or a smaller model",
                code="E415",
            )
        )
    changes: dict[str, object] = {"max_time": None}
    if num_steps < planned:
        changes["max_steps"] = num_steps
    reason = in_words(run.recipe, measured, num_steps)
    run.setup.choices[MAX_TIME] = Choice(asked, reason)
    run.log(f"training.max_time {asked}: {reason}")
    run.recipe = load_recipe(run.recipe, {"training": changes})


def _measured_and_undone(run: TrainingRun) -> Forecast:
    """A forecast from real steps, after which model and run are as before."""
    model = run.setup.model
    weights = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    rows = {split.name: len(split.rows) for split in run.splits.all()}
    rows[TRAIN] = rows[TRAIN] if run.splits.stream is None else run.splits.stream.files.num_rows
    with tempfile.TemporaryDirectory(prefix="fasttune-time-") as folder:
        trial = replace(
            run, folder=RunFolder(Path(folder) / "run"), splits=replace(run.splits, stream=None), log=lambda line: None
        )
        measured = measure(trial, rows)
    with torch.no_grad():
        model.load_state_dict(weights)
    run.kept_states, run.kept_seconds = trial.kept_states, trial.kept_seconds
    return measured


def _test_evaluations(run: TrainingRun) -> float:
    """The time that scoring the test rows takes, in evaluations of the validation rows."""
    rows = {split.name: len(split.rows) for split in run.splits.all()}
    return rows.get(TEST, 0) / rows[VALIDATION]


def in_words(recipe: Recipe, measured: Forecast, num_steps: int) -> str:
    """What fits, and what is given up."""
    planned, per_epoch = measured.num_steps, measured.steps_per_epoch
    if num_steps == planned:
        return f"all {planned:,} steps fit, in about {_seconds(recipe, measured, planned):.0f} s"
    return f"{num_steps:,} of {planned:,} steps fit: {num_steps / per_epoch:.2f} of {planned / per_epoch:.2f} epochs"


def _seconds(recipe: Recipe, measured: Forecast, num_steps: int) -> float:
    return seconds_of_steps(recipe, measured.measured, num_steps, measured.steps_per_epoch)


def most_steps(recipe: Recipe, measured: Forecast, seconds: float) -> int:
    """The largest number of steps that take at most `seconds`; `_seconds` grows with it."""
    low, high = 0, measured.num_steps
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _seconds(recipe, measured, middle) <= seconds else (low, middle - 1)
    return low
