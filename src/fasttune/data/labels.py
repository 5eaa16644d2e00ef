"""The classes: which labels there are, their order and their numbers.

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
ALWAYS_FINE = 5  # classes: so few are never taken for texts or ids, however few rows there are
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)
MAPPING_EXAMPLE = "'data.label_names={1: bad, 2: good}'"

LabelNames = Sequence[Any] | Mapping[Any, Any]


@dataclass(frozen=True)
class Vocabulary:
    """`names[number]` is what people read; `index` maps a value of the training data to its number.

    A saved run keeps both, so that training, evaluation, prediction and a later run read a label alike.
    """

    names: tuple[str, ...]
    index: dict[str, int]

    @property
    def by_name(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.names)}

    def index_for(self, values: Collection[str]) -> Mapping[str, int]:
        """How to read these labels, all of one file: as the training data wrote them or, if all are names, by name.

        Never a mixture: with the values 0 to 4 named "1" to "5", a "3" means one class in one file and another class
        in the other.
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
    """`role`: that of their column. `class_names`: the classes that the data set declares, in its own order."""
    counts = Counter(values)
    problems = Problems(where)
    if len(counts) == 1:
        only = next(iter(counts))
        found = f"{shown(only)} as the label of all {len(values):,} rows"
        hint = f"add rows of other classes, or name another column: data.columns.{role}=..."
        problems.add(Problem(code="E212", where=where, found=found, expected="two classes or more", hint=hint))
    if class_names is not None:
        vocabulary = _declared(tuple(class_names), label_names, problems)
    elif label_names is not None:
        vocabulary = _named(counts, label_names, where, problems)
    else:
        problems.add(*_doubts(counts, len(values), where, role))
        ordered = sorted(counts, key=_order) if all(map(is_number, counts)) else sorted(counts)
        vocabulary = Vocabulary(tuple(ordered), {name: number for number, name in enumerate(ordered)})
    problems.raise_if_any()
    return vocabulary


def encode_labels(values: Sequence[str], vocabulary: Vocabulary, where: str, place: Place = row_name) -> list[int]:
    """One label a row -> class numbers."""
    check_one_each(values, where, place)
    known = list(map(vocabulary.index.get, values))
    if None not in known:
        return known  # type: ignore[return-value]
    return [numbers[0] for numbers in encode_all([(value,) for value in values], vocabulary, where, place)]


def check_one_each(cells: Sequence[Any], where: str, place: Place = row_name) -> None:
    several = [row for row, cell in enumerate(cells) if not isinstance(cell, str)]
    if several:
        found = f"{shown(list(cells[several[0]]))} ({some_of([place(row) for row in several])})"
        expected = "one label a row: a text or a number"
        hint = "lists of labels are for problem=multi-label"
        raise DataError(Problem(code="E205", where=where, found=found, expected=expected, hint=hint))


def encode_all(
    cells: Sequence[Sequence[str]], vocabulary: Vocabulary, where: str, place: Place = row_name
) -> list[list[int]]:
    """The labels of each row -> class numbers.

    A label that training never saw is an error, since no prediction could be right.
    """
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
                hint=_other_form(value, index)
                or suggestion(value, index)
                or "add rows of it to the training data, or take these rows out",
            )
        )
    problems.raise_if_any()
    return [[index[label] for label in labels] for labels in cells]


