"""One label for each text or pair of texts. Letters: N rows, K classes, B sequences of a micro-batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fasttune.data.columns import Column, is_text, label_values, text_values
from fasttune.data.labels import Vocabulary, encode_labels, label_vocabulary
from fasttune.data.sources import Source
from fasttune.data.token_store import TokenStore, tokenize
from fasttune.errors import DataError, Problem, RecipeError, shown
from fasttune.metrics import classification
from fasttune.recipe import Recipe
from fasttune.tasks.base import Prediction, Rows, Task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

    from fasttune.batching.collate import MicroBatch


TEXTS = ("text", "text_pair")


@dataclass(frozen=True)
class TextClassification(Task):
    """`vocabulary` maps labels as they stand in the data to 0..K-1 and to names; `pairs`: each row has two texts."""

    vocabulary: Vocabulary
    metrics: tuple[str, ...]
    label_smoothing_factor: float = 0.0
    pairs: bool = False

    name: ClassVar[str] = "text-classification"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    primary_metric: ClassVar[str] = "accuracy"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            role="text",
            description="the text to classify",
            required=True,
            guesses=(
                *("text", "sentence", "review", "content", "comment", "message", "body", "document", "question"),
                *("sentence1", "text1", "premise", "question1", "#1 string"),
            ),
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
            description="its label, a name or a number",
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
            ),
        ),
    )

    @classmethod
    def read(cls, source: Source, columns: Mapping[str, str]) -> Rows:
        dataset, where = source.dataset, source.description.partition(":")[0]
        values: dict[str, Sequence[Any]] = {
            role: text_values(dataset, columns[role], where, source.place, role) for role in TEXTS if role in columns
        }
        if "label" in columns:
            values["label"] = label_values(dataset, columns["label"], where, source.place)
        has_ids = "id" in dataset.column_names
        ids = [str(value) for value in dataset["id"]] if has_ids else [str(row) for row in range(len(dataset))]
        return Rows(ids, values)

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
        vocabulary = label_vocabulary(rows.values["label"], recipe.data.label_names, where)
        return cls._with(vocabulary, recipe, "text_pair" in rows.values)

    @classmethod
    def from_state(cls, state: Mapping[str, Any], recipe: Recipe) -> TextClassification:
        id2label = state["id2label"]
        names = tuple(id2label[key] for key in sorted(id2label, key=int))
        index = {name: position for position, name in enumerate(names)}
        given = recipe.data.label_names
        if isinstance(given, Mapping):
            index |= {value: names.index(name) for value, name in given.items()}
        elif given is not None:
            index |= {str(number): number for number in range(len(names))}
        return cls._with(Vocabulary(names, index), recipe, recipe.data.columns.text_pair is not None)

    @classmethod
    def _with(cls, vocabulary: Vocabulary, recipe: Recipe, pairs: bool) -> TextClassification:
        """What decides which model is best is computed whether or not the recipe lists it."""
        wanted = recipe.evaluation.metrics or classification.default_metrics(len(vocabulary.names))
        deciding = recipe.evaluation.metric_for_best_model or cls.primary_metric
        metrics = [*wanted, *(name for name in (deciding,) if name not in wanted and name != "loss")]
        if "f1" in metrics and len(vocabulary.names) > 2:
            raise RecipeError(
                Problem(
                    code="E304",
                    where="evaluation.metrics",
                    found=f"f1, which is that of one class of two, with {len(vocabulary.names)} classes",
                    expected="f1_macro, f1_micro or f1_weighted",
                    hint="evaluation.metrics=[accuracy, f1_macro]",
                )
            )
        return cls(vocabulary, tuple(metrics), recipe.training.label_smoothing_factor, pairs)

    def state(self) -> dict[str, Any]:
        return {
            "id2label": dict(enumerate(self.vocabulary.names)),
            "label2id": {name: position for position, name in enumerate(self.vocabulary.names)},
            "problem_type": "single_label_classification",
        }

    def strata(self, rows: Rows, where: str) -> Sequence[int]:
        return encode_labels(rows.values["label"], self.vocabulary, where)

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, where: str) -> TokenStore:
        store = tokenize(rows.values["text"], tokenizer, max_length, rows.values.get("text_pair"))
        if "label" not in rows.values:
            return store
        labels = np.array(encode_labels(rows.values["label"], self.vocabulary, where), dtype=np.int64)
        return replace(store, targets={"labels": labels})

    def encoding(self) -> str:
        return repr(self.vocabulary)

    def weight(self, targets: Mapping[str, Any]) -> float:
        return float(len(targets["labels"]))

    def loss(self, outputs: ModelOutput, batch: MicroBatch, training: bool) -> tuple[torch.Tensor, float]:
        from torch.nn.functional import cross_entropy

        smoothing = self.label_smoothing_factor if training else 0.0
        labels = batch.targets["labels"]
        total = cross_entropy(outputs["logits"].float(), labels, reduction="sum", label_smoothing=smoothing)
        return total, self.weight(batch.targets)

    def result(self, outputs: ModelOutput, batch: MicroBatch) -> torch.Tensor:
        return outputs["logits"]

    def decode(self, results: np.ndarray, store: TokenStore, rows: Rows) -> Iterator[Prediction]:
        names = self.vocabulary.names
        for row_id, row in zip(rows.ids, classification.softmax(results), strict=True):
            yield {
                "id": row_id,
                "label": names[int(row.argmax())],
                "score": float(row.max()),
                "probabilities": dict(zip(names, map(float, row), strict=True)),
            }

    def score(self, results: np.ndarray, store: TokenStore, rows: Rows) -> dict[str, float]:
        return classification.score(
            store.targets["labels"], results.argmax(axis=1), len(self.vocabulary.names), self.metrics
        )
