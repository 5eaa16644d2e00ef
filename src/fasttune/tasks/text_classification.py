"""A class, several labels or a number for each text or pair of texts. Shapes: N rows, K outputs, B sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fasttune.data.column_names import LABEL_NAMES, PAIR_NAMES, TEXT_NAMES
from fasttune.data.columns import (
    Column,
    as_texts,
    cells_of,
    class_names,
    empty_rows,
    is_text,
    label_values,
    lists_in,
    text_values,
)
from fasttune.data.holdout import GROUP
from fasttune.data.label_columns import from_multi_hot
from fasttune.data.label_kinds import MULTI, ORDINAL, REGRESSION, SINGLE, kind_of, parts_of
from fasttune.data.label_matching import LABELS_SHOWN, as_labels_of_run, names_given
from fasttune.data.labels import Vocabulary, is_number, label_vocabulary
from fasttune.data.problems import Problems, some_of
from fasttune.data.rows import Rows, ids_of
from fasttune.data.sources import Source
from fasttune.data.tokens.long_text import tokenize_long
from fasttune.data.tokens.store import TokenStore, tokenize
from fasttune.errors import DataError, Problem, RecipeError, shown
from fasttune.recipe import Recipe
from fasttune.tasks.base import Prediction, Task
from fasttune.tasks.metrics.calibration import Calibration
from fasttune.tasks.metrics.sums import RowSums, keys_of, numbered
from fasttune.tasks.targets import MultiLabel, SingleLabel, Target, class_weights, make_target, saved_vocabulary

if TYPE_CHECKING:
    import datasets
    import torch
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

    from fasttune.data.batching.collate import MicroBatch


TEXTS = ("text", "text_pair")
TEACHER = "teacher"  # the feature with the probabilities (N, K) that another model gives the training rows


@dataclass(frozen=True)
class TextClassification(Task):
    """`target`: the kind of target; `pairs`: whether each row has two texts.

    `long_text`: `preprocessing.long_text` of the recipe; `pooling`: how the logits of windows are pooled, mean or max.
    """

    target: Target
    pairs: bool = False
    long_text: str = "truncate"
    pooling: str = "mean"
    notes: tuple[str, ...] = ()

    name: ClassVar[str] = "text-classification"
    hint_for_long: ClassVar[str] = "preprocessing.long_text=head_tail, or windows"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            role="text",
            description="the text to classify",
            required=True,
            guesses=TEXT_NAMES,
            look="text",
        ),
        Column(
            role="text_pair",
            description="the second text of a pair",
            required=False,
            guesses=PAIR_NAMES,
            follows="text",
        ),
        Column(
            role="label",
            description="its label: a name or a number, or several of them",
            required=True,
            guesses=LABEL_NAMES,
            is_target=True,
            look="label",
        ),
    )

    @classmethod
    def read(cls, source: Source, columns: Mapping[str, str], recipe: Recipe) -> Rows:
        dataset, where = source.dataset, source.description.partition(":")[0]
        problems, values = Problems(where), dict[str, Sequence[Any]]()
        for role in TEXTS:
            if role in columns:
                with problems.collected():
                    values[role] = text_values(dataset, columns[role], where, source.place, role)
        notes: list[str] = []
        settings: dict[str, Any] = {}
        if "label" in columns:
            with problems.collected():
                may_be_empty = recipe.data.drop_empty is not False and cls._has_label_sets(
                    dataset, columns["label"], recipe
                )
                read = label_values(dataset, columns["label"], where, source.place, may_be_empty)
                cells, note = from_multi_hot(read, recipe.data.label_names, where, source.place)
                notes += [note] if note else []
                if recipe.problem in ("auto", SINGLE, ORDINAL) and all(_is_one(cell) for cell in cells):
                    cells, settings = (
                        [cell[0] for cell in cells],
                        {"problem": SINGLE if recipe.problem == "auto" else recipe.problem},
                    )
                    notes.append(f"{where}: each list holds one label; problem=multi-label if a text can have several")
                elif recipe.problem == "auto" and any(isinstance(cell, tuple) and cell for cell in cells):
                    settings = {"problem": MULTI}  # also for splits whose lists happen to hold one label each
                values["label"] = cells
        problems.raise_if_any()
        declared = class_names(dataset, columns["label"]) if "label" in columns else None
        return Rows(ids_of(source), values, notes=tuple(notes), class_names=declared, settings=settings)

    @classmethod
    def _has_label_sets(cls, dataset: datasets.Dataset, column: str, recipe: Recipe) -> bool:
        """Whether empty cells, if there are any, mean that no label applies."""
        empty = set(empty_rows(dataset, column, lists=False))
        if not empty:
            return False
        cells = [cell for row, cell in enumerate(cells_of(dataset, column)) if row not in empty]
        return bool(cells) and cls.may_have_no_label(cells, recipe)

    @classmethod
    def may_have_no_label(cls, cells: Sequence[Any], recipe: Recipe) -> bool:
        if recipe.problem != "auto":
            return recipe.problem == MULTI
        lists = [as_texts(cell, None) for cell in lists_in(list(cells), "labels")]
        if any(isinstance(cell, tuple) for cell in lists):
            return True
        try:
            return kind_of(lists, "auto", recipe.data.label_separator, False, "labels").problem == MULTI
        except DataError:
            return False  # raised again, with its place, when the labels are read

    def rows_of(self, inputs: Any) -> Rows:
        """Rows from a text, or with `pairs` a tuple of two texts, or from several of them."""
        is_single = isinstance(inputs, str) or (self.pairs and isinstance(inputs, tuple))
        inputs = [inputs] if is_single else list(inputs)
        problems = []
        for number, given in enumerate(inputs, start=1):
            texts = given if self.pairs and isinstance(given, tuple | list) else (given,)
            if len(texts) != 1 + self.pairs or not all(map(is_text, texts)):
                expected = "two texts, such as ('one', 'other')" if self.pairs else "text in UTF-8"
                problems.append(Problem(where=f"text {number}", found=shown(given), expected=expected))
        if problems:
            raise DataError(*problems)
        columns = zip(*inputs, strict=True) if self.pairs and inputs else [inputs]
        values = {role: list(column) for role, column in zip(TEXTS, columns, strict=False)}
        return Rows([str(number) for number in range(len(inputs))], values)

    @classmethod
    def from_rows(cls, rows: Rows, recipe: Recipe, where: str) -> TextClassification:
        cells, data = rows.values["label"], recipe.data
        declared = rows.class_names
        has_names = data.label_names is not None or declared is not None
        kind = kind_of(cells, recipe.problem, data.label_separator, has_names, where, declared is not None)
        vocabulary = None
        if kind.problem != REGRESSION:
            labels = [label for cell in cells for label in parts_of(cell, kind.separator)]
            vocabulary = label_vocabulary(labels, data.label_names, where, class_names=declared)
        elif data.label_names is not None:
            found = "a regression predicts the numbers themselves, so its labels have no names"
            hint = f"data.label_names=null, or problem={SINGLE}"
            raise RecipeError(Problem(code="E313", where="data.label_names", found=found, hint=hint))
        if (
            kind.problem == ORDINAL
            and vocabulary is not None
            and not (has_names or all(map(is_number, vocabulary.names)))
        ):
            found = f"labels {some_of(list(map(shown, vocabulary.names)), LABELS_SHOWN)}, whose order is not known"
            hint = f"data.label_names=[{', '.join(vocabulary.names)}], in their order"
            raise RecipeError(Problem(code="E313", where="problem: ordinal", found=found, hint=hint))
        target = make_target(kind.problem, vocabulary, recipe, separator=kind.separator)
        notes = [kind.note] if kind.note else []
        if vocabulary is not None and not has_names and (numbered := _numbered(vocabulary)):
            notes.append(f"{where}: {numbered}")
        return cls._of(target, "text_pair" in rows.values, recipe, tuple(notes))

    def for_training_rows(self, rows: Rows, recipe: Recipe) -> TextClassification:
        if not isinstance(self.target, SingleLabel):
            return self
        weights = class_weights(recipe, self.target.vocabulary, rows.values["label"])
        return replace(self, target=replace(self.target, class_weights=weights))

    @classmethod
    def from_state(cls, state: Mapping[str, Any], recipe: Recipe) -> TextClassification:
        target = make_target(
            recipe.problem,
            saved_vocabulary(state, recipe),
            recipe,
            separator=recipe.data.label_separator,
            thresholds=state.get("thresholds"),
            min_confidence=float(state.get("min_confidence", 0.0)),
        )
        return cls._of(target, recipe.data.columns.text_pair is not None, recipe)

    @classmethod
    def _of(cls, target: Target, pairs: bool, recipe: Recipe, notes: tuple[str, ...] = ()) -> TextClassification:
        preprocessing = recipe.preprocessing
        if pairs and preprocessing.long_text != "truncate":
            where = "preprocessing.long_text"
            found = f"{preprocessing.long_text} does not work for pairs of texts; truncate cuts the longer of the two"
            raise RecipeError(Problem(code="E313", where=where, found=found, hint=f"{where}=truncate"))
        return cls(target, pairs, preprocessing.long_text, preprocessing.window_pooling, notes)

    @property
    def example(self) -> str:
        return '"a text of your own"' + (' --text-pair "and another"' if self.pairs else "")

    @property
    def primary_metric(self) -> str:
        return self.target.primary_metric

    def settings(self) -> dict[str, Any]:
        return self.target.settings()

    def state(self) -> dict[str, Any]:
        return self.target.state()

    def strata(self, rows: Rows, where: str) -> Sequence[int]:
        return self.target.strata(self.target.encode(rows.values["label"], where, rows.place)).tolist()

    def strata_names(self) -> Sequence[str]:
        return self.target.strata_names()

    def with_labels_of_run(self, rows: Rows, table: Mapping[Any, Any] | None, where: str) -> tuple[Rows, str]:
        if not isinstance(self.target, SingleLabel | MultiLabel):
            return super().with_labels_of_run(rows, table, where)
        vocabulary, separator = self.target.vocabulary, getattr(self.target, "separator", None)
        given = names_given(table, vocabulary) if table is not None else {}
        labels, note = as_labels_of_run(rows.values["label"], vocabulary, separator, given, where, rows.place)
        return (replace(rows, values={**rows.values, "label": labels}) if note else rows), note

    def describe(self, store: TokenStore) -> dict[str, Any]:
        return self.target.describe(store.targets["labels"])

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, where: str) -> TokenStore:
        texts = rows.values["text"]
        if self.long_text == "truncate":
            store = tokenize(texts, tokenizer, max_length, rows.values.get("text_pair"))
        else:
            store = tokenize_long(texts, tokenizer, max_length, self.long_text)
        if "label" not in rows.values:
            return store
        return replace(store, targets={"labels": self.target.encode(rows.values["label"], where, rows.place)})

    def encoding(self) -> str:
        return repr([self.target.encoding(), self.long_text])

    def weight(self, targets: Mapping[str, Any]) -> float:
        return self.target.weight(targets["labels"])

    def loss(self, outputs: ModelOutput, batch: MicroBatch, training: bool) -> torch.Tensor:
        labels, taught = batch.targets["labels"], batch.features.get(TEACHER)
        logits = self.result(outputs, batch)
        loss = self.target.loss(logits, labels, training)
        if training and taught is not None:
            loss = (loss + self.target.loss(logits, taught, training)) / 2
        return loss

    def result(self, outputs: ModelOutput, batch: MicroBatch) -> torch.Tensor:
        """[B, K] logits in fp32, one row per example: the logits of its windows are pooled."""
        logits = outputs["logits"].float()
        example_of = batch.features.get("example_of")
        if example_of is None:
            return logits
        index = example_of[:, None].expand_as(logits)
        pooled = logits.new_zeros(len(batch.examples), logits.shape[1])
        return pooled.scatter_reduce(
            0, index, logits, {"mean": "mean", "max": "amax"}[self.pooling], include_self=False
        )

    def calibrated(self, results: np.ndarray, store: TokenStore, rows: Rows) -> TextClassification:
        return replace(self, target=self.target.calibrated(results, store.targets["labels"]))

    def calibration(self, results: np.ndarray, store: TokenStore) -> Calibration | None:
        return self.target.calibration(results, store.targets["labels"])

    def abstaining(self, results: np.ndarray, store: TokenStore, precision: float) -> TextClassification | None:
        target = self.target.abstaining(results, store.targets["labels"], precision)
        return None if target is None else replace(self, target=target)

    def with_temperature(self, temperature: float) -> TextClassification:
        if not isinstance(self.target, SingleLabel | MultiLabel):
            return self
        return replace(self, target=replace(self.target, temperature=temperature))

    def decode(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Iterator[Prediction]:
        for row_id, answer in zip(rows.ids, self.target.answers(results), strict=True):
            yield {"id": row_id, **answer}

    def remarks(self, results: np.ndarray, store: TokenStore, where: str) -> Sequence[str]:
        return list(self.target.remarks(results, store.targets["labels"], where))

    def score(self, results: np.ndarray, store: TokenStore, rows: Rows) -> dict[str, float]:
        return self.target.score(results, store.targets["labels"])

    def row_losses(self, results: np.ndarray, store: TokenStore, rows: Rows) -> np.ndarray:
        return self.target.row_losses(results, store.targets["labels"])

    def row_sums(self, results: np.ndarray, store: TokenStore, rows: Rows) -> RowSums:
        of_rows = self.target.row_sums(results, store.targets["labels"])
        texts = [rows.values[role] for role in TEXTS if role in rows.values]
        clusters = numbered(rows.values[GROUP]) if GROUP in rows.values else None
        return replace(of_rows, keys=keys_of(zip(*texts, strict=True), len(rows)), clusters=clusters)


def classes_of(task: Task) -> SingleLabel | MultiLabel | None:
    """The target of a task that predicts a class or several labels; None for numbers and other tasks."""
    target = task.target if isinstance(task, TextClassification) else None
    return target if isinstance(target, SingleLabel | MultiLabel) else None


def _is_one(cell: Any) -> bool:
    return isinstance(cell, tuple) and len(cell) == 1


def _numbered(vocabulary: Vocabulary) -> str:
    """A note if the labels are numbers, but not those of the classes."""
    names = vocabulary.names
    if not all(map(is_number, names)) or list(names) == list(map(str, range(len(names)))):
        return ""
    return f"labels {', '.join(names)} are classes 0 to {len(names) - 1} of the model; predictions show your labels"
