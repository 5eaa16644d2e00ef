"""One run from its recipe to its results, in a folder that is locked and known to all ranks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fasttune.parallel.collectives import barrier, broadcast_object, is_main, raise_on_all_ranks
from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder, read_json
from fasttune.runs.mirror import Mirror
from fasttune.training import signals
from fasttune.training.callbacks import Observer
from fasttune.training.finalize import save_best_weights, train_results, write_results
from fasttune.training.loop import Replan
from fasttune.training.mlm import adapt
from fasttune.training.prepare import prepare
from fasttune.training.resume import reconciled
from fasttune.training.run import Log, TrainingRun
from fasttune.training.trainer import Trainer

FINISHED_BEFORE = "finished before"  # the reason of a run that was resumed after its end


@dataclass(frozen=True)
class Run:
    """What `fit` returns: the run folder, and the metrics of all_results.json.

    A run that was stopped by `signal` (its number) has the metrics of its last evaluation; continue it with
    `resume=True`. `reason`: why training ended.
    """

    folder: Path
    metrics: dict[str, Any] = field(repr=False)
    reason: str
    is_complete: bool = True
    signal: int | None = None
    example: str = field(default="", repr=False)  # an input to type after `fasttune predict RUN`

    def __repr__(self) -> str:
        scores = {
            key: round(value, 4)
            for key, value in self.metrics.items()
            if key.endswith(("accuracy", "f1", "_macro", "_micro", "pearson", "spearman", "exact_match"))
        }
        return f"Run({str(self.folder)!r}, {scores}, {self.reason!r})"


def fit_in_folder(
    recipe: Recipe,
    folder: RunFolder,
    *,
    resume: bool,
    allow_changes: bool,
    log: Log,
    observers: Sequence[Observer],
    scores_test: bool = True,
    begin: float | None = None,
    replan: Replan | None = None,
) -> Run:
    """Prepare, train, score and save; with `resume` continue the run in `folder` or on its mirror.

    `scores_test`: a trial of a search leaves the test rows to the best one. `begin`: as for `prepare`.
    `replan`: as for `Loop`, instead of the plan that training.max_time makes.
    """
    if resume and recipe.output.mirror is not None:
        mirror = Mirror(recipe.output.mirror, folder)
        fetched = raise_on_all_ranks(lambda: mirror.fetch() if is_main() else None)
        if fetched is not None:
            log(f"{recipe.output.mirror}: fetched {fetched}")
    if broadcast_object(resume and folder.is_finished):
        return _finished_before(recipe, folder, log)
    if resume and not folder.is_run:
        log(f"{folder.path}: nothing to resume yet, starting from the beginning")
    run: TrainingRun | None = None
    try:
        with deterministic_algorithms(recipe.training.deterministic):
            run = prepare(recipe, folder, log, allow_changes, begin)
            run.scores_test = scores_test
            run.replan = replan or run.replan
            if recipe.training.mlm_epochs and run.checkpoint is None:
                adapt(run, observers if scores_test else ())  # a trial is judged by its fine-tuning only
            return _train_and_save(run, observers)
    except signals.Stopped as stopped:  # before the first step, after the last one, or at the second signal
        metrics = run.state.evaluations[-1] if run is not None and run.state.evaluations else {}
        return Run(folder.path, metrics, str(stopped), False, stopped.number)
    finally:
        if run is not None:
            run.close()


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """Make torch use deterministic algorithms in this block, and raise where it has none; a CPU has no others."""
    if not wanted:
        yield
        return
    before, warns = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before, warn_only=warns)


def _finished_before(recipe: Recipe, folder: RunFolder, log: Log) -> Run:
    """The results of a finished run; RecipeError if `recipe` is not the one it was made with."""
    raise_on_all_ranks(lambda: reconciled(load_recipe(folder.recipe), recipe, folder) if is_main() else None)
    log(f"{folder.path} is finished; nothing to resume")
    results = broadcast_object(read_json(folder.all_results) if is_main() else None)
    if recipe.output.mirror is not None and is_main():
        Mirror(recipe.output.mirror, folder).send_all()  # whatever could not be sent at the end
    return Run(folder.path, results, FINISHED_BEFORE)


def _train_and_save(run: TrainingRun, observers: Sequence[Observer]) -> Run:
    trainer = Trainer(run)
    finished = trainer.train(observers)
    step = save_best_weights(trainer)
    if trainer.signal is not None:
        run.log(f"the model at {run.folder.path} has the weights of step {step}; the run can be resumed")
        metrics = run.state.evaluations[-1] if run.state.evaluations else {}
        barrier()  # launchers kill the other ranks once one has ended, and rank 0 may still be writing
        return Run(run.folder.path, {**train_results(run), **metrics}, finished.reason, False, trainer.signal)
    results = write_results(trainer, step)
    barrier()
    return Run(run.folder.path, results, finished.reason, example=trainer.evaluator.task.example)
