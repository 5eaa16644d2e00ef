"""Load what the user names as data into a `Source`: a datasets.Dataset that keeps cells as the file has them.

Cells of CSV and TSV files are always strings; JSON, Parquet and hub data keep their types. A missing file, an
unsupported format or a fault in a file raises a `DataError` that names the file and the row and says what to do.
"""

from __future__ import annotations

import glob
import hashlib
import json
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.data.formats import hub
from fasttune.data.formats.files import ALL_SUFFIXES, disagreements, is_data_file, kind_of_file, read_file
from fasttune.data.formats.folders import SPLIT_WORDS, data_files, folder_problem, licence_of, splits_of
from fasttune.data.formats.json_rows import rows_to_table
from fasttune.data.formats.storage import ReadOptions, expand_address, is_address
from fasttune.data.formats.text_file import FileRows
from fasttune.data.formats.text_folders import TextFolder, read_text_folder, text_folder
from fasttune.data.problems import Problems, row_name
from fasttune.data.tokens.mapped import mapped
from fasttune.errors import DataError, Problem, nearest, shown
from fasttune.security.text import printable

if TYPE_CHECKING:
    import datasets
    import pandas as pd

GLOB_CHARACTERS = "*?["
COLUMNS_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Source:
    """The rows of a data source, and where they come from.

    - `notes`: what to report to the user, such as a detected delimiter.
    - `fingerprint`: the sha256 of the file (for several files, of their sha256), or the hub's fingerprint.
    - `split_names`: the other splits of the folder or hub dataset.
    - `parts`: which rows come from which file: (index of the first row, file, line in the file of each row).
    - `pieces`: whether the parts are pieces of files, whose names say where they begin.
    - `kept`: indices of the rows that `take` has kept; None means all.
    - `licence`: from the dataset card; empty if the card names none, None if there is no card.
    - `unreadable`: columns that the dataset leaves out, and why.
    - `settings`: what was found while reading training rows, as fields of the recipe; other splits are read alike.
    """

    dataset: datasets.Dataset
    description: str
    notes: tuple[str, ...] = ()
    fingerprint: str = ""
    split_names: tuple[str, ...] = ()
    parts: tuple[tuple[int, str, Sequence[int] | None], ...] = ()
    pieces: bool = False
    kept: Sequence[int] | None = None
    licence: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    unreadable: Mapping[str, Problem] = field(default_factory=dict)

    def take(self, rows: Sequence[int]) -> Source:
        """Return a source with only these rows."""
        kept = rows if self.kept is None else [self.kept[row] for row in rows]
        return replace(self, dataset=self.dataset.select(rows), kept=kept)

    def place(self, index: int) -> str:
        """Return where row `index` is, for messages: `row 17`, or `b.csv row 17` if there are several files."""
        index = index if self.kept is None else self.kept[index]
        if not self.parts:
            return row_name(index)
        first, name, row_numbers = self.parts[bisect_right(self.parts, index, key=lambda part: part[0]) - 1]
        number = row_numbers[index - first] if row_numbers is not None else index - first + 1
        return f"{name} row {number}" if len(self.parts) > 1 or self.pieces else f"row {number}"


@dataclass(frozen=True)
class Files:
    """Files to read as one table; `note`, `split_names` and `licence` become those of the Source."""

    names: list[str]
    described_as: str
    note: str = ""
    split_names: tuple[str, ...] = ()
    licence: str | None = None
    texts: TextFolder | None = None  # whose files are the rows, instead of `names`


def load_source(spec: str | list[str], split: str = "train", reading: ReadOptions | None = None) -> Source:
    """Load a file, glob, list of files, folder, address, or hub id (`NAME`, `NAME:SPLIT`, `NAME:CONFIG:SPLIT`).

    `split` is used if a folder or hub dataset has splits and the spec names none.
    """
    files = files_of(spec, split)
    if files is not None:
        source = _load_files(files, reading or ReadOptions())
        notes = (files.note, *source.notes) if files.note else source.notes
        return replace(source, notes=notes, split_names=files.split_names, licence=files.licence)
    assert isinstance(spec, str), "a list names files"
    folder, named = _folder_of(spec)
    return _load_hub(spec, split) if folder is None else _load_saved(folder, spec, split, named)


