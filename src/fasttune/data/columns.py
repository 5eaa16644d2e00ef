"""Find the column of each role, and read the values of a column as texts or as labels.

A role is what a task needs (`text`, `label`); a column is what the data has (`Review`, `Stars`). Columns that the
recipe names are used. A role that it leaves open is guessed if only one guess is possible, and the guess is reported;
otherwise the error shows the setting to add.
"""

from __future__ import annotations

import ast
import json
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttune.data.column_names import ABOUT_TEXTS, plain_name, words_of_name
from fasttune.data.formats.text_file import Place
from fasttune.data.guess import ROWS_LOOKED_AT, Look, look_of
from fasttune.data.labels import Vocabulary, encode_labels, label_vocabulary
from fasttune.data.problems import Problems, counted, row_name, some_of
from fasttune.errors import DataError, Problem, nearest, shown

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

__all__ = [
    "Column",
    "Resolved",
    "Texts",
    "Vocabulary",
    "encode_labels",
    "label_values",
    "label_vocabulary",
    "resolve",
    "text_values",
]

# Names that YAML reads as strings without quotes, and common words that it does not.
PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_ .-]*(?<! )")
NOT_PLAIN = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))
INFINITE = (math.inf, -math.inf)
# At least two numbers or quoted texts with blanks between them.
NUMPY_LIST = re.compile(
    r"""\[\s*("[^"]*"|'[^']*'|[-+]?[\d.]+(e[-+]\d+)?)(\s+("[^"]*"|'[^']*'|[-+]?[\d.]+(e[-+]\d+)?))+\s*\]"""
)
NO_LABEL = -1  # hub datasets fill the ClassLabel column of an unlabelled test split with it

TEXTS_AT_ONCE = 1000
VALUES_SHOWN, VALUE_CHARACTERS = 3, 40  # of each column in a question
MIN_ROWS_PER_CHUNK = 100


@dataclass(frozen=True)
class Column:
    """A column that a task reads. `guesses` are its common names, `last_guesses` those used if no column has one.

    `is_target`: its values are predicted, so rows to predict do not need it. `follows`: it is guessed only if the
    column of that role is guessed too; a recipe that names the text alone means that there is no second text.
    `may_be_empty`: an empty cell has a meaning, such as "no answer". `look`: the column is guessed if it is the only
    one whose cells look like this.
    """

    role: str
    description: str
    required: bool
    guesses: tuple[str, ...] = ()
    last_guesses: tuple[str, ...] = ()
    follows: str | None = None
    is_target: bool = False
    may_be_empty: bool = False
    look: Look | None = None


@dataclass(frozen=True)
class Resolved:
    """`names` maps a role to the name of its column; `notes` report the guesses."""

    names: dict[str, str]
    notes: tuple[str, ...] = ()


def resolve(
    columns: tuple[Column, ...],
    given: Mapping[str, str | None],
    available: Sequence[str],
    where: str,
    cells: Callable[[str], Sequence[Any]] | None = None,
) -> Resolved:
    """Find the column of each role: as given, by a common name, as the only column left, or by the look of its cells.

    `cells` returns some cells of a column. DataError names every role whose column is unclear.
    """
    problems = Problems(where)
    names = _given_names(columns, given, available, where, problems)
    wrong = {role for role, name in given.items() if name is not None and role not in names}
    notes: list[str] = []
    settled = {*names, *wrong}
    open_columns = [column for column in columns if column.role not in settled and column.follows not in settled]
    for column in open_columns:
        guess = guess_name(column, [name for name in available if name not in names.values()])
        if guess is not None:
            names[column.role] = guess
            if guess == column.role:
                continue
            notes.append(f"{where}: column {shown(guess)} is used as the {column.role}")
    missing = [column for column in open_columns if column.required and column.role not in names]
    left = [name for name in available if name not in names.values()]
    if len(missing) == 1 and len(left) == 1 and len(available) == 2 and not wrong:
        names[missing[0].role] = left[0]
        notes.append(f"{where}: column {shown(left[0])} is used as the {missing[0].role}: the only column left")
        missing = []
    looks = {name: look_of(cells(name)) for name in left} if missing and cells is not None and not wrong else {}
    unclear = []
    for column in missing:
        candidates = [
            name
            for name, (look, _) in looks.items()
            if look is not None and look == column.look and not words_of_name(name) & ABOUT_TEXTS
        ]
        if len(candidates) > 1:  # a word in the name decides, as in "Kommentar des Kunden"
            known = {plain_name(guess) for guess in column.guesses}
            candidates = [name for name in candidates if words_of_name(name) & known] or candidates
        if len(candidates) == 1 and candidates[0] not in names.values():
            name = candidates[0]
            names[column.role] = name
            notes.append(f"{where}: column {shown(name)} is used as the {column.role}: {looks[name][1]}")
        else:
            unclear.append(column)
    if unclear:
        problems.add(_question(unclear, columns, names, available, cells, where))
    problems.raise_if_any()
    return Resolved(names, tuple(notes))


