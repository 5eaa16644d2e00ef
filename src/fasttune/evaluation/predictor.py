"""A finished run, ready to answer: the same code for `predict`, `evaluate` and whatever serves it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fasttune.data.pipeline import Split, encode
from fasttune.errors import Problem, UsageError
from fasttune.recipe import Overrides, Recipe, differences
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder, open_run, read_json
from fasttune.tasks import TASKS, Prediction, Rows, Task
from fasttune.training.model import check_model
from fasttune.training.scoring import score_split
from fasttune.training.setup import Setup, set_up

# What says how a finished run is used, not what it is.
MAY_OVERRIDE = (
    "training.precision",
    "training.device",
    "training.tokens_per_microbatch",
    "data.fix_spans",
    "data.encoding",
    "data.header",
    "data.max_bytes",
    "data.drop_empty",
    "preprocessing.doc_stride",
    "preprocessing.word_boundaries",
    "evaluation.n_best_size",
    "evaluation.max_answer_length",
    "evaluation.null_score_diff_threshold",
    "data.columns.ROLE",
)


def _may_override(name: str, values: tuple[Any, Any]) -> bool:
    if name == "data.columns.text_pair":
        return None not in values  # single texts cannot be given a second one, nor pairs lose it
    return name in MAY_OVERRIDE or name.startswith("data.columns.")


@dataclass
class Predictor:
    """Make it with `fasttune.load(RUN)`."""

    folder: RunFolder
    recipe: Recipe
    task: Task
    setup: Setup
    # A tokenizer's truncation is a state of its own, and so is the padding taken out of a forward pass.
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @classmethod
    def open(cls, path: str | Path, overrides: Overrides = ()) -> Predictor:
        """`overrides` apply now instead of the run's own settings: precision, device, memory, names of columns."""
        folder = open_run(path)
        saved = load_recipe(folder.recipe)
        recipe = load_recipe(saved, overrides)
        fixed = [name for name, values in differences(saved, recipe).items() if not _may_override(name, values)]
        if fixed:
            raise UsageError(
                Problem(
                    where=", ".join(fixed),
                    found="a setting that a finished run cannot change",
                    expected=f"one of {', '.join(MAY_OVERRIDE)}",
                    hint="training.precision=fp32",
                )
            )
        if folder.checksums.exists():  # runs of 0.1.0 have none
            check_model(folder.path, read_json(folder.checksums))
        task = TASKS[recipe.task].from_state(read_json(folder.config), recipe)
        return cls(folder, recipe, task, set_up(recipe, str(folder.path), task))

    def predict(self, inputs: Any) -> list[Prediction]:
        """One prediction for each text, or pair of texts, in order: {"id", "label", "score", "probabilities"}.

        Ids count from 0.

        >>> fasttune.load("runs/quickstart").predict(["great food"])[0]["label"]  # doctest: +SKIP
        '5 stars'
        >>> fasttune.load("runs/mrpc").predict([("It rains.", "Rain falls.")])[0]["label"]  # doctest: +SKIP
        '1'
        """
        return list(self.predict_rows(self.task.rows_of(inputs), "texts"))

    def predict_rows(self, rows: Rows, where: str) -> Iterator[Prediction]:
        """One prediction a row, in order, each made when it is asked for. Threads may share a predictor."""
        if not len(rows):
            return iter(())
        with self.lock:
            store = self.task.encode(rows, self.setup.tokenizer, self.setup.max_length, where)
            results = self.setup.run(self.task, store).results
        return self.task.decode(results, store, rows)

    def score(self, split: Split) -> dict[str, float]:
        """Metrics named eval_... of a labelled split."""
        with self.lock:
            store = encode(split, self.task, self.setup.tokenizer, self.setup.max_length)
            return score_split(self.setup, self.task, split, store).metrics
