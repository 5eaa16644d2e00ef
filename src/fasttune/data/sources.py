"""What the user names as data -> a `Source`: a datasets.Dataset whose cells stay as they stand in the file.

Cells of CSV and TSV files are strings, always; JSON, Parquet and hub data keep their own types. A name that does not
exist, a file of another kind and a fault inside a file are a `DataError` that says which file, which row and what to
do.
"""

from __future__ import annotations

import glob
import hashlib
import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.data import hub
from fasttune.data.delimited import read_delimited
from fasttune.data.json_rows import read_json, rows_to_table
from fasttune.data.text_file import EXCEL_MAGIC, FileRows, Problems, excel_problem, row_name
from fasttune.errors import DataError, Problem, nearest, shown

if TYPE_CHECKING:
    import datasets
    import pandas as pd

DELIMITED_SUFFIXES = (".csv", ".tsv", ".txt")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
DATA_SUFFIXES = (*DELIMITED_SUFFIXES, *JSON_SUFFIXES, ".parquet")
EXCEL_SUFFIXES = (".xlsx", ".xls", ".xlsm", ".xlsb", ".ods")
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
OTHER_FILE_SUFFIXES = (".gz", ".zip", ".bz2", ".xz", ".zst", ".tar", ".arrow", ".yaml", ".yml", ".py", ".xml", ".html")
GLOB_CHARACTERS = "*?["
COLUMNS_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Source:
    """Data as it was named and as it was read.

    `notes` are things that the user should be told, such as a delimiter that was detected.
    `fingerprint` is the sha256 of the file (of the files' sha256 where there are several), or the hub's own.
    `split_names` are the other splits that a folder or hub id offers.
    `parts` tells which rows come from which file: (index of the first row, file, line of the file for each row).
    """

    dataset: datasets.Dataset
    description: str
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    split_names: tuple[str, ...] = ()
    parts: tuple[tuple[int, str, Sequence[int] | None], ...] = ()

    def place(self, index: int) -> str:
        """Where row `index` stands, for a message: `row 17`, or `b.csv row 17` where there are several files."""
        if not self.parts:
            return row_name(index)
        first, name, row_numbers = self.parts[bisect_right(self.parts, index, key=lambda part: part[0]) - 1]
        number = row_numbers[index - first] if row_numbers is not None else index - first + 1
        return f"{name} row {number}" if len(self.parts) > 1 else f"row {number}"


def load_source(spec: str | list[str], split: str = "train") -> Source:
    """Reads a file, a glob, a list of files, a saved folder or a hub id (`NAME`, `NAME:SPLIT`, `NAME:CONFIG:SPLIT`).

    `split` is what is taken from a folder or hub id that has several and where the spec itself names none.
    """
    if isinstance(spec, list):
        if not spec:
            raise DataError(Problem(code="E101", where="data", found="an empty list of files", expected="files"))
        # A file that two patterns match is read once.
        names = list(dict.fromkeys(path for item in spec for path in _expand(item, several=True)))
        return _load_files(names, ", ".join(spec))
    path = Path(spec).expanduser()
    if path.is_dir():
        return _load_folder(path, spec, split)
    if not path.exists():
        folder, _, named = spec.rpartition(":")
        if folder and Path(folder).expanduser().is_dir():
            return _load_folder(Path(folder).expanduser(), folder, split, named)
        if hub.is_hub_id(spec) and not _looks_like_file(spec):
            return _load_hub(spec, split)
    return _load_files(_expand(spec, several=False), spec)


def from_rows(rows: list[dict[str, Any]], where: str = "rows") -> Source:
    """Rows that a Python program or an interactive user gives."""
    import datasets

    if not rows:
        raise DataError(Problem(code="E104", where=where, found="0 rows", expected="rows of data"))
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not all(isinstance(key, str) for key in row):
            expected = "a dict with column names as keys"
            raise DataError(Problem(code="E126", where=row_name(index), found=shown(row), expected=expected))
    fingerprint = hashlib.sha256(json.dumps(rows, default=repr, sort_keys=True).encode()).hexdigest()
    dataset = datasets.Dataset(rows_to_table(rows, where), fingerprint=fingerprint)
    return Source(dataset, _describe(where, dataset), fingerprint=fingerprint)


def from_dataset(dataset: datasets.Dataset, where: str = "a datasets.Dataset") -> Source:
    if not dataset.num_rows:
        raise DataError(Problem(code="E104", where=where, found="0 rows", expected="rows of data"))
    return Source(dataset, _describe(where, dataset), fingerprint=dataset._fingerprint)


def from_frame(frame: pd.DataFrame, where: str = "a DataFrame") -> Source:
    """The columns of a pandas DataFrame; its index is left out."""
    import datasets
    import pyarrow as pa

    try:
        dataset = datasets.Dataset.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        found = str(error).split("\n")[0]
        raise DataError(
            Problem(code="E125", where=where, found=found, expected="values of one kind a column")
        ) from None
    return from_dataset(dataset, where)


