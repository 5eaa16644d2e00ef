"""CSV and TSV files -> Arrow tables of strings, every cell as it stands in the file.

Parsed by the standard library's csv module in strict mode: faults are errors, never repaired. Nothing is read as
missing, as a number or as a date. A row number in a message is the line of the file where the record begins, so the
header, where there is one, is row 1.
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

from fasttune.data.formats.storage import Header, Reading
from fasttune.data.formats.text_file import LINE_END, WRITE_AGAIN, FileRows, TextFile, lines_of, read_text
from fasttune.data.labels import is_number
from fasttune.data.problems import Problems
from fasttune.errors import DataError, Problem, shown

if TYPE_CHECKING:
    import pyarrow as pa

DELIMITER_NAMES = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
RECORDS_FOR_DETECTION = 50
ENOUGH_AGREE = 0.9  # of these records have as many fields as the header, or the delimiter is not believed
MAX_FIELD_CHARACTERS = 2**31 - 1  # csv's own limit of 131,072 characters would refuse long documents
RECORDS_PER_CHUNK = 20_000
LONE_CARRIAGE_RETURN = re.compile(r"\r(?!\n)")
RECORDS_LOOKED_AT = 1_000  # to tell a header from data

# A first row with one of these names is a header, whatever else speaks against it.
USUAL_NAMES = frozenset(
    re.findall(
        r"\w+",
        """answer answers body category class comment content context document headline hypothesis id idx index label
        labels message name premise quality query question rating review score sentence sentence1 sentence2 sentiment
        star stars summary tag tags target text text1 text2 title tweet""",
    )
)


@dataclass(frozen=True)
class Layout:
    """What holds for all rows of a file.

    `quoted`: whether double quotes are quoting; otherwise they are text. `header`: whether the first row is one.
    """

    delimiter: str
    quoted: bool
    header: bool
    names: tuple[str, ...]


class Records:
    """Records of as many cells each, kept as Arrow does: lists of Python's strings are several times as large."""

    def __init__(self) -> None:
        self._parts: list[list[pa.Array]] = []
        self._open: list[list[str]] = []

    def __len__(self) -> int:
        return sum(len(part[0]) for part in self._parts) + len(self._open)

    def __iter__(self) -> Iterator[Sequence[str]]:
        for part in self._parts:
            for first in range(0, len(part[0]), RECORDS_LOOKED_AT):
                yield from zip(*(column.slice(first, RECORDS_LOOKED_AT).to_pylist() for column in part), strict=True)
        yield from self._open

    def append(self, record: list[str]) -> None:
        self._open.append(record)
        if len(self._open) == RECORDS_PER_CHUNK:
            self._close()

    def _close(self) -> None:
        import pyarrow as pa

        self._parts.append([pa.array(column, pa.string()) for column in zip(*self._open, strict=True)])
        self._open = []

    def table(self, names: Sequence[str]) -> pa.Table:
        import pyarrow as pa

        if self._open:
            self._close()
        columns = zip(*self._parts, strict=True) if self._parts else [()] * len(names)
        return pa.table([pa.chunked_array(list(parts), pa.string()) for parts in columns], names)


@dataclass
class Scan:
    """One reading of a file with one delimiter and one rule of quoting."""

    names: list[str] = field(default_factory=list)
    records: Records = field(default_factory=Records)
    row_numbers: array[int] = field(default_factory=lambda: array("q"))
    problems: Problems = field(default_factory=lambda: Problems(""))
    broken: bool = False  # quoting went wrong, what follows was not read
    quoted: bool = True
    num_blank: int = 0  # empty lines between rows


def read_delimited(where: str, suffix: str, reading: Reading) -> FileRows:
    """`where` is the path or address of the file, `suffix` its ending without packing."""
    file = read_text(where, reading)
    scan, _, notes = _parsed(file.text, where, suffix, reading.header, named=reading.columns)
    if scan.num_blank:
        notes.append(f"{where}: {scan.num_blank:,} empty lines between rows are not read as rows")
    return FileRows(scan.records.table(scan.names), scan.row_numbers, file.sha256, (*file.notes, *notes))


def layout_of(
    text: str, where: str, suffix: str, header: Header, named: Sequence[str] = ()
) -> tuple[Layout, tuple[str, ...]]:
    """How a file is laid out, told by whole lines of its beginning; and what is to be said of it."""
    _, layout, notes = _parsed(text, where, suffix, header, in_lines=True, named=named)
    return layout, tuple(notes)


def read_lines(file: TextFile, where: str, layout: Layout) -> FileRows:
    """Some whole lines from anywhere in a file below its header; every line is a row, a blank one is none."""
    with _long_fields():
        scan = _scan(file.text, layout.delimiter, where, header=False, quoted=layout.quoted, names=layout.names)
    _check_lines(scan, where)
    scan.problems.raise_if_any()
    return FileRows(scan.records.table(scan.names), scan.row_numbers, file.sha256, file.notes)


