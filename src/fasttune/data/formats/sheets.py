"""Read a sheet of a spreadsheet (.xlsx, .xlsm, .xlsb, .xls, .ods) as a table of texts.

Cells become the texts that a person sees: 5.0 is "5", dates are ISO, formulas count by their value. The sheet then goes
through the reader of CSV files, which knows title lines, missing headers and empty rows. Numbers of rows in messages
are those of the spreadsheet program.
"""

from __future__ import annotations

import csv
import datetime
import hashlib
import io
import shlex
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from fasttune.data.formats.delimited import numbered_columns, read_delimited
from fasttune.data.formats.storage import ReadOptions, limit_of, read_bytes, unpacked_too_much
from fasttune.data.formats.text_file import LINE_END, FileRows, TextFile
from fasttune.data.problems import counted
from fasttune.errors import DataError, EnvironmentProblem, Problem, nearest, shown

SHEET_SUFFIXES = (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods")


def read_sheet(name: str, suffix: str, reading: ReadOptions) -> FileRows:
    """The rows of the only sheet with cells, or of the sheet that `data.sheet` names."""
    data = read_bytes(name, reading)
    _check_size(data, name, reading.max_bytes)
    sheet, rows, others = _sheet(data, name, reading.sheet)
    table = _without_empty_columns([[_as_text(cell) for cell in row] for row in rows])
    text, lines = io.StringIO(), dict[int, int]()
    writer = csv.writer(text, lineterminator="\n")
    line = 1
    for number, row in enumerate(table, start=1):
        lines[line] = number
        if any(row):
            writer.writerow(row)
            line += 1 + sum(len(LINE_END.findall(cell)) for cell in row)
        else:
            text.write("\n")
            line += 1
    file = TextFile(text.getvalue(), hashlib.sha256(data).hexdigest())
    where = f"{name}, sheet {shown(sheet)}" if others else name
    if not file.text.strip():
        raise DataError(Problem(code="E104", where=where, found="the sheet is empty"))
    read = read_delimited(file, where, ".csv", replace(reading, encoding=None))
    assert read.row_numbers is not None, "read_delimited numbers the rows"
    notes = [f"{name}: read sheet {shown(sheet)}" + (f"; not {', '.join(map(shown, others))}" if others else "")]
    return replace(read, row_numbers=[lines[number] for number in read.row_numbers], notes=(*notes, *read.notes))


def _sheet(data: bytes, where: str, wanted: str | None) -> tuple[str, list[list[Any]], list[str]]:
    """The name and the cells of the sheet to read, and the names of the others that have cells."""
    try:
        import python_calamine
    except ImportError:
        raise EnvironmentProblem(
            Problem(
                code="E517",
                where=where,
                found="the package that reads spreadsheets is not installed",
                hint="pip install python-calamine",
            )
        ) from None
    try:
        workbook = python_calamine.CalamineWorkbook.from_filelike(io.BytesIO(data))
        names = workbook.sheet_names
        if wanted is not None and wanted not in names:
            near = nearest(wanted, names)
            raise DataError(
                Problem(
                    code="E144",
                    where=f"{where}: data.sheet",
                    found=shown(wanted),
                    expected=f"one of the sheets {', '.join(map(shown, names))}",
                    hint=shlex.quote(f"data.sheet={near}") if near else "",
                )
            )
        sheets = {name: workbook.get_sheet_by_name(name).to_python(skip_empty_area=False) for name in names}
    except (python_calamine.CalamineError, OSError, ValueError) as error:
        found = f"the spreadsheet cannot be read: {str(error) or type(error).__name__}"
        hint = "save it again in the spreadsheet program, without a password"
        raise DataError(Problem(code="E127", where=where, found=found, hint=hint)) from None
    filled = [name for name in names if any(cell not in ("", None) for row in sheets[name] for cell in row)]
    if wanted is None and len(filled) > 1:
        listed = ", ".join(f"{shown(name)} ({counted(len(sheets[name]), 'row')})" for name in filled)
        raise DataError(
            Problem(
                code="E144",
                where=where,
                found=f"{len(filled)} sheets with cells: {listed}",
                expected="one sheet to read",
                hint=shlex.quote(f"data.sheet={filled[0]}"),
            )
        )
    chosen = wanted or (filled or names)[0]
    return chosen, sheets[chosen], [name for name in filled if name != chosen]


def _check_size(data: bytes, where: str, max_bytes: int | None) -> None:
    """DataError for a file that expands beyond the limit: .xlsx, .xlsb and .ods are zip archives."""
    limit = limit_of(len(data), max_bytes)
    if not data.startswith(b"PK"):
        return
    try:
        size = sum(member.file_size for member in zipfile.ZipFile(io.BytesIO(data)).infolist())
    except zipfile.BadZipFile as error:
        found = f"the spreadsheet is truncated or damaged ({error})"
        raise DataError(Problem(code="E127", where=where, found=found, hint="save or download it again")) from None
    if size > limit:
        raise DataError(unpacked_too_much(where, limit))


def _as_text(cell: Any) -> str:
    if cell is None:
        return ""
    if isinstance(cell, bool):
        return "true" if cell else "false"
    if isinstance(cell, float):
        return str(int(cell)) if cell.is_integer() else repr(cell)
    if isinstance(cell, datetime.datetime | datetime.date | datetime.time):
        return cell.isoformat()
    return str(cell)


def _without_empty_columns(rows: list[list[str]]) -> Sequence[list[str]]:
    """Rows of one width, without columns that have no cell; a column with cells but no header is numbered."""
    width = max(map(len, rows), default=0)
    rows = [row + [""] * (width - len(row)) for row in rows]
    kept = [position for position in range(width) if any(row[position].strip() for row in rows)]
    rows = [[row[position] for position in kept] for row in rows]
    header = next((row for row in rows if sum(map(bool, row)) > len(kept) / 2), None)
    if header is not None:
        names = numbered_columns(len(kept))
        header[:] = [name or number for name, number in zip(header, names, strict=True)]
    return rows
