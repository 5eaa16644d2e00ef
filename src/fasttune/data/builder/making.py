"""Build a dataset from its definition: read the splits and make the changes."""

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
from fasttune.data.formats.storage import ReadOptions, is_address
from fasttune.data.labels import is_number
from fasttune.data.sources import load_source
from fasttune.data.splits import grouped_holdout, holdout_together, latest_holdout, merged_groups
from fasttune.errors import DataError, Problem, RecipeError, nearest, shown

if TYPE_CHECKING:
    import datasets

MOST_DERIVED = 20  # definitions in a chain of `from`


@dataclass
class Built:
    """A built dataset. `splits`: name -> rows; `steps`: what was done, for the card; `sources`: file -> sha256."""

    definition: Definition
    splits: dict[str, datasets.Dataset]
    steps: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)


def build(path: Path, trail: Sequence[Path] = ()) -> Built:
    """Read the data and make the changes; nothing is written. `trail`: the definitions that led here by `from`."""
    definition = load(path)
    trail = (*trail, path.resolve())
    if len(trail) > MOST_DERIVED or trail[-1] in trail[:-1]:
        chain = " from ".join(definition_path.name for definition_path in trail)
        problem = "form a cycle" if trail[-1] in trail[:-1] else f"form a chain of more than {MOST_DERIVED}"
        raise RecipeError(Problem(code="E317", where=str(path), found=f"definitions {problem}: {chain}"))
    if definition.source is not None:
        built = build(path.parent / definition.source, trail)
        made = Built(definition, built.splits, [*built.steps, f"from {_called(built.definition)}"], built.sources)
    else:
        made = _read(definition, path.parent)
    _rename(made, str(path))
    _change_labels(made, str(path))
    for condition in definition.filters:
        for split, rows in made.splits.items():
            _check_column(condition.column, rows, f"{path}: filters, {split}")
        removed = f"rows whose {condition.column} does not meet {_words(condition)}"
        _keep(made, condition.column, _fits(condition, str(path)), removed, as_texts=True)
    if definition.drop_duplicates:
        _drop_duplicates(made)
    if definition.resplit is not None:
        _resplit(made, definition.resplit, str(path))
    empty = [name for name, rows in made.splits.items() if not rows.num_rows]
    if empty:
        raise DataError(Problem(code="E104", where=str(path), found=f"no rows are left in {', '.join(empty)}"))
    return made


def _called(definition: Definition) -> str:
    return f"{definition.dataset} {definition.version}"


def _read(definition: Definition, folder: Path) -> Built:
    assert definition.files is not None
    made = Built(definition, {})
    reading = ReadOptions(definition.encoding, definition.header)
    for split, spec in definition.files.items():
        names = [spec] if isinstance(spec, str) else spec
        placed = [name if is_address(name) else str(folder / name) for name in names]
        source = load_source(placed if len(placed) > 1 else placed[0], split, reading)
        made.splits[split] = source.dataset
        made.sources[", ".join(names)] = source.fingerprint
        made.steps += [f"{split}: {source.dataset.num_rows:,} rows from {', '.join(names)}", *source.notes]
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
    made.steps.append(f"columns: {', '.join(f'{new} from {old}' for new, old in columns.items())}")


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
        for name in (label, *(added.column for added in definition.add_labels)):
            _check_column(name, rows, f"{where}: {split}")
        made.splits[split] = _with_labels(rows, label, labels_as_they_are(rows, label))
    for added in reversed(definition.add_labels):  # the first that matches is written last
        _add_label(made, added, where)
    for added in definition.add_labels:
        made.steps.append(f"added label {added.label!r} to rows whose {added.column} matches {added.matches!r}")
    if definition.drop_labels:
        _check_known(definition.drop_labels, made, f"{where}: drop_labels")
        dropped = set(definition.drop_labels)
        removed = f"rows labelled {', '.join(definition.drop_labels)}"
        _keep(made, label, lambda value: dropped.isdisjoint(_each(value)), removed)
    if definition.map_labels:
        new = definition.map_labels
        _check_known(new, made, f"{where}: map_labels")
        for split, rows in made.splits.items():
            made.splits[split] = _with_labels(rows, label, [_mapped(value, new) for value in rows[label]])
        made.steps.append(f"renamed labels: {', '.join(f'{old} to {name}' for old, name in new.items())}")


