"""Find the passages to highlight when rows are shown: answers in contexts, entities in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from fasttune.data.answer_cells import pairs_of
from fasttune.data.columns import guess_name, resolve
from fasttune.data.tokens.tags import are_spans, form_of, spans_in
from fasttune.data.tokens.words import joined
from fasttune.tasks.metrics.entities import entities_of
from fasttune.tasks.token_classification import TokenClassification

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from fasttune.tasks.base import Task

Row = Mapping[str, Any]


class Mark(NamedTuple):
    """A highlight: characters [start, end) of a text, with the name to show."""

    start: int
    end: int
    name: str


def text_of(cell: Any) -> str:
    """A cell as readable text: a list of words becomes a sentence, spans their characters and labels."""
    if isinstance(cell, list) and cell and all(isinstance(word, str) for word in cell):
        return joined(cell).text
    if are_spans([cell]):
        return ", ".join(f"{span.start}-{span.end} {span.label}" for span in spans_in(cell))
    return str(cell)


def marks_of(row: Row) -> dict[str, list[Mark]]:
    """The marks of each column that has any, in order and without overlap, as positions in the text of `text_of`."""
    by_lower = {name.strip().lower(): name for name in row}
    marks_by_column: dict[str, list[Mark]] = {}
    if {"context", "answers"} <= by_lower.keys():
        context, answers = by_lower["context"], by_lower["answers"]
        start = row.get(by_lower.get("answer_start", ""))
        marks_by_column[context] = _answers(row[context], row[answers], start)
    tokens, tags = (guess_name(column, list(row)) for column in TokenClassification.columns)
    if tokens is not None and tags is not None:
        marks_by_column[tokens] = _entities(row[tokens], row[tags])
    return {name: _without_overlap(marks) for name, marks in marks_by_column.items() if marks}


def _answers(context: Any, cell: Any, start: Any) -> list[Mark]:
    """Marks of the answers that do occur at their start."""
    text = str(context)
    try:
        pairs = pairs_of(cell, start, text)
    except (KeyError, TypeError, ValueError):
        return []
    places = ((answer, text.find(answer) if begin is None else begin) for answer, begin in pairs)
    return [
        Mark(begin, begin + len(answer), "answer")
        for answer, begin in places
        if begin >= 0 and text.startswith(answer, begin)
    ]


def _entities(words: Any, tags: Any) -> list[Mark]:
    if isinstance(words, str) and are_spans([tags]):
        return [Mark(*span) for span in spans_in(tags) if words[span.start : span.end]]
    if not isinstance(words, list) or not isinstance(tags, list) or len(words) != len(tags):
        return []
    names = [str(tag) for tag in tags]
    form = form_of(names)
    if form is None:
        return []
    spans = joined([str(word) for word in words]).spans
    return [
        Mark(spans[first][0], spans[stop - 1][1], kind or "entity") for first, stop, kind in entities_of(names, form)
    ]


def _without_overlap(marks: Sequence[Mark]) -> list[Mark]:
    """The first of the marks that overlap: gold answers of one question often contain each other."""
    kept: list[Mark] = []
    for mark in sorted(set(marks)):
        if not kept or mark.start >= kept[-1].end:
            kept.append(mark)
    return kept


def tokens_of(
    rows: Sequence[Row], task: type[Task], columns: Mapping[str, str | None], tokenizer: PreTrainedTokenizerBase
) -> list[list[str]]:
    """The model's tokens of the texts of each row; DataError if the text columns are unclear.

    `columns`: role -> name, as in a recipe.
    """
    inputs = tuple(column for column in task.columns if not column.is_target)
    given = {column.role: columns.get(column.role) for column in inputs}
    names = resolve(inputs, given, list(rows[0]), "the data", lambda name: [row[name] for row in rows]).names
    tokens = []
    for row in rows:
        texts = ["" if row[name] is None else text_of(row[name]) for name in names.values()]
        tokens.append(list(tokenizer.convert_ids_to_tokens(tokenizer(*texts)["input_ids"])))
    return tokens