def files_of(spec: str | list[str], split: str) -> Files | None:
    """Return the data files that a spec names; None for a folder written by save_to_disk or a hub id."""
    if isinstance(spec, list):
        if not spec:
            raise DataError(Problem(code="E101", where="data", found="the list of files is empty"))
        # A file that matches two patterns is read only once.
        names = list(dict.fromkeys(path for item in spec for path in _expand(item, several=True)))
        return Files(names, ", ".join(spec))
    if is_address(spec):
        return Files(expand_address(spec), spec)
    folder, named = _folder_of(spec)
    if folder is not None:
        return None if _is_saved(folder) else _files_of_folder(folder, spec, split, named)
    if is_published(spec):
        return None
    return Files(_expand(spec, several=False), spec)


def check_has_splits(spec: str | list[str], split: str) -> None:
    """Raise DataError for plain files, which have no splits."""
    files = files_of(spec, split)
    if files is not None and (not files.note or (files.texts is not None and not files.split_names)):
        found = f"the data has no splits, so {shown(split)} cannot be selected"
        raise DataError(Problem(code="E131", where=files.described_as, found=found, hint="leave the split out"))


def streamed_files(spec: str | list[str], split: str) -> Files:
    """Return the files to stream for a spec, which may also be a hub dataset."""
    files = files_of(spec, split)
    if files is not None and files.texts is None:
        return files
    assert isinstance(spec, str), "a list names files"
    folder, _ = _folder_of(spec)
    if folder is not None:
        kind = "of text files" if files is not None else "written by save_to_disk"
        found = f"a folder {kind} cannot be streamed"
        hint = "data.streaming=false, or write it as Parquet"
        raise DataError(Problem(code="E138", where=spec, found=found, hint=hint))
    name, config, named = hub.parse(spec)
    splits = hub.files(name, config, spec)
    wanted = named or split
    if wanted not in splits:
        raise DataError(_no_split(name, wanted, list(splits)))
    others = tuple(other for other in splits if other != wanted)
    return Files(splits[wanted], f"{name}:{config}:{wanted}" if config else f"{name}:{wanted}", split_names=others)


def _folder_of(spec: str) -> tuple[Path | None, str]:
    """Return the folder that a spec names, or None, and the split after it (`FOLDER:SPLIT`), if any."""
    path = Path(spec).expanduser()
    if path.is_dir():
        return path, ""
    name, _, named = spec.rpartition(":")
    if name and not path.exists() and Path(name).expanduser().is_dir():
        return Path(name).expanduser(), named
    return None, ""


def with_split(spec: str | list[str], split: str) -> str | list[str]:
    """Replace the split in a spec: `NAME:CONFIG:train` -> `NAME:CONFIG:test`.

    A spec without a split is returned unchanged.
    """
    if not isinstance(spec, str) or is_address(spec):
        return spec
    folder, named = _folder_of(spec)
    if folder is None and is_published(spec):
        named = hub.parse(spec)[2]
    return spec.removesuffix(named) + split if named else spec


def from_rows(rows: list[dict[str, Any]], where: str = "rows") -> Source:
    """Return a source of rows from a Python program or an interactive user."""
    import datasets

    if not rows:
        raise DataError(Problem(code="E104", where=where, found="there are no rows"))
    for index, row in enumerate(rows):
        if not isinstance(row, dict) or not all(isinstance(key, str) for key in row):
            expected = "a dict with column names as keys"
            raise DataError(Problem(code="E126", where=row_name(index), found=shown(row), expected=expected))
    fingerprint = hashlib.sha256(json.dumps(rows, default=repr, sort_keys=True).encode()).hexdigest()
    table, unreadable = rows_to_table(rows, where)
    dataset = datasets.Dataset(table, fingerprint=fingerprint)
    return Source(dataset, _describe(where, dataset), fingerprint=fingerprint, unreadable=unreadable)


def from_dataset(dataset: datasets.Dataset, where: str = "a datasets.Dataset") -> Source:
    if not dataset.num_rows:
        raise DataError(Problem(code="E104", where=where, found="there are no rows"))
    return Source(dataset, _describe(where, dataset), fingerprint=dataset._fingerprint)


def from_frame(frame: pd.DataFrame, where: str = "a DataFrame") -> Source:
    """Return a source of a pandas DataFrame's columns, without its index."""
    import datasets
    import pyarrow as pa

    try:
        dataset = datasets.Dataset.from_pandas(frame, preserve_index=False)
    except (pa.ArrowException, TypeError, ValueError) as error:
        message = str(error).split("\n")[0]
        found = f"the columns cannot be stored: {message}"
        hint = "give all values of a column the same type"
        raise DataError(Problem(code="E125", where=where, found=found, hint=hint)) from None
    return from_dataset(dataset, where)


