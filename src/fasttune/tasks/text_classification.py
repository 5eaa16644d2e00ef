"""A class, labels or a number for each text or pair of texts. Letters: N rows, K outputs, B sequences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fasttune.data.columns import Column, class_names, is_text, label_values, text_values
from fasttune.data.label_kinds import REGRESSION, SINGLE, kind_of, parts_of
from fasttune.data.labels import Vocabulary, is_number, label_vocabulary
from fasttune.data.problems import Problems
from fasttune.data.rows import Rows, ids_of
from fasttune.data.sources import Source
from fasttune.data.tokens.long_text import tokenize_long
from fasttune.data.tokens.store import TokenStore, tokenize
from fasttune.errors import DataError, Problem, RecipeError, shown
from fasttune.recipe import Recipe
from fasttune.tasks.base import Prediction, Task
from fasttune.tasks.targets import SingleLabel, Target, class_weights, make_target, saved_vocabulary

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

    from fasttune.data.batching.collate import MicroBatch


TEXTS = ("text", "text_pair")


@dataclass(frozen=True)
class TextClassification(Task):
    """`target`: what is learned of each row; `pairs`: each row has two texts.

    `long_text`: what becomes of texts that are too long, as the recipe has it; `pooling`: of windows, mean or max.
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
            guesses=(
                *("text", "sentence", "review", "content", "comment", "message", "body", "document", "question"),
                *("sentence1", "text1", "premise", "question1", "#1 string"),
            ),
            look="text",
        ),
        Column(
            role="text_pair",
            description="the second text of a pair",
            required=False,
            guesses=("sentence2", "text2", "hypothesis", "question2", "#2 string"),
            follows="text",
        ),
        Column(
            role="label",
            description="its label: a name or a number, or several of them",
            required=True,
            guesses=(
                "label",
                "labels",
                "class",
                "category",
                "stars",
                "rating",
                "sentiment",
                "target",
                "topic",
                "quality",
                "score",
            ),
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
        if "label" in columns:
            with problems.collected():
                values["label"] = label_values(dataset, columns["label"], where, source.place)
        problems.raise_if_any()
        declared = class_names(dataset, columns["label"]) if "label" in columns else None
        return Rows(ids_of(source), values, class_names=declared)

    def rows_of(self, inputs: Any) -> Rows:
        """A text, or with `pairs` a tuple of two, or several of them."""
        inputs = [inputs] if isinstance(inputs, str) or (self.pairs and isinstance(inputs, tuple)) else list(inputs)
        problems = []
        for number, texts in enumerate(inputs, start=1):
            parts = texts if self.pairs and isinstance(texts, tuple | list) else (texts,)
            if len(parts) != 1 + self.pairs or not all(map(is_text, parts)):
                expected = "two texts, such as ('one', 'other')" if self.pairs else "text, in UTF-8"
                problems.append(Problem(where=f"text {number}", found=shown(texts), expected=expected))
        if problems:
            raise DataError(*problems)
        columns = zip(*inputs, strict=True) if self.pairs and inputs else [inputs]
        values = {role: list(column) for role, column in zip(TEXTS, columns, strict=False)}
        return Rows([str(number) for number in range(len(inputs))], values)

    @classmethod
    def from_rows(cls, rows: Rows, recipe: Recipe, where: str) -> TextClassification:
        cells, asked = rows.values["label"], recipe.data
        declared = rows.class_names
        has_names = asked.label_names is not None or declared is not None
        kind = kind_of(cells, recipe.problem, asked.label_separator, has_names, where, declared is not None)
        vocabulary = None
        if kind.problem != REGRESSION:
            labels = [label for cell in cells for label in parts_of(cell, kind.separator)]
            vocabulary = label_vocabulary(labels, asked.label_names, where, class_names=declared)
        elif asked.label_names is not None:
            found, expected = "names for the labels of a regression", "none: the numbers themselves are learned"
            hint = f"data.label_names=null, or problem={SINGLE}"
            problem = Problem(code="E313", where="data.label_names", found=found, expected=expected, hint=hint)
            raise RecipeError(problem)
        target = make_target(kind.problem, vocabulary, recipe, separator=kind.separator)
        numbered = _numbered(vocabulary) if vocabulary is not None and not has_names else ""
        notes = tuple(filter(None, (kind.note, numbered and f"{where}: {numbered}")))
        return cls._of(target, "text_pair" in rows.values, recipe, notes)

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
        )
        return cls._of(target, recipe.data.columns.text_pair is not None, recipe)

    @classmethod
    def _of(cls, target: Target, pairs: bool, recipe: Recipe, notes: tuple[str, ...] = ()) -> TextClassification:
        how = recipe.preprocessing
        if pairs and how.long_text != "truncate":
            found, expected = f"{how.long_text} with pairs of texts", "truncate, which cuts the longer of the two"
            hint = "preprocessing.long_text=truncate"
            where = "preprocessing.long_text"
            raise RecipeError(Problem(code="E313", where=where, found=found, expected=expected, hint=hint))
        return cls(target, pairs, how.long_text, how.window_pooling, notes)

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

    def loss(self, outputs: ModelOutput, batch: MicroBatch, training: bool) -> tuple[torch.Tensor, float]:
        labels = batch.targets["labels"]
        return self.target.loss(self.result(outputs, batch), labels, training), self.target.weight(labels)

    def result(self, outputs: ModelOutput, batch: MicroBatch) -> torch.Tensor:
        """[B, K] logits in fp32, one row an example: those of several windows are pooled."""
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

    def decode(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Iterator[Prediction]:
        for row_id, answer in zip(rows.ids, self.target.answers(results), strict=True):
            yield {"id": row_id, **answer}

    def score(self, results: np.ndarray, store: TokenStore, rows: Rows) -> dict[str, float]:
        return self.target.score(results, store.targets["labels"])


def _numbered(vocabulary: Vocabulary) -> str:
    """What to say of labels that are numbers, but not those of the classes."""
    names = vocabulary.names
    if not all(map(is_number, names)) or list(names) == list(map(str, range(len(names)))):
        return ""
    return f"labels {', '.join(names)} are classes 0 to {len(names) - 1} of the model; predictions have your labels"
