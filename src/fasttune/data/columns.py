"""Which column plays which role, and the values of a column as texts or as labels.

A role is what a task needs (`text`, `label`); a column is what the data has (`Review`, `Stars`). What the recipe names
is taken, what it leaves out is guessed where only one guess is possible, and said; otherwise the message asks for it
with the line to type.
"""

from __future__ import annotations

import json
import math
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

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

# Names that YAML reads as a text without quotes; of the words that it does not, these are the usual ones.
PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_ .-]*(?<! )")
NOT_PLAIN = frozenset(("true", "false", "yes", "no", "on", "off", "null", "y", "n"))
INFINITE = (math.inf, -math.inf)
NO_LABEL = -1  # what hub data sets hold in a ClassLabel column of a test split without labels

TEXTS_AT_ONCE = 1000
MANY_CHUNKS = 100  # one for so many rows is too many


@dataclass(frozen=True)
class Column:
    """A column that a task reads. `guesses` are the names it is commonly known by.

    Predictions need all columns but those whose values are to be predicted (`is_target`). One that `follows` another
    role is guessed only where that is guessed too: who names the text alone means that there is no second one.
    `may_be_empty`: an empty cell says something, such as that there is no answer. `look`: what its cells look like,
    where the only column that does may be taken for it.
    """

    role: str
    description: str
    required: bool
    guesses: tuple[str, ...] = ()
    follows: str | None = None
    is_target: bool = False
    may_be_empty: bool = False
    look: Look | None = None


@dataclass(frozen=True)
class Resolved:
    """`names` leads from a role to the name of its column; `notes` say what was guessed."""

    names: dict[str, str]
    notes: tuple[str, ...] = ()


def resolve(
    columns: tuple[Column, ...],
    given: Mapping[str, str | None],
    available: Sequence[str],
    where: str,
    cells: Callable[[str], Sequence[Any]] | None = None,
) -> Resolved:
    """Finds the column of each role: as given, by its usual names, as the one that is left of two, or by its look.

    `cells`: some cells of a column, to look at.
    """
    problems = Problems(where)
    names = _given_names(columns, given, available, where, problems)
    wrong = {role for role, name in given.items() if name is not None and role not in names}
    notes: list[str] = []
    settled = {*names, *wrong}
    open_columns = [column for column in columns if column.role not in settled and column.follows not in settled]
    for column in open_columns:
        guess = _guess(column, [name for name in available if name not in names.values()])
        if guess is not None:
            names[column.role] = guess
            if guess == column.role:
                continue  # nothing to say
            notes.append(f"{where}: column {shown(guess)} is taken as the {column.role}")
    missing = [column for column in open_columns if column.required and column.role not in names]
    left = [name for name in available if name not in names.values()]
    if len(missing) == 1 and len(left) == 1 and len(available) == 2 and not wrong:
        names[missing[0].role] = left[0]
        notes.append(f"{where}: column {shown(left[0])} is taken as the {missing[0].role}: the only other one")
        missing = []
    looks = {name: look_of(cells(name)) for name in left} if missing and cells is not None and not wrong else {}
    for column in missing:
        fitting = [name for name, (look, _) in looks.items() if look is not None and look == column.look]
        if len(fitting) == 1:
            names[column.role] = fitting[0]
            notes.append(f"{where}: column {shown(fitting[0])} is taken as the {column.role}: {looks[fitting[0]][1]}")
        else:
            problems.add(_which(column, available, fitting or left, where))
    problems.raise_if_any()
    return Resolved(names, tuple(notes))


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
        place = f"data.columns.{role}"
        if name is None:
            continue
        if role not in roles:
            expected = f"one of {', '.join(roles)}"
            problems.add(
                Problem(code="E206", where=place, found="a role that this task does not have", expected=expected)
            )
        elif name not in available:
            near = nearest(name, available)
            problems.add(
                Problem(
                    code="E230" if role == "text_pair" and near is None else "E202",
                    where=place,
                    found=shown(name),
                    expected=f"a column of {where}: {listed}",
                    hint=_override(role, near) if near is not None else f"data.columns.{role}=...",
                )
            )
        elif name in names.values():
            other = next(role for role, taken in names.items() if taken == name)
            found = f"{shown(name)}, which is also data.columns.{other}"
            hint = _override(role, next((name for name in available if name not in names.values()), "..."))
            expected = "a column of its own for each role"
            problems.add(Problem(code="E203", where=place, found=found, expected=expected, hint=hint))
        else:
            names[role] = name
    return names