def _question(
    unclear: Sequence[Column],
    columns: tuple[Column, ...],
    names: Mapping[str, str],
    available: Sequence[str],
    cells: Callable[[str], Sequence[Any]] | None,
    where: str,
) -> Problem:
    """One question for all unclear roles, with the first values of each column and the line to type."""
    asked = " and which is ".join(f"the {column.role} ({column.description})" for column in unclear)
    preview = tuple(f"{shown(name)}: {_first_values(cells(name))}" for name in available) if cells is not None else ()
    open_roles = {column.role for column in unclear}
    line = [
        f"data.columns.{column.role}=COLUMN"
        if column.role in open_roles
        else _override(column.role, names[column.role])
        for column in columns
        if column.role in names or column.role in open_roles
    ]
    listed = f"the columns are {', '.join(map(shown, available))}" if available else "there are no columns"
    return Problem(
        code="E201",
        where=where,
        found=f"cannot tell which column is {asked}" + ("" if preview else f"; {listed}"),
        preview=preview,
        hint=" ".join(line),
    )


def _first_values(cells: Sequence[Any]) -> str:
    values = list(dict.fromkeys(_short(cell) for cell in cells if cell is not None and str(cell).strip()))
    return ", ".join(values[:VALUES_SHOWN]) + (", ..." if len(values) > VALUES_SHOWN else "") or "(empty)"


def _short(cell: Any) -> str:
    text = " ".join(str(cell).split())
    return text if len(text) <= VALUE_CHARACTERS else text[: VALUE_CHARACTERS - 4] + " ..."


def _given_names(
    columns: tuple[Column, ...],
    given: Mapping[str, str | None],
    available: Sequence[str],
    where: str,
    problems: Problems,
) -> dict[str, str]:
    names: dict[str, str] = {}
    roles = [column.role for column in columns]
    listed = ", ".join(map(shown, available))
    for role, name in given.items():
        setting = f"data.columns.{role}"
        if name is None:
            continue
        if role not in roles:
            found = f"this task has no such column, only {', '.join(roles)}"
            problems.add(Problem(code="E206", where=setting, found=found))
        elif name not in available:
            near = nearest(name, available)
            problems.add(
                Problem(
                    code="E230" if role == "text_pair" and near is None else "E202",
                    where=setting,
                    found=shown(name),
                    expected=f"a column of {where}: {listed}",
                    hint=_override(role, near) if near is not None else f"data.columns.{role}=...",
                )
            )
        elif name in names.values():
            first_role = next(role for role, taken in names.items() if taken == name)
            found = f"{shown(name)} is already data.columns.{first_role}; each role needs a separate column"
            hint = _override(role, next((name for name in available if name not in names.values()), "..."))
            problems.add(Problem(code="E203", where=setting, found=found, hint=hint))
        else:
            names[role] = name
    return names


