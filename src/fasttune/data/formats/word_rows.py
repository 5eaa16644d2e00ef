"""Read tables with one word per row, as spreadsheets and simpletransformers write named entities, into sentences.

A column says which sentence a row belongs to (`Sentence #`, `sentence_id`), in every row or only in the first one of
each sentence; or empty lines stand between sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from fasttune.data.formats.text_file import FileRows
from fasttune.data.problems import Problems, counted
from fasttune.data.tokens.tags import OUTSIDE, form_of
from fasttune.errors import DataError, Problem, shown

if TYPE_CHECKING:
    import pyarrow as pa

SENTENCE_NAMES = (
    *("sentence #", "sentence_#", "sentence#", "sentence_id", "sentence id", "sentenceid", "sentence_idx", "sent_id"),
    *("sentence_number", "sentence no", "sentence_no", "sent #", "sentence", "sent", "sid"),
)
WORD_NAMES = ("word", "words", "token", "tokens", "form")
TAG_NAMES = (
    *("tag", "tags", "label", "labels", "ner", "ner_tag", "ner_tags", "ner tag", "entity", "bio", "iob", "pos"),
    *("pos_tag", "pos_tags", "upos"),
)
ROWS_LOOKED_AT = 1000
NEARLY_ALL = 0.95
MOST_DIFFERENT = 0.67  # of the rows, in a column that says to which sentence a word belongs
DOCUMENT_NAMES = ("doc", "document", "doc_id", "document_id", "docid", "file", "filename", "article_id")
NUMBERED = "column1"  # the first of the names that a table without a header gets


def is_header(values: Sequence[str]) -> bool:
    """Whether the first line of a file with a word per line names its columns."""
    return values[0].strip().lower() in WORD_NAMES and values[-1].strip().lower() in TAG_NAMES


def sentences_from_words(rows: FileRows, where: str) -> FileRows:
    """The same rows, or one row per sentence if each row of the table holds one word and its tag.

    DataError if nothing says where a sentence ends, or if the rows of a sentence are not next to each other.
    """
    columns = _columns(rows.table)
    if columns is None:
        return rows
    word, tag, sentence = columns
    words = rows.table.column(word).to_pylist()
    starts = _starts_by_column(rows, sentence, where) if sentence else _starts_by_lines(rows)
    if starts is None:
        raise DataError(sentences_unknown(where, words))
    _check_words(words, rows, word, where)
    names = {name: {word: "tokens", tag: "tags"}.get(name, name) for name in rows.table.column_names}
    bounds = [*starts, len(words)]
    import pyarrow as pa

    lists: dict[str, Any] = {}
    if sentence:
        ids = rows.table.column(sentence).to_pylist()
        lists["id"] = pa.array([str(ids[start]) for start in starts])
    for old, new in names.items():
        if old == sentence:
            continue
        cells = rows.table.column(old).to_pylist()
        lists[new] = pa.array([cells[first:stop] for first, stop in pairwise(bounds)])
    how = f"column {shown(sentence)}" if sentence else "the empty lines"
    note = f"{where}: one word per row; {counted(len(starts), 'sentence')} by {how}"
    numbers = rows.row_numbers
    first_lines = [start + 1 if numbers is None else int(numbers[start]) for start in starts]
    return replace(rows, table=pa.table(lists), row_numbers=first_lines, notes=(*rows.notes, note))


def sentences_unknown(where: str, words: Sequence[Any]) -> Problem:
    return Problem(
        code="E143",
        where=where,
        found=f"one word per row ({', '.join(map(shown, words[:3]))}, ...) and nothing that says where a sentence ends",
        hint="add a column sentence_id with the number of each row's sentence, or an empty line between sentences",
    )


def holds_words(table: pa.Table) -> bool:
    """Whether each row holds one word and its tag."""
    return _columns(table) is not None


def _columns(table: pa.Table) -> tuple[str, str, str | None] | None:
    """The columns of the word, its tag and its sentence; None if the rows are not words."""
    by_name = {name.strip().lower(): name for name in table.column_names}
    word = next((by_name[name] for name in WORD_NAMES if name in by_name), None)
    tags = [by_name[name] for name in TAG_NAMES if name in by_name]
    if word is None and table.column_names[:1] == [NUMBERED] and len(table.column_names) > 1:
        word, tags = table.column_names[0], [table.column_names[-1]]
    if word is None or not tags or not _are_words(_some(table, word)):
        return None
    sentence = next((by_name[name] for name in SENTENCE_NAMES if name in by_name and by_name[name] != word), None)
    if sentence is not None and not _repeats(_some(table, sentence)):
        sentence = None  # a text of its own in each row
    marking = [name for name in tags if name != word and _are_entity_tags(_some(table, name))]
    if not marking and sentence is None:
        return None
    return word, (marking or [name for name in tags if name != word] or [tags[0]])[0], sentence


def _some(table: pa.Table, name: str) -> list[Any]:
    return list(table.column(name).slice(0, ROWS_LOOKED_AT).to_pylist())


def _are_words(cells: Sequence[Any]) -> bool:
    filled = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    return sum(len(cell.split()) == 1 for cell in filled) >= NEARLY_ALL * len(filled) > len(cells) / 2


def _repeats(cells: Sequence[Any]) -> bool:
    """Whether several rows belong to one sentence: its value is repeated, or the cells below it are empty."""
    filled = [str(cell) for cell in cells if cell is not None and cell == cell and str(cell).strip()]
    return len(set(filled)) <= MOST_DIFFERENT * len(cells)


def _are_entity_tags(cells: Sequence[Any]) -> bool:
    tags = [cell for cell in cells if isinstance(cell, str) and (cell == OUTSIDE or form_of([cell]))]
    return OUTSIDE in tags and form_of(tags) is not None and len(tags) >= NEARLY_ALL * len(cells)


def _starts_by_column(rows: FileRows, sentence: str, where: str) -> list[int]:
    """The first row of each sentence. An empty cell belongs to the sentence above it."""
    problems = Problems(where)
    starts: list[int] = []
    seen: dict[Any, int] = {}
    current: Any = None
    by_name = {name.strip().lower(): name for name in rows.table.column_names}
    document = next((by_name[name] for name in DOCUMENT_NAMES if name in by_name and by_name[name] != sentence), None)
    documents = rows.table.column(document).to_pylist() if document else [None] * rows.table.num_rows
    for row, (number, of) in enumerate(zip(rows.table.column(sentence).to_pylist(), documents, strict=True)):
        is_empty = number is None or (isinstance(number, str) and not number.strip()) or number != number
        value = number if of is None else (of, number)  # numbers may begin anew in each document
        if (is_empty and row) or value == current:
            continue
        if value in seen:
            problems.add(
                Problem(
                    code="E143",
                    where=f"{where} row {_line(rows, row)}",
                    found=f"sentence {shown(number)} again; its first rows are at row {seen[value]}",
                    hint="sort the file by sentence, and keep the words of a sentence together",
                )
            )
        current, seen[value] = value, _line(rows, row)
        starts.append(row)
    problems.raise_if_any()
    return starts


def _starts_by_lines(rows: FileRows) -> list[int] | None:
    """The first row of each sentence, after an empty line; None if there are no empty lines."""
    if rows.row_numbers is None:
        return None
    starts = [0, *(row for row, (a, b) in enumerate(pairwise(rows.row_numbers), start=1) if b > a + 1)]
    return starts if len(starts) > 1 else None


def _check_words(words: Sequence[Any], rows: FileRows, word: str, where: str) -> None:
    problems = Problems(where)
    for row, value in enumerate(words):
        if not isinstance(value, str) or not value.strip():
            place = f"{where} row {_line(rows, row)}, column {shown(word)}"
            problems.add(Problem(code="E260", where=place, found="the row has no word"))
    problems.raise_if_any()


def _line(rows: FileRows, row: int) -> int:
    return row + 1 if rows.row_numbers is None else int(rows.row_numbers[row])