def _guess(column: Column, available: Sequence[str]) -> str | None:
    """The only column with a usual name, whatever its case; one named as the role itself goes before the others."""
    for guesses in ((column.role,), column.guesses):
        known = {guess.lower() for guess in guesses}
        found = [name for name in available if name.strip().lower() in known]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def _which(column: Column, available: Sequence[str], left: Sequence[str], where: str) -> Problem:
    known = {guess.lower() for guess in column.guesses}
    best = next((name for name in left if name.strip().lower() in known), None) or nearest(column.role, left)
    hinted = best if best is not None else next(iter(left), None)
    return Problem(
        code="E201",
        where=where,
        found=f"columns {', '.join(map(shown, available))}" if available else "no columns",
        expected=f"a column for the {column.role} ({column.description}): which one is it?",
        hint=_override(column.role, hinted) if hinted is not None else "",
    )


def _override(role: str, name: str) -> str:
    """The override to type, quoted for YAML where the name needs it, and then for the shell."""
    plain = PLAIN_NAME.fullmatch(name) and name.lower() not in NOT_PLAIN
    value = name if plain else json.dumps(name, ensure_ascii=False)
    return shlex.quote(f"data.columns.{role}={value}")


class Texts(Sequence[str]):
    """A column of texts as Arrow holds it, a fraction of what as many Python strings would take.

    `rows`: which of them, in which order; None: all.
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

    found = dataset.select_columns([column]).with_format("arrow")[:].column(column)
    if found.num_chunks < len(found) // MANY_CHUNKS:
        return found
    whole = found.combine_chunks()  # rows that were chosen come as a chunk each, of four times the memory
    return whole if isinstance(whole, pa.ChunkedArray) else pa.chunked_array([whole], found.type)


def cells_of(dataset: datasets.Dataset, column: str) -> list[Any]:
    """The values of a column, whatever they are, as Python has them."""
    return _cells(dataset, column).to_pylist()


def some_cells(dataset: datasets.Dataset, column: str) -> list[Any]:
    """The first of them."""
    return cells_of(dataset.select(range(min(ROWS_LOOKED_AT, dataset.num_rows))), column)


def class_names(dataset: datasets.Dataset, column: str) -> tuple[str, ...] | None:
    """The classes that a ClassLabel column, or a list of them, declares, in its order; None for any other column."""
    feature = dataset.features[column]
    names = _names_of(getattr(feature, "feature", feature))
    return None if names is None else tuple(names)


def _names_of(feature: Any) -> list[str] | None:
    """The class names of a ClassLabel column. Told by its attribute, so that `datasets` need not be imported."""
    return list(feature.names) if type(feature).__name__ == "ClassLabel" else None


def empty_rows(dataset: datasets.Dataset, column: str, lists: bool) -> list[int]:
    """The rows whose cell holds nothing: no value, blanks only, no class; with `lists` also an empty list.

    An empty list of words is nothing; one of labels is a row without labels, which is one to learn from.
    """
    names = _names_of(dataset.features[column])
    return [
        row
        for row, value in enumerate(cells_of(dataset, column))
        if (lists and value == []) or _is_no_label(value, names)
    ]


def text_values(
    dataset: datasets.Dataset, column: str, where: str, place: Place = row_name, role: str = "text"
) -> Texts:
    """The texts as they stand. `place` names a row in a message (`Source.place` knows the line of the file)."""
    feature = dataset.features[column]
    kind = getattr(feature, "dtype", type(feature).__name__)
    at = f"{where}, column {shown(column)}"
    if kind not in ("string", "large_string", "string_view", "null") or _names_of(feature) is not None:
        texts = [name for name in dataset.column_names if getattr(dataset.features[name], "dtype", "") == "string"]
        found = f"values of type {'ClassLabel' if _names_of(feature) is not None else kind}"
        hint = _override(role, texts[0]) if texts else ""
        raise DataError(Problem(code="E204", where=at, found=found, expected="text", hint=hint))
    values = Texts(_cells(dataset, column))
    empty = [place(index) for index, value in enumerate(values) if value is None or not value.strip()]
    if empty:
        raise DataError(_empty_problem("E243" if role in ("question", "context") else "E210", at, empty, "text"))
    return values


def _empty_problem(code: str, where: str, places: list[str], what: str) -> Problem:
    return Problem(
        code=code,
        where=where,
        found=f"{counted(len(places), f'empty {what}')} ({some_of(places)})",
        expected=f"a {what} in every row",
        hint="data.drop_empty=true leaves these rows out",
    )


def is_text(value: object) -> bool:
    """Bytes of a command line or of stdin that are not UTF-8 arrive as lone surrogates, which no tokenizer takes."""
    if not isinstance(value, str):
        return False
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def label_values(
    dataset: datasets.Dataset, column: str, where: str, place: Place = row_name
) -> list[str] | list[str | tuple[str, ...]]:
    """The labels as texts: strings as they stand, numbers and truth values written out, a ClassLabel by its names.

    A list of labels becomes a tuple of texts; an empty one is a row without labels.
    """
    feature = dataset.features[column]
    inner = getattr(feature, "feature", feature)
    names = _names_of(inner)
    at = f"{where}, column {shown(column)}"
    values = cells_of(dataset, column)
    if names is None and all(type(value) is str and value and not value.isspace() for value in values):
        same: dict[str, str] = {}  # by far the usual case, and a file may have millions of them: each label once
        return [same.setdefault(value, value) for value in values]
    problems = Problems(where)
    parts = [value if isinstance(value, list) else [value] for value in values]
    empty = [index for index, cell in enumerate(parts) if any(_is_no_label(value, names) for value in cell)]
    if empty:
        problems.add(_empty_problem("E211", at, [place(index) for index in empty], "label"))
    others = [
        index
        for index, cell in enumerate(parts)
        if any(value is not None and (not isinstance(value, str | int | float) or value in INFINITE) for value in cell)
        or (names is not None and any(type(value) is int and not NO_LABEL <= value < len(names) for value in cell))
    ]
    if others:
        first = others[0]
        found = f"{shown(values[first])} ({place(first)})"
        expected = "a text, a number, or a list of them"
        if names is not None:
            expected = f"0 to {len(names) - 1}, the numbers of the classes that the column declares"
        problems.add(Problem(code="E205", where=at, found=found, expected=expected))
    problems.raise_if_any()

    return [as_texts(value, names) for value in values]


def labels_as_they_are(dataset: datasets.Dataset, column: str) -> list[Any]:
    """As `label_values`, unchecked: what is no label is None."""
    feature = dataset.features[column]
    names = _names_of(getattr(feature, "feature", feature))
    values = cells_of(dataset, column)
    return [None if _is_no_label(value, names) else as_texts(value, names) for value in values]


def has_no_label(dataset: datasets.Dataset, column: str) -> bool:
    """Whether every cell is empty or the -1 that stands for no label, whatever its type."""
    names = _names_of(dataset.features[column])
    return all(_is_no_label(value, names) or value in (NO_LABEL, str(NO_LABEL)) for value in cells_of(dataset, column))


def as_texts(value: Any, names: Sequence[str] | None) -> Any:
    """A label, or each of a list of them, as a text; `names` are those of a ClassLabel."""
    if isinstance(value, list):
        return tuple(as_texts(one, names) for one in value)
    return names[value] if names is not None else _written(value)


def _is_no_label(value: Any, names: list[str] | None) -> bool:
    if value is None or (names is not None and value == NO_LABEL):
        return True
    if isinstance(value, float):
        return math.isnan(value)  # how pandas writes a missing number
    return isinstance(value, str) and not value.strip()


def _written(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