def guess_name(column: Column, available: Sequence[str]) -> str | None:
    """The only column with a common name, ignoring case and what is in brackets; the role's own name comes first."""
    for guesses in ((column.role,), column.guesses, column.last_guesses):
        known = {guess.lower() for guess in guesses}
        for written in (lambda name: name.strip().lower(), plain_name):
            matches = [name for name in available if written(name) in known]
            if matches:
                return matches[0] if len(matches) == 1 else None
    return None


def _override(role: str, name: str) -> str:
    """The override to type: the name quoted for YAML if necessary, and the whole for the shell."""
    plain = PLAIN_NAME.fullmatch(name) and name.lower() not in NOT_PLAIN
    value = name if plain else json.dumps(name, ensure_ascii=False)
    return shlex.quote(f"data.columns.{role}={value}")


class Texts(Sequence[str]):
    """A column of texts in Arrow, which needs a fraction of the memory of Python strings.

    `rows`: the positions of the texts, in order; None: all of them.
    """

    def __init__(self, column: pa.ChunkedArray, rows: np.ndarray | None = None):
        self._column, self._rows = column, rows

    def __len__(self) -> int:
        return len(self._column) if self._rows is None else len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return self._column[int(index if self._rows is None else self._rows[index])].as_py()
        numbers = range(*index.indices(len(self)))
        if self._rows is None and numbers.step == 1:
            return self._column.slice(numbers.start, len(numbers)).to_pylist()
        return [self[number] for number in numbers]

    def __iter__(self) -> Iterator[str]:
        for first in range(0, len(self), TEXTS_AT_ONCE):
            yield from self[first : first + TEXTS_AT_ONCE]

    def take(self, rows: np.ndarray) -> Texts:
        return Texts(self._column, rows if self._rows is None else self._rows[rows])


def _cells(dataset: datasets.Dataset, column: str) -> pa.ChunkedArray:
    """The values as Arrow holds them: a ClassLabel as its number, nothing decoded."""
    import pyarrow as pa

    cells = dataset.select_columns([column]).with_format("arrow")[:].column(column)
    if cells.num_chunks < len(cells) // MIN_ROWS_PER_CHUNK:
        return cells
    # Selected rows arrive as one chunk each, which needs four times the memory.
    whole = cells.combine_chunks()
    return whole if isinstance(whole, pa.ChunkedArray) else pa.chunked_array([whole], cells.type)


def cells_of(dataset: datasets.Dataset, column: str) -> list[Any]:
    """The values of a column as Python objects of any type."""
    return _cells(dataset, column).to_pylist()


def some_cells(dataset: datasets.Dataset, column: str) -> list[Any]:
    """The first ROWS_LOOKED_AT values of a column."""
    return cells_of(dataset.select(range(min(ROWS_LOOKED_AT, dataset.num_rows))), column)


def class_names(dataset: datasets.Dataset, column: str) -> tuple[str, ...] | None:
    """The classes that a ClassLabel column, or a list of them, declares, in its order; None for any other column."""
    feature = dataset.features[column]
    names = _names_of(getattr(feature, "feature", feature))
    return None if names is None else tuple(names)


def _names_of(feature: Any) -> list[str] | None:
    """The class names of a ClassLabel column, recognised by its type's name so that `datasets` need not be imported."""
    return list(feature.names) if type(feature).__name__ == "ClassLabel" else None


def empty_rows(dataset: datasets.Dataset, column: str, lists: bool) -> list[int]:
    """The rows whose cell is missing, blank or without a class; with `lists` also those with an empty list.

    A row with no words is empty; a row with no labels is a valid multi-label row.
    """
    names = _names_of(dataset.features[column])
    cells = _cells(dataset, column)
    if names is None and _is_text_column(cells):
        return _blank_rows(cells)
    return [
        row
        for row, value in enumerate(cells_of(dataset, column))
        if (lists and value == []) or _is_no_label(value, names)
    ]


