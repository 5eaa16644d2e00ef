"""Read CSV and TSV files into Arrow tables of strings that keep every cell exactly as the file has it.

The standard library's csv module parses them in strict mode: faults are reported, never repaired. No cell is converted
to a number, a date or a missing value. A row number in a message is the line of the file where the record begins, so a
header is row 1.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from fasttune.data.formats.header import (
    MAX_TITLE_LINES,
    is_usual_name,
    looks_like_data,
    num_title_lines,
    surely_data,
)
from fasttune.data.formats.storage import Header, ReadOptions
from fasttune.data.formats.text_file import LINE_END, WRITE_AGAIN, FileRows, TextFile, lines_of
from fasttune.data.problems import Problems, counted
from fasttune.errors import DataError, Problem, shown

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
RECORDS_FOR_DETECTION = 50
ENOUGH_AGREE = 0.9  # the share of these records that must have as many fields as the header to accept a delimiter
MAX_FIELD_CHARACTERS = 2**31 - 1  # csv's default limit of 131,072 characters would refuse long documents
RECORDS_PER_CHUNK = 20_000
LONE_CARRIAGE_RETURN = re.compile(r"\r(?!\n)")
EXCEL_SEPARATOR = re.compile(r"sep=.(?=\r?\n)")
RECORDS_LOOKED_AT = 1_000  # to distinguish a header from data


@dataclass(frozen=True)
class Layout:
    """How all rows of a file are written.

    `quoted`: whether double quotes enclose fields; otherwise they are plain text. `header`: whether the first row is
    the header.
    """

    delimiter: str
    quoted: bool
    header: bool
    names: tuple[str, ...]


class Records:
    """Records with the same number of cells, as Arrow arrays, which are several times smaller than Python lists."""

    def __init__(self) -> None:
        self._chunks: list[list[pa.Array]] = []  # each with one array per column
        self._open: list[list[str]] = []  # the records since the last chunk

    def __len__(self) -> int:
        return sum(len(chunk[0]) for chunk in self._chunks) + len(self._open)

    def __iter__(self) -> Iterator[Sequence[str]]:
        for chunk in self._chunks:
            for first in range(0, len(chunk[0]), RECORDS_LOOKED_AT):
                columns = [column.slice(first, RECORDS_LOOKED_AT).to_pylist() for column in chunk]
                yield from zip(*columns, strict=True)
        yield from self._open

    def append(self, record: list[str]) -> None:
        self._open.append(record)
        if len(self._open) == RECORDS_PER_CHUNK:
            self._close_chunk()

    def _close_chunk(self) -> None:
        import pyarrow as pa

        self._chunks.append([pa.array(column, pa.string()) for column in zip(*self._open, strict=True)])
        self._open = []

    def table(self, names: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        if self._open:
            self._close_chunk()
        columns = zip(*self._chunks, strict=True) if self._chunks else [()] * len(names)
        return pa.table([pa.chunked_array(list(chunks), pa.string()) for chunks in columns], names)


@dataclass
class Scan:
    """The result of parsing a file with one delimiter and one quoting rule."""

    names: list[str] = field(default_factory=list)
    records: Records = field(default_factory=Records)
    row_numbers: array[int] = field(default_factory=lambda: array("q"))
    problems: Problems = field(default_factory=lambda: Problems(""))
    broken: bool = False  # a quoting error stopped the parser; the rest was not read
    quoted: bool = True
    num_blank: int = 0  # empty lines between rows


def read_delimited(file: TextFile, where: str, suffix: str, reading: ReadOptions) -> FileRows:
    """The rows of a file. `where` is its path or address, `suffix` its extension without that of a compression."""
    scan, layout, notes = _parsed(file.text, where, suffix, reading.header, named=reading.columns)
    if scan.num_blank:
        notes.append(f"{where}: ignored {scan.num_blank:,} empty lines between rows")
    has_header = layout.header or len(layout.names) == 1  # a file of one text per line says nothing about others
    table = scan.records.table(scan.names)
    return FileRows(table, scan.row_numbers, file.sha256, (*file.notes, *notes), has_header)


def layout_of(
    text: str, where: str, suffix: str, header: Header, named: Sequence[str] = ()
) -> tuple[Layout, tuple[str, ...]]:
    """Detect the layout of a file from the whole lines at its beginning; return it with notes for the user."""
    _, layout, notes = _parsed(text, where, suffix, header, in_lines=True, named=named)
    return layout, tuple(notes)


def read_lines(file: TextFile, where: str, layout: Layout) -> FileRows:
    """Read whole lines from anywhere below the header of a file. Every line is a row; blank lines are skipped."""
    with long_fields():
        scan = _scan(file.text, layout.delimiter, where, header=False, quoted=layout.quoted, names=layout.names)
    _check_lines(scan, where)
    scan.problems.raise_if_any()
    return FileRows(scan.records.table(scan.names), scan.row_numbers, file.sha256, file.notes)


def _check_lines(scan: Scan, where: str) -> None:
    """Raise DataError if a field spans several lines: a reader that starts in the middle of it could not know."""
    multiline = [row for row, record in zip(scan.row_numbers, scan.records, strict=True) if _has_line_break(record)]
    if not scan.broken and not multiline and not _has_line_break(scan.names):
        return
    found = f"a field spans several lines (row {multiline[0] if multiline else 1})"
    if scan.broken:
        problem = scan.problems.kept[-1]
        found = f"{problem.where.removeprefix(where).strip()}: {problem.found}"
    raise DataError(
        Problem(
            code="E137",
            where=where,
            found=f"{found}; a streamed file must have one row per line",
            hint="write it as JSONL or Parquet, or set data.streaming=false",
        )
    )


def _has_line_break(record: Sequence[str]) -> bool:
    return any("\n" in cell or "\r" in cell for cell in record)


def _parsed(
    text: str, where: str, suffix: str, setting: Header, in_lines: bool = False, named: Sequence[str] = ()
) -> tuple[Scan, Layout, list[str]]:
    """Parse all records below the header; DataError lists everything that is wrong with them.

    `setting` is `data.header`. With `in_lines` each record must be a single line.
    """
    notes = []
    if EXCEL_SEPARATOR.match(text) and not in_lines:  # the line itself stays, so that rows keep their numbers
        text = EXCEL_SEPARATOR.sub("", text, count=1)
    with long_fields():
        usual = "," if suffix == ".csv" else "\t"
        delimiter = detect_delimiter(text, preferred=usual)
        if delimiter != usual:
            notes.append(f"{where}: fields are separated by a {DELIMITER_NAMES[delimiter]}")
        header = has_header(text, suffix, delimiter, named) if setting == "auto" else setting
        if setting == "auto" and not header:
            notes.append(f"{where}: read as one text per line, without a header (if there is one: data.header=true)")
        may_have_titles = header and setting == "auto" and not in_lines  # a stream finds its header in the first line
        num_titles = num_title_lines(_first_records(text, delimiter)) if may_have_titles else 0
        scan, note = _scanned(text, delimiter, where, header, num_titles)
        is_open = may_have_titles and not num_titles and scan.names and not set(named) & set(scan.names)
        evidence = surely_data(scan.names, _first_rows(scan)) if is_open else ""
        if evidence:
            header = False
            scan, note = _scanned(text, delimiter, where, header, 0)
            notes.append(
                f"{where}: read without a header, because the first row is like the others ({evidence}); if it is the "
                "header: data.header=true"
            )
        if num_titles:
            notes.append(f"{where}: skipped {counted(num_titles, 'title line')} above the header")
    if note:
        notes.append(f"{where}: {note}")
    if in_lines:
        _check_lines(scan, where)
    if header:
        _check_names(scan, where)
    if len(scan.names) == 1:
        _check_line_ends(text, scan, where)
    if setting == "auto" and header:
        _check_not_data(scan, where, named)
    scan.problems.raise_if_any()
    if not scan.records:
        hint = f"{WRITE_AGAIN}; if the file has no header: data.header=false" if header else WRITE_AGAIN
        raise DataError(Problem(code="E104", where=where, found="there are no rows below the header", hint=hint))
    return scan, Layout(delimiter, scan.quoted, header, tuple(scan.names)), notes


@contextmanager
def long_fields() -> Iterator[None]:
    before = csv.field_size_limit(MAX_FIELD_CHARACTERS)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _reader(text: str, delimiter: str, *, quoted: bool = True, strict: bool = True):
    lines = lines_of(text)
    if quoted:
        return csv.reader(lines, delimiter=delimiter, strict=strict)
    return csv.reader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE, strict=strict)


def _first_records(text: str, delimiter: str, *, quoted: bool = True) -> list[list[str]]:
    """The first records that are not empty; not strict, because `_scan` reports quoting errors."""
    reader = _reader(text, delimiter, quoted=quoted, strict=False)
    return [record for record in islice(reader, RECORDS_FOR_DETECTION) if record]


def _first_rows(scan: Scan) -> list[Sequence[str]]:
    return list(islice(scan.records, RECORDS_LOOKED_AT))


def detect_delimiter(text: str, preferred: str) -> str:
    """Return the delimiter that splits the first records into as many fields as the header; `preferred` wins a tie."""
    candidates = [preferred, *(delimiter for delimiter in DELIMITER_NAMES if delimiter != preferred)]
    best, best_share = preferred, 0.0
    for delimiter in candidates:
        share = _share_like_header(text, delimiter)
        if delimiter == "\t":  # tab-separated files often have no quoting
            share = max(share, _share_like_header(text, delimiter, quoted=False))
        enough = delimiter == preferred or share >= ENOUGH_AGREE
        if enough and share > best_share:
            best, best_share = delimiter, share
    return best


def _share_like_header(text: str, delimiter: str, *, quoted: bool = True) -> float:
    """Return the share of the first records with as many fields as the header; 0 if the header has only one field."""
    records = _first_records(text, delimiter, quoted=quoted)
    num_titles = next((number for number, record in enumerate(records) if len(record) > 1), 0)
    if 0 < num_titles <= MAX_TITLE_LINES and any(
        map(is_usual_name, records[num_titles])
    ):  # title lines above the header
        records = records[num_titles:]
    if not records or len(records[0]) < 2:
        return 0.0
    return sum(len(record) == len(records[0]) for record in records) / len(records)


def _scan(
    text: str,
    delimiter: str,
    where: str,
    header: bool,
    *,
    quoted: bool = True,
    names: Sequence[str] = (),
    num_titles: int = 0,
) -> Scan:
    """Parse `text` and collect its records and problems.

    `header`: whether the first record after `num_titles` others has the column names. Otherwise they are `names` or, if
    there are none, `numbered_columns`.
    """
    scan = Scan(names=list(names), problems=Problems(where), quoted=quoted)
    reader = _reader(text, delimiter, quoted=quoted)
    start, num_blank = 1, 0
    try:
        for record in reader:
            if not record:
                num_blank += 1
            elif num_titles:
                num_titles -= 1
            elif not scan.names and header:
                scan.names = record
            else:
                scan.names = scan.names or numbered_columns(len(record))
                scan.num_blank += num_blank
                num_blank = 0
                if len(record) == len(scan.names):
                    scan.records.append(record)
                    scan.row_numbers.append(start)
                else:
                    scan.problems.add(_ragged(record, scan.names, delimiter, f"{where} row {start}"))
            start = reader.line_num + 1
    except csv.Error as error:
        scan.broken = True
        scan.problems.add(_broken_quote(str(error), start, reader.line_num, where))
    if not scan.names and not scan.broken:
        scan.problems.add(
            Problem(code="E103", where=where, found="only empty lines", expected="a header and rows of data")
        )
    return scan


def numbered_columns(number: int) -> list[str]:
    """Return names for unnamed columns: column1, column2, ..."""
    return [f"column{position}" for position in range(1, number + 1)]


def _ragged(record: list[str], names: list[str], delimiter: str, where: str) -> Problem:
    delimiter_name = DELIMITER_NAMES[delimiter]
    expected = f"{len(names)} as in the header"
    num_fields = f"{len(record)} field{'s' if len(record) > 1 else ''}"
    if len(record) > len(names):
        extra = shown(record[len(names)])
        remedy = f"put double quotes around a field that contains a {delimiter_name}"
        return Problem(
            code="E110",
            where=where,
            found=f"{num_fields} (first extra: {extra})",
            expected=expected,
            hint=remedy if delimiter != "\t" else "remove the tabs from the text",
        )
    missing = ", ".join(repr(name) for name in names[len(record) :])
    return Problem(
        code="E111",
        where=where,
        found=f"{num_fields} ({missing} missing)",
        expected=expected,
        hint=f"an empty value still needs its {delimiter_name}",
    )


def _broken_quote(message: str, start: int, line: int, where: str) -> Problem:
    if "unexpected end of data" in message:
        return Problem(
            code="E112",
            where=f"{where} row {start}",
            found='the quote (") opened in this row is never closed',
            hint='inside a quoted field, write a quote twice: "a 15"" screen"',
        )
    if "expected after" in message:
        opened = f" of a field opened in row {start}" if line != start else ""
        return Problem(
            code="E112",
            where=f"{where} row {line}",
            found=f"text right after the closing quote{opened}",
            expected="a delimiter or the end of the line",
            hint='inside a quoted field, write a quote twice: "a 15"" screen"',
        )
    return Problem(code="E112", where=f"{where} row {line}", found=f"the row cannot be parsed: {message}")


def _scanned(text: str, delimiter: str, where: str, header: bool, num_titles: int) -> tuple[Scan, str]:
    if delimiter == "\t":
        return _scan_tabs(text, where, header, num_titles)
    return _scan(text, delimiter, where, header, num_titles=num_titles), ""


def _scan_tabs(text: str, where: str, header: bool, num_titles: int = 0) -> tuple[Scan, str]:
    """Parse a tab-separated file, with quoting (spreadsheets, pandas) or without (research data): the data decides."""
    if '"' not in text:
        return _scan(text, "\t", where, header, num_titles=num_titles), ""
    literal = _scan(text, "\t", where, header, quoted=False, num_titles=num_titles)
    quoted = _scan(text, "\t", where, header, num_titles=num_titles)
    if literal.problems and not quoted.broken and len(quoted.problems) <= len(literal.problems):
        return quoted, "double quotes are read as quoting"
    if literal.problems or quoted.problems or not _may_be_quoted(literal):
        return literal, "double quotes are read as text, because they do not enclose fields consistently"
    return quoted, "double quotes are read as quoting, because every field that contains one is quoted"


def _may_be_quoted(literal: Scan) -> bool:
    """Return whether each field with a quote is enclosed in quotes and doubles those inside, as quoting writers do.

    Also false if quoting would join lines that parse well separately.
    """
    return all(all(map(is_whole_quote, record)) for record in (literal.names, *literal.records))


def is_whole_quote(cell: str) -> bool:
    """Return whether the cell has no quotes, or is enclosed in quotes with those inside doubled."""
    is_enclosed = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
    return is_enclosed or '"' not in cell


def has_header(text: str, suffix: str, delimiter: str, named: Sequence[str]) -> bool:
    """Return whether the first record is a header: always, except in .txt files with one text per line.

    Such files have no delimiter, and their first line is neither a common column name nor one from the recipe.
    """
    if suffix != ".txt":
        return True
    first: list[str] = next((record for record in _reader(text, delimiter, strict=False) if record), [])
    return len(first) != 1 or first[0] in named or is_usual_name(first[0])


def _check_names(scan: Scan, where: str) -> None:
    seen: set[str] = set()
    for name in scan.names:
        if name in seen:
            scan.problems.add(
                Problem(
                    code="E113",
                    where=f"{where} row 1",
                    found=f"two columns are named {shown(name)}",
                    hint="rename one of them in the first line of the file",
                )
            )
        seen.add(name)


def _check_line_ends(text: str, scan: Scan, where: str) -> None:
    """Report a lone carriage return in a file with a single column, where it would silently split a row in two.

    With several columns it makes a row too short, which is reported anyway.
    """
    alone = LONE_CARRIAGE_RETURN.search(text)
    if alone and "\n" in text and text.count('"', 0, alone.start()) % 2 == 0:  # not within quotes
        row = sum(1 for _ in LINE_END.finditer(text, 0, alone.start()))
        scan.problems.add(
            Problem(
                code="E139",
                where=f"{where} row {row + 1}",
                found="a carriage return inside a line that ends with a line feed",
                expected="one kind of line ending",
                hint="put double quotes around a cell that contains a line break",
            )
        )


def _check_not_data(scan: Scan, where: str, named: Sequence[str]) -> None:
    """Report a header that looks like data. `named`: the columns that the recipe names."""
    evidence = looks_like_data(scan.names, _first_rows(scan))
    if evidence and not set(named) & set(
        scan.names
    ):  # a recipe that names a column like this knows that it is the header
        scan.problems.add(
            Problem(
                code="E114",
                where=f"{where} row 1",
                found=f"a row of data ({evidence})",
                expected="column names",
                preview=tuple(" | ".join(map(shown, row)) for row in (scan.names, *islice(scan.records, 2))),
                hint="data.header=false names the columns column1, column2 and so on; data.header=true if this is the "
                "header",
            )
        )
