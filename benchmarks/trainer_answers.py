"""Question answering for transformers' Trainer as the course teaches it: windows, and a plain loop over the n best."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

MAX_LENGTH, STRIDE, N_BEST, MAX_ANSWER_LENGTH = 384, 128, 20, 30


class Work:
    """`config`: settings of the model; `train`, `validation`: windows; `score`: logits to exact match and F1."""

    def __init__(self, splits: Any, tokenizer: Any, side: Any):
        self.config: dict[str, Any] = {}
        self.rows = splits.validation.rows
        padding: Any = "max_length" if side.padding == "max_length" else False
        self.train, _ = windows(splits.train.rows, tokenizer, padding)
        self.validation, self.about = windows(self.rows, tokenizer, padding)

    def score(self, result: Any) -> dict[str, float]:
        from fasttune.tasks.metrics import squad

        right = [[answer.text for answer in answers] for answers in self.rows.values["answers"]]
        return squad.score(self._answers(*result.predictions), right)

    def _answers(self, start_logits: np.ndarray, end_logits: np.ndarray) -> list[str]:
        """The course's loop: the 20 best starts with the 20 best ends, if they form a span of the context."""
        windows_of = defaultdict(list)
        for window, (row, _) in enumerate(self.about):
            windows_of[row].append(window)
        answers = []
        for row, context in enumerate(self.rows.values["context"]):
            found = []
            for window in windows_of[row]:
                offsets = self.about[window][1]
                for start in np.argsort(start_logits[window])[-1 : -N_BEST - 1 : -1].tolist():
                    for end in np.argsort(end_logits[window])[-1 : -N_BEST - 1 : -1].tolist():
                        if max(start, end) >= len(offsets) or offsets[start] is None or offsets[end] is None:
                            continue
                        if end < start or end - start + 1 > MAX_ANSWER_LENGTH:
                            continue
                        text = context[offsets[start][0] : offsets[end][1]]
                        found.append((start_logits[window][start] + end_logits[window][end], text))
            answers.append(max(found)[1] if found else "")
        return answers


def windows(rows: Any, tokenizer: Any, padding: Any) -> tuple[list[dict[str, Any]], list[tuple[int, list[Any]]]]:
    """Examples for the model, each with its row and the characters of its tokens (None outside the context)."""
    encoded = tokenizer(
        [question.lstrip() for question in rows.values["question"]],
        list(rows.values["context"]),
        truncation="only_second",
        max_length=MAX_LENGTH,
        stride=STRIDE,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
        padding=padding,
    )
    examples, about = [], []
    for window, row in enumerate(encoded["overflow_to_sample_mapping"]):
        parts = encoded.sequence_ids(window)
        offsets = encoded["offset_mapping"][window]
        answer = rows.values["answers"][row][0]
        first, last = positions(offsets, parts, answer.start, answer.start + len(answer.text))
        example = {name: encoded[name][window] for name in ("input_ids", "token_type_ids", "attention_mask")}
        examples.append({**example, "start_positions": first, "end_positions": last})
        about.append((row, [offset if part == 1 else None for offset, part in zip(offsets, parts, strict=True)]))
    return examples, about


def positions(offsets: list[tuple[int, int]], parts: list[int | None], start: int, end: int) -> tuple[int, int]:
    """The course's search for the answer's tokens; (0, 0) if the window does not contain it."""
    first = parts.index(1)
    last = len(parts) - 1 - parts[::-1].index(1)
    if offsets[first][0] > start or offsets[last][1] < end:
        return 0, 0
    while first < len(offsets) and offsets[first][0] <= start:
        first += 1
    while offsets[last][1] >= end:
        last -= 1
    return first - 1, last + 1