def _is_text_column(cells: pa.ChunkedArray) -> bool:
    import pyarrow as pa

    return pa.types.is_string(cells.type) or pa.types.is_large_string(cells.type)


def _blank_rows(cells: pa.ChunkedArray) -> list[int]:
    """The rows of a column of texts that are missing or hold only white space, found without Python strings."""
    import pyarrow.compute as pc

    if not _is_text_column(cells):  # string views, or only nulls
        return [row for row, value in enumerate(cells.to_pylist()) if value is None or not value.strip()]
    is_blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(cells)), 0)
    rows: list[int] = np.flatnonzero(pc.fill_null(is_blank, True).to_numpy()).tolist()
    return rows


def different_values(dataset: datasets.Dataset, column: str) -> list[Any]:
    """The different values of a column that holds no lists, in the order of their first rows."""
    import pyarrow as pa

    cells = _cells(dataset, column)
    if not (_is_text_column(cells) or pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type)):
        return [value for value in cells.to_pylist() if not isinstance(value, list | dict)]
    return list(cells.unique().to_pylist())


def text_values(
    dataset: datasets.Dataset, column: str, where: str, place: Place = row_name, role: str = "text"
) -> Texts:
    """The texts, unchanged; DataError if the column has another type or empty texts.

    `place` names a row in a message (`Source.place` knows the line of the file).
    """
    feature = dataset.features[column]
    kind = getattr(feature, "dtype", type(feature).__name__)
    at = f"{where}, column {shown(column)}"
    if kind not in ("string", "large_string", "string_view", "null") or _names_of(feature) is not None:
        texts = [name for name in dataset.column_names if getattr(dataset.features[name], "dtype", "") == "string"]
        found = f"values of type {'ClassLabel' if _names_of(feature) is not None else kind}"
        hint = _override(role, texts[0]) if texts else ""
        raise DataError(Problem(code="E204", where=at, found=found, expected="text", hint=hint))
    cells = _cells(dataset, column)
    values = Texts(cells)
    empty = [place(row) for row in _blank_rows(cells)]
    if empty:
        raise DataError(_empty_problem("E243" if role in ("question", "context") else "E210", at, empty, "text"))
    return values


def _empty_problem(code: str, where: str, places: list[str], noun: str) -> Problem:
    return Problem(
        code=code,
        where=where,
        found=f"{counted(len(places), f'empty {noun}')} ({some_of(places)})",
        hint="data.drop_empty=true drops these rows",
    )


def is_text(value: object) -> bool:
    """Whether a tokenizer accepts the value.

    Bytes from a command line or stdin that are not UTF-8 arrive as lone surrogates, which no tokenizer accepts.
    """
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def label_values(
    dataset: datasets.Dataset, column: str, where: str, place: Place = row_name, may_be_empty: bool = False
) -> list[str] | list[str | tuple[str, ...]]:
    """The labels as texts: strings unchanged, numbers and truth values written out, a ClassLabel by its names.

    A list of labels becomes a tuple of texts; an empty list is a row without labels, and with `may_be_empty` so is an
    empty cell. DataError for other empty labels and for values of other types.
    """
    feature = dataset.features[column]
    inner = getattr(feature, "feature", feature)
    names = _names_of(inner)
    at = f"{where}, column {shown(column)}"
    values = lists_in(cells_of(dataset, column), at, place)
    if names is None and all(type(value) is str and value and not value.isspace() for value in values):
        same: dict[str, str] = {}  # the common case, with millions of rows: keep one string per label
        return [same.setdefault(value, value) for value in values]
    problems = Problems(where)
    lists = [value if isinstance(value, list) else [value] for value in values]
    empty = [row for row, labels in enumerate(lists) if any(_is_no_label(label, names) for label in labels)]
    if empty and may_be_empty and len(empty) < len(values):
        values = [[] if _is_no_label(value, names) else value for value in values]
    elif empty:
        problems.add(_empty_problem("E211", at, [place(row) for row in empty], "label"))
    invalid = [row for row, labels in enumerate(lists) if any(_is_invalid(label, names) for label in labels)]
    if invalid:
        first = invalid[0]
        found = f"{shown(values[first])} ({place(first)})"
        expected = "a text, a number, or a list of them"
        if names is not None:
            expected = f"a class number from 0 to {len(names) - 1}"
        problems.add(Problem(code="E205", where=at, found=found, expected=expected))
    problems.raise_if_any()
    return [as_texts(value, names) for value in values]


