"""The interface of a task, used by the data pipeline, the training loop and prediction.

To add a task, write one module in this package and add one line to `tasks/__init__.py`. A task never averages a loss
(the training step does), never moves tensors between devices, and never reads files (`data` does).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fasttune.data.columns import Column
from fasttune.data.rows import Rows
from fasttune.data.sources import Source
from fasttune.data.tokens.store import TokenStore
from fasttune.errors import DataError, Problem, RecipeError
from fasttune.recipe import Recipe
from fasttune.tasks.metrics.calibration import Calibration
from fasttune.tasks.metrics.sums import RowSums

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from transformers.utils.generic import ModelOutput

    from fasttune.data.batching.collate import MicroBatch

BETWEEN_TEXTS = "\n"  # of one row; comparing words ignores it
Prediction = dict[str, Any]  # one JSON object of predictions/SPLIT.jsonl and of `predict --json`


def chosen_metrics(recipe: Recipe, primary: str, possible: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """The metrics to compute: those of the recipe, and always the one that selects the best model.

    RecipeError for a metric that is not in `possible`.
    """
    chosen = list(recipe.evaluation.metrics or default)
    deciding = recipe.evaluation.metric_for_best_model or primary
    if deciding not in (*chosen, "loss"):
        chosen.append(deciding)
    unknown = [name for name in chosen if name not in possible]
    if unknown:
        hint = f"evaluation.metrics=[{', '.join(default)}]"
        found = f"metric {unknown[0]} is not available for these labels; choose from {', '.join(possible)}"
        raise RecipeError(Problem(code="E304", where="evaluation.metrics", found=found, hint=hint))
    return tuple(chosen)


class Task(ABC):
    """Encodes rows, computes the loss, decodes and scores predictions, and keeps the state to save with the weights."""

    name: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    """The columns of a data set for this task; checks, error messages and documentation use them."""
    auto_class: ClassVar[str]
    """The transformers auto class that builds encoder and head."""
    result_per_token: ClassVar[bool] = False
    """Whether `result` returns [B, S, ...], so that the results of a split are (T, ...), one per token."""
    needs_offsets: ClassVar[bool] = False
    """Whether `encode` maps tokens to words or characters, which requires a fast tokenizer."""
    default_max_length: ClassVar[int | None] = None
    """Tokens per example if the recipe leaves it open; None: the maximum of the model."""
    hint_for_long: ClassVar[str] = "shorten the texts"
    """The hint for truncated texts."""
    notes: tuple[str, ...] = ()
    """What was inferred from the training rows."""

    @classmethod
    def recognises(cls, names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bool:
        """Whether rows with columns of these names are of this task: all required roles are among the names."""
        lower = {name.strip().lower() for name in names}
        return {column.role for column in cls.columns if column.required} <= lower

    @classmethod
    def may_have_no_label(cls, cells: Sequence[Any], recipe: Recipe) -> bool:
        """Whether labels are sets, so that an empty cell means none of them. `cells`: the others."""
        return False

    @classmethod
    @abstractmethod
    def read(cls, source: Source, columns: Mapping[str, str], recipe: Recipe) -> Rows:
        """Read and check the columns (role -> name) of a source; DataError names every bad row."""

    @abstractmethod
    def rows_of(self, inputs: Any) -> Rows:
        """Rows to predict, with ids from 0, from the argument of `predict`: one input or several.

        DataError names every bad input.
        """

    @classmethod
    @abstractmethod
    def from_rows(cls, rows: Rows, recipe: Recipe, where: str) -> Task:
        """The task of a new run; the label names and the like come from the training rows."""

    def for_training_rows(self, rows: Rows, recipe: Recipe) -> Task:
        """The task with statistics of the final training rows, such as balanced class weights.

        `from_rows` also sees the rows that are later held out, dropped as duplicates or not sampled.
        """
        return self

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Any], recipe: Recipe) -> Task:
        """The task of a saved run; `state` is its config.json."""

    @property
    @abstractmethod
    def example(self) -> str:
        """An example input, to type after `fasttune predict RUN`."""

    @property
    @abstractmethod
    def primary_metric(self) -> str:
        """The metric that selects the best model unless the recipe names another."""

    def settings(self) -> dict[str, Any]:
        """The settings inferred from the training rows, as fields of the saved recipe."""
        return {}

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """The state to save with the weights, as fields of config.json."""

    def strata(self, rows: Rows, where: str) -> Sequence[int]:
        """The stratum of each row; a held-out split gets the same share of each. DataError for unknown targets."""
        return [0] * len(rows)

    def strata_names(self) -> Sequence[str]:
        """The names of the strata, if they are classes."""
        return ()

    def with_labels_of_run(self, rows: Rows, table: Mapping[Any, Any] | None, where: str) -> tuple[Rows, str]:
        """Rows of another file with their labels written as the run's, and a note if any were not.

        `table`: the user's, from labels of the file to labels of the run. DataError for labels that match none.
        """
        if table is not None:
            found = f"{self.name} has no labels to map"
            raise DataError(Problem(code="E313", where="data.label_names", found=found, hint="remove it"))
        return rows, ""

    def groups(self, rows: Rows) -> Sequence[str] | None:
        """The group of each row; a group is never divided between splits. None: there are no groups."""
        return None

    def input_texts(self, rows: Rows) -> Iterator[str]:
        """The input of each row as one text; rows with the same text are duplicates."""
        roles = [column.role for column in self.columns if not column.is_target and column.role in rows.values]
        inputs = [rows.values[role] for role in roles]
        if len(inputs) == 1:
            return (getattr(cell, "text", cell) for cell in inputs[0])
        return (BETWEEN_TEXTS.join(cells) for cells in zip(*inputs, strict=True))

    def targets_of(self, rows: Rows, row: int) -> str:
        """The target of one row as one text."""
        roles = [column.role for column in self.columns if column.is_target and column.role in rows.values]
        return repr([rows.values[role][row] for role in roles])

    @abstractmethod
    def describe(self, store: TokenStore) -> dict[str, Any]:
        """The section of data_report.json on the labels of a split."""

    @abstractmethod
    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, where: str) -> TokenStore:
        """Turn rows into examples, with targets if the rows have them."""

    def unanswerable(self, store: TokenStore) -> Sequence[int]:
        """The rows whose target the model can never predict, such as an answer that no window contains."""
        return []

    def encoding(self) -> str:
        """A key of everything that `encode` depends on besides rows, tokenizer and length; the token cache uses it."""
        return repr(self)

    @abstractmethod
    def weight(self, targets: Mapping[str, Any]) -> float:
        """The weight of a micro-batch in its step; depends on the targets only, because it is summed before forward."""

    @abstractmethod
    def loss(self, outputs: ModelOutput, batch: MicroBatch, training: bool) -> torch.Tensor:
        """The sum of the losses of one micro-batch, never a mean; `weight` is what the step divides by."""

    @abstractmethod
    def result(self, outputs: ModelOutput, batch: MicroBatch) -> torch.Tensor:
        """[B, ...] (or [B, S, ...]): what `decode` and `score` need, reduced on the device."""

    def calibrated(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Task:
        """The task calibrated on the validation split after training, such as its thresholds; `state` keeps them."""
        return self

    def calibration(self, results: np.ndarray, store: TokenStore) -> Calibration | None:
        """The temperature that makes the probabilities of these rows honest; None if the task has none."""
        return None

    def abstaining(self, results: np.ndarray, store: TokenStore, precision: float) -> Task | None:
        """The task that withholds predictions below the confidence that gives `precision` on these rows.

        None if no confidence does, or if the task cannot withhold predictions.
        """
        return None

    def with_temperature(self, temperature: float) -> Task:
        """The task whose probabilities are those of logits divided by `temperature`."""
        return self

    @abstractmethod
    def decode(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Iterator[Prediction]:
        """One prediction per row, in order, from the `results` (N, ...) of all examples.

        An iterator, so that a million predictions need not fit into memory.
        """

    def remarks(self, results: np.ndarray, store: TokenStore, where: str) -> Sequence[str]:
        """Lines to log about a scored split, such as a class that it lacks; `where` names the split."""
        return ()

    def files(self, results: np.ndarray, store: TokenStore, rows: Rows) -> dict[str, Any]:
        """Predictions of a scored split in other common formats of the task: name -> content of a JSON file."""
        return {}

    def row_sums(self, results: np.ndarray, store: TokenStore, rows: Rows) -> RowSums | None:
        """What the metrics are computed from, for intervals and comparisons; None if the task has none of these."""
        return None

    def row_losses(self, results: np.ndarray, store: TokenStore, rows: Rows) -> np.ndarray | None:
        """(N,) how little each row's label fits the prediction; None if the task does not measure it by row."""
        return None

    @abstractmethod
    def score(self, results: np.ndarray, store: TokenStore, rows: Rows) -> dict[str, float]:
        """The metrics of the recipe. Higher is better, except for those in LESS_IS_BETTER (recipe/types.py)."""