def _check_lines(scan: Scan, where: str) -> None:
    """A field that goes over several lines cannot be told from others by who begins to read in its middle."""
    over = [row for row, record in zip(scan.row_numbers, scan.records, strict=True) if _has_line_break(record)]
    if not scan.broken and not over and not _has_line_break(scan.names):
        return
    found = f"a field that goes over several lines (row {over[0] if over else 1})"
    if scan.broken:
        found = f"{scan.problems.kept[-1].where.removeprefix(where).strip()}: {scan.problems.kept[-1].found}"
    expected = "one line a row in a file that is streamed"
    hint = "write it as JSONL or Parquet, or data.streaming=false"
    raise DataError(Problem(code="E137", where=where, found=found, expected=expected, hint=hint))


def _has_line_break(record: Sequence[str]) -> bool:
    return any("\n" in cell or "\r" in cell for cell in record)


def _parsed(
    text: str, where: str, suffix: str, asked: Header, in_lines: bool = False, named: Sequence[str] = ()
) -> tuple[Scan, Layout, list[str]]:
    """All records below the header, with `in_lines` one a line; DataError tells everything that is wrong with them.

    `asked`: the setting `data.header`.
    """
    notes = []
    with _long_fields():
        usual = "," if suffix == ".csv" else "\t"
        delimiter = detect_delimiter(text, preferred=usual)
        if delimiter != usual:
            notes.append(f"{where}: fields are separated by a {DELIMITER_NAMES[delimiter]}")
        header = has_header(text, suffix, delimiter, named) if asked == "auto" else asked
        if asked == "auto" and not header:
            notes.append(f"{where}: one text a line, without a header (if there is one: data.header=true)")
        scan, note = (
            _scan_tabs(text, where, header) if delimiter == "\t" else (_scan(text, delimiter, where, header), "")
        )
    if note:
        notes.append(f"{where}: {note}")
    if in_lines:
        _check_lines(scan, where)
    if header:
        _check_names(scan, where)
    if len(scan.names) == 1:
        _check_line_ends(text, scan, where)
    if asked == "auto" and header:
        _check_not_data(scan, where, named)
    scan.problems.raise_if_any()
    if not scan.records:
        hint = f"{WRITE_AGAIN}; without a header: data.header=false" if header else WRITE_AGAIN
        found = "0 rows below the header"
        raise DataError(Problem(code="E104", where=where, found=found, expected="rows of data", hint=hint))
    return scan, Layout(delimiter, scan.quoted, header, tuple(scan.names)), notes


@contextmanager
def _long_fields() -> Iterator[None]:
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


def detect_delimiter(text: str, preferred: str) -> str:
    """The delimiter that splits the first records into as many fields as the header, `preferred` where several do."""
    candidates = [preferred, *(delimiter for delimiter in DELIMITER_NAMES if delimiter != preferred)]
    best, best_share = preferred, 0.0
    for delimiter in candidates:
        share = _share_like_header(text, delimiter)
        if delimiter == "\t":  # which often comes without quoting
            share = max(share, _share_like_header(text, delimiter, quoted=False))
        enough = delimiter == preferred or share >= ENOUGH_AGREE
        if enough and share > best_share:
            best, best_share = delimiter, share
    return best


def _share_like_header(text: str, delimiter: str, *, quoted: bool = True) -> float:
    """The share of the first records with as many fields as the header; 0 where that is only one."""
    # Without strict mode, because here a fault of quoting is no news: the real reading reports it.
    reader = _reader(text, delimiter, quoted=quoted, strict=False)
    records = [record for record in islice(reader, RECORDS_FOR_DETECTION) if record]
    if not records or len(records[0]) < 2:
        return 0.0
    return sum(len(record) == len(records[0]) for record in records) / len(records)


def _scan(
    text: str, delimiter: str, where: str, header: bool, *, quoted: bool = True, names: Sequence[str] = ()
) -> Scan:
    """`header`: whether the first record holds the names of the columns.

    They are `names` otherwise, or where these are not known `numbered_columns`.
    """
    scan = Scan(names=list(names), problems=Problems(where), quoted=quoted)
    reader = _reader(text, delimiter, quoted=quoted)
    start, num_blank = 1, 0
    try:
        for record in reader:
            if not record:
                num_blank += 1
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
            Problem(code="E103", where=where, found="nothing but empty lines", expected="a header and rows of data")
        )
    return scan


def numbered_columns(number: int) -> list[str]:
    """The names of columns that have none."""
    return [f"column{position}" for position in range(1, number + 1)]


def _ragged(record: list[str], names: list[str], delimiter: str, where: str) -> Problem:
    called = DELIMITER_NAMES[delimiter]
    expected = f"{len(names)} as in the header"
    num_fields = f"{len(record)} field{'s' if len(record) > 1 else ''}"
    if len(record) > len(names):
        extra = shown(record[len(names)])
        remedy = f'write "..." round a field that holds a {called}'
        return Problem(
            code="E110",
            where=where,
            found=f"{num_fields} (the first too many is {extra})",
            expected=expected,
            hint=remedy if delimiter != "\t" else "take the tabs out of the text",
        )
    missing = ", ".join(repr(name) for name in names[len(record) :])
    return Problem(
        code="E111",
        where=where,
        found=f"{num_fields} ({missing} missing)",
        expected=expected,
        hint=f"an empty value still needs its {called}",
    )


