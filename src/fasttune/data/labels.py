"""The classes of a data set: their names, order and numbers.

A data set that declares its classes (a ClassLabel column) keeps their order. Otherwise numbers are ordered by value and
names alphabetically. `label_names` overrides both. Labels that differ only in case, spaces or leading zeros are an
error and are never merged: only the user knows whether `pos` and `Pos ` are one class.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from fasttune.data.formats.text_file import Place
from fasttune.data.problems import Problems, counted, row_name, some_of
from fasttune.errors import DataError, Problem, shown, suggestion

MAX_CLASSES = 500
MIN_CLASS_LIMIT = 5  # up to this many classes never look like texts or ids, however few the rows
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MAPPING_EXAMPLE = "'data.label_names={1: bad, 2: good}'"

LabelNames = Sequence[Any] | Mapping[Any, Any]


@dataclass(frozen=True)
class Vocabulary:
    """The display name of each class number (`names`), and the number of each value of the training data (`index`).

    A saved run keeps both, so that training, evaluation, prediction and later runs read labels the same way.
    """

    names: tuple[str, ...]
    index: dict[str, int]

    @property
    def by_name(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def index_for(self, values: Collection[str]) -> Mapping[str, int]:
        """The index for the labels of one file: by training value or, if all of them are display names, by name.

        The two never mix: with the values 0 to 4 named "1" to "5", a "3" could mean two classes.
        """
        by_name = self.by_name
        is_named = not all(value in self.index for value in values) and all(value in by_name for value in values)
        return by_name if is_named else self.index


def label_vocabulary(
    values: Sequence[str],
    label_names: LabelNames | None = None,
    where: str = "labels",
    role: str = "label",
    class_names: Sequence[str] | None = None,
) -> Vocabulary:
    """The vocabulary of the labels of the training rows; DataError if they cannot be classes.

    `role`: the role of their column. `class_names`: the classes that the data set declares, in its order.
    """
    counts = Counter(values)
    problems = Problems(where)
    if len(counts) == 1:
        only = next(iter(counts))
        found = f"all {len(values):,} rows have the label {shown(only)}"
        hint = f"add rows of other classes, or name another column: data.columns.{role}=..."
        problems.add(Problem(code="E212", where=where, found=found, hint=hint))
    if class_names is not None:
        vocabulary = _declared(tuple(class_names), label_names, problems)
    elif label_names is not None:
        vocabulary = _named(counts, label_names, where, problems)
    else:
        problems.add(*_implausible_classes(counts, len(values), where, role))
        ordered = sorted(counts, key=_order) if all(map(is_number, counts)) else sorted(counts)
        vocabulary = Vocabulary(tuple(ordered), {name: number for number, name in enumerate(ordered)})
    problems.raise_if_any()
    return vocabulary


def encode_labels(values: Sequence[str], vocabulary: Vocabulary, where: str, place: Place = row_name) -> list[int]:
    """The class number of each row; DataError for unknown labels and for rows with several."""
    check_one_each(values, where, place)
    known = list(map(vocabulary.index.get, values))
    if None not in known:
        return known  # type: ignore[return-value]
    return [numbers[0] for numbers in encode_all([(value,) for value in values], vocabulary, where, place)]


def check_one_each(cells: Sequence[Any], where: str, place: Place = row_name) -> None:
    """DataError if a row has a list of labels."""
    several = [row for row, cell in enumerate(cells) if not isinstance(cell, str)]
    if several:
        found = f"{shown(list(cells[several[0]]))} ({some_of([place(row) for row in several])})"
        expected = "one label per row, a text or a number"
        hint = "lists of labels need problem=multi-label"
        raise DataError(Problem(code="E205", where=where, found=found, expected=expected, hint=hint))


def encode_all(
    cells: Sequence[Sequence[str]], vocabulary: Vocabulary, where: str, place: Place = row_name
) -> list[list[int]]:
    """The class numbers of each row; DataError for labels that training never saw, as no prediction could be right."""
    index = vocabulary.index_for({label for labels in cells for label in labels})
    unseen: dict[str, list[int]] = {}
    for row, labels in enumerate(cells):
        for label in labels:
            if label not in index:
                unseen.setdefault(label, []).append(row)
    problems = Problems(where)
    for value, rows in unseen.items():
        seen_in = f"{counted(len(rows), 'row')} (first: {place(rows[0])})"
        problems.add(
            Problem(
                code="E214",
                where=where,
                found=f"label {shown(value)} in {seen_in}, never in the training data",
                expected=f"one of {_listed(list(index))}",
                hint=_unicode_hint(value, index)
                or suggestion(value, index)
                or "add training rows with this label, or remove these rows",
            )
        )
    problems.raise_if_any()
    return [[index[label] for label in labels] for labels in cells]


def _unicode_hint(value: str, known: Iterable[str]) -> str:
    """A hint if a label is a known one in another Unicode form, else ""."""
    same = [name for name in known if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", value)]
    return "normalize labels with unicodedata.normalize('NFC', label): only the Unicode form differs" if same else ""


def _listed(names: list[str]) -> str:
    return some_of([shown(name) for name in names])


def is_number(value: str) -> bool:
    return bool(NUMBER.fullmatch(value.strip()))


def _order(value: str) -> tuple[Decimal, str]:
    return Decimal(value), value


def _implausible_classes(counts: Counter[str], num_rows: int, where: str, role: str) -> list[Problem]:
    """Reasons why these values are probably not classes: too many of them, or several that look alike."""
    problems = []
    if len(counts) > MAX_CLASSES or len(counts) > max(MIN_CLASS_LIMIT, num_rows / 2):
        hint = f"name the column: data.columns.{role}=..."
        if role == "label" and all(map(is_number, counts)):
            hint += ", or predict the numbers themselves: problem=regression"
        return [
            Problem(
                code="E216",
                where=where,
                found=f"{len(counts):,} different labels in {num_rows:,} rows, such as {_listed(list(counts))}",
                expected=f"at most {MAX_CLASSES} classes with several rows each: these look like texts or ids",
                hint=hint,
            )
        ]
    alike: dict[object, list[str]] = {}
    for value in counts:
        alike.setdefault(_look(value), []).append(value)
    for group in alike.values():
        if len(group) > 1:
            most_frequent = sorted(group, key=lambda value: -counts[value])[:2]
            both = " and ".join(f"{shown(value)} ({counted(counts[value], 'row')})" for value in most_frequent)
            problems.append(
                Problem(
                    code="E215",
                    where=where,
                    found=f"labels {both} look alike",
                    hint="spell them the same; if they are different classes, list all labels in data.label_names",
                )
            )
    return problems


def _look(value: str) -> object:
    """A key that ignores case, extra spaces, compatibility forms and the notation of a number (01 = 1 = 1.0)."""
    text = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    return Decimal(text).normalize() if is_number(text) else text


def _text(value: object) -> str:
    """A value of `label_names`, which YAML may read as a number or a truth value, in the form of `label_values`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _declared(class_names: tuple[str, ...], label_names: LabelNames | None, problems: Problems) -> Vocabulary:
    """The classes of a ClassLabel, in their order or as `label_names` renames or reorders them."""
    numbers = {str(number): name for number, name in enumerate(class_names)}
    label_names = class_names if label_names is None else label_names
    if isinstance(label_names, Mapping):
        given = {_text(value): _text(name) for value, name in label_names.items()}
        renamed = {
            numbers.get(value, value) if value not in class_names else value: name for value, name in given.items()
        }
        missing = [name for name in class_names if name not in renamed]
        unknown = [value for value in renamed if value not in class_names]
        names = tuple(dict.fromkeys(renamed.values()))
    else:
        names = tuple(_text(name) for name in label_names)
        is_order = set(names) == set(class_names)  # otherwise they are new names, in the order of the classes
        renamed = dict(zip(class_names, class_names if is_order else names, strict=False))
        missing = list(class_names[len(names) :])
        unknown = list(names[len(class_names) :])
    if missing or unknown:
        wrong = f"{shown(unknown[0])} is not a class" if unknown else f"class {shown(missing[0])} has no name"
        found = f"{wrong}; the classes are {_listed(list(class_names))}"
        problems.add(Problem(code="E220", where="data.label_names", found=found))
    index = {name: names.index(renamed[name]) for name in class_names if name in renamed}
    if not any(map(is_number, class_names)):  # other files of the data set often hold the class numbers
        index |= {number: index[name] for number, name in numbers.items() if name in index}
    return Vocabulary(names, index)


