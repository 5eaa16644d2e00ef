"""Read a data file into an Arrow table, by its extension; check that the files of one source agree."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fasttune.data.formats.conll import CONLL_SUFFIXES, looks_like_conll, read_conll
from fasttune.data.formats.delimited import read_delimited
from fasttune.data.formats.fasttext import FASTTEXT_SUFFIXES, looks_like_fasttext, read_fasttext
from fasttune.data.formats.json_rows import read_json
from fasttune.data.formats.sheets import SHEET_SUFFIXES, read_sheet
from fasttune.data.formats.storage import (
    COMPRESSED,
    ZIP,
    ReadOptions,
    inner_name,
    limit_of,
    opened,
    suffix_of,
    unpacked_too_much,
)
from fasttune.data.formats.text_file import EXCEL_MAGIC, WRITE_AGAIN, FileRows, excel_problem, read_text
from fasttune.data.formats.word_rows import sentences_from_words
from fasttune.errors import DataError, Problem, shown

if TYPE_CHECKING:
    import datasets
    import pyarrow as pa

DELIMITED_SUFFIXES = (".csv", ".tsv", ".txt", ".tab")
JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
ARROW_SUFFIXES = (".arrow", ".feather")
PARQUET_SUFFIXES = (".parquet",)
HEAD = 1 << 16  # bytes of a text file to look at
MAY_BE_ANOTHER = (".txt", ".tsv", ".tab")  # extensions of texts of any form
PACKED_SUFFIXES = (*COMPRESSED, ZIP)
PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".joblib")
OTHER_FILE_SUFFIXES = (".tar", ".tgz", ".7z", ".rar", ".yaml", ".yml", ".py", ".xml", ".html", ".pdf", ".docx")


@dataclass(frozen=True)
class Format:
    """A form of data files. To add one, write its reader in a module of this package and an entry in FORMATS.

    - `suffixes`: the extensions of such files.
    - `read`: takes the file's path or address, its extension without that of a compression, and how to read files;
      returns its rows, or raises a DataError that names the file and the row.
    - `looks_like`: whether the beginning of a text is of this form, for files with another extension.
    """

    name: str
    suffixes: tuple[str, ...]
    read: Callable[[str, str, ReadOptions], FileRows]
    looks_like: Callable[[str], bool] | None = None


def _read_delimited(name: str, suffix: str, reading: ReadOptions) -> FileRows:
    return read_delimited(read_text(name, reading), name, suffix, reading)


def _read_table(name: str, suffix: str, reading: ReadOptions) -> FileRows:
    if inner_name(name) != name:
        raise DataError(_unknown(name, inner_name(name)))
    return read_table(name, suffix, reading.max_bytes)


FORMATS = (
    Format("CoNLL columns", CONLL_SUFFIXES, read_conll, looks_like_conll),
    Format("fastText", FASTTEXT_SUFFIXES, read_fasttext, looks_like_fasttext),
    Format("CSV and TSV", DELIMITED_SUFFIXES, _read_delimited),
    Format("JSON", JSON_SUFFIXES, read_json),
    Format("spreadsheet", SHEET_SUFFIXES, read_sheet),
    Format("Parquet", PARQUET_SUFFIXES, _read_table),
    Format("Arrow", ARROW_SUFFIXES, _read_table),
)
DATA_SUFFIXES = tuple(suffix for form in FORMATS for suffix in form.suffixes)
ALL_SUFFIXES = (*DATA_SUFFIXES, *PACKED_SUFFIXES, *PICKLE_SUFFIXES, *OTHER_FILE_SUFFIXES)


def is_data_file(name: str) -> bool:
    """Return whether the extension is that of a data file, compressed or not."""
    suffix = suffix_of(name)
    return suffix in DATA_SUFFIXES or suffix == ZIP or (suffix in COMPRESSED and is_data_file(name[: -len(suffix)]))


def kind_of_file(name: str) -> str:
    """Return the kind of a file; only files of one kind can be read as one table."""
    suffix = suffix_of(inner_name(name))
    return next((form.name for form in FORMATS if suffix in form.suffixes), suffix)


def read_file(name: str, reading: ReadOptions) -> FileRows:
    refuse_pickle(name)
    try:
        inner = inner_name(name)
        refuse_pickle(inner, where=name)
        suffix = suffix_of(inner)
        form = next((form for form in FORMATS if suffix in form.suffixes), None)
        if suffix in MAY_BE_ANOTHER or suffix not in ALL_SUFFIXES:
            form = _recognised(name, reading) or form
        if form is None:
            raise DataError(_unknown(name, inner))
        return sentences_from_words(form.read(name, suffix, reading), name)
    except OSError as error:
        found = f"cannot be read: {error.strerror or error}"
        raise DataError(Problem(code="E101", where=name, found=found)) from None


def form_of_text(text: str) -> Format | None:
    """The form that the beginning of a text shows, whatever its extension; None for tables and anything else."""
    return next((form for form in FORMATS if form.looks_like is not None and form.looks_like(text)), None)


def _recognised(name: str, reading: ReadOptions) -> Format | None:
    """The form of a text file by its beginning, such as eng.testa or cooking.train; binary files have none."""
    try:
        return form_of_text(read_text(name, replace(reading, head=HEAD)).text)
    except DataError:
        return None  # reported when all of it is read


def _unknown(name: str, inner: str) -> Problem:
    suffix = suffix_of(inner)
    found = f"a {suffix} file" if suffix else "a file without an extension"
    hint = "unpack it first" if inner != name or suffix in (".tar", ".tgz", ".7z", ".rar") else ""
    return Problem(code="E100", where=name, found=found, expected=f"one of {', '.join(DATA_SUFFIXES)}", hint=hint)


def refuse_pickle(name: str, where: str = "") -> None:
    """Raise DataError for pickle files, by their extensions."""
    suffix = suffix_of(name)
    if suffix in PICKLE_SUFFIXES:
        raise DataError(
            Problem(
                code="E109",
                where=where or name,
                found=f"a {suffix} file",
                expected=f"one of {', '.join(DATA_SUFFIXES)}",
                hint="fasttune never reads pickle, which can run any code: save the data as .parquet or .csv instead",
            )
        )


def read_table(where: str, suffix: str, max_bytes: int | None) -> FileRows:
    """Read a Parquet or Arrow file."""
    import pyarrow.parquet as pq

    with opened(where) as file:
        magic = file.read(8)
        if not magic:
            raise DataError(Problem(code="E103", where=where, found="the file is empty (0 bytes)", hint=WRITE_AGAIN))
        if magic.startswith(EXCEL_MAGIC):
            raise DataError(excel_problem(where))
        size = file.seek(0, 2)
        file.seek(0)
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        file.seek(0)
        with reading_tables(where, suffix):
            # ParquetFile reads just this file; read_table would add a column for each `name=value` folder in its path.
            if suffix == ".parquet":
                stored = pq.ParquetFile(file)
                table = bounded(stored.iter_batches(), stored.schema_arrow, where, limit_of(size, max_bytes))
            else:
                batches = _arrow_reader(file, magic)
                table = bounded(_batches(batches), batches.schema, where, limit_of(size, max_bytes))
            table = plain_table(table, where)
    if not table.num_rows:
        raise DataError(Problem(code="E104", where=where, found="the file has no rows"))
    return FileRows(table, None, sha256)


@contextmanager
def reading_tables(where: str, suffix: str) -> Iterator[None]:
    """Turn Arrow's errors for a damaged file into a DataError; a damaged length shows as a MemoryError."""
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError, MemoryError) as error:
        message = str(error).split("\n")[0][:200] or type(error).__name__
        found = f"the {'Parquet' if suffix == '.parquet' else 'Arrow'} file is damaged: {message}"
        raise DataError(Problem(code="E127", where=where, found=found)) from None


