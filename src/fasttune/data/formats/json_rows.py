"""Read JSON lines and JSON lists of objects into Arrow tables; values keep their JSON types.

Stricter than the standard library: NaN and Infinity, duplicate keys and unpaired surrogates are errors. Every row needs
the same keys with values of one type, because Arrow would silently turn missing values into nulls.
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import chain, count, islice
from typing import TYPE_CHECKING, Any

from fasttune.data.formats.annotations import Annotations, annotations_of
from fasttune.data.formats.squad_json import are_answers, flat_rows, is_squad
from fasttune.data.formats.storage import ReadOptions
from fasttune.data.formats.text_file import FileRows, TextFile, lines_of, read_text
from fasttune.data.problems import Problems, row_name
from fasttune.errors import DataError, Problem, shown

if TYPE_CHECKING:
    import pyarrow as pa

# Its line or, in a .json document, its place in words; and the value, or the Problem why there is none.
Value = tuple[int | str, Any]
NumberedRow = tuple[int, dict[str, Any]]  # the number of its line or, in a .json document, of the row
VALUES_LOOKED_AT = 50  # to recognise the tool that wrote a file
ROWS_AT_ONCE = 20_000
MAX_COLUMNS = 1_000
SNIPPET_CHARACTERS = 20
LIST = "a list"
EXPECTED_BY_MESSAGE = {
    "Extra data": "the end of the line",
    "Unterminated string starting at": "a closing quote",
    "Invalid control character at": "control characters as \\u escapes",
    "Expecting property name enclosed in double quotes": "a key in double quotes",
    "Illegal trailing comma before end of object": "a key in double quotes",
    "Illegal trailing comma before end of array": "a value",
}


class _Refused(ValueError):
    """Valid for the parser but not accepted here."""

    def __init__(self, code: str, found: str, expected: str, hint: str):
        self.code, self.found, self.expected, self.hint = code, found, expected, hint
        super().__init__(found)


def read_json(where: str, suffix: str, reading: ReadOptions) -> FileRows:
    """Read a file. `where` is its path or address, `suffix` its extension without that of a compression."""
    read = _table_of(read_text(where, reading), where, _document if suffix == ".json" else _lines)
    if not read.table.num_rows:
        raise DataError(Problem(code="E104", where=where, found="the file has no rows"))
    return read


def read_json_lines(file: TextFile, where: str) -> FileRows:
    """Read whole lines from anywhere in a file; blank lines are skipped. DataError for rows with different keys."""
    read = _table_of(file, where, _lines)
    if read.unreadable:  # all pieces of a file must have the same columns
        raise DataError(*read.unreadable.values())
    return read


def _table_of(file: TextFile, where: str, values_of: Callable[[str, str], Iterator[Value]]) -> FileRows:
    problems, notes = Problems(where), list(file.notes)
    row_numbers = array("q")  # a list's objects would outlive the rows and fragment memory
    table = GrowingTable(where, lambda index: f"row {row_numbers[index]}")
    rows = _rows(values_of(file.text, where), where, problems, notes)
    while part := list(islice(rows, ROWS_AT_ONCE)):
        row_numbers.extend(number for number, _ in part)
        table.add([row for _, row in part])
    problems.raise_if_any()
    whole, unreadable = table.whole()
    return FileRows(whole, row_numbers, file.sha256, tuple(notes), unreadable=unreadable)


def _rows(values: Iterator[Value], where: str, problems: Problems, notes: list[str]) -> Iterator[NumberedRow]:
    """Yield the rows that the values of a file hold: themselves, the questions of SQuAD, or annotated texts."""
    first = list(islice(values, VALUES_LOOKED_AT))
    annotations = annotations_of([value for _, value in first])
    numbers = count(1)
    for place, value in chain(first, values):
        if type(value) is dict and annotations is None and not is_squad(value):  # nearly always
            yield place if type(place) is int else next(numbers), value
        elif isinstance(value, Problem):
            problems.add(value)
        else:
            at = f"{where} line {place}" if type(place) is int else str(place)
            with problems.collected():
                for row in _rows_in(value, at, annotations):
                    yield place if type(place) is int else next(numbers), row
    if annotations is not None:
        notes += annotations.notes(where)


def _rows_in(value: Any, place: str, annotations: Annotations | None) -> list[dict[str, Any]]:
    if annotations is not None:
        row = annotations.row(value, place)
        return [] if row is None else [row]
    if not isinstance(value, dict):
        found, expected = shown(value), 'an object {"column": value, ...}'
        raise DataError(Problem(code="E126", where=place, found=found, expected=expected))
    return flat_rows(value, place)


def _parse(text: str) -> Any:
    value = DECODER.decode(text)
    # Only an escape can write an unpaired surrogate; searching for one first keeps the common case fast.
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            found = "half of a surrogate pair (\\uD800 to \\uDFFF)"
            raise _Refused(
                "E121", found, "whole characters", "remove it: the text was cut inside a character"
            ) from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        repeated = next(key for key, number in Counter(key for key, _ in pairs).items() if number > 1)
        raise _Refused("E113", f"the key {shown(repeated)} occurs twice in one object", "", "rename one of them")
    return value


def _constant(name: str) -> Any:
    raise _Refused("E118", name, "a finite number or null", "remove the row, or write the number")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _problem(error: Exception, where: str, text: str, first_line: int) -> Problem:
    """Describe a parse error. `first_line` is the line of the file where `text` begins; 0 if it is the whole file."""
    place = f"{where} line {first_line}" if first_line else where
    if isinstance(error, json.JSONDecodeError):
        line = max(first_line, 1) + error.lineno - 1
        expected = EXPECTED_BY_MESSAGE.get(error.msg)
        if expected is None:
            expected = error.msg.replace("Expecting value", "a value").replace("Expecting ", "")
        rest = text[error.pos :].split("\n")[0]
        snippet = rest[:SNIPPET_CHARACTERS]
        return Problem(
            code="E115",
            where=f"{where} line {line} column {error.colno}",
            found=f"{snippet!r}" if snippet else "the end of the line",
            expected=expected,
            hint="write the file with a JSON library, one object per line",
        )
    if isinstance(error, RecursionError):
        hint = '{"text": "...", "label": "..."}'
        return Problem(code="E119", where=place, found="values nested too deeply", expected="flat rows", hint=hint)
    if isinstance(error, _Refused):
        return Problem(code=error.code, where=place, found=error.found, expected=error.expected, hint=error.hint)
    # int() refuses numbers of thousands of digits
    return Problem(code="E115", where=place, found=f"a value cannot be read: {error}")


def _lines(text: str, where: str) -> Iterator[Value]:
    for number, line_with_end in enumerate(lines_of(text), 1):
        line = line_with_end.rstrip("\r\n")
        if not line.strip():
            continue
        try:
            value = _parse(line)
        except (ValueError, RecursionError) as error:
            value = _problem(error, where, line, number)
        yield number, value


def _document(text: str, where: str) -> Iterator[Value]:
    """The values of a .json file: a list of objects or, as is common, JSON lines under the wrong name."""
    begin = len(text) - len(text.lstrip())
    if text[begin : begin + 1] == "{":
        try:
            _, end = json.JSONDecoder().raw_decode(text, begin)
        except (ValueError, RecursionError):
            end = len(text)  # the error is reported below
        if text[end:].strip():
            yield from _lines(text, where)
            return
    try:
        value = _parse(text)
    except (ValueError, RecursionError) as error:
        yield where, _problem(error, where, text, 0)
        return
    if isinstance(value, dict):
        if is_squad(value):
            yield where, value
            return
        rows = _rows_of_object(value)
        if rows is not None:
            yield from ((f"{where} item {position}", row) for position, row in enumerate(rows, 1))
            return
        if any(isinstance(x, list | dict) for x in value.values()) and annotations_of([value]) is None:
            keys = ", ".join(shown(key) for key in list(value)[:5])
            raise DataError(
                Problem(
                    code="E126",
                    where=where,
                    found=f"one object with the keys {keys}",
                    expected="a list of objects, or one object per line",
                    hint='[{"text": "...", "label": "..."}, ...]',
                )
            )
    items = value if isinstance(value, list) else [value]
    for position, item in enumerate(items, 1):
        yield f"{where} item {position}", item


def _rows_of_object(value: dict[str, Any]) -> list[Any] | None:
    """The rows of an object that holds them all: as a list under one key, or as pandas writes a frame; else None."""
    if annotations_of([value]) is not None or ("text" in value and isinstance(value["text"], str)):
        return None  # one row
    parts, names, table = list(value.values()), value.get("columns"), value.get("data")
    if isinstance(names, list) and isinstance(table, list):  # orient="split"
        is_table = all(isinstance(row, list) and len(row) == len(names) for row in table)
        return [dict(zip(names, row, strict=True)) for row in table] if is_table else None
    lists = [part for part in parts if isinstance(part, list)]
    if len(lists) == 1 and lists[0] and all(isinstance(row, dict) for row in lists[0]):
        is_only = "schema" in value or not any(isinstance(part, dict) for part in parts)  # orient="table" has a schema
        return lists[0] if is_only else None
    if len(parts) > 1 and len(lists) == len(parts) and len({len(part) for part in lists}) == 1:  # orient="list"
        return [dict(zip(value, row, strict=True)) for row in zip(*lists, strict=True)]
    if len(parts) > 1 and all(isinstance(part, dict) and part.keys() == parts[0].keys() for part in parts):
        if all(map(str.isdecimal, value)) and not all(map(str.isdecimal, parts[0])):  # orient="index"
            return parts
        return [{name: value[name][key] for name in value} for key in parts[0]]  # the default, orient="columns"
    return None


def rows_to_table(rows: list[dict[str, Any]], where: str) -> tuple[pa.Table, dict[str, Problem]]:
    """An Arrow table of the keys that all dicts have with values of one type, and why other keys are left out."""
    table = GrowingTable(where, row_name)
    table.add(rows)
    return table.whole()


@dataclass
class _Column:
    """A column of the rows so far. `kinds`: each kind of value, and the first row that has it."""

    first_missing: int | None = None
    num_present: int = 0
    kinds: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    parts: list[pa.Array] = field(default_factory=list)
    refusals: list[Problem] = field(default_factory=list)  # of Arrow; `problems` may explain some of them better


class GrowingTable:
    """An Arrow table built from dicts in parts, because Python objects are several times larger than Arrow's arrays.

    `place` returns the name of a row, given its index, for messages.
    """

    def __init__(self, where: str, place: Callable[[int], str]):
        self.where, self.place = where, place
        self.num_rows = 0
        self.columns: dict[str, _Column] = {}

    def add(self, rows: list[dict[str, Any]]) -> None:
        for name in dict.fromkeys(key for row in rows for key in row):
            if name not in self.columns:
                if len(self.columns) == MAX_COLUMNS:
                    found, expected = f"more than {MAX_COLUMNS:,} different keys", "the same keys in every row"
                    raise DataError(Problem(code="E117", where=self.where, found=found, expected=expected))
                self.columns[name] = _Column(first_missing=0 if self.num_rows else None)
        for name, column in self.columns.items():
            self._inspect(column, name, rows)
        for name, column in self.columns.items():
            if column.first_missing is None and not self._wrong_values(name, column):
                column.parts += self._arrays(column, name, [row[name] for row in rows])
        self.num_rows += len(rows)

    def whole(self) -> tuple[pa.Table, dict[str, Problem]]:
        """The table, and the columns that it leaves out with what is wrong with them.

        DataError with everything that is wrong if no column is left.
        """
        import pyarrow as pa

        arrays: dict[str, pa.ChunkedArray] = {}
        problems, unreadable = Problems(self.where), dict[str, Problem]()
        for name, column in self.columns.items():
            missing = self._missing_key(name, column)
            wrong = [*([missing] if missing else []), *self._wrong_values(name, column)]
            if not wrong:
                arrays[name] = self._joined(column, name)
                wrong = column.refusals[:1]
            if wrong:
                arrays.pop(name, None)
                problems.add(*wrong)
                unreadable[name] = wrong[0]
        if not arrays:
            problems.raise_if_any()
        return pa.table(arrays), unreadable

    def _inspect(self, column: _Column, name: str, rows: list[dict[str, Any]]) -> None:
        for index, row in enumerate(rows, self.num_rows):
            if name not in row:
                if column.first_missing is None:
                    column.first_missing = index
                continue
            column.num_present += 1
            value = row[name]
            if value is None:
                continue
            kind = _kind(value)
            column.kinds.setdefault(kind, index)
            # 1e999 overflows to infinity, and rows from Python can contain NaN
            if isinstance(value, float) and not math.isfinite(value):
                at = f"{self.where} {self.place(index)}, column {shown(name)}"
                column.problems.append(Problem(code="E118", where=at, found=repr(value), expected="a finite number"))

    def _missing_key(self, name: str, column: _Column) -> Problem | None:
        if column.first_missing is None:
            return None
        number = self.num_rows - column.num_present
        first = self.place(column.first_missing)
        return Problem(
            code="E117",
            where=self.where,
            found=f"the key {shown(name)} is missing in {number:,} of {self.num_rows:,} rows (first: {first})",
            hint="write the key in every row, with null if there is no value",
        )

    def _wrong_values(self, name: str, column: _Column) -> list[Problem]:
        if len(column.kinds) < 2:
            return column.problems
        found = " and ".join(f"{kind} ({self.place(index)})" for kind, index in column.kinds.items())
        code, hint = "E125", ""
        if LIST in column.kinds:
            code, hint = "E218", 'if rows can have several labels, write a single label as a list too: ["joy"]'
        at = f"{self.where}, column {shown(name)}"
        mixed = Problem(code=code, where=at, found=found, expected="values of one type", hint=hint)
        return [*column.problems, mixed]

    def _arrays(self, column: _Column, name: str, values: list[Any]) -> list[pa.Array]:
        """Convert values to one array, several above 2 GB, or none and a refusal if Arrow cannot convert them."""
        import pyarrow as pa

        # If no question has an answer, Arrow could not infer the type, and the files of a dataset would differ.
        answers = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int64()))])
        given = [value for value in values if value is not None]
        try:
            array = pa.array(values, type=answers if given and all(map(are_answers, given)) else None)
            return array.chunks if isinstance(array, pa.ChunkedArray) else [array]
        except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
            found = f"the values cannot be stored as one column ({str(error).split(chr(10))[0]})"
            at = f"{self.where}, column {shown(name)}"
            column.refusals.append(Problem(code="E125", where=at, found=found))
            return []

    def _joined(self, column: _Column, name: str) -> pa.ChunkedArray:
        """Concatenate the parts; if their types differ, such as integers and floats, convert them again together."""
        import pyarrow as pa

        parts = column.parts
        kinds = {part.type for part in parts if not pa.types.is_null(part.type)} or {pa.null()}
        if len(kinds) > 1:
            parts = self._arrays(column, name, [value for part in parts for value in part.to_pylist()])
            kinds = {part.type for part in parts}
        kind = kinds.pop() if kinds else pa.null()
        return pa.chunked_array([part if part.type == kind else pa.nulls(len(part), kind) for part in parts], kind)


def _kind(value: Any) -> str:
    for types, kind in (
        (bool, "true or false"),
        ((int, float), "a number"),
        (str, "a text"),
        ((list, tuple), LIST),
    ):
        if isinstance(value, types):
            return kind
    return "an object" if isinstance(value, dict) else f"a {type(value).__name__}"