def _broken_quote(message: str, start: int, line: int, where: str) -> Problem:
    if "unexpected end of data" in message:
        return Problem(
            code="E112",
            where=f"{where} row {start}",
            found='a quote (") that is opened in this row and never closed',
            expected="a closing quote",
            hint='inside a quoted field a quote is written twice: "a 15"" screen"',
        )
    if "expected after" in message:
        opened = f" of a field that is opened in row {start}" if line != start else ""
        return Problem(
            code="E112",
            where=f"{where} row {line}",
            found=f"text right after the closing quote{opened}",
            expected="a delimiter or the end of the line",
            hint='inside a quoted field a quote is written twice: "a 15"" screen"',
        )
    return Problem(code="E112", where=f"{where} row {line}", found=message, expected="a record")


def _scan_tabs(text: str, where: str, header: bool) -> tuple[Scan, str]:
    """Tab-separated files come with quoting (spreadsheets, pandas) and without (research data): the data decides."""
    if '"' not in text:
        return _scan(text, "\t", where, header), ""
    literal = _scan(text, "\t", where, header, quoted=False)
    quoted = _scan(text, "\t", where, header)
    if literal.problems and not quoted.broken and len(quoted.problems) <= len(literal.problems):
        return quoted, "double quotes are read as quoting"
    if literal.problems or quoted.problems or not _may_be_quoted(literal):
        return literal, "double quotes are read as text, not as quoting: they do not fit quoting everywhere"
    return quoted, "double quotes are read as quoting: every field that holds one is enclosed in them"


def _may_be_quoted(literal: Scan) -> bool:
    """True where each field with a quote is enclosed in quotes and doubles those inside, as writers that quote do.

    False also where reading with quoting would join lines that split well on their own.
    """
    return all(all(map(is_whole_quote, record)) for record in (literal.names, *literal.records))


def is_whole_quote(cell: str) -> bool:
    """Whether quotes, if there are any, enclose the cell, those inside doubled."""
    is_enclosed = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
    return is_enclosed or '"' not in cell


def has_header(text: str, suffix: str, delimiter: str, named: Sequence[str]) -> bool:
    """Whether the first record names the columns: always, but for the .txt files that hold one text a line.

    These have no delimiter, and their first line is neither a common column name nor one that the recipe names.
    """
    if suffix != ".txt":
        return True
    first: list[str] = next((record for record in _reader(text, delimiter, strict=False) if record), [])
    return len(first) != 1 or first[0] in named or _is_usual(first[0])


def _is_usual(name: str) -> bool:
    return name.strip().lower() in USUAL_NAMES


def _check_names(scan: Scan, where: str) -> None:
    seen: set[str] = set()
    for name in scan.names:
        if name in seen:
            scan.problems.add(
                Problem(
                    code="E113",
                    where=f"{where} row 1",
                    found=f"two columns named {shown(name)}",
                    expected="a different name for each column",
                    hint="rename one of them in the first line of the file",
                )
            )
        seen.add(name)


def _check_line_ends(text: str, scan: Scan, where: str) -> None:
    """In a file of several columns a line end inside a cell makes a row too short; in one of a single column it makes
    two rows."""
    alone = LONE_CARRIAGE_RETURN.search(text)
    if alone and "\n" in text and text.count('"', 0, alone.start()) % 2 == 0:  # not within quotes
        row = sum(1 for _ in LINE_END.finditer(text, 0, alone.start()))
        scan.problems.add(
            Problem(
                code="E139",
                where=f"{where} row {row + 1}",
                found="a carriage return within a line that ends with a line feed",
                expected="one kind of line end",
                hint='write "..." round a cell that holds a line break',
            )
        )


def _check_not_data(scan: Scan, where: str, named: Sequence[str]) -> None:
    """`named`: the columns that the recipe names."""
    evidence = _looks_like_data(scan)
    if evidence and not set(named) & set(scan.names):  # who names a column by it knows that it is the header
        scan.problems.add(
            Problem(
                code="E114",
                where=f"{where} row 1",
                found=f"a row of data ({evidence})",
                expected="the names of the columns",
                hint="data.header=false calls the columns column1, column2 and so on; data.header=true if this is the "
                "header",
            )
        )


def _looks_like_data(scan: Scan) -> str:
    """What in the first row no header would hold, or nothing."""
    if any(map(_is_usual, scan.names)):
        return ""
    first = list(islice(scan.records, RECORDS_LOOKED_AT))
    for position, name in enumerate(scan.names):
        values = [record[position] for record in first]
        if name.strip() and values.count(name) >= 2:
            return f"{shown(name)} is also a value further down"
        if values and is_number(name) and all(map(is_number, values)):
            return f"{shown(name)} is a number like those below it"
    return ""
