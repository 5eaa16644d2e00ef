"""A labelled split by one state of the weights."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from fasttune.data.pipeline import Split
from fasttune.data.tokens.store import TokenStore
from fasttune.tasks import Task
from fasttune.training.setup import Setup
from fasttune.training.watchdog import ASLEEP, PATIENCE, Watchdog

SECONDS_A_ROW = 0.02  # at most, to choose thresholds and score in Python; for a million questions it takes an hour


@dataclass(frozen=True)
class Scored:
    """Metrics named eval_..., and what the predictions are made from.

    `task`: as it scored, tuned by this split where that was asked for.
    """

    metrics: dict[str, float]
    results: np.ndarray
    task: Task


def score_split(
    setup: Setup,
    task: Task,
    split: Split,
    store: TokenStore,
    tune: bool = False,
    watchdog: Watchdog = ASLEEP,
) -> Scored:
    watchdog.expect(PATIENCE)
    import sklearn.metrics  # noqa: F401  half a second that is not the model's

    begin = time.perf_counter()
    outputs = setup.run(task, store, watchdog.alive)
    watchdog.expect(PATIENCE + SECONDS_A_ROW * len(split.rows))
    assert outputs.loss is not None, "a split that is scored has labels"
    if tune:
        task = task.tuned(outputs.results, store, split.rows)
    metrics = {f"eval_{name}": value for name, value in task.score(outputs.results, store, split.rows).items()}
    runtime = time.perf_counter() - begin
    size = {"eval_samples": len(split.rows), "eval_runtime": runtime}
    size["eval_samples_per_second"] = len(split.rows) / runtime
    return Scored({"eval_loss": outputs.loss, **metrics, **size}, outputs.results, task)