def _describe(name: str, dataset: datasets.Dataset) -> str:
    names = dataset.column_names
    listed = ", ".join(names[:COLUMNS_SHOWN]) + (", ..." if len(names) > COLUMNS_SHOWN else "")
    rows = f"{dataset.num_rows:,} row{'s' if dataset.num_rows != 1 else ''}"
    return f"{name}: {rows}, column{'s' if len(names) != 1 else ''} {listed}"


def _looks_like_file(spec: str) -> bool:
    known = (*DATA_SUFFIXES, *EXCEL_SUFFIXES, *PICKLE_SUFFIXES, *OTHER_FILE_SUFFIXES)
    return spec.lower().endswith(known) or any(character in spec for character in GLOB_CHARACTERS)


def _expand(spec: str, *, several: bool) -> list[str]:
    """A path or glob -> the paths of existing files, in a fixed order."""
    path = Path(spec).expanduser()
    if path.is_dir():
        raise DataError(_folder_problem(path, spec))
    if path.exists():
        return [spec]
    if any(character in spec for character in GLOB_CHARACTERS):
        # Path.glob refuses absolute patterns
        found = sorted(name for name in glob.glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207
        if found:
            return found
        raise DataError(
            Problem(code="E101", where=spec, found="no file of this pattern", expected="at least one data file")
        )
    raise DataError(_missing_problem(path, spec, several=several))


def _missing_problem(path: Path, spec: str, *, several: bool) -> Problem:
    if "://" in spec:
        return Problem(
            code="E101",
            where=spec,
            found="an address",
            expected="a file, a folder or the id of a dataset on the hub",
            hint="download the file, and pass its path",
        )
    if not path.parent.is_dir():
        found, hint = f"no folder {path.parent}", ""
    else:
        # The name is written as the user wrote the path, so that the hint can be copied.
        near = nearest(path.name, (other.name for other in path.parent.iterdir()))
        written = spec[: len(spec) - len(path.name)] + near if near else ""
        found, hint = "no such file", f"did you mean {written}?" if near else ""
    expected = "files, globs" if several else "a file, a folder or the id of a dataset on the hub"
    return Problem(code="E101", where=spec, found=found, expected=expected, hint=hint)


def _folder_problem(path: Path, spec: str) -> Problem:
    suffixes = [child.suffix.lower() for child in sorted(path.iterdir()) if child.suffix.lower() in DATA_SUFFIXES]
    pattern = f"{spec.rstrip('/')}/*{suffixes[0]}" if suffixes else ""
    return Problem(
        code="E102",
        where=spec,
        found="a folder of data files" if suffixes else "a folder without data files",
        expected="a file, a glob, or a folder written by save_to_disk",
        hint=f"pass the files: '{pattern}'" if suffixes else "",
    )


def _load_folder(path: Path, spec: str, split: str, named: str = "") -> Source:
    import datasets

    is_dict = (path / "dataset_dict.json").is_file()
    if not is_dict and not ((path / "state.json").is_file() and (path / "dataset_info.json").is_file()):
        raise DataError(_folder_problem(path, spec))
    try:
        loaded = datasets.load_from_disk(str(path))
    except Exception as error:  # whatever a damaged folder makes the library raise
        message = str(error).split("\n")[0]
        raise DataError(
            Problem(code="E127", where=spec, found=message, expected="a folder that save_to_disk wrote in full")
        ) from None
    return _pick_split(loaded, spec, split, named)


def _load_hub(spec: str, split: str) -> Source:
    name, config, named = hub.parse(spec)
    try:
        loaded = hub.load(name, config, spec)
    except DataError as error:
        if error.problems[0].code not in ("E130", "E132"):
            raise
        # A hub id and a file name with a typo look the same.
        path = Path(name)
        local = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, (other for other in local if other.lower().endswith(DATA_SUFFIXES)))
        if near is None:
            raise
        hint = f"did you mean {path.parent / near}?"
        raise DataError(*(replace(problem, hint=hint) for problem in error.problems)) from None
    return _pick_split(loaded, f"{name}:{config}" if config else name, split, named)


def _pick_split(loaded: Any, spec: str, split: str, named: str) -> Source:
    """One dataset of what a folder or the hub gave: the split that the spec names, or `split` where it names none."""
    splits = dict(loaded) if isinstance(loaded, dict) else {}
    if not splits and named in ("", str(loaded.split)):
        return from_dataset(loaded, spec)
    wanted = named or split
    if wanted not in splits:
        near = nearest(wanted, splits) or next(iter(splits), "")
        raise DataError(
            Problem(
                code="E131",
                where=spec,
                found=f"no split {shown(wanted)}",
                expected=f"one of {', '.join(splits)}" if splits else "one dataset without splits, named without one",
                hint=f"{spec}:{near}" if near else spec,
            )
        )
    source = from_dataset(splits[wanted], f"{spec}:{wanted}")
    return replace(source, split_names=tuple(name for name in splits if name != wanted))