def plain_table(table: pa.Table, where: str) -> pa.Table:
    """Return the table with plain columns; DataError if two columns have the same name or a name has a NUL."""
    names = table.column_names
    if any("\0" in name for field in table.schema for name in _names_in(field)):  # Arrow stops reading some at the NUL
        raise DataError(Problem(code="E127", where=where, found="a column name contains a NUL character"))
    repeated = [name for name, number in Counter(names).items() if number > 1]
    if repeated:
        raise DataError(Problem(code="E113", where=where, found=f"two columns are named {shown(repeated[0])}"))
    return without_dictionaries(table if _is_understood(table) else table.replace_schema_metadata(None))


def _names_in(field: pa.Field) -> Iterator[str]:
    """Yield the names of a field and of all nested ones; UnicodeDecodeError if one is not UTF-8."""
    yield field.name
    for position in range(field.type.num_fields):
        yield from _names_in(field.type.field(position))


def _is_understood(table: pa.Table) -> bool:
    """Return whether the schema's metadata, such as label names, is what `datasets` would write.

    Metadata that declares images or audio is ignored: to decode a cell, `datasets` would open any path or address in.
    """
    import datasets
    import pyarrow as pa
    from datasets.table import table_cast

    try:
        features = datasets.Features.from_arrow_schema(table.schema)
        table_cast(table.slice(0, 0), features.arrow_schema)  # as a Dataset will with all rows
        return all(map(_is_plain, features.values()))
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, pa.ArrowException):
        return False


