"""JSON lines and JSON lists of objects -> Arrow tables; values keep their JSON types.

Strict where the standard library is lenient: NaN and Infinity, a key written twice and a half of a surrogate pair are
errors, and every row has the same keys with values of one kind, because Arrow would turn what is missing into nulls
without a word.
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections.abc import Callable, Sequence
from typing import Any

from fasttune.data.squad_json import are_answers, flat_rows, is_squad
from fasttune.data.storage import Reading
from fasttune.data.text_file import FileRows, Problems, TextFile, read_text, row_name
from fasttune.errors import DataError, Problem, shown

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
    """Valid for the parser, but not for us."""

    def __init__(self, code: str, found: str, expected: str, hint: str):
        self.code, self.found, self.expected, self.hint = code, found, expected, hint
        super().__init__(found)


def read_json(where: str, suffix: str, reading: Reading) -> FileRows:
    """`where` is the path or address of the file, `suffix` its ending without packing."""
    file = read_text(where, reading)
    read = _table_of(file, where, _read_document if suffix == ".json" else _read_lines)
    if not read.table.num_rows:
        raise DataError(Problem(code="E104", where=where, found="0 rows", expected="rows of data"))
    return read


def read_json_lines(file: TextFile, where: str) -> FileRows:
    """Some whole lines from anywhere in a file; a blank one is no row."""
    return _table_of(file, where, _read_lines)


def _table_of(file: TextFile, where: str, read: Callable[..., tuple[list[dict], Sequence[int] | None]]) -> FileRows:
    problems = Problems(where)
    rows, row_numbers = read(file.text, where, problems)
    problems.raise_if_any()

    def place(index: int) -> str:
        return f"row {row_numbers[index]}" if row_numbers else row_name(index)

    return FileRows(rows_to_table(rows, where, place), row_numbers, file.sha256, file.notes)


def _parse(text: str) -> Any:
    value = DECODER.decode(text)
    # Only an escape can make half of a pair; searching for it first keeps the usual case fast.
    if "\\ud" in text or "\\uD" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            found = "half of a surrogate pair (\\uD800 to \\uDFFF)"
            raise _Refused("E121", found, "whole characters", "take the character out: text was cut in it") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused("E113", f"the key {shown(twice)} twice in one object", "each key once", "rename one of them")
    return value


def _constant(name: str) -> Any:
    raise _Refused("E118", name, "a number or null: JSON knows no other", "leave the row out, or write its number")


DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_constant=_constant)


def _problem(error: Exception, where: str, text: str, first_line: int) -> Problem:
    """`where` is the file, `first_line` the line of the file where `text` begins; 0 where `text` is the whole file."""
    place = f"{where} line {first_line}" if first_line else where
    if isinstance(error, json.JSONDecodeError):
        line = max(first_line, 1) + error.lineno - 1
        expected = EXPECTED_BY_MESSAGE.get(error.msg)
        if expected is None:
            expected = error.msg.replace("Expecting value", "a value").replace("Expecting ", "")
        rest = text[error.pos :].split("\n")[0]
        cut = rest[:SNIPPET_CHARACTERS]
        return Problem(
            code="E115",
            where=f"{where} line {line} column {error.colno}",
            found=f"{cut!r}" if cut else "the end of the line",
            expected=expected,
            hint="write the file with a JSON library, one object a line",
        )
    if isinstance(error, RecursionError):
        hint = '{"text": "...", "label": "..."}'
        return Problem(code="E119", where=place, found="values nested too deep", expected="flat rows", hint=hint)
    if isinstance(error, _Refused):
        return Problem(code=error.code, where=place, found=error.found, expected=error.expected, hint=error.hint)
    # int() refuses numbers of thousands of digits
    return Problem(code="E115", where=place, found=str(error), expected="a JSON value")


def _read_lines(text: str, where: str, problems: Problems) -> tuple[list[dict], Sequence[int]]:
    rows: list[dict] = []
    row_numbers = array("q")  # an object each would lie between those that go when the rows are in their table
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if not line.strip():
            continue
        try:
            value = _parse(line)
        except (ValueError, RecursionError) as error:
            problems.add(_problem(error, where, line, number))
            continue
        if not isinstance(value, dict):
            problems.add(_not_an_object(value, f"{where} line {number}"))
        elif is_squad(value):
            rows += flat_rows(value, f"{where} line {number}")
            row_numbers.extend([number] * (len(rows) - len(row_numbers)))
        else:
            rows.append(value)
            row_numbers.append(number)
    return rows, row_numbers


def _read_document(text: str, where: str, problems: Problems) -> tuple[list[dict], Sequence[int] | None]:
    """A .json file: a list of objects, or JSON lines under the wrong name, which are common."""
    begin = len(text) - len(text.lstrip())
    if text[begin : begin + 1] == "{":
        try:
            _, end = json.JSONDecoder().raw_decode(text, begin)
        except (ValueError, RecursionError):
            end = len(text)  # the error is reported below
        if text[end:].strip():
            return _read_lines(text, where, problems)
    try:
        value = _parse(text)
    except (ValueError, RecursionError) as error:
        problems.add(_problem(error, where, text, 0))
        return [], None
    if is_squad(value):
        return flat_rows(value, where), None
    if isinstance(value, dict) and not any(isinstance(x, list | dict) for x in value.values()):
        value = [value]
    if isinstance(value, dict):
        keys = ", ".join(shown(key) for key in list(value)[:5])
        raise DataError(
            Problem(
                code="E126",
                where=where,
                found=f"one object with the keys {keys}",
                expected="a list of objects, or one object a line",
                hint='[{"text": "...", "label": "..."}, ...]',
            )
        )
    items = value if isinstance(value, list) else [value]
    rows: list[dict] = []
    for number, item in enumerate(items, 1):
        place = f"{where} item {number}"
        if not isinstance(item, dict):
            problems.add(_not_an_object(item, place))
        elif is_squad(item):
            rows += flat_rows(item, place)
        else:
            rows.append(item)
    return rows, None


def _not_an_object(value: Any, where: str) -> Problem:
    return Problem(code="E126", where=where, found=shown(value), expected='an object {"column": value, ...}')


def rows_to_table(rows: list[dict[str, Any]], where: str, place: Callable[[int], str] = row_name):
    """Rows as dicts -> an Arrow table, after checking that they have the same keys with values of one kind."""
    import pyarrow as pa

    names = list(dict.fromkeys(key for row in rows for key in row))
    problems = Problems(where)
    problems.add(*_missing_keys(rows, names, where, place))
    for name in names:
        problems.add(*_mixed_kinds([row.get(name) for row in rows], name, where, place))
    problems.raise_if_any()
    arrays = []
    for name in names:
        try:
            values = [row[name] for row in rows]
            # Of questions that all have no answer the type could not be told, and files of one set would differ.
            answers = pa.struct([("text", pa.list_(pa.string())), ("answer_start", pa.list_(pa.int64()))])
            arrays.append(pa.array(values, type=answers if all(map(are_answers, values)) else None))
        except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
            message = str(error).split("\n")[0]
            problems.add(
                Problem(
                    code="E125",
                    where=f"{where}, column {shown(name)}",
                    found=f"values that make no column ({message})",
                    expected="values of one kind",
                )
            )
    problems.raise_if_any()
    return pa.table(arrays, names=names)


def _missing_keys(rows: list[dict], names: list[str], where: str, place: Callable[[int], str]) -> list[Problem]:
    problems = []
    for name in names:
        lacking = [index for index, row in enumerate(rows) if name not in row]
        if lacking:
            problems.append(
                Problem(
                    code="E117",
                    where=where,
                    found=f"{len(lacking):,} of {len(rows):,} rows without {shown(name)} (first: {place(lacking[0])})",
                    expected="the same keys in every row",
                    hint="write the key in every row, with null where there is no value",
                )
            )
    return problems


def _mixed_kinds(values: list, name: str, where: str, place: Callable[[int], str]) -> list[Problem]:
    problems = []
    first_of_kind: dict[str, int] = {}
    for index, value in enumerate(values):
        if value is None:
            continue
        kind = _kind(value)
        first_of_kind.setdefault(kind, index)
        # 1e999 overflows to infinity; and a DataFrame or dict given in Python may hold NaN
        if kind == "a number" and not math.isfinite(value):
            problems.append(
                Problem(
                    code="E118",
                    where=f"{where} {place(index)}, column {shown(name)}",
                    found=repr(value),
                    expected="a finite number",
                )
            )
    if len(first_of_kind) > 1:
        found = " and ".join(f"{kind} ({place(index)})" for kind, index in first_of_kind.items())
        at, with_lists = f"{where}, column {shown(name)}", LIST in first_of_kind
        hint = 'write a single label as a list of one, ["joy"], where rows have several labels' if with_lists else ""
        code = "E218" if with_lists else "E125"
        problems.append(Problem(code=code, where=at, found=found, expected="values of one kind", hint=hint))
    return problems


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
