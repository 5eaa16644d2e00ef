"""How long a run will take on this machine, from a few real steps, a save and an evaluation."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from fasttune.data.batching.plan import epoch_order
from fasttune.data.pipeline import encode
from fasttune.data.reading import TRAIN, VALIDATION
from fasttune.recipe import Recipe
from fasttune.training.environment import peak_memory_bytes
from fasttune.training.events import Event, SaveDue, StepDone
from fasttune.training.loop import TrainState, num_training_steps, times_due
from fasttune.training.run import TrainingRun
from fasttune.training.scoring import score_split
from fasttune.training.trainer import Trainer

EVALUATED = 500  # rows scored to measure the speed of an evaluation
WARM_UP = 3  # steps that are not measured: they fill caches
MAX_STEPS, MAX_SECONDS = 20, 10.0  # measured after the warm-up


@dataclass(frozen=True)
class Forecast:
    """What a run will take on this machine; `measured` are the figures that the forecast is computed from.

    `train_runtime` is defined as in all_results.json: seconds from the first batch to the last step, with evaluations
    and saves.
    """

    train_runtime: float
    peak_memory_bytes: int
    num_steps: int
    steps_per_epoch: int
    measured: dict[str, float] = field(default_factory=dict)


def measure(run: TrainingRun, num_rows: dict[str, int]) -> Forecast:
    """Run some steps, a save and an evaluation, and extrapolate."""
    recipe, store, device = run.recipe, run.stores[TRAIN], run.setup.accelerator.device
    scale = num_rows[TRAIN] / len(run.splits.train.rows)
    steps_per_epoch = math.ceil(len(store) * scale / recipe.training.batch_size)
    num_steps = num_training_steps(recipe, steps_per_epoch)
    watch, shortened = _Watch(), _shortened(run)
    Trainer(shortened).train([watch])
    run.kept_states, kept_seconds = shortened.kept_states, shortened.kept_seconds * scale
    per_token = watch.seconds_per_token
    tokens_per_step = store.num_tokens * scale / steps_per_epoch
    evaluation = _evaluation_seconds(run, num_rows[VALIDATION])
    evaluations, saves = _evaluations_and_saves(recipe, num_steps, steps_per_epoch)
    measured = {
        "num_steps": len(watch.seconds),
        "tokens_per_second": 1 / per_token,
        "tokens_per_step": tokens_per_step,
        "evaluation_seconds": evaluation,
        "num_evaluations": evaluations,
        "frozen_layers_seconds": kept_seconds,
        "save_seconds": watch.save_seconds,
        "num_saves": saves,
    }
    runtime = kept_seconds + seconds_of_steps(recipe, measured, num_steps, steps_per_epoch)
    return Forecast(runtime, peak_memory_bytes(device), num_steps, steps_per_epoch, measured)


def seconds_of_steps(
    recipe: Recipe,
    measured: Mapping[str, float],
    num_steps: int,
    steps_per_epoch: int,
    done: TrainState | None = None,
) -> float:
    """Seconds until step `num_steps`, with evaluations and saves, by the `measured` figures of a forecast.

    `done`: what the run has behind it; by default nothing.
    """
    evaluations, saves = _evaluations_and_saves(recipe, num_steps, steps_per_epoch)
    if done is not None:
        num_steps -= done.step
        evaluations -= len(done.evaluations)
        saves -= done.step // (recipe.output.save_steps or steps_per_epoch) if saves else 0
    return (
        num_steps * measured["tokens_per_step"] / measured["tokens_per_second"]
        + evaluations * measured["evaluation_seconds"]
        + saves * measured["save_seconds"]
    )


def _evaluations_and_saves(recipe: Recipe, num_steps: int, steps_per_epoch: int) -> tuple[int, int]:
    evaluation, output = recipe.evaluation, recipe.output
    return (
        times_due(evaluation.eval_strategy, evaluation.eval_steps, num_steps, steps_per_epoch),
        times_due(output.save_strategy, output.save_steps, num_steps, steps_per_epoch),
    )


def _evaluation_seconds(run: TrainingRun, num_rows: int) -> float:
    """Seconds for an evaluation of all validation rows, extrapolated from a sample."""
    split = run.splits.validation
    assert split is not None, "rows are held out if there is no validation file"
    few = split.limited(EVALUATED, run.recipe.data.seed, [])
    store = encode(few, run.splits.task, run.setup.tokenizer, run.setup.max_length)
    scored = score_split(run.setup, run.splits.task, few, store)
    tokens_of_all = run.stores[VALIDATION].num_tokens * num_rows / len(split.rows)
    return scored.metrics["eval_runtime"] * tokens_of_all / store.num_tokens


def _shortened(run: TrainingRun) -> TrainingRun:
    """The run without evaluations and saves, starting just before the step of the first epoch with the most tokens."""
    recipe, lengths = run.recipe, run.stores[TRAIN].lengths
    batch_size = recipe.training.batch_size
    order = epoch_order(len(lengths), recipe.training.seed, 0)
    tokens = np.add.reduceat(lengths[order], np.arange(0, len(order), batch_size))
    first = min(int(tokens.argmax()) - WARM_UP, len(tokens) - WARM_UP - MAX_STEPS)
    changes = {
        "evaluation": {"eval_strategy": "no", "early_stopping_patience": None},
        "output": {"save_strategy": "no", "mirror": None},
        "training": {"num_train_epochs": 1.0, "max_steps": -1},
    }
    sections = {name: getattr(recipe, name).model_copy(update=update) for name, update in changes.items()}
    return replace(run, recipe=recipe.model_copy(update=sections), state=TrainState(step=max(first, 0)))


@dataclass
class _Watch:
    """An observer that times steps and the save at the end, and stops the run when it has measured enough."""

    seconds: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    save_seconds: float = 0.0
    last: float = 0.0

    def __call__(self, event: Event) -> str | None:
        now = time.perf_counter()
        elapsed, self.last = now - self.last, now
        if isinstance(event, SaveDue):
            self.save_seconds = elapsed  # the trainer saves before it notifies observers
        if not isinstance(event, StepDone):
            return None
        self.seconds.append(elapsed)
        self.tokens.append(event.num_tokens)
        measured = self.seconds[WARM_UP:]
        return "measured" if len(measured) >= MAX_STEPS or sum(measured) > MAX_SECONDS else None

    @property
    def seconds_per_token(self) -> float:
        first = min(WARM_UP, len(self.seconds) - 1)
        return sum(self.seconds[first:]) / sum(self.tokens[first:])
