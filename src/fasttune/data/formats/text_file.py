"""Decode text files without ever guessing their encoding.

Accepts UTF-8 (with or without a byte order mark), UTF-16 and UTF-32 with a byte order mark, the encoding in
`data.encoding`, and another one if no other gives plausible text. Anything else is an error that names the byte, the
row and the likely encoding, because a wrong guess would silently corrupt the data.
"""

from __future__ import annotations

import codecs
import hashlib
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from fasttune.data.formats.encodings import certain_encoding, guess_encoding, latin_readings
from fasttune.data.formats.storage import ReadOptions, read_bytes
from fasttune.data.problems import some_of
from fasttune.errors import DataError, Problem

if TYPE_CHECKING:
    import pyarrow as pa

Place = Callable[[int], str]  # returns where a row is, for messages


# UTF-32 comes first, because its little-endian mark begins with that of UTF-16.
BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
EXCEL_MAGIC = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1")  # .xlsx is a zip archive, .xls an OLE file
WRITE_AGAIN = "write the file again: the program that wrote it may have been interrupted"
LINE_END = re.compile(r"\r\n|\r|\n")


@dataclass(frozen=True, eq=False)
class FileRows:
    """The rows of a file.

    `row_numbers[i]`: the line of the file where row i begins or, in a JSON document, the number of the row; None means
    1, 2, 3 ... `has_header`: False for a table whose first row is one of its rows. `unreadable`:
    columns that the table leaves out, and why; that matters only if one of them is used.
    """

    table: pa.Table
    row_numbers: Sequence[int] | None
    sha256: str
    notes: tuple[str, ...] = ()
    has_header: bool = True
    unreadable: Mapping[str, Problem] = field(default_factory=dict)


@dataclass(frozen=True)
class TextFile:
    text: str
    sha256: str
    notes: tuple[str, ...] = ()


def read_text(name: str, reading: ReadOptions) -> TextFile:
    """Read and decode a file. `name` is its path or address, and its name in messages."""
    data = read_bytes(name, reading)
    if not data:
        raise DataError(Problem(code="E103", where=name, found="the file is empty (0 bytes)", hint=WRITE_AGAIN))
    return text_of(data, name, reading.encoding)


def text_of(data: bytes, name: str, encoding: str | None) -> TextFile:
    """Decode a file's bytes, or some whole lines of it; `encoding` is that of `ReadOptions`."""
    if data.startswith(EXCEL_MAGIC):
        raise DataError(excel_problem(name))
    sha256 = hashlib.sha256(data).hexdigest()
    text, notes = _decoded(data, name, encoding)
    position = text.find("\0")
    if position >= 0:
        count = text.count("\0")
        raise DataError(
            Problem(
                code="E123",
                where=f"{name} row {_line_number(text, position)}",
                found=f"a NUL character ({count:,} in the file)",
                expected="text",
                hint=f"to remove the NUL bytes: tr -d '\\000' < {shlex.quote(name)} > clean{Path(name).suffix}",
            )
        )
    return TextFile(text, sha256, notes)


def lines_of(text: str) -> Iterator[str]:
    """Yield the lines with their ends. A list of them would take the file's memory again, a StringIO four times."""
    begin = 0
    for end in LINE_END.finditer(text):
        yield text[begin : end.end()]
        begin = end.end()
    if begin < len(text):
        yield text[begin:]


def _decoded(data: bytes, where: str, encoding_setting: str | None) -> tuple[str, tuple[str, ...]]:
    """Return the text, and notes on its encoding. A byte order mark takes precedence over the setting."""
    for mark, encoding in BYTE_ORDER_MARKS:
        if data.startswith(mark):
            note = f"N120 {where}: read as {encoding.upper()}, as its byte order mark says"
            return _decode_as(data, encoding, where, "as the byte order mark says"), (note,)
    if data.startswith(codecs.BOM_UTF8) or encoding_setting is None:
        while data.startswith(codecs.BOM_UTF8):  # joined files have several
            data = data.removeprefix(codecs.BOM_UTF8)
        return _decode_utf8(data, where)
    note = f"{where}: read as {encoding_setting}, as data.encoding says"
    return _decode_as(data, encoding_setting, where, "as data.encoding says"), (note,)


def excel_problem(where: str) -> Problem:
    return Problem(
        code="E105",
        where=where,
        found="a spreadsheet or a zip archive under the extension of a text file",
        expected="a text file",
        hint=f"rename it: {Path(where).stem}.xlsx (or .xls, .ods, .zip)",
    )


def _line_number(text: str, position: int) -> int:
    before = text[:position].replace("\r\n", "\n").replace("\r", "\n")
    return before.count("\n") + 1


def _decode_as(data: bytes, encoding: str, where: str, reason: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeError as error:  # some codecs give no position
        place = f" at position {error.start:,}" if isinstance(error, UnicodeDecodeError) else ""
        raise DataError(
            Problem(
                code="E121",
                where=where,
                found=f"bytes{place} that are not valid {encoding.upper()}",
                expected=f"{encoding.upper()}, {reason}",
                hint="save the file as UTF-8",
            )
        ) from None


def _decode_utf8(data: bytes, where: str) -> tuple[str, tuple[str, ...]]:
    if data.count(0) * 4 > len(data):
        # ASCII in UTF-16 is also valid UTF-8, with a NUL beside each letter.
        guess = "UTF-16LE" if data[1::2].count(0) > data[::2].count(0) else "UTF-16BE"
        raise DataError(_encoding_problem(where, "a NUL in every other byte", guess))
    try:
        return data.decode("utf-8"), ()
    except UnicodeDecodeError as error:
        first = error.start
    lines = re.split(rb"\r\n|\r|\n", data)
    bad = [number for number, line in enumerate(lines, 1) if not _is_utf8(line)]
    good = sum(1 for line in lines if not line.isascii() and _is_utf8(line))
    found_byte = f"byte 0x{data[first]:02X}, which is not valid UTF-8"
    if good:
        # Converting the whole file would corrupt the valid lines, so the hint has no command.
        raise DataError(
            Problem(
                code="E122",
                where=f"{where} row {bad[0]}",
                found=f"{found_byte}, in a file with {good:,} row{'s' if good > 1 else ''} of valid UTF-8",
                expected="text in one encoding",
                hint=f"fix these rows: {some_of([str(number) for number in bad])}",
            )
        )
    certain = certain_encoding(data)
    if certain is not None:
        note = f"{where}: read as {certain}, because it is not UTF-8 and in no other encoding plausible text"
        return data.decode(certain), (note,)
    problem = _encoding_problem(f"{where} row {bad[0]}", found_byte, guess := guess_encoding(data))
    readings = latin_readings(data)
    if guess in readings and len(readings) > 1:  # only a person can tell
        preview = tuple(f"data.encoding={encoding}: {words}" for encoding, words in readings.items())
        problem = replace(problem, found=found_byte, preview=preview, hint="the setting whose words are right")
    raise DataError(problem)


def _encoding_problem(where: str, found: str, guess: str) -> Problem:
    return Problem(
        code="E121",
        where=where,
        found=f"{found}; looks like {guess}" if guess else found,
        expected="UTF-8",
        hint=f"data.encoding={guess.lower()}" if guess else "save the file as UTF-8",
    )


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True