def _other_form(value: str, known: Iterable[str]) -> str:
    """What to do where a label is one of the known ones, its accents written otherwise."""
    same = [name for name in known if unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", value)]
    return "write it as unicodedata.normalize('NFC', label): its accents are written otherwise there" if same else ""


def _listed(names: list[str]) -> str:
    return some_of([shown(name) for name in names])


def is_number(value: str) -> bool:
    return bool(NUMBER.fullmatch(value.strip()))


def _order(value: str) -> tuple[Decimal, str]:
    return Decimal(value), value


def _doubts(counts: Counter[str], num_rows: int, where: str, role: str) -> list[Problem]:
    """What speaks against these values being classes."""
    problems = []
    if len(counts) > MAX_CLASSES or len(counts) > max(ALWAYS_FINE, num_rows / 2):
        return [
            Problem(
                code="E216",
                where=where,
                found=f"{len(counts):,} different labels in {num_rows:,} rows, such as {_listed(list(counts))}",
                expected=f"at most {MAX_CLASSES} classes, each of several rows: these look like texts or ids",
                hint=f"name the column: data.columns.{role}=..."
                + (
                    ", or learn the numbers themselves: problem=regression"
                    if role == "label" and all(map(is_number, counts))
                    else ""
                ),
            )
        ]
    alike: dict[object, list[str]] = {}
    for value in counts:
        alike.setdefault(_look(value), []).append(value)
    for group in alike.values():
        if len(group) > 1:
            both = sorted(group, key=lambda value: -counts[value])[:2]
            problems.append(
                Problem(
                    code="E215",
                    where=where,
                    found=" and ".join(f"{shown(value)} ({counted(counts[value], 'row')})" for value in both),
                    expected="labels that do not look alike",
                    hint="write them alike; if they are different classes, list all labels in data.label_names",
                )
            )
    return problems


def _look(value: str) -> object:
    """What a reader takes in at a glance: no case, no outer or double spaces, no compatibility forms, 01 = 1 = 1.0."""
    text = " ".join(unicodedata.normalize("NFKC", value).casefold().split())
    return Decimal(text).normalize() if is_number(text) else text


def _text(value: object) -> str:
    """A value of `label_names`, which YAML may have read as a number or a truth value, as `label_values` writes it."""
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
        is_order = set(names) == set(class_names)  # otherwise new names, in the order of the classes
        renamed = dict(zip(class_names, class_names if is_order else names, strict=False))
        missing = list(class_names[len(names) :])
        unknown = list(names[len(class_names) :])
    if missing or unknown:
        found = f"{shown(unknown[0])}, which is none of them" if unknown else f"no name for {shown(missing[0])}"
        expected = f"a name for each of its classes: {_listed(list(class_names))}"
        problems.add(Problem(code="E220", where="data.label_names", found=found, expected=expected))
    index = {name: names.index(renamed[name]) for name in class_names if name in renamed}
    if not any(map(is_number, class_names)):  # files of the same data set often hold the numbers instead
        index |= {number: index[name] for number, name in numbers.items() if name in index}
    return Vocabulary(names, index)


def _named(counts: Counter[str], label_names: LabelNames, where: str, problems: Problems) -> Vocabulary:
    if isinstance(label_names, Mapping):
        by_value = {_text(value): _text(name) for value, name in label_names.items()}
        # Two values may have one name: that merges them.
        names = tuple(dict.fromkeys(by_value.values()))
        index = {value: names.index(name) for value, name in by_value.items()}
        hint = "data.label_names needs an entry for each label of the data"
    else:
        names = tuple(_text(name) for name in label_names)
        twice = [name for name, count in Counter(names).items() if count > 1]
        if twice:
            found = f"{shown(twice[0])} twice"
            problems.add(Problem(code="E221", where="data.label_names", found=found, expected="each name once"))
        numbers = {str(number): number for number in range(len(names))}
        # A list of the labels themselves gives their order, also where they are numbers.
        by_number = not set(counts) <= set(names) and set(counts) <= set(numbers)
        index = numbers if by_number else {name: number for number, name in enumerate(names)}
        numeric = all(map(is_number, counts))
        hint = f"say which label has which name: {MAPPING_EXAMPLE}" if numeric else ""
    for value, count in counts.items():
        if value not in index:
            problems.add(
                Problem(
                    code="E220",
                    where=where,
                    found=f"label {shown(value)} in {counted(count, 'row')}, which data.label_names lacks",
                    expected=f"one of {_listed(list(index))}",
                    hint=hint or suggestion(value, index),
                )
            )
    return Vocabulary(names, index)
