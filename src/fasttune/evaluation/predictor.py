"""A finished run, loaded for `predict`, `evaluate` and servers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fasttune.data.holdout import Split
from fasttune.data.pipeline import encode
from fasttune.errors import Problem, UsageError
from fasttune.recipe import Overrides, Recipe, differences
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder, open_run, read_json
from fasttune.tasks import TASKS, Prediction, Rows, Task
from fasttune.training.model import check_model
from fasttune.training.scoring import predict_split, score_split
from fasttune.training.setup import Setup, set_up

# Settings of how a finished run is used; all others belong to the trained model.
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
        return None not in values  # a model for single texts cannot read pairs, nor the reverse
    return name in MAY_OVERRIDE or name.startswith("data.columns.")


@dataclass
class Predictor:
    """A loaded run; `fasttune.load(RUN)` returns one. Threads may share it."""

    folder: RunFolder
    recipe: Recipe
    task: Task
    setup: Setup
    # Truncation is state of the tokenizer, and the boundaries of a packed batch are state of the model.
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)

    @classmethod
    def open(cls, path: str | Path, overrides: Overrides = ()) -> Predictor:
        """Load the run at `path`; `overrides` replace its settings of precision, device, memory and column names."""
        folder = open_run(path)
        saved = load_recipe(folder.recipe)
        recipe = load_recipe(saved, overrides)
        fixed = [name for name, values in differences(saved, recipe).items() if not _may_override(name, values)]
        if fixed:
            raise UsageError(
                Problem(
                    where=", ".join(fixed),
                    found=f"a finished run cannot change this setting, only {', '.join(MAY_OVERRIDE)}",
                    hint="training.precision=fp32",
                )
            )
        if folder.checksums.exists():  # early runs of 0.1.0 have none
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
        """One prediction per row, in order, decoded lazily; `where` names the rows in errors."""
        if not len(rows):
            return iter(())
        with self.lock:
            store = self.task.encode(rows, self.setup.tokenizer, self.setup.max_length, where)
            results = predict_split(self.setup, self.task, store).results
        return self.task.decode(results, store, rows)

    def score(self, split: Split) -> dict[str, float]:
        """Score a labelled split; metrics are named eval_..."""
        with self.lock:
            store = encode(split, self.task, self.setup.tokenizer, self.setup.max_length)
            return score_split(self.setup, self.task, split, store).metrics
