"""`training.max_time`: as many steps as end in time, with a learning rate that decays within them.

The first plan comes from a few seconds of training, but the speed of a machine changes: other programs run, a laptop
gets warm. So whenever half of the steps that were left are done, the rest is planned again from what these steps took.
"""

from __future__ import annotations

import math
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

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
from fasttune.training.loop import TrainState
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
    """Replace `training.max_time` by the number of steps that end in time, and let the run correct it on its way.

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
    pace = Pace(run, measured, begin + seconds_of(asked) * (1 - MARGIN))
    used = perf_counter() - begin
    planned, num_steps = measured.num_steps, pace.most_steps(run.state)
    if num_steps < min(FEWEST_STEPS, planned):
        need = used + pace.seconds_to_finish() + _seconds(run.recipe, measured, min(FEWEST_STEPS, planned))
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
    run.replan = pace.replan


class Pace:
    """How fast a run is, and how many steps fit into the time until `deadline`, by `time.perf_counter`."""

    def __init__(self, run: TrainingRun, forecast: Forecast, deadline: float):
        self.recipe, self.forecast, self.deadline = run.recipe, forecast, deadline
        rows = {split.name: len(split.rows) for split in run.splits.all()}
        # In evaluations of the validation rows: scoring the test rows, and the report.
        self.evaluations_to_finish = rows.get(TEST, 0) / rows[VALIDATION]
        self.seconds_to_save = SECONDS_TO_SAVE
        if run.recipe.output.report:
            self.evaluations_to_finish += ROWS_TO_REPORT / len(run.stores[VALIDATION])
            self.seconds_to_save += SECONDS_TO_REPORT
        self.due = 1  # the step after which the time is read next
        self.begin, self.num_tokens, self.num_evaluations = 0.0, 0, 0  # when it was read last

    def seconds_to_finish(self) -> float:
        """For all that follows the last step."""
        return self.seconds_to_save + self.evaluations_to_finish * self.forecast.measured["evaluation_seconds"]

    def most_steps(self, state: TrainState) -> int:
        """The largest number of steps with which a run that has come to `state` ends in time."""
        left = self.deadline - perf_counter() - self.seconds_to_finish()
        num_steps, one_epoch = most_steps(self.recipe, self.forecast, left, state), self.forecast.steps_per_epoch
        if num_steps > one_epoch:
            # Of several evaluations the best is not always the last; then validation rows are scored once more.
            left -= SCORED_AGAIN * self.forecast.measured["evaluation_seconds"]
            num_steps = max(most_steps(self.recipe, self.forecast, left, state), one_epoch)
        return num_steps

    def replan(self, state: TrainState) -> int | None:
        """The number of steps that fit at the speed since the last call that read the time; None between them."""
        if state.step < self.due:
            return None
        now, is_measured = perf_counter(), self.begin > 0  # the first step is slow, and only begins to count
        runtimes = [evaluation["eval_runtime"] for evaluation in state.evaluations]
        if is_measured:
            seconds = now - self.begin - sum(runtimes[self.num_evaluations :])
            measured = {**self.forecast.measured, "tokens_per_second": (state.num_tokens - self.num_tokens) / seconds}
            if runtimes:
                measured["evaluation_seconds"] = sum(runtimes) / len(runtimes)
            self.forecast = replace(self.forecast, measured=measured)
        num_steps = self.most_steps(state)
        self.begin, self.num_tokens, self.num_evaluations = now, state.num_tokens, len(runtimes)
        self.due = state.step + max(math.ceil((num_steps - state.step) / 2), FEWEST_STEPS)
        return num_steps if is_measured else None


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


def in_words(recipe: Recipe, measured: Forecast, num_steps: int) -> str:
    """What fits, and what is given up."""
    planned, per_epoch = measured.num_steps, measured.steps_per_epoch
    if num_steps == planned:
        return f"all {planned:,} steps fit, in about {_seconds(recipe, measured, planned):.0f} s"
    return f"{num_steps:,} of {planned:,} steps fit: {num_steps / per_epoch:.2f} of {planned / per_epoch:.2f} epochs"


def _seconds(recipe: Recipe, measured: Forecast, num_steps: int, state: TrainState | None = None) -> float:
    return seconds_of_steps(recipe, measured.measured, num_steps, measured.steps_per_epoch, state)


def most_steps(recipe: Recipe, measured: Forecast, seconds: float, state: TrainState | None = None) -> int:
    """The largest number of steps for which a run that has come to `state`, or starts, needs at most `seconds`."""
    state = state or TrainState()
    low, high = state.step, measured.num_steps
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _seconds(recipe, measured, middle, state) <= seconds else (low, middle - 1)
    return low