def _each(value: Any) -> list[str]:
    """Return the labels of a row as a list."""
    if value is None:
        return []
    return value if isinstance(value, list) else [value]


def _mapped(value: Any, new: Mapping[str, str]) -> Any:
    if isinstance(value, list):
        return list(dict.fromkeys(new.get(name, name) for name in value))
    return new.get(value, value)


def _with_labels(rows: datasets.Dataset, label: str, values: Sequence[Any]) -> datasets.Dataset:
    """Return the rows with these labels, as strings or lists of strings."""
    order = rows.column_names
    column = list(values)
    if any(isinstance(value, list | tuple) for value in values):
        column = [None if value is None else list(value) for value in values]
    return rows.remove_columns([label]).add_column(label, column).select_columns(order)


def _add_label(made: Built, added: Added, where: str) -> None:
    pattern, label = _pattern(added.matches, where), made.definition.label
    for split, rows in made.splits.items():
        is_multi_label = hasattr(rows.features[label], "feature")
        values = []
        for value, text in zip(rows[label], rows[added.column], strict=True):
            if pattern.search(str(text)) is None:
                values.append(value)
            else:
                values.append([*_each(value), added.label] if is_multi_label else added.label)
        made.splits[split] = _with_labels(rows, label, values)


def _check_known(names: Sequence[str] | Mapping[str, str], made: Built, where: str) -> None:
    label = made.definition.label
    known = {name for rows in made.splits.values() for value in rows[label] for name in _each(value)}
    unknown = [name for name in names if name not in known]
    if unknown:
        found = f"label {shown(unknown[0])}, which occurs in no row"
        expected = f"one of {', '.join(map(shown, sorted(known)[:20]))}"
        raise DataError(Problem(code="E220", where=where, found=found, expected=expected))


