"""The learning-rate range test: the loss while the rate rises over orders of magnitude (Smith 2017, section 3.3)."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from fasttune.data.audit import Audit
from fasttune.data.batching.plan import Plan
from fasttune.data.batching.prefetch import StorePrefetcher
from fasttune.data.pipeline import read_splits
from fasttune.data.reading import TRAIN
from fasttune.errors import Problem, RecipeError
from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder, write_json
from fasttune.tasks import TASKS
from fasttune.training import signals
from fasttune.training.frozen import FrozenLayers
from fasttune.training.optimizer import make_optimizer, rates, set_learning_rate
from fasttune.training.prepare import build_run
from fasttune.training.run import Log, TrainingRun
from fasttune.training.step import run_step

LOWEST, HIGHEST = 1e-6, 1e-1
NUM_STEPS = 120
SMOOTHING = 0.9  # of the exponential average of the losses
DIVERGED = 2.0  # times the lowest loss
FEWEST_STEPS = 20  # before a loss counts as diverged: the first ones are noise


@dataclass(frozen=True)
class LearningRates:
    """What the range test found; `losses` are exponential averages, one for each of `rates`.

    `suggestion` is where the loss falls fastest per order of magnitude; None if it never falls.
    """

    rates: list[float] = field(repr=False)
    losses: list[float] = field(repr=False)
    suggestion: float | None
    lowest_loss_at: float
    diverged_at: float | None
    files: list[Path] = field(default_factory=list, repr=False)


def range_test(recipe: Recipe, log: Log, output: Path | None = None) -> LearningRates:
    """Train with a rate that rises from 1e-6 to 0.1 in 120 steps, keep nothing of the model, and plot the loss.

    Stops when the loss is twice its lowest. The rate is that of the highest layer; `training.head_learning_rate` and
    `training.layer_decay` keep their proportions to it. Writes lr_range.json, .svg and .png to `output`, if given.
    """
    if recipe.data.streaming:
        reason, hint = "a range test needs the rows in memory", "data.streaming=false data.max_train_samples=5000"
        raise RecipeError(Problem(where="data.streaming", found=reason, hint=hint, code="E313"))
    if recipe.training.compile == "auto":  # not worth it for so few steps
        recipe = load_recipe(recipe, {"training": {"compile": False}})
    splits = read_splits(recipe, TASKS)
    with tempfile.TemporaryDirectory(prefix="fasttune-lr-") as folder:
        run = build_run(recipe, splits, RunFolder(Path(folder) / "run"), log, Audit())
        try:
            losses = _losses(run)
        finally:
            run.close()
    found = _found(_rates()[: len(losses)], losses)
    return found if output is None else _written(found, output)


def _rates() -> list[float]:
    return np.geomspace(LOWEST, HIGHEST, NUM_STEPS).tolist()


def _losses(run: TrainingRun) -> list[float]:
    """The averaged loss after each step, until it diverges."""
    setup, training, store = run.setup, run.recipe.training, run.stores[TRAIN]
    averaged: list[float] = []
    average = 0.0
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=range(torch.cuda.device_count())))
        if training.freeze_layers:
            stack.enter_context(FrozenLayers(setup.model, training.freeze_layers).applied())
        optimizer = setup.accelerator.prepare_optimizer(
            make_optimizer(setup.model, training.learning_rate, training.weight_decay, rates(setup.model, training))
        )
        plan = Plan(
            lengths=store.lengths,
            seed=training.seed,
            batch_size=training.batch_size,
            tokens_per_microbatch=setup.tokens_per_microbatch,
            padded=setup.padded,
        )
        is_cuda = setup.accelerator.device.type == "cuda"
        prefetcher = stack.enter_context(closing(StorePrefetcher(setup.padding, 0, is_cuda, None, store=store)))
        for step, rate in enumerate(_rates()):
            signals.check()
            set_learning_rate(optimizer, rate)
            result = run_step(
                model=setup.model,
                optimizer=optimizer,
                task=run.splits.task,
                microbatches=prefetcher.microbatches(plan, step),
                accelerator=setup.accelerator,
                max_grad_norm=training.max_grad_norm,
                seed=(training.seed, step, 0),
            )
            average = SMOOTHING * average + (1 - SMOOTHING) * result.loss
            loss = average / (1 - SMOOTHING ** (step + 1))  # without the bias of the zero it starts from
            if not math.isfinite(loss) or (step >= FEWEST_STEPS and loss > DIVERGED * min(averaged)):
                break
            averaged.append(loss)
    return averaged


def _found(rates: Sequence[float], losses: Sequence[float]) -> LearningRates:
    slopes = np.gradient(np.asarray(losses), np.log10(rates))
    lowest = int(np.argmin(losses))
    steepest = int(np.argmin(slopes[: lowest + 1]))
    return LearningRates(
        rates=list(rates),
        losses=list(losses),
        suggestion=rates[steepest] if slopes[steepest] < 0 and steepest > 0 else None,
        lowest_loss_at=rates[lowest],
        diverged_at=rates[-1] if len(rates) < NUM_STEPS else None,
    )


def _written(found: LearningRates, output: Path) -> LearningRates:
    output.mkdir(parents=True, exist_ok=True)
    files = [output / "lr_range.json"]
    write_json(files[0], {name: value for name, value in vars(found).items() if name != "files"})
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4), layout="constrained")
    axis = figure.subplots()
    axis.plot(found.rates, found.losses)
    if found.suggestion is not None:
        axis.axvline(found.suggestion, linestyle="--", label=f"suggestion: {found.suggestion:.1e}")
        axis.legend()
    axis.set(xscale="log", xlabel="learning rate", ylabel="training loss, averaged")
    axis.grid(alpha=0.3)
    for ending in ("svg", "png"):
        files.append(output / f"lr_range.{ending}")
        figure.savefig(files[-1])
    return replace(found, files=files)