def _is_plain(feature: Any) -> bool:
    """Return whether values are text, numbers, classes, or lists and records of these, judged by type name."""
    if isinstance(feature, dict):
        return all(map(_is_plain, feature.values()))
    if isinstance(feature, list):
        return all(map(_is_plain, feature))
    if type(feature).__name__ in ("List", "LargeList", "Sequence"):
        return _is_plain(feature.feature)
    return type(feature).__name__ in ("Value", "ClassLabel")


def bounded(batches: Iterable[pa.RecordBatch], schema: pa.Schema, where: str, limit: int) -> pa.Table:
    """Return all batches as a table; DataError as soon as they exceed `limit` bytes.

    The file's own size tells little, because a page with a single value can stand for any number of rows.
    """
    import pyarrow as pa

    kept, total = [], 0
    for batch in batches:
        batch.validate(full=True)  # unchecked, Arrow follows wrong offsets in a file out of bounds
        total += batch.nbytes
        if total > limit:
            raise DataError(unpacked_too_much(where, limit))
        kept.append(batch)
    return pa.Table.from_batches(kept, kept[0].schema if kept else schema)


def _batches(reader: Any) -> Iterator[pa.RecordBatch]:
    """Yield the batches of an Arrow file or stream."""
    if hasattr(reader, "num_record_batches"):
        return (reader.get_batch(number) for number in range(reader.num_record_batches))
    return iter(reader)


def _arrow_reader(file: Any, magic: bytes) -> Any:
    """Open an Arrow file, or a stream as `datasets` writes it."""
    import pyarrow as pa

    return pa.ipc.open_file(file) if magic.startswith(b"ARROW1") else pa.ipc.open_stream(file)


def without_dictionaries(table: pa.Table) -> pa.Table:
    """Convert dictionary columns, which pandas and polars write for categories, to plain columns."""
    import pyarrow as pa

    for position, column in enumerate(table.schema):
        if pa.types.is_dictionary(column.type):
            # Arrow cannot decode dictionaries of polars' string views, only of strings.
            kind = pa.string() if column.type.value_type == pa.string_view() else column.type.value_type
            parts = [
                pa.DictionaryArray.from_arrays(part.indices, part.dictionary.cast(kind)).dictionary_decode()
                for part in table.column(position).chunks
            ]
            table = table.set_column(position, pa.field(column.name, kind), pa.chunked_array(parts, kind))
    return table


def write_parquet(dataset: datasets.Dataset, path: Path) -> None:
    """Write a dataset, class names included, without the library's progress bar."""
    from datasets.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    was_disabled = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        dataset.to_parquet(str(path))
    finally:
        if not was_disabled:
            enable_progress_bars()


def disagreements(read: list[tuple[str, FileRows]]) -> Iterator[Problem]:
    """Yield a problem for each file whose columns or types differ from those of the files before it."""
    import pyarrow as pa

    first_name, first = read[0]
    expected = [*first.table.column_names, *first.unreadable]
    types: dict[str, tuple[Any, str]] = {}  # column -> type, and the first file that has it
    for name, rows in read:
        columns = [*rows.table.column_names, *rows.unreadable]
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
            if column.type == known:
                continue
            try:  # unifies integers with floats, empty lists with other lists, and objects with different keys
                fields = [pa.schema([pa.field("one", kind)]) for kind in (known, column.type)]
                types[column.name] = (pa.unify_schemas(fields, promote_options="permissive").field(0).type, shown_by)
            except pa.ArrowException:
                yield Problem(
                    code="E128",
                    where=f"{name}, column {shown(column.name)}",
                    found=f"values of type {column.type}",
                    expected=f"{known} as in {shown_by}",
                )
