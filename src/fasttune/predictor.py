"""A finished run, ready to answer: the same code for `predict`, `evaluate` and whatever serves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fasttune.engine.setup import Setup, set_up
from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.run_folder import RunFolder, opened, read_json
from fasttune.session import score_split
from fasttune.tasks import TASKS, Prediction, Rows, Task
from fasttune.tasks.prepare import Split, encode


@dataclass
class Predictor:
    """Make it with `fasttune.load(RUN)`."""

    folder: RunFolder
    recipe: Recipe
    task: Task
    setup: Setup

    @classmethod
    def open(cls, path: str | Path, training: Mapping[str, Any] | None = None) -> Predictor:
        """`training`: settings that apply now instead of the run's own, such as {"precision": "fp32"}."""
        folder = opened(path)
        recipe = load_recipe(folder.recipe, {"training": dict(training)} if training else ())
        task = TASKS[recipe.task].from_state(read_json(folder.config), recipe)
        return cls(folder, recipe, task, set_up(recipe, str(folder.path), task))

    def predict(self, texts: str | Sequence[str]) -> list[Prediction]:
        """One prediction a text, in order: {"id", "label", "score", "probabilities"}; ids count from 0.

        >>> fasttune.load("runs/quickstart").predict(["great food"])[0]["label"]  # doctest: +SKIP
        '5 stars'
        """
        texts = [texts] if isinstance(texts, str) else list(texts)
        return self.predict_rows(Rows([str(number) for number in range(len(texts))], {"text": texts}), "texts")

    def predict_rows(self, rows: Rows, where: str) -> list[Prediction]:
        if not len(rows):
            return []
        store = self.task.encode(rows, self.setup.tokenizer, self.setup.max_length, where)
        return self.task.decode(self.setup.run(self.task, store).results, store, rows)

    def score(self, split: Split) -> tuple[dict[str, float], list[Prediction]]:
        """Metrics named eval_... of a labelled split, and its predictions."""
        store = encode(split, self.task, self.setup.tokenizer, self.setup.max_length)
        return score_split(self.setup, self.task, split, store)
