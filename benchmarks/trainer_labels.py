"""Classification for transformers' Trainer: examples made as in the tutorials, from the rows that fasttune reads."""

from __future__ import annotations

from typing import Any


class Work:
    """`config`: settings of the model; `train`, `validation`: examples; `score`: logits to metrics."""

    def __init__(self, splits: Any, tokenizer: Any, side: Any):
        self.vocabulary = splits.task.target.vocabulary
        self.config = {"num_labels": len(self.vocabulary.names)}
        padding: Any = "max_length" if side.padding == "max_length" else False
        self.train, self.validation = (
            self._examples(split.rows, tokenizer, padding) for split in (splits.train, splits.validation)
        )

    def _examples(self, rows: Any, tokenizer: Any, padding: Any) -> list[dict[str, Any]]:
        texts = [list(rows.values[role]) for role in ("text", "text_pair") if role in rows.values]
        encoded = tokenizer(*texts, truncation=True, max_length=512, padding=padding)
        labels = [self.vocabulary.index[label] for label in rows.values["label"]]
        return [{**{name: encoded[name][row] for name in encoded}, "labels": labels[row]} for row in range(len(rows))]

    def score(self, result: Any) -> dict[str, float]:
        from fasttune.tasks.metrics import classification

        num_labels = len(self.vocabulary.names)
        names = classification.default_metrics(num_labels)
        return classification.score(result.label_ids, result.predictions.argmax(-1), num_labels, names)