def _pattern(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        expected = "a valid regular expression"
        raise RecipeError(Problem(code="E317", where=where, found=f"{text!r} ({error})", expected=expected)) from None


def _fits(condition: Filter, where: str) -> Callable[[Any], bool]:
    pattern = _pattern(condition.matches, f"{where}: filters") if condition.matches is not None else None
    values = None if condition.one_of is None else set(condition.one_of)

    def fits(value: Any) -> bool:
        text = "" if value is None else str(value)
        return (
            (condition.min_characters is None or len(text) >= condition.min_characters)
            and (condition.max_characters is None or len(text) <= condition.max_characters)
            and (pattern is None or pattern.search(text) is not None)
            and (values is None or text in values)
        )

    return fits


def _words(condition: Filter) -> str:
    given = condition.model_dump(exclude={"column"}, exclude_none=True)
    return ", ".join(f"{name} {value}" for name, value in given.items())


def _keep(made: Built, column: str, wanted: Callable[[Any], bool], removed: str, as_texts: bool = False) -> None:
    """Keep the rows whose value is `wanted`; `removed` describes the others.

    `as_texts`: compare values as labels are written: a ClassLabel by its name, `true`, and 1.0 as `1`.
    """
    number = 0
    for split, rows in made.splits.items():
        values = labels_as_they_are(rows, column) if as_texts else rows[column]
        kept = [row for row, value in enumerate(values) if wanted(value)]
        number += rows.num_rows - len(kept)
        made.splits[split] = rows.select(kept)
    made.steps.append(f"removed {number:,} {removed}")


def _drop_duplicates(made: Built) -> None:
    seen: set[str] = set()
    number = 0
    for split in reversed(SPLITS):  # a row that is in both train and test stays in test
        if split not in made.splits:
            continue
        rows = made.splits[split]
        kept = []
        for position, row in enumerate(rows):
            key = repr(sorted(row.items()))  # the order of the columns may differ between files
            if key not in seen:
                seen.add(key)
                kept.append(position)
        number += rows.num_rows - len(kept)
        made.splits[split] = rows.select(kept)
    made.steps.append(f"removed {number:,} duplicate rows")


def _resplit(made: Built, options: Resplit, where: str) -> None:
    import datasets
    import pyarrow as pa

    try:
        parts = [rows.select_columns(made.splits["train"].column_names) for rows in made.splits.values()]
        rows = datasets.concatenate_datasets(parts)
    except (ValueError, TypeError, pa.ArrowException) as error:
        message = str(error).split("\n")[0][:200]
        found = f"new splits need the same columns and types in all splits: {message}"
        raise DataError(Problem(code="E128", where=where, found=found)) from None
    made.splits = {}
    left = 1.0
    for name, fraction in (("test", options.test_fraction), ("validation", options.validation_fraction)):
        if fraction:
            kept, held_out = _drawn(rows, options, fraction / left, made.definition.label, where)
            made.splits[name], rows = rows.select(held_out), rows.select(kept)
            left -= fraction
    made.splits = {"train": rows, **dict(reversed(made.splits.items()))}
    criterion = f"by {options.group or options.time}" if options.group or options.time else "stratified by label"
    made.steps.append(f"new splits {criterion}, seed {options.seed}")


def _drawn(
    rows: datasets.Dataset, options: Resplit, fraction: float, label: str, where: str
) -> tuple[list[int], list[int]]:
    """Draw (kept, held-out) rows by the rules that a run uses."""
    for name in (options.group, options.time):
        if name is not None:
            _check_column(name, rows, f"{where}: resplit")
    if options.group is not None:
        return grouped_holdout(merged_groups([rows[options.group]]), fraction, options.seed, where)
    if options.time is not None:
        return latest_holdout(rows[options.time][:], fraction, where, lambda row: f"row {row + 1} of all splits")
    values = labels_as_they_are(rows, label) if label in rows.column_names else [None] * rows.num_rows
    strata, names = _strata(values)
    # Rows with the same texts, or questions with the same context, go to the same split.
    texts = _input_texts(rows, label)
    if texts == ["context"]:
        return grouped_holdout(rows["context"], fraction, options.seed, where)
    same = exact_groups("\n".join(str(row[name]) for name in texts) for row in rows.select_columns(texts))
    return holdout_together(same, strata, fraction, options.seed, names, where)


def _strata(values: Sequence[Any]) -> tuple[list[int], list[str]]:
    """Return the stratum of each row, and the names of the strata: classes, rarest labels, or tenths of numbers."""
    if any(isinstance(value, list | tuple) for value in values):
        counts = Counter(name for value in values for name in _each(value))
        rarest = [min(_each(value), key=lambda name: (counts[name], name), default="") for value in values]
        number = {name: index for index, name in enumerate(sorted({*rarest}))}
        return [number[name] for name in rarest], []
    written = [str(value) for value in values]
    if all(map(is_number, written)) and any(float(value) % 1 for value in written):
        numbers = [float(value) for value in written]
        edges = np.quantile(numbers, np.linspace(0, 1, 11)[1:-1])
        return np.searchsorted(edges, numbers).tolist(), []
    names = sorted(set(written))
    number = {name: index for index, name in enumerate(names)}
    return [number[value] for value in written], names


def _input_texts(rows: datasets.Dataset, label: str) -> list[str]:
    """Return the input columns: the context of questions, otherwise the text columns or, if none, all but the label."""
    if {"question", "context"} <= set(rows.column_names):
        return ["context"]
    others = [name for name in rows.column_names if name != label and name.lower() not in ("id", "idx", "index")]
    texts = [
        name for name in others if getattr(rows.features[name], "dtype", "list") in ("string", "large_string", "list")
    ]
    return texts or others or rows.column_names