def _named(counts: Counter[str], label_names: LabelNames, where: str, problems: Problems) -> Vocabulary:
    if isinstance(label_names, Mapping):
        by_value = {_text(value): _text(name) for value, name in label_names.items()}
        # Two values with one name become one class.
        names = tuple(dict.fromkeys(by_value.values()))
        index = {value: names.index(name) for value, name in by_value.items()}
        hint = "data.label_names needs an entry for every label of the data"
    else:
        names = tuple(_text(name) for name in label_names)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            found = f"{shown(twice[0])} is listed twice"
            problems.add(Problem(code="E221", where="data.label_names", found=found))
        numbers = {str(number): number for number in range(len(names))}
        # A list of the labels themselves sets their order, even if they are numbers.
        by_number = not set(counts) <= set(names) and set(counts) <= set(numbers)
        index = numbers if by_number else {name: number for number, name in enumerate(names)}
        numeric = all(map(is_number, counts))
        hint = f"map each label to its name: {MAPPING_EXAMPLE}" if numeric else ""
    for value, count in counts.items():
        if value not in index:
            problems.add(
                Problem(
                    code="E220",
                    where=where,
                    found=f"label {shown(value)} in {counted(count, 'row')}, which data.label_names does not list",
                    expected=f"one of {_listed(list(index))}",
                    hint=hint or suggestion(value, index),
                )
            )
    return Vocabulary(names, index)