def _load_files(names: list[str], described_as: str) -> Source:
    import datasets
    import pyarrow as pa

    problems = Problems(described_as)
    kinds = {_kind(name): name for name in names}
    if len(kinds) > 1:
        listed = ", ".join(kinds.values())
        raise DataError(
            Problem(code="E129", where=described_as, found=f"files of several kinds ({listed})", expected="one kind")
        )
    read: list[tuple[str, FileRows]] = []
    for name in names:
        try:
            read.append((name, _read_file(name)))
        except DataError as error:
            problems.add_error(error)
    problems.raise_if_any()
    problems.add(*_disagreements(read))
    problems.raise_if_any()
    # By name: the order of the columns may differ, and a column of nothing but nulls takes the type of the others.
    table = pa.concat_tables([rows.table for _, rows in read], promote_options="default")
    digests = [rows.sha256 for _, rows in read]
    fingerprint = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    dataset = datasets.Dataset(table, fingerprint=fingerprint)
    parts, first = [], 0
    for name, rows in read:
        parts.append((first, name, rows.row_numbers))
        first += rows.table.num_rows
    title = names[0] if len(names) == 1 else f"{described_as} ({len(names)} files)"
    notes = tuple(note for _, rows in read for note in rows.notes)
    return Source(dataset, _describe(title, dataset), notes, fingerprint, parts=tuple(parts))


def _kind(name: str) -> str:
    suffix = Path(name).suffix.lower()
    for kind, suffixes in (("delimited", DELIMITED_SUFFIXES), ("json", JSON_SUFFIXES)):
        if suffix in suffixes:
            return kind
    return suffix


def _read_file(name: str) -> FileRows:
    path = Path(name).expanduser()
    suffix = path.suffix.lower()
    if suffix in PICKLE_SUFFIXES:
        raise DataError(
            Problem(
                code="E109",
                where=name,
                found=f"a {suffix} file",
                expected=f"one of {', '.join(DATA_SUFFIXES)}",
                hint="pickle is never read: it can run any code; write the data as .parquet or .csv where it was made",
            )
        )
    if suffix in EXCEL_SUFFIXES:
        raise DataError(excel_problem(name))
    try:
        if suffix in DELIMITED_SUFFIXES:
            return read_delimited(path, name)
        if suffix in JSON_SUFFIXES:
            return read_json(path, name)
        if suffix == ".parquet":
            return _read_parquet(path, name)
    except OSError as error:
        problem = Problem(
            code="E101", where=name, found=error.strerror or str(error), expected="a file that can be read"
        )
        raise DataError(problem) from None
    found = f"a {suffix} file" if suffix else "a file without an ending"
    packed = suffix in (".gz", ".zip", ".bz2", ".xz", ".zst", ".tar")
    raise DataError(
        Problem(
            code="E100",
            where=name,
            found=found,
            expected=f"one of {', '.join(DATA_SUFFIXES)}",
            hint="unpack it first" if packed else "",
        )
    )


def _read_parquet(path: Path, where: str) -> FileRows:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with path.open("rb") as file:
        magic = file.read(8)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    if not magic:
        raise DataError(Problem(code="E103", where=where, found="a file of 0 bytes", expected="rows of data"))
    if magic.startswith(EXCEL_MAGIC):
        raise DataError(excel_problem(where))
    try:
        # ParquetFile reads this one file: read_table would add a column for each `name=value` folder in the path.
        table = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        message = str(error).split("\n")[0][:200]
        raise DataError(Problem(code="E127", where=where, found=message, expected="a whole Parquet file")) from None
    names = table.column_names
    twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
    if twice:
        found = f"two columns named {shown(twice[0])}"
        raise DataError(Problem(code="E113", where=where, found=found, expected="a different name for each column"))
    if not table.num_rows:
        raise DataError(Problem(code="E104", where=where, found="0 rows", expected="rows of data"))
    return FileRows(_without_dictionaries(table), None, sha256)


def _without_dictionaries(table):
    """Columns that pandas wrote from categories become plain columns of their values."""
    import pyarrow as pa

    for position, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            plain = table.column(position).cast(column.type.value_type)
            table = table.set_column(position, pa.field(column.name, column.type.value_type), plain)
    return table


def _disagreements(read: list[tuple[str, FileRows]]) -> Iterator[Problem]:
    """Files of one source need the same columns of the same types."""
    import pyarrow as pa

    first_name, first = read[0]
    expected = first.table.column_names
    types: dict[str, tuple[Any, str]] = {}  # column -> type, and the first file that shows it
    for name, rows in read:
        columns = rows.table.column_names
        if set(columns) != set(expected):
            yield Problem(
                code="E128",
                where=name,
                found=f"the columns {', '.join(map(shown, columns))}",
                expected=f"{', '.join(map(shown, expected))} as in {first_name}",
            )
            continue
        for column in rows.table.schema:
            if pa.types.is_null(column.type):
                continue
            known, shown_by = types.setdefault(column.name, (column.type, name))
            if column.type != known:
                yield Problem(
                    code="E128",
                    where=f"{name}, column {shown(column.name)}",
                    found=f"values of type {column.type}",
                    expected=f"{known} as in {shown_by}",
                )
