"""Show rows of a data set, with answers and entities highlighted, on a terminal and in a notebook."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from rich.table import Table
from rich.text import Text

from fasttune.data.answers import Answer
from fasttune.data.problems import some_of
from fasttune.data.reading import TRAIN, Reader
from fasttune.data.rows import Rows
from fasttune.data.sources import Source
from fasttune.data.tokens.words import Sentence
from fasttune.errors import Error, shown
from fasttune.recipe import Recipe
from fasttune.security.terminal import Terminal
from fasttune.security.text import printable
from fasttune.tasks.highlights import Mark, marks_of, text_of

if TYPE_CHECKING:
    from fasttune.tasks.base import Task

LABELS_SHOWN = 12
ROWS_SHOWN = 3  # of a check
SHOWN_CHARACTERS = 400  # of one text
BEFORE_MARK = 150  # characters shown before the first mark of a long text
TOKENS = "tokens of the model"
MARKED = "black on yellow"


@dataclass(frozen=True)
class Preview:
    """Random rows, with a description of their data and notes; displays as a table in a notebook.

    `tokens`: the model's tokens of each row's texts, if requested.
    """

    description: str
    notes: Sequence[str]
    rows: list[dict[str, Any]]
    tokens: list[list[str]] | None = None

    def _repr_html_(self) -> str:
        return rows_as_html(self)


def understood(source: Source, recipe: Recipe, tasks: Mapping[str, type[Task]]) -> list[str]:
    """What training would take from these rows, in lines: the task, the column of each role, the labels.

    If it could not use them, the first reason.
    """
    reader = Reader(recipe, tasks)
    try:
        split = reader.split_of(replace(source, notes=()), recipe.data.train, TRAIN)
        task = reader.task_class.from_rows(split.rows, reader.recipe, split.where)
    except Error as error:
        first = error.problems[0]
        hint = f"; {first.hint}" if first.hint else ""
        return [f"task: {recipe.task}", f"not ready to train: {first.found}{hint}", *first.preview]
    return [*reader.notes, *task.notes, *(f"{name}: {line}" for name, line in decided(task, reader.columns).items())]


def decided(task: Task, columns: Mapping[str, str | Sequence[str]]) -> dict[str, str]:
    """The task, the column of each role and the labels, in words."""
    roles = [
        f"{role} = {shown(name) if isinstance(name, str) else ', '.join(map(shown, name))}"
        for role, name in columns.items()
    ]
    lines = {"task": task.name, "columns": ", ".join(roles)}
    names = task.state().get("label2id")
    if names:
        lines["labels"] = f"{len(names)}: {some_of([printable(str(name)) for name in names], LABELS_SHOWN)}"
    return lines


def first_rows(rows: Rows, task: Task) -> Preview:
    """The first rows as the task reads them."""
    chosen = range(min(ROWS_SHOWN, len(rows)))
    roles = [column.role for column in task.columns if column.role in rows.values]
    return Preview("", (), [{role: _as_cell(rows.values[role][row]) for role in roles} for row in chosen])


def _as_cell(value: Any) -> Any:
    """A value as a cell of a file has it, whose passages can be marked."""
    if isinstance(value, Sentence):
        return value.words
    if isinstance(value, tuple) and value and isinstance(value[0], Answer):
        return {"text": [answer.text for answer in value], "answer_start": [answer.start for answer in value]}
    return list(value) if isinstance(value, tuple) else value


class Piece(NamedTuple):
    """A part of a cell; highlighted if it has a `name`."""

    text: str
    name: str = ""


def print_rows(preview: Preview) -> None:
    """Print rows as a table; long texts are truncated, with the number of characters cut."""
    out = Terminal()
    if preview.description:
        out.print(Text(preview.description))
    for note in preview.notes:
        out.print(Text(note))
    table = Table(show_lines=True)
    for name in _header(preview):
        table.add_column(Text(printable(name)), overflow="fold")
    for cells in _cells(preview):
        table.add_row(*map(_styled, cells))
    out.print(table)


def rows_as_html(preview: Preview) -> str:
    """The rows as an HTML table; all data is escaped."""
    head = "".join(f"<th>{escape(name)}</th>" for name in _header(preview))
    body = "".join(
        "<tr>"
        + "".join(f"<td style='text-align:left;white-space:pre-wrap'>{_html(cell)}</td>" for cell in cells)
        + "</tr>"
        for cells in _cells(preview)
    )
    notes = "".join(f"<div>{escape(line)}</div>" for line in (preview.description, *preview.notes))
    return f"{notes}<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _header(preview: Preview) -> list[str]:
    names = [str(name) for name in preview.rows[0]]
    return names if preview.tokens is None else [*names, TOKENS]


def _cells(preview: Preview) -> Iterator[list[list[Piece]]]:
    for number, row in enumerate(preview.rows):
        marks = marks_of(row)
        cells = [list(pieces_of(text_of(row[name]), marks.get(name, []))) for name in row]
        if preview.tokens is not None:
            tokens = preview.tokens[number]
            cells.append([Piece(f"{len(tokens):,}: {cut(' '.join(tokens))}")])
        yield cells


def pieces_of(text: str, marks: list[Mark]) -> Iterator[Piece]:
    """SHOWN_CHARACTERS of the text in pieces, starting where the first mark is visible."""
    first = max(marks[0].start - BEFORE_MARK, 0) if marks and marks[0].end > SHOWN_CHARACTERS else 0
    last = min(first + SHOWN_CHARACTERS, len(text))
    if first:
        yield Piece(f"({first:,} characters before) ... ")
    position = first
    for mark in marks:
        if mark.end <= last:
            yield Piece(text[position : mark.start])
            yield Piece(text[mark.start : mark.end], mark.name)
            position = mark.end
    yield Piece(cut(text[position:], last - position))


def cut(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    if len(text) <= limit:
        return text
    return f"{text[:limit]} ... ({len(text) - limit:,} more characters)"


def _styled(pieces: list[Piece]) -> Text:
    styled = Text()
    for piece in pieces:
        text = "\n".join(map(printable, piece.text.split("\n")))
        if piece.name:
            styled.append(f"[{text}]", style=MARKED)
            styled.append("" if piece.name == "answer" else f" {printable(piece.name)}", style="dim")
        else:
            styled.append(text)
    return styled


def _html(pieces: list[Piece]) -> str:
    return "".join(
        f"<mark title='{escape(piece.name, quote=True)}'>{escape(piece.text)}</mark>"
        if piece.name
        else escape(piece.text)
        for piece in pieces
    )


def as_json(preview: Preview) -> Iterator[Mapping[str, Any]]:
    """The rows unchanged, with their tokens if requested."""
    for number, row in enumerate(preview.rows):
        tokens = {} if preview.tokens is None else {"model_tokens": preview.tokens[number]}
        yield {**row, **tokens}
