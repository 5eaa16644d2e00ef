"""`fasttune check`: everything that comes before training, and a few steps to forecast time and memory.

The steps are those of a real run in a temporary folder, which is deleted afterwards.
"""

from __future__ import annotations

import math
import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fasttune.data.audit import audit_rows
from fasttune.data.batching.plan import epoch_order
from fasttune.data.pipeline import Splits, encode, read_splits
from fasttune.data.reading import TEST, TRAIN, VALIDATION
from fasttune.errors import Problem
from fasttune.recipe import Recipe
from fasttune.runs.checkpoint.space import check_space, needed_bytes
from fasttune.runs.folder import DEFAULT_PARENT, RunFolder
from fasttune.tasks import TASKS
from fasttune.tasks.preview import Preview, first_rows
from fasttune.training.environment import peak_memory_bytes
from fasttune.training.events import Event, SaveDue, StepDone
from fasttune.training.loop import TrainState, num_training_steps, times_due
from fasttune.training.prepare import build_run, data_report, num_saves
from fasttune.training.run import Log, TrainingRun
from fasttune.training.scoring import score_split
from fasttune.training.trainer import Trainer

SAMPLE = 20_000  # rows per split that are tokenized; the error of a share of 1 % is then about 0.2 %
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
    measured: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Checked:
    """`report`: the content of data_report.json. `recipe`: with every automatic choice filled in."""

    recipe: Recipe
    warnings: list[Problem]
    report: dict[str, Any] = field(repr=False)
    forecast: Forecast
    rows: Preview = field(repr=False)  # the first training rows

    def as_json(self) -> dict[str, Any]:
        return {"forecast": asdict(self.forecast), **self.report}


def check(recipe: Recipe, log: Log) -> Checked:
    splits = read_splits(recipe, TASKS)
    audit = audit_rows(splits.all(), splits.task)
    num_rows = {split.name: len(split.rows) for split in splits.all()}
    if splits.stream is not None:
        num_rows[TRAIN] = splits.stream.files.num_rows
    sampled = _sampled(splits, recipe.data.seed)
    with tempfile.TemporaryDirectory(prefix="fasttune-check-") as folder:
        run = build_run(recipe, sampled, RunFolder(Path(folder) / "run"), log, audit)
        try:
            output = run.recipe.output
            needed = needed_bytes(run.setup.model, num_saves(run), output.save_total_limit)
            check_space(Path(recipe.output.dir or DEFAULT_PARENT), needed)
            report = data_report(run, audit)
            forecast = _forecast(run, num_rows)
        finally:
            run.close()
    return Checked(run.recipe, audit.warnings, report, forecast, first_rows(splits.train.rows, splits.task))


def _sampled(splits: Splits, seed: int) -> Splits:
    """At most SAMPLE rows of each split, with a note if there are more."""
    notes = list(splits.notes)
    sampled = {split.name: split.limited(SAMPLE, seed, []) for split in splits.all()}
    for split in splits.all():
        if len(split.rows) > SAMPLE:
            notes.append(f"{split.name}: counted tokens in a random sample of {SAMPLE:,} of {len(split.rows):,} rows")
    return Splits(
        splits.task,
        sampled[TRAIN],
        sampled.get(VALIDATION),
        sampled.get(TEST),
        splits.columns,
        notes,
        settings=splits.settings,
    )


def _forecast(run: TrainingRun, num_rows: dict[str, int]) -> Forecast:
    """Run some steps, a save and an evaluation, and extrapolate."""
    recipe, store, device = run.recipe, run.stores[TRAIN], run.setup.accelerator.device
    scale = num_rows[TRAIN] / len(run.splits.train.rows)
    steps_per_epoch = math.ceil(len(store) * scale / recipe.training.batch_size)
    num_steps = num_training_steps(recipe, steps_per_epoch)
    watch = _Watch()
    Trainer(_shortened(run)).train([watch])
    per_token = watch.seconds_per_token
    tokens_per_step = store.num_tokens * scale / steps_per_epoch
    evaluation = _evaluation_seconds(run, num_rows[VALIDATION])
    evaluations = times_due(recipe.evaluation.eval_strategy, recipe.evaluation.eval_steps, num_steps, steps_per_epoch)
    saves = times_due(recipe.output.save_strategy, recipe.output.save_steps, num_steps, steps_per_epoch)
    return Forecast(
        train_runtime=num_steps * tokens_per_step * per_token + evaluations * evaluation + saves * watch.save_seconds,
        peak_memory_bytes=peak_memory_bytes(device),
        num_steps=num_steps,
        measured={
            "num_steps": len(watch.seconds),
            "tokens_per_second": 1 / per_token,
            "tokens_per_step": tokens_per_step,
            "evaluation_seconds": evaluation,
            "num_evaluations": evaluations,
            "save_seconds": watch.save_seconds,
            "num_saves": saves,
        },
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
