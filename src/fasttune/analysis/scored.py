"""The rows of a scored split, with what the model made of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fasttune.data.holdout import Split
from fasttune.data.tokens.store import TokenStore
from fasttune.tasks import Task
from fasttune.tasks.base import Prediction
from fasttune.tasks.metrics.sums import RowSums
from fasttune.tasks.targets import MultiLabel, SingleLabel
from fasttune.tasks.text_classification import TextClassification

MOST_CHARACTERS = 4_000  # kept of a text
NO_ANSWER, NO_LABEL = "(no answer)", "(none)"


@dataclass(frozen=True)
class Scored:
    """`results` are those of `task` for the examples in `store`; `sums` what each row adds to the metrics."""

    task: Task
    split: Split
    store: TokenStore
    results: np.ndarray
    sums: RowSums

    def __len__(self) -> int:
        return len(self.split.rows)

    def gold(self, row: int) -> str:
        """The label, answers or entities of a row, as text."""
        return gold_of(self.task, self.split, self.store, row)

    def predictions(self, rows: Sequence[int]) -> Iterator[Prediction]:
        """The predictions of these rows, in this order."""
        if isinstance(self.task, TextClassification):
            yield from self.task.target.answers(self.results[np.asarray(rows, dtype=np.int64)])
            return
        wanted = {*rows}
        decoded = enumerate(self.task.decode(self.results, self.store, self.split.rows))
        found = {row: prediction for row, prediction in decoded if row in wanted}
        yield from (found[row] for row in rows)


def gold_of(task: Task, split: Split, store: TokenStore, row: int) -> str:
    """The label, answers or entities of a row of this split, as text."""
    values = split.rows.values
    if isinstance(task, TextClassification):
        label, target = store.targets["labels"][row], task.target
        if isinstance(target, SingleLabel):
            return target.vocabulary.names[int(label)]
        if isinstance(target, MultiLabel):
            return listed([name for name, given in zip(target.vocabulary.names, label, strict=True) if given > 0])
        return f"{float(label):g}"
    if "answers" in values:
        return " / ".join(dict.fromkeys(answer.text for answer in values["answers"][row])) or NO_ANSWER
    if "tags" in values:
        words = values["tokens"][row].words
        return listed([f"{word}: {tag}" for word, tag in zip(words, values["tags"][row], strict=True) if tag != "O"])
    return task.targets_of(split.rows, row)


def as_text(prediction: Prediction) -> str:
    """A prediction as text."""
    if "labels" in prediction:
        return listed(prediction["labels"])
    if "answer" in prediction:
        return prediction["answer"] or NO_ANSWER
    if "tags" in prediction:
        pairs = zip(prediction["tokens"], prediction["tags"], strict=True)
        return listed([f"{word}: {tag}" for word, tag in pairs if tag != "O"])
    if "label" in prediction:
        return str(prediction["label"]) if prediction["label"] is not None else "(unsure)"
    return f"{prediction['score']:.4g}"


def listed(names: Sequence[str]) -> str:
    return ", ".join(names) or NO_LABEL


def inputs_of(split: Split, row: int) -> dict[str, str]:
    """The texts of a row by role, cut to MOST_CHARACTERS."""
    roles = ("text", "text_pair", "question", "context", "tokens")
    cells = {role: split.rows.values[role][row] for role in roles if role in split.rows.values}
    return {role: cut(_text_of(cell)) for role, cell in cells.items()}


def _text_of(cell: Any) -> str:
    return str(getattr(cell, "text", cell))


def cut(text: str, limit: int = MOST_CHARACTERS) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
