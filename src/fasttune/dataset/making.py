"""A definition -> its splits, changed as it says, and a folder of Parquet files with a card that loads anywhere."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.data.sources import load_source
from fasttune.data.splits import grouped_holdout, holdout, latest_holdout
from fasttune.data.storage import Reading, is_address
from fasttune.dataset.definition import SPLITS, Added, Definition, Filter, Resplit, load
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
        _keep(made, _fits(one), one.column, f"rows whose {one.column} does not fit {_words(one)}", str(path))
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
    columns = made.definition.columns
    if columns is None:
        return
    for split, rows in made.splits.items():
        for name in columns.values():
            _check_column(name, rows, f"{where}: columns, {split}")
        kept = rows.select_columns(list(dict.fromkeys(columns.values())))
        for new, old in columns.items():
            kept = kept.add_column(new, rows[old][:]) if new not in kept.column_names else kept
        made.splits[split] = kept.select_columns(list(columns))
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
    for one in definition.add_labels:
        _map_labels(made, partial(_added, one, _pattern(one.matches, where)))
        made.steps.append(f"label {one.label!r}: rows whose {one.column} matches {one.matches!r}")
    if definition.drop_labels:
        known = {str(value) for rows in made.splits.values() for value in rows[label]}
        _check_known(definition.drop_labels, known, f"{where}: drop_labels")
        dropped = set(definition.drop_labels)
        _keep(made, lambda value: value not in dropped, label, f"rows of {', '.join(definition.drop_labels)}", where)
    if definition.map_labels:
        known = {str(value) for rows in made.splits.values() for value in rows[label]}
        _check_known(definition.map_labels, known, f"{where}: map_labels")
        _map_labels(made, lambda row: definition.map_labels.get(str(row[label])))
        made.steps.append(f"labels: {', '.join(f'{old} is now {new}' for old, new in definition.map_labels.items())}")


def _added(one: Added, pattern: re.Pattern[str], row: dict[str, Any]) -> str | None:
    return one.label if pattern.search(str(row[one.column])) else None


def _check_known(names: Sequence[str] | Mapping[str, str], known: set[str], where: str) -> None:
    unknown = [name for name in names if name not in known]
    if unknown:
        found = f"label {shown(unknown[0])}, which no row has"
        expected = f"one of {', '.join(map(shown, sorted(known)[:20]))}"
        raise DataError(Problem(code="E220", where=where, found=found, expected=expected))


def _map_labels(made: Built, new: Callable[[dict[str, Any]], str | None]) -> None:
    """Labels become texts; where `new` is None they stay."""
    label = made.definition.label
    for split, rows in made.splits.items():
        values = [str(row[label]) if (given := new(row)) is None else given for row in rows]
        made.splits[split] = _with_column(rows, label, values)


def _with_column(rows: datasets.Dataset, name: str, values: list[str]) -> datasets.Dataset:
    order = rows.column_names
    return rows.remove_columns([name]).add_column(name, values).select_columns(order)


def _pattern(text: str, where: str) -> re.Pattern[str]:
    try:
        return re.compile(text)
    except re.error as error:
        expected = "a regular expression"
        raise RecipeError(Problem(code="E317", where=where, found=f"{text!r} ({error})", expected=expected)) from None


def _fits(one: Filter) -> Callable[[str], bool]:
    pattern = _pattern(one.matches, one.column) if one.matches is not None else None
    values = None if one.one_of is None else set(one.one_of)

    def fits(text: str) -> bool:
        return (
            (one.min_characters is None or len(text) >= one.min_characters)
            and (one.max_characters is None or len(text) <= one.max_characters)
            and (pattern is None or pattern.search(text) is not None)
            and (values is None or text in values)
        )

    return fits


def _words(one: Filter) -> str:
    given = one.model_dump(exclude={"column"}, exclude_none=True)
    return ", ".join(f"{name} {value}" for name, value in given.items()) or "anything"


def _keep(made: Built, wanted: Callable[[str], bool], column: str, what: str, where: str) -> None:
    number = 0
    for split, rows in made.splits.items():
        _check_column(column, rows, f"{where}: {split}")
        kept = [row for row, value in enumerate(rows[column]) if wanted("" if value is None else str(value))]
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
            key = repr(row)
            if key not in seen:
                seen.add(key)
                kept.append(position)
        number += rows.num_rows - len(kept)
        made.splits[split] = rows.select(kept)
    made.steps.append(f"{number:,} rows that repeat another: left out")


def _resplit(made: Built, how: Resplit, where: str) -> None:
    import datasets

    rows = datasets.concatenate_datasets(list(made.splits.values()))
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
    for name in (how.group, how.time):
        if name is not None:
            _check_column(name, rows, f"{where}: resplit")
    if how.group is not None:
        return grouped_holdout([str(value) for value in rows[how.group]], fraction, how.seed, where)
    if how.time is not None:
        return latest_holdout(rows[how.time][:], fraction, where)
    values = [str(value) for value in rows[label]] if label in rows.column_names else [""] * rows.num_rows
    number = {value: position for position, value in enumerate(sorted(Counter(values)))}
    return holdout([number[value] for value in values], fraction, how.seed, sorted(number), where)
