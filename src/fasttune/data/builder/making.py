"""A definition -> its splits, changed as it says, and a folder of Parquet files with a card that loads anywhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fasttune.data.builder.definition import SPLITS, Added, Definition, Filter, Resplit, load
from fasttune.data.columns import labels_as_they_are
from fasttune.data.duplicates import exact_groups
from fasttune.data.formats.storage import Reading, is_address
from fasttune.data.labels import is_number
from fasttune.data.sources import load_source
from fasttune.data.splits import grouped_holdout, holdout_together, latest_holdout, merged_groups
from fasttune.errors import DataError, Problem, RecipeError, nearest, shown

if TYPE_CHECKING:
    import datasets

MOST_DERIVED = 20  # definitions that lead from one to the next


@dataclass
class Built:
    """`splits`: name -> rows; `steps`: what was done, in words; `sources`: file -> sha256 of what was read."""

    definition: Definition
    splits: dict[str, datasets.Dataset]
    steps: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)


def build(path: Path, trail: Sequence[Path] = ()) -> Built:
    """Read and change; nothing is written. DataError and RecipeError say what cannot be done."""
    definition = load(path)
    trail = (*trail, path.resolve())
    if len(trail) > MOST_DERIVED or trail[-1] in trail[:-1]:
        found = " from ".join(one.name for one in trail)
        raise RecipeError(Problem(code="E317", where=str(path), found=found, expected="an end: files"))
    if definition.source is not None:
        built = build(path.parent / definition.source, trail)
        made = Built(definition, built.splits, [*built.steps, f"from {_called(built.definition)}"], built.sources)
    else:
        made = _read(definition, path.parent)
    _rename(made, str(path))
    _change_labels(made, str(path))
    for one in definition.filters:
        for split, rows in made.splits.items():
            _check_column(one.column, rows, f"{path}: filters, {split}")
        what = f"rows whose {one.column} does not fit {_words(one)}"
        _keep(made, one.column, _fits(one, str(path)), what, as_texts=True)
    if definition.drop_duplicates:
        _drop_duplicates(made)
    if definition.resplit is not None:
        _resplit(made, definition.resplit, str(path))
    empty = [name for name, rows in made.splits.items() if not rows.num_rows]
    if empty:
        found = f"no rows left in {', '.join(empty)}"
        raise DataError(Problem(code="E104", where=str(path), found=found, expected="rows of data"))
    return made


def _called(definition: Definition) -> str:
    return f"{definition.dataset} {definition.version}"


def _read(definition: Definition, folder: Path) -> Built:
    assert definition.files is not None
    made = Built(definition, {})
    reading = Reading(definition.encoding, definition.header)
    for split, spec in definition.files.items():
        names = [spec] if isinstance(spec, str) else spec
        placed = [name if is_address(name) else str(folder / name) for name in names]
        source = load_source(placed if len(placed) > 1 else placed[0], split, reading)
        made.splits[split] = source.dataset
        made.sources[", ".join(names)] = source.fingerprint
        made.steps += [f"{split}: {source.dataset.num_rows:,} rows of {', '.join(names)}", *source.notes]
    return made


def _rename(made: Built, where: str) -> None:
    import datasets
    import pyarrow as pa

    columns = made.definition.columns
    if columns is None:
        return
    for split, rows in made.splits.items():
        for name in columns.values():
            _check_column(name, rows, f"{where}: columns, {split}")
        features = datasets.Features({new: rows.features[old] for new, old in columns.items()})
        table = rows.with_format("arrow")[:]
        kept = pa.table({new: table.column(old) for new, old in columns.items()}).cast(features.arrow_schema)
        made.splits[split] = datasets.Dataset(kept, info=datasets.DatasetInfo(features=features))
    made.steps.append(f"columns: {', '.join(f'{new} is {old}' for new, old in columns.items())}")


def _check_column(name: str, rows: datasets.Dataset, where: str) -> None:
    if name not in rows.column_names:
        near = nearest(name, rows.column_names)
        expected = f"one of {', '.join(map(shown, rows.column_names))}"
        hint = f"did you mean {near}?" if near else ""
        raise DataError(Problem(code="E202", where=where, found=shown(name), expected=expected, hint=hint))


def _change_labels(made: Built, where: str) -> None:
    definition, label = made.definition, made.definition.label
    if not (definition.add_labels or definition.drop_labels or definition.map_labels):
        return
    for split, rows in made.splits.items():
        for name in (label, *(one.column for one in definition.add_labels)):
            _check_column(name, rows, f"{where}: {split}")
        made.splits[split] = _with_labels(rows, label, labels_as_they_are(rows, label))
    for one in reversed(definition.add_labels):  # the first that fits is the last that is written
        _add_label(made, one, where)
    made.steps += [
        f"label {one.label!r}: rows whose {one.column} matches {one.matches!r}" for one in definition.add_labels
    ]
    if definition.drop_labels:
        _check_known(definition.drop_labels, made, f"{where}: drop_labels")
        dropped = set(definition.drop_labels)
        what = f"rows of {', '.join(definition.drop_labels)}"
        _keep(made, label, lambda value: dropped.isdisjoint(_each(value)), what)
    if definition.map_labels:
        new = definition.map_labels
        _check_known(new, made, f"{where}: map_labels")
        for split, rows in made.splits.items():
            made.splits[split] = _with_labels(rows, label, [_mapped(value, new) for value in rows[label]])
        made.steps.append(f"labels: {', '.join(f'{old} is now {name}' for old, name in new.items())}")


def _each(value: Any) -> list[str]:
    """The labels of one row."""
    return [] if value is None else value if isinstance(value, list) else [value]


def _mapped(value: Any, new: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return list(dict.fromkeys(new.get(one, one) for one in value))
    return new.get(value, value)


def _with_labels(rows: datasets.Dataset, label: str, values: Sequence[Any]) -> datasets.Dataset:
    """The same with these labels, as texts or lists of texts."""
    order = rows.column_names
    lists = any(isinstance(value, list | tuple) for value in values)
    column = [None if value is None else list(value) if lists else value for value in values]
    return rows.remove_columns([label]).add_column(label, column).select_columns(order)


def _add_label(made: Built, one: Added, where: str) -> None:
    pattern, label = _pattern(one.matches, where), made.definition.label
    for split, rows in made.splits.items():
        fits = [pattern.search(str(text)) is not None for text in rows[one.column]]
        lists = hasattr(rows.features[label], "feature")  # also where this row has none
        values = [
            ([*_each(value), one.label] if lists else one.label) if fit else value
            for value, fit in zip(rows[label], fits, strict=True)
        ]
        made.splits[split] = _with_labels(rows, label, values)


def _check_known(names: Sequence[str] | Mapping[str, str], made: Built, where: str) -> None:
    label = made.definition.label
    known = {one for rows in made.splits.values() for value in rows[label] for one in _each(value)}
    unknown = [name for name in names if name not in known]
    if unknown:
        found = f"label {shown(unknown[0])}, which no row has"
        expected = f"one of {', '.join(map(shown, sorted(known)[:20]))}"
        raise DataError(Problem(code="E220", where=where, found=found, expected=expected))


def _pattern(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        expected = "a regular expression"
        raise RecipeError(Problem(code="E317", where=where, found=f"{text!r} ({error})", expected=expected)) from None


def _fits(one: Filter, where: str) -> Callable[[Any], bool]:
    pattern = _pattern(one.matches, f"{where}: filters") if one.matches is not None else None
    values = None if one.one_of is None else set(one.one_of)

    def fits(value: Any) -> bool:
        text = "" if value is None else str(value)
        return (
            (one.min_characters is None or len(text) >= one.min_characters)
            and (one.max_characters is None or len(text) <= one.max_characters)
            and (pattern is None or pattern.search(text) is not None)
            and (values is None or text in values)
        )

    return fits


def _words(one: Filter) -> str:
    given = one.model_dump(exclude={"column"}, exclude_none=True)
    return ", ".join(f"{name} {value}" for name, value in given.items())


def _keep(made: Built, column: str, wanted: Callable[[Any], bool], what: str, as_texts: bool = False) -> None:
    """`as_texts`: values as labels are written, a ClassLabel by its name, true and 1 without a fraction."""
    number = 0
    for split, rows in made.splits.items():
        values = labels_as_they_are(rows, column) if as_texts else rows[column]
        kept = [row for row, value in enumerate(values) if wanted(value)]
        number += rows.num_rows - len(kept)
        made.splits[split] = rows.select(kept)
    made.steps.append(f"{number:,} {what}: left out")


def _drop_duplicates(made: Built) -> None:
    seen: set[str] = set()
    number = 0
    for split in reversed(SPLITS):  # of a row in train and test that of the test split stays
        if split not in made.splits:
            continue
        rows = made.splits[split]
        kept = []
        for position, row in enumerate(rows):
            key = repr(sorted(row.items()))  # files of one set may have their columns in different order
            if key not in seen:
                seen.add(key)
                kept.append(position)
        number += rows.num_rows - len(kept)
        made.splits[split] = rows.select(kept)
    made.steps.append(f"{number:,} rows that repeat another: left out")


def _resplit(made: Built, how: Resplit, where: str) -> None:
    import datasets
    import pyarrow as pa

    try:
        parts = [rows.select_columns(made.splits["train"].column_names) for rows in made.splits.values()]
        rows = datasets.concatenate_datasets(parts)
    except (ValueError, TypeError, pa.ArrowException) as error:
        found = str(error).split("\n")[0][:200]
        expected = "splits with the same columns of the same types, to draw new ones from"
        raise DataError(Problem(code="E128", where=where, found=found, expected=expected)) from None
    made.splits = {}
    left = 1.0
    for name, fraction in (("test", how.test_fraction), ("validation", how.validation_fraction)):
        if fraction:
            kept, held_out = _drawn(rows, how, fraction / left, made.definition.label, where)
            made.splits[name], rows = rows.select(held_out), rows.select(kept)
            left -= fraction
    made.splits = {"train": rows, **dict(reversed(made.splits.items()))}
    by = f"by {how.group}" if how.group else f"by {how.time}" if how.time else "stratified by label"
    made.steps.append(f"new splits {by}, seed {how.seed}")


def _drawn(
    rows: datasets.Dataset, how: Resplit, fraction: float, label: str, where: str
) -> tuple[list[int], list[int]]:
    """As the rows of a run are drawn (tasks/splitting.py), by the columns there are."""
    for name in (how.group, how.time):
        if name is not None:
            _check_column(name, rows, f"{where}: resplit")
    if how.group is not None:
        return grouped_holdout(merged_groups([rows[how.group]]), fraction, how.seed, where)
    if how.time is not None:
        return latest_holdout(rows[how.time][:], fraction, where, lambda row: f"row {row + 1} of all together")
    values = labels_as_they_are(rows, label) if label in rows.column_names else [None] * rows.num_rows
    strata, names = _strata(values)
    # Rows that a model reads alike: by their texts, and of questions by the context, whatever id or number they have.
    texts = _input_texts(rows, label)
    if texts == ["context"]:
        return grouped_holdout(rows["context"], fraction, how.seed, where)
    same = exact_groups("\n".join(str(row[name]) for name in texts) for row in rows.select_columns(texts))
    return holdout_together(same, strata, fraction, how.seed, names, where)


def _strata(values: Sequence[Any]) -> tuple[list[int], list[str]]:
    """What each side of a split is to have the same share of, and its names: classes, or parts of other targets."""
    if any(isinstance(value, list | tuple) for value in values):
        counts = Counter(one for value in values for one in _each(value))
        rarest = [min(_each(value), key=lambda one: (counts[one], one), default="") for value in values]
        number = {name: place for place, name in enumerate(sorted({*rarest}))}
        return [number[name] for name in rarest], []
    written = [str(value) for value in values]
    if all(map(is_number, written)) and any(float(value) % 1 for value in written):
        numbers = [float(value) for value in written]
        edges = np.quantile(numbers, np.linspace(0, 1, 11)[1:-1])
        return np.searchsorted(edges, numbers).tolist(), []
    names = sorted(set(written))
    number = {name: place for place, name in enumerate(names)}
    return [number[value] for value in written], names


def _input_texts(rows: datasets.Dataset, label: str) -> list[str]:
    """The columns that a task reads: of questions the context, otherwise those of text, or all where there is none."""
    if {"question", "context"} <= set(rows.column_names):
        return ["context"]
    others = [name for name in rows.column_names if name != label and name.lower() not in ("id", "idx", "index")]
    texts = [
        name for name in others if getattr(rows.features[name], "dtype", "list") in ("string", "large_string", "list")
    ]
    return texts or others or rows.column_names
