"""What a task is: the one contract between data, the training loop and everything after it.

Adding a task is one file beside this one and one line in `tasks/__init__.py`. A task never divides (the step does),
never moves tensors between devices, and never reads files (`data` does).
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
from fasttune.errors import Problem, RecipeError
from fasttune.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from transformers.utils.generic import ModelOutput

    from fasttune.data.batching.collate import MicroBatch

BETWEEN_TEXTS = "\n"  # of one row; a blank to whoever compares words
Prediction = dict[str, Any]  # one JSON object of predictions/SPLIT.jsonl and of `predict --json`


def chosen_metrics(recipe: Recipe, primary: str, possible: Sequence[str], default: Sequence[str]) -> tuple[str, ...]:
    """What to compute; what decides which model is best is among it whether or not the recipe lists it."""
    wanted = list(recipe.evaluation.metrics or default)
    deciding = recipe.evaluation.metric_for_best_model or primary
    if deciding not in (*wanted, "loss"):
        wanted.append(deciding)
    unknown = [name for name in wanted if name not in possible]
    if unknown:
        hint = f"evaluation.metrics=[{', '.join(default)}]"
        found = f"{unknown[0]}, which these labels do not have"
        problem = Problem(code="E304", where="evaluation.metrics", found=found, expected=", ".join(possible), hint=hint)
        raise RecipeError(problem)
    return tuple(wanted)


class Task(ABC):
    """Encode rows, weigh and sum the loss, decode what the model says, score it, and keep what must travel."""

    name: ClassVar[str]
    columns: ClassVar[tuple[Column, ...]]
    """What a data set must offer; drives the checks, the error texts and the documentation."""
    auto_class: ClassVar[str]
    """Name of the transformers auto class that builds encoder and head."""
    result_per_token: ClassVar[bool] = False
    """Whether `result` gives [B, S, ...] and the results of a split are (T, ...), one for each token."""
    needs_offsets: ClassVar[bool] = False
    """Whether `encode` maps tokens to words or characters, for which the model needs a fast tokenizer."""
    default_max_length: ClassVar[int | None] = None
    """Tokens of an example where the recipe leaves it open; None: what the model takes."""
    hint_for_long: ClassVar[str] = "shorter texts"
    """What to do about texts that are cut."""
    notes: tuple[str, ...] = ()
    """What was inferred from the training rows, in words."""

    @classmethod
    @abstractmethod
    def read(cls, source: Source, columns: Mapping[str, str], recipe: Recipe) -> Rows:
        """Take the columns (role -> name) out of a source, checked; DataError names every bad row."""

    @abstractmethod
    def rows_of(self, inputs: Any) -> Rows:
        """What a program asks to predict, one or several, checked, with ids from 0; DataError names every bad one."""

    @classmethod
    @abstractmethod
    def from_rows(cls, rows: Rows, recipe: Recipe, where: str) -> Task:
        """The task of a new run; what it must know (label names) is learnt from the training rows."""

    def for_training_rows(self, rows: Rows, recipe: Recipe) -> Task:
        """The task with what is counted on the rows that are trained on, such as balanced class weights.

        `from_rows` sees the held-out, repeated and unsampled rows too; these have left here.
        """
        return self

    @classmethod
    @abstractmethod
    def from_state(cls, state: Mapping[str, Any], recipe: Recipe) -> Task:
        """The task of a saved run; `state` is its config.json."""

    @property
    @abstractmethod
    def example(self) -> str:
        """What a user types behind `fasttune predict RUN`."""

    @property
    @abstractmethod
    def primary_metric(self) -> str:
        """Decides which model is best unless the recipe says otherwise."""

    def settings(self) -> dict[str, Any]:
        """What was inferred from the training rows, as fields of the recipe that is saved."""
        return {}

    @abstractmethod
    def state(self) -> dict[str, Any]:
        """What must travel with the weights, as fields of config.json."""

    def strata(self, rows: Rows, where: str) -> Sequence[int]:
        """One number a row; a held-out split gets the same share of rows of each. DataError for unknown targets."""
        return [0] * len(rows)

    def strata_names(self) -> Sequence[str]:
        """What the numbers of `strata` stand for, where that can be said."""
        return ()

    def groups(self, rows: Rows) -> Sequence[str] | None:
        """One name a row: rows of one name stay on one side of a split, which then is not stratified."""
        return None

    def input_texts(self, rows: Rows) -> Iterator[str]:
        """What the model reads of each row, as one text: rows with the same are the same to it."""
        given = [rows.values[one.role] for one in self.columns if not one.is_target and one.role in rows.values]
        if len(given) == 1:
            return (getattr(cell, "text", cell) for cell in given[0])
        return (BETWEEN_TEXTS.join(cells) for cells in zip(*given, strict=True))

    def targets_of(self, rows: Rows, row: int) -> str:
        """What is to be learned of one row, as one text."""
        return repr([rows.values[one.role][row] for one in self.columns if one.is_target and one.role in rows.values])

    @abstractmethod
    def describe(self, store: TokenStore) -> dict[str, Any]:
        """What data_report.json says of the labels of a split."""

    @abstractmethod
    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, where: str) -> TokenStore:
        """Rows to examples, with targets where the rows have them."""

    def unanswerable(self, store: TokenStore) -> Sequence[int]:
        """The rows whose target no prediction can be, such as an answer that no window holds."""
        return []

    def encoding(self) -> str:
        """What `encode` depends on beside rows, tokenizer and length; examples of equal `encoding` are read again."""
        return repr(self)

    @abstractmethod
    def weight(self, targets: Mapping[str, Any]) -> float:
        """How much a micro-batch counts in its step, from its targets alone: weights are added before any forward."""

    @abstractmethod
    def loss(self, outputs: ModelOutput, batch: MicroBatch, training: bool) -> tuple[torch.Tensor, float]:
        """(sum of losses, sum of weights) of one micro-batch; never a mean."""

    @abstractmethod
    def result(self, outputs: ModelOutput, batch: MicroBatch) -> torch.Tensor:
        """[B, ...] (or [B, S, ...]) what `decode` and `score` need, as small as it can be made on the device."""

    def tuned(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Task:
        """The task with what is set after training on the validation split, such as thresholds; kept by `state`."""
        return self

    @abstractmethod
    def decode(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Iterator[Prediction]:
        """`results` (N, ...) of all examples to one prediction a row, in the order of the rows.

        One at a time: a file of a million predictions must not need the memory of them all.
        """

    def files(self, results: np.ndarray, store: TokenStore, rows: Rows) -> dict[str, Any]:
        """Predictions of a scored split in other forms that are usual for the task: name -> content of a JSON file."""
        return {}

    @abstractmethod
    def score(self, results: np.ndarray, store: TokenStore, rows: Rows) -> dict[str, float]:
        """The recipe's metrics; of those that recipe/types.py does not list as LESS_IS_BETTER, more is better."""
