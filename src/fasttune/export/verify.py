"""How close an exported model is to the weights, and how fast both are on this CPU."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from fasttune.data.holdout import Split
from fasttune.data.pipeline import encode
from fasttune.data.tokens.store import TokenStore
from fasttune.evaluation.predictor import Predictor
from fasttune.recipe.types import LESS_IS_BETTER
from fasttune.tasks import Prediction, Task
from fasttune.training.scoring import predict_split
from fasttune.training.setup import Setup

TIMED_TOKENS = 20_000
PASSES, SINGLE_PASSES = 3, 15
DECIDED = ("label", "labels", "answer", "tags")


@dataclass(frozen=True)
class Speed:
    """Medians. `rows_per_second`: of many rows at once. `milliseconds_per_row`: of one row alone."""

    rows_per_second: float
    milliseconds_per_row: float


@dataclass(frozen=True)
class Answers:
    """What a model gives for the rows of a split."""

    predictions: list[Prediction]
    score: float


@dataclass(frozen=True)
class Difference:
    """Of an export from the weights.

    `agreement`: the share of rows with the same prediction; None for predicted numbers. `largest`: between two
    probabilities of a row; for answers and entities between two scores; for predicted numbers above 1, in proportion to
    them. `points`: what the metric loses, in hundredths (of SQuAD's scores, which go to 100, in whole points); for an
    error such as rmse, in per cent of it.
    """

    agreement: float | None
    largest: float
    points: float


class ComparedRows:
    """The rows of a split to compare models on; `metric`: the one that chose the best weights, rmse for numbers."""

    def __init__(self, predictor: Predictor, split: Split):
        self.split, self.task = split, predictor.task
        self.store = encode(split, predictor.task, predictor.setup.tokenizer, predictor.setup.max_length)
        chosen = predictor.recipe.evaluation.metric_for_best_model
        self.metric = chosen if chosen not in (None, "loss") else predictor.task.primary_metric
        if "rmse" in getattr(getattr(predictor.task, "target", None), "metrics", ()):
            self.metric = "rmse"  # a correlation does not see that all numbers are shifted
        until = int(np.searchsorted(np.cumsum(self.store.lengths), TIMED_TOKENS, side="right"))
        self._timed = encoded(predictor, split, range(min(max(until, 1), len(split.rows))))
        typical = np.argsort(self.store.lengths, kind="stable")[len(self.store) // 2]
        self._one = encoded(predictor, split, [int(self.store.rows[typical])])

    def answers(self, setup: Setup, task: Task) -> Answers:
        results = predict_split(setup, task, self.store).results
        score = task.score(results, self.store, self.split.rows)[self.metric]
        return Answers(list(task.decode(results, self.store, self.split.rows)), float(score))

    def speed(self, setup: Setup) -> Speed:
        num_rows = len(np.unique(self._timed.rows))
        many = _seconds(lambda: predict_split(setup, self.task, self._timed), PASSES)
        one = _seconds(lambda: predict_split(setup, self.task, self._one), SINGLE_PASSES)
        return Speed(num_rows / many, 1000 * one)

    def difference(self, weights: Answers, export: Answers) -> Difference:
        pairs = list(zip(weights.predictions, export.predictions, strict=True))
        same = [_decision(one) == _decision(other) for one, other in pairs if _decision(one)]
        agreement = float(np.mean(same)) if same else None
        largest = max(_apart(one, other) for one, other in pairs)
        lost = weights.score - export.score
        if self.metric in LESS_IS_BETTER:
            points = -100 * lost / max(weights.score, 1e-12)
        else:
            points = lost if self.task.name == "question-answering" else 100 * lost
        return Difference(agreement, largest, round(points, 9))  # .904 - .894 is a little more than .01


def encoded(predictor: Predictor, split: Split, rows: Sequence[int]) -> TokenStore:
    """The tokens of some rows, without their labels, whose loss would be computed too."""
    task, chosen = predictor.task, split.rows.take(rows)
    targets = {column.role for column in task.columns if column.is_target}
    inputs = replace(chosen, values={role: cells for role, cells in chosen.values.items() if role not in targets})
    return task.encode(inputs, predictor.setup.tokenizer, predictor.setup.max_length, split.where)


def _seconds(call: Callable[[], object], passes: int) -> float:
    """The median time of a call, after one that is not counted."""
    call()
    times = []
    for _ in range(passes):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return median(times)


def _decision(prediction: Prediction) -> Prediction:
    """A prediction without its numbers."""
    return {name: prediction[name] for name in DECIDED if name in prediction}


def _apart(one: Prediction, other: Prediction) -> float:
    """The largest difference of two predictions' numbers; without probabilities, of scores of the same decision."""
    if "probabilities" in one:
        return max(abs(value - other["probabilities"][name]) for name, value in one["probabilities"].items())
    if _decision(one) != _decision(other):
        return 0.0
    scored = [(one, other)] if "score" in one else zip(one.get("entities", ()), other.get("entities", ()), strict=True)
    return max((abs(a["score"] - b["score"]) / max(1.0, abs(a["score"])) for a, b in scored), default=0.0)