def _describe(name: str, dataset: datasets.Dataset) -> str:
    names = dataset.column_names
    listed = ", ".join(map(printable, names[:COLUMNS_SHOWN])) + (", ..." if len(names) > COLUMNS_SHOWN else "")
    rows = f"{dataset.num_rows:,} row{'s' if dataset.num_rows != 1 else ''}"
    return f"{name}: {rows}, column{'s' if len(names) != 1 else ''} {listed}"


def is_published(spec: str) -> bool:
    """Whether a spec names a data set of the hub: no file or folder, and no name that looks like one."""
    return not Path(spec).expanduser().exists() and hub.is_hub_id(spec) and not _looks_like_file(spec)


def _looks_like_file(spec: str) -> bool:
    return spec.lower().endswith(ALL_SUFFIXES) or any(character in spec for character in GLOB_CHARACTERS)


def _expand(spec: str, *, several: bool) -> list[str]:
    """Expand a path, glob or address to the names of existing files, in a fixed order."""
    if is_address(spec):
        return expand_address(spec)
    path = Path(spec).expanduser()
    if path.is_dir():
        raise DataError(folder_problem(data_files(path), spec))
    if path.exists():
        return [spec]
    if any(character in spec for character in GLOB_CHARACTERS):
        # Path.glob refuses absolute patterns
        names = sorted(name for name in glob.glob(str(path), recursive=True) if Path(name).is_file())  # noqa: PTH207
        if names:
            return names
        raise DataError(Problem(code="E101", where=spec, found="no file matches this pattern"))
    raise DataError(_missing_problem(path, spec, several=several))


def _missing_problem(path: Path, spec: str, *, several: bool) -> Problem:
    if not path.parent.is_dir():
        found, hint = f"the folder {path.parent} does not exist", ""
    else:
        # The hint writes the path as the user did, so that it can be copied.
        near = nearest(path.name, (other.name for other in path.parent.iterdir()))
        written = spec[: len(spec) - len(path.name)] + near if near else ""
        found = "no such file" if several else "no such file or folder"
        hint = f"did you mean {written}?" if near else ""
    return Problem(code="E101", where=spec, found=found, hint=hint)


def _is_saved(folder: Path) -> bool:
    """Return whether save_to_disk wrote this folder."""
    is_dict = (folder / "dataset_dict.json").is_file()
    return is_dict or ((folder / "state.json").is_file() and (folder / "dataset_info.json").is_file())


def _load_saved(folder: Path, spec: str, split: str, named: str) -> Source:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(folder))
    except Exception as error:  # a damaged folder makes the library raise many types
        message = str(error).split("\n")[0]
        found = f"the folder written by save_to_disk is incomplete or damaged: {message}"
        raise DataError(Problem(code="E127", where=spec, found=found)) from None
    return _pick_split(loaded, spec.removesuffix(f":{named}") if named else spec, split, named)


def _files_of_folder(folder: Path, spec: str, split: str, named: str) -> Files:
    """Return all data files of a folder or, if their names show splits, those of the wanted split."""
    files = data_files(folder)
    splits, licence = splits_of(files), licence_of(folder)
    name = spec.removesuffix(f":{named}") if named else spec
    if "train" not in splits:
        texts = _texts_of_folder(folder, name, split, named)
        if texts is not None:
            return texts
        if named or not files or splits or len({kind_of_file(file) for file in files}) > 1:
            raise DataError(folder_problem(files, name))
        return Files(files, name, licence=licence)
    wanted = named or split
    if wanted not in splits:
        raise DataError(_no_split(name, wanted, list(splits)))
    others = [file for file in files if not any(file in split_files for split_files in splits.values())]
    note = f"{name}: {wanted}, by file name: {', '.join(Path(file).name for file in splits[wanted])}"
    if others:
        note += f"; ignored: {', '.join(Path(file).name for file in others)}"
    names = tuple(other for other in splits if other != wanted)
    return Files(splits[wanted], f"{name}:{wanted}", note, names, licence)


def _texts_of_folder(folder: Path, name: str, split: str, named: str) -> Files | None:
    """The rows of a folder of text files, or of the folders of its splits; None if it is another folder."""
    splits: dict[str, TextFolder] = {}
    for child in sorted(folder.iterdir()):
        words = [known for known, names in SPLIT_WORDS.items() if child.name.lower() in names]
        texts = text_folder(child) if words and child.is_dir() else None
        if texts is not None:
            splits[words[0]] = texts
    if "train" not in splits:
        texts = None if named else text_folder(folder)
        return None if texts is None else Files([str(folder)], name, texts.note, texts=texts)
    wanted = named or split
    if wanted not in splits:
        raise DataError(_no_split(name, wanted, list(splits)))
    others = tuple(other for other in splits if other != wanted)
    texts = splits[wanted]
    return Files([str(folder)], f"{name}:{wanted}", texts.note, others, texts=texts)


