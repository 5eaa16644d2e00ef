"""One label for each text. Letters: N rows, K classes, B sequences of a micro-batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from fasttune.data.columns import Column, label_values, text_values
from fasttune.data.labels import Vocabulary, encode_labels, label_vocabulary
from fasttune.data.sources import Source
from fasttune.data.token_store import TokenStore, tokenize
from fasttune.errors import Problem, RecipeError
from fasttune.metrics import classification
from fasttune.recipe import Recipe
from fasttune.tasks.base import Prediction, Rows, Task

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase
    from transformers.utils import ModelOutput

    from fasttune.batching.collate import MicroBatch


@dataclass(frozen=True)
class TextClassification(Task):
    """`vocabulary` maps labels as they stand in the data to 0..K-1 and to names."""

    vocabulary: Vocabulary
    metrics: tuple[str, ...]
    label_smoothing_factor: float = 0.0

    name: ClassVar[str] = "text-classification"
    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    primary_metric: ClassVar[str] = "accuracy"
    columns: ClassVar[tuple[Column, ...]] = (
        Column(
            role="text",
            description="the text to classify",
            required=True,
            guesses=("text", "sentence", "review", "content", "comment", "message", "body", "document", "question"),
        ),
        Column(
            role="label",
            description="its label, a name or a number",
            required=True,
            guesses=("label", "labels", "class", "category", "stars", "rating", "sentiment", "target", "topic"),
        ),
    )

    @classmethod
    def read(cls, source: Source, columns: Mapping[str, str]) -> Rows:
        dataset, where = source.dataset, source.description.partition(":")[0]
        values: dict[str, Sequence[Any]] = {"text": text_values(dataset, columns["text"], where, source.place)}
        if "label" in columns:
            values["label"] = label_values(dataset, columns["label"], where, source.place)
        has_ids = "id" in dataset.column_names
        ids = [str(value) for value in dataset["id"]] if has_ids else [str(row) for row in range(len(dataset))]
        return Rows(ids, values)

    @classmethod
    def from_rows(cls, rows: Rows, recipe: Recipe, where: str) -> TextClassification:
        return cls._with(label_vocabulary(rows.values["label"], recipe.data.label_names, where), recipe)

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
        return cls._with(Vocabulary(names, index), recipe)

    @classmethod
    def _with(cls, vocabulary: Vocabulary, recipe: Recipe) -> TextClassification:
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
        return cls(vocabulary, tuple(metrics), recipe.training.label_smoothing_factor)

    def state(self) -> dict[str, Any]:
        return {
            "id2label": dict(enumerate(self.vocabulary.names)),
            "label2id": {name: position for position, name in enumerate(self.vocabulary.names)},
            "problem_type": "single_label_classification",
        }

    def strata(self, rows: Rows, where: str) -> Sequence[int]:
        return encode_labels(rows.values["label"], self.vocabulary, where)

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, where: str) -> TokenStore:
        store = tokenize(list(rows.values["text"]), tokenizer, max_length)
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

    def result(self, outputs: ModelOutput) -> torch.Tensor:
        return outputs["logits"]

    def decode(self, results: np.ndarray, store: TokenStore, rows: Rows) -> list[Prediction]:
        names = self.vocabulary.names
        probabilities = classification.softmax(results)
        return [
            {
                "id": row_id,
                "label": names[int(row.argmax())],
                "score": float(row.max()),
                "probabilities": dict(zip(names, map(float, row), strict=True)),
            }
            for row_id, row in zip(rows.ids, probabilities, strict=True)
        ]

    def score(self, predictions: Sequence[Prediction], rows: Rows) -> dict[str, float]:
        position = {name: index for index, name in enumerate(self.vocabulary.names)}
        predicted = np.array([position[prediction["label"]] for prediction in predictions])
        labels = np.array([self.vocabulary.index[value] for value in rows.values["label"]])
        return classification.score(labels, predicted, len(self.vocabulary.names), self.metrics)
