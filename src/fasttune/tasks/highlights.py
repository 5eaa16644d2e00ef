"""What stands where in the rows that people look at: answers in contexts, entities in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fasttune.data.answers import pairs_of
from fasttune.data.columns import resolve
from fasttune.data.tokens.words import joined
from fasttune.tasks.metrics.entities import are_entities, entities_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fasttune.tasks.base import Task

Row = Mapping[str, Any]


class Mark(NamedTuple):
    """Characters [start, end) of a text are `name`."""

    start: int
    end: int
    name: str


def text_of(cell: Any) -> str:
    """A cell as people read it: words as a sentence."""
    if isinstance(cell, list) and cell and all(isinstance(word, str) for word in cell):
        return joined(cell).text
    return str(cell)


def marks_of(row: Row) -> dict[str, list[Mark]]:
    """Column -> its marks, in order and without overlap, in the text that `text_of` gives; columns that have some."""
    by_lower = {name.strip().lower(): name for name in row}
    found: dict[str, list[Mark]] = {}
    if {"context", "answers"} <= by_lower.keys():
        context = by_lower["context"]
        found[context] = _answers(row[context], row[by_lower["answers"]], row.get(by_lower.get("answer_start", "")))
    if {"tokens", "tags"} <= by_lower.keys():
        tokens = by_lower["tokens"]
        found[tokens] = _entities(row[tokens], row[by_lower["tags"]])
    return {name: _apart(marks) for name, marks in found.items() if marks}


def _answers(context: Any, cell: Any, start: Any) -> list[Mark]:
    """Only those that stand where they are said to."""
    try:
        pairs = pairs_of(cell, start)
    except (KeyError, TypeError, ValueError):
        return []
    text = str(context)
    places = ((answer, text.find(answer) if begin is None else begin) for answer, begin in pairs)
    return [
        Mark(begin, begin + len(answer), "answer")
        for answer, begin in places
        if begin >= 0 and text.startswith(answer, begin)
    ]


def _entities(words: Any, tags: Any) -> list[Mark]:
    if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):
        return []
    names = [str(tag) for tag in tags]
    if not are_entities(names):
        return []
    spans = joined([str(word) for word in words]).spans
    return [Mark(spans[one.start][0], spans[one.stop - 1][1], one.type) for one in entities_of(names)]


def _apart(marks: Sequence[Mark]) -> list[Mark]:
    """The first of those that overlap: several right answers often are the same words and more."""
    kept: list[Mark] = []
    for mark in sorted(set(marks)):
        if not kept or mark.start >= kept[-1].end:
            kept.append(mark)
    return kept


def tokens_of(
    rows: Sequence[Row], task: type[Task], columns: Mapping[str, str | None], tokenizer: PreTrainedTokenizerBase
) -> list[list[str]]:
    """What the tokenizer makes of the texts of each row; DataError where their columns cannot be told.

    `columns`: role -> name, as a recipe gives them.
    """
    inputs = tuple(column for column in task.columns if not column.is_target)
    given = {one.role: columns.get(one.role) for one in inputs}
    names = resolve(inputs, given, list(rows[0]), "the data", lambda name: [row[name] for row in rows]).names
    texts = (["" if row[name] is None else text_of(row[name]) for name in names.values()] for row in rows)
    return [list(tokenizer.convert_ids_to_tokens(tokenizer(*one)["input_ids"])) for one in texts]