def _load_hub(spec: str, split: str) -> Source:
    name, config, named = hub.parse(spec)
    try:
        loaded = hub.load(name, config, spec)
    except DataError as error:
        if error.problems[0].code not in ("E130", "E132"):
            raise
        # A hub id looks like a misspelt file name.
        path = Path(name)
        local = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
        near = nearest(path.name, filter(is_data_file, local))
        if near is None:
            raise
        hint = f"did you mean {path.parent / near}?"
        raise DataError(*(replace(problem, hint=hint) for problem in error.problems)) from None
    return _pick_split(loaded, f"{name}:{config}" if config else name, split, named)


def _pick_split(loaded: Any, spec: str, split: str, named: str) -> Source:
    """Return the split that the spec names or, if it names none, `split`."""
    splits = dict(loaded) if isinstance(loaded, dict) else {}
    if not splits and named in ("", str(loaded.split)):
        return from_dataset(loaded, spec)
    wanted = named or split
    if wanted not in splits:
        raise DataError(_no_split(spec, wanted, list(splits)))
    source = from_dataset(splits[wanted], f"{spec}:{wanted}")
    licence = str(splits[wanted].info.license or "")
    return replace(source, split_names=tuple(name for name in splits if name != wanted), licence=licence)


def _no_split(spec: str, wanted: str, splits: list[str]) -> Problem:
    if not splits:
        found = f"the dataset has no splits, so {shown(wanted)} cannot be selected"
        return Problem(code="E131", where=spec, found=found, hint=spec)
    near = nearest(wanted, splits) or splits[0]
    expected = f"one of {', '.join(splits)}"
    return Problem(code="E131", where=spec, found=f"no split {shown(wanted)}", expected=expected, hint=f"{spec}:{near}")


def _load_files(files: Files, reading: ReadOptions) -> Source:
    import pyarrow as pa

    names, problems = files.names, Problems(files.described_as)
    if files.texts is not None:
        rows = read_text_folder(files.texts, files.described_as, reading)
        return joined([(files.described_as, rows)], files.described_as, files.described_as)
    kinds = {kind_of_file(name): name for name in names}
    if len(kinds) > 1:
        raise DataError(several_kinds(files.described_as, list(kinds.values())))
    read: list[tuple[str, FileRows]] = []
    for name in names:
        with problems.collected():
            read.append((name, read_file(name, reading)))
    problems.raise_if_any()
    title = names[0] if len(names) == 1 else f"{files.described_as} ({len(names)} files)"
    source = joined(read, title, files.described_as)
    del read
    pa.default_memory_pool().release_unused()  # the memory that reading needed
    return source


def several_kinds(where: str, names: list[str]) -> Problem:
    return Problem(
        code="E129", where=where, found=f"files of several kinds ({', '.join(names)})", expected="files of one kind"
    )


def joined(read: list[tuple[str, FileRows]], title: str, where: str) -> Source:
    """Join several files, or pieces of files, into one source; DataError if their columns differ."""
    import datasets
    import pyarrow as pa

    problems = Problems(where)
    problems.add(*disagreements(read))
    problems.raise_if_any()
    # Columns are joined by name, in any order; a column gets the type that can hold the values of all files.
    left_out = {name for _, rows in read for name in rows.unreadable}
    tables = [rows.table.drop_columns([*left_out & set(rows.table.column_names)]) for _, rows in read]
    table = mapped(tables[0] if len(tables) == 1 else pa.concat_tables(tables, promote_options="permissive"))
    digests = [rows.sha256 for _, rows in read]
    fingerprint = digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()
    dataset = datasets.Dataset(table, fingerprint=fingerprint)
    parts, first = [], 0
    for name, rows in read:
        parts.append((first, name, rows.row_numbers))
        first += rows.table.num_rows
    notes = tuple(note for _, rows in read for note in rows.notes)
    settings = {"data": {"header": False}} if all(rows.has_header is False for _, rows in read) else {}
    unreadable = {name: problem for _, rows in read for name, problem in rows.unreadable.items()}
    return Source(
        dataset,
        _describe(title, dataset),
        notes,
        fingerprint,
        parts=tuple(parts),
        settings=settings,
        unreadable=unreadable,
    )