def lists_in(cells: list[Any], where: str, place: Place = row_name) -> list[Any]:
    """The cells, with lists for texts that write lists, such as "['joy', 'love']" or "[1 0 1]" in a CSV file.

    Only if all cells that are not empty do. DataError if some of them cannot be read as a list.
    """
    first = next((cell for cell in cells if cell), None)
    if not isinstance(first, str) or not first.lstrip().startswith("["):  # the common case costs nothing
        return cells
    written = [cell.strip() if isinstance(cell, str) else None for cell in cells]
    if not all(cell is None or not cell or (cell[0] == "[" and cell[-1] == "]") for cell in written):
        return cells
    lists = [cell if text is None else _list_in(text) for cell, text in zip(cells, written, strict=True)]
    wrong = [row for row, (text, value) in enumerate(zip(written, lists, strict=True)) if text and value is None]
    if len(wrong) == sum(bool(text) for text in written):  # texts in brackets, such as [laughs]
        return cells
    if wrong:
        found = f"{shown(written[wrong[0]])} ({some_of([place(row) for row in wrong])})"
        expected = "a list such as ['joy', 'love'], as in the other rows"
        raise DataError(Problem(code="E205", where=where, found=found, expected=expected))
    return lists


def _list_in(text: str) -> list[Any] | None:
    """The list that a text writes in JSON, in Python, or as numpy prints it (without commas); None if it is none."""
    if text == "":
        return None
    try:
        if NUMPY_LIST.fullmatch(text):
            parts = shlex.split(text[1:-1])
            return parts if "'" in text or '"' in text else [float(part) for part in parts]
        value = json.loads(text)
    except (ValueError, RecursionError):
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            return None
    return (
        value if isinstance(value, list) and all(isinstance(item, str | int | float | dict) for item in value) else None
    )


def _is_invalid(label: Any, names: list[str] | None) -> bool:
    """Whether a label has a type that no label has, or is a number of no class."""
    if label is not None and (not isinstance(label, str | int | float) or label in INFINITE):
        return True
    return names is not None and type(label) is int and not NO_LABEL <= label < len(names)


def labels_as_they_are(dataset: datasets.Dataset, column: str) -> list[Any]:
    """As `label_values`, without checks: a missing label is None."""
    feature = dataset.features[column]
    names = _names_of(getattr(feature, "feature", feature))
    values = cells_of(dataset, column)
    return [None if _is_no_label(value, names) else as_texts(value, names) for value in values]


def has_no_label(dataset: datasets.Dataset, column: str) -> bool:
    """Whether every cell is empty or -1, as a number or as text."""
    names = _names_of(dataset.features[column])
    return all(_is_no_label(value, names) or value in (NO_LABEL, str(NO_LABEL)) for value in cells_of(dataset, column))


def as_texts(value: Any, names: Sequence[str] | None) -> Any:
    """A label as a text, or a list of labels as a tuple of texts; `names` are those of a ClassLabel."""
    if isinstance(value, list):
        return tuple(as_texts(label, names) for label in value)
    return names[value] if names is not None else _written(value)


def _is_no_label(value: Any, names: list[str] | None) -> bool:
    if value is None or (names is not None and value == NO_LABEL):
        return True
    if isinstance(value, float):
        return math.isnan(value)  # a missing number in pandas
    return isinstance(value, str) and not value.strip()


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
