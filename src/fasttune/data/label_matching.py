"""Labels of another file, matched with the classes of a finished run: `5` is `5 stars`, and `POS` is `pos`."""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

from fasttune.data.formats.text_file import Place
from fasttune.data.label_kinds import Cell, parts_of
from fasttune.data.labels import Vocabulary, is_number
from fasttune.data.problems import counted, some_of
from fasttune.errors import DataError, Problem, nearest, shown
from fasttune.recipe.yaml_text import write_inline

# A label with one of these words means the opposite of the label without it.
NEGATIONS = frozenset(("not", "no", "non", "never", "without", "nicht", "kein", "keine", "pas", "ne", "sin", "не"))
LABELS_SHOWN = 20  # in a note or a message

Words = tuple[str, ...]


def as_labels_of_run(
    cells: Sequence[Cell],
    vocabulary: Vocabulary,
    separator: str | None,
    given: Mapping[str, str],
    where: str,
    place: Place,
) -> tuple[Sequence[Cell], str]:
    """The labels of a file written as the run's own, and a note on the mapping ("" if there is none).

    `given`: names of the run for labels of the file. Other labels that the run does not know are matched if exactly one
    assignment is possible; otherwise DataError lists them.
    """
    first_row: dict[str, int] = {}
    for row, cell in enumerate(cells):
        for label in parts_of(cell, separator):
            first_row.setdefault(label, row)
    rest = [label for label in first_row if label not in given]
    index = vocabulary.index_for(rest)
    unknown = [label for label in rest if label not in index]
    if not given and not unknown:
        return cells, ""
    matched = {label: index[label] for label in rest} if not unknown else match_labels(rest, vocabulary)
    if matched is None:
        raise DataError(_unknown_labels(unknown, first_row, vocabulary, given, where, place))
    classes = matched | {label: vocabulary.by_name[given[label]] for label in first_row if label in given}
    written = {number: value for value, number in reversed(vocabulary.index.items())}  # as in the training data
    mapped = [tuple(written[classes[label]] for label in parts_of(cell, separator)) for cell in cells]
    pairs = [(label, vocabulary.names[number]) for label, number in classes.items()]
    listed = some_of([f"{shown(label)} -> {shown(name)}" for label, name in pairs if label != name], LABELS_SHOWN)
    is_list = separator is not None or any(not isinstance(cell, str) for cell in cells)
    return (mapped if is_list else [labels[0] for labels in mapped]), f"{where}: labels read as the run's: {listed}"


def match_labels(labels: Collection[str], vocabulary: Vocabulary) -> dict[str, int] | None:
    """The class of each label, different for each, if exactly one assignment is possible; else None.

    Labels match by their words, or all of them are class numbers.
    """
    possible = [found for found in (_by_words(labels, vocabulary), _by_number(labels, vocabulary)) if found is not None]
    return possible[0] if possible and all(found == possible[0] for found in possible) else None


def _by_number(labels: Collection[str], vocabulary: Vocabulary) -> dict[str, int] | None:
    numbers = {str(number): number for number in range(len(vocabulary.names))}
    return {label: numbers[label] for label in labels} if all(label in numbers for label in labels) else None


def _by_words(labels: Collection[str], vocabulary: Vocabulary) -> dict[str, int] | None:
    """Equal words first; else words that begin or end with the others, if the same words are left over everywhere."""
    found: dict[str, int] = {}
    left_over = set()
    for label in labels:
        candidates = _candidates(label, vocabulary)
        if len({number for number, _ in candidates}) != 1:
            return None
        found[label], extra = candidates[0]
        left_over.add(extra)
    is_one_to_one = len(set(found.values())) == len(found)
    return found if is_one_to_one and len(left_over - {()}) <= 1 else None


def _candidates(label: str, vocabulary: Vocabulary) -> list[tuple[int, Words]]:
    """Classes that the label may mean, each with the words that one of the two has and the other lacks."""
    spelt = [*vocabulary.by_name.items(), *vocabulary.index.items()]
    words = _words_of(label)
    pairs = [(number, extra) for name, number in spelt if (extra := _extra(words, _words_of(name))) is not None]
    return [pair for pair in pairs if not pair[1]] or pairs


def _extra(one: Words, other: Words) -> Words | None:
    """The words left over if one begins or ends with the other, without a plural s; None if it does not."""
    shorter, longer = sorted((one, other), key=len)
    if longer[: len(shorter)] == shorter:
        extra = longer[len(shorter) :]
    elif longer[len(longer) - len(shorter) :] == shorter:
        extra = longer[: len(longer) - len(shorter)]
    else:
        return None
    if not shorter or NEGATIONS.intersection(extra):
        return None
    return tuple(word.removesuffix("s") for word in extra)


def _words_of(label: str) -> Words:
    """Words without case and compatibility forms; numbers in one notation (01 = 1 = 1.0)."""
    words = unicodedata.normalize("NFKC", label).casefold().replace("_", " ").split()
    return tuple(str(Decimal(word).normalize()) if is_number(word) else word for word in words)


def _unknown_labels(
    unknown: Sequence[str],
    first_row: Mapping[str, int],
    vocabulary: Vocabulary,
    given: Mapping[str, str],
    where: str,
    place: Place,
) -> Problem:
    names = list(vocabulary.names)
    listed = some_of([f"{shown(label)} (first: {place(first_row[label])})" for label in unknown], LABELS_SHOWN)
    table: dict[str, Any] = dict(given)
    for label in unknown[:LABELS_SHOWN]:
        candidates = {number for number, _ in _candidates(label, vocabulary)}
        table[label] = names[candidates.pop()] if len(candidates) == 1 else nearest(label, names) or "LABEL"
    if len(table) == 1:  # a table has at least two entries
        table |= {name: name for name in names[:2] if name not in table}
    return Problem(
        code="E214",
        where=where,
        found=f"{counted(len(unknown), 'label')} that the run does not know: {listed}; its labels are "
        f"{some_of([shown(name) for name in names], LABELS_SHOWN)}",
        hint=shlex.quote(f"data.label_names={write_inline(table)}"),
    )


def names_given(table: Mapping[Any, Any], vocabulary: Vocabulary) -> dict[str, str]:
    """`data.label_names` of `evaluate`: labels of the file -> names of the run; DataError for other names."""
    given = {_text(label): _text(name) for label, name in table.items()}
    wrong = [name for name in given.values() if name not in vocabulary.names]
    if wrong:
        expected = f"a label of the run: {some_of([shown(name) for name in vocabulary.names], LABELS_SHOWN)}"
        raise DataError(Problem(code="E220", where="data.label_names", found=shown(wrong[0]), expected=expected))
    return given


def _text(value: object) -> str:
    """A value of a recipe as the label it stands for."""
    return ("true" if value else "false") if isinstance(value, bool) else str(value)
