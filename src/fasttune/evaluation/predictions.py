"""Writes predictions to files in the format that the file extension names.

JSON holds the objects of `predict --json` with the input of each. Tables have one row per prediction: id, the input,
then label, labels, score or answer, and a column `probability_NAME` per label. In CSV and TSV a text that a spreadsheet
would treat as a formula gets an apostrophe in front. Tags of words are also written as CoNLL columns and as doccano's
JSON lines.
"""

from __future__ import annotations

import csv
import importlib.util
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from fasttune.errors import EnvironmentProblem, Problem, UsageError
from fasttune.runs.folder import plain, staged, staged_bytes, write_json_lines
from fasttune.security.text import json_text, spreadsheet_cell
from fasttune.tasks import Prediction, Rows

if TYPE_CHECKING:
    import pyarrow as pa

ROWS_AT_ONCE = 10_000  # per row group of a Parquet file
PROBABILITY = "probability_"
MOST_SHEET_ROWS, MOST_CELL_CHARACTERS = 1_048_575, 32_767  # of Excel


def check_ending(path: Path) -> None:
    """UsageError for an unknown file extension, before anything is computed."""
    if _ending(path) == ".xlsx" and importlib.util.find_spec("xlsxwriter") is None:
        found, hint = "xlsxwriter is not installed", "pip install XlsxWriter, or --output with .csv"
        raise EnvironmentProblem(Problem(where=f"--output {path}", found=found, hint=hint))
    if _ending(path) not in WRITERS:
        endings = ", ".join(WRITERS)
        found = f"the extension {path.suffix!r}" if path.suffix else "no file extension"
        hint = f"--output {path.with_suffix('.jsonl')}"
        raise UsageError(Problem(where=f"--output {path}", found=found, expected=f"one of {endings}", hint=hint))


def write(path: Path, predictions: Iterable[Prediction]) -> int:
    """Write predictions, which have their inputs (see `with_inputs`), one by one; returns how many there were."""
    check_ending(path)
    return WRITERS[_ending(path)](path, predictions)


def most_rows(path: Path) -> int | None:
    """How many rows a file of this extension can hold; None: any number."""
    return MOST_SHEET_ROWS if _ending(path) == ".xlsx" else None


def check_number(path: Path, num_rows: int | None) -> None:
    """UsageError if `num_rows` are more than a file of this extension can hold."""
    most = most_rows(path)
    if most is not None and num_rows is not None and num_rows > most:
        found = f"{num_rows:,} rows, and a sheet holds {most:,}"
        raise UsageError(Problem(where=f"--output {path}", found=found, hint=f"--output {path.with_suffix('.csv')}"))


def _ending(path: Path) -> str:
    name = path.name.lower()
    return next((ending for ending in WRITERS if ending.count(".") > 1 and name.endswith(ending)), path.suffix.lower())


def _conll(path: Path, predictions: Iterable[Prediction]) -> int:
    """One word and its tag per line, with a tab between them, and an empty line between sentences."""
    number = 0
    with staged(path) as file:
        for number, prediction in enumerate(predictions, 1):
            _check_tagged(path, prediction)
            file.write("\n" if number > 1 else "")
            file.writelines(
                f"{word}\t{tag}\n" for word, tag in zip(prediction["tokens"], prediction["tags"], strict=True)
            )
    return number


def _doccano(path: Path, predictions: Iterable[Prediction]) -> int:
    """One text per line with its entities as [start, end, type], as doccano imports and exports them."""

    def lines() -> Iterator[dict[str, Any]]:
        for prediction in predictions:
            _check_tagged(path, prediction)
            row_id = prediction["id"]
            spans = [[entity["start"], entity["end"], entity["type"]] for entity in prediction.get("entities") or ()]
            yield {"id": int(row_id) if row_id.isdecimal() else row_id, "text": prediction["text"], "label": spans}

    return write_json_lines(path, lines())


def _check_tagged(path: Path, prediction: Prediction) -> None:
    if "tags" not in prediction:
        found, expected = "predictions without tags", "a run of token-classification for this file extension"
        hint = f"--output {path.with_suffix('.jsonl')}"
        raise UsageError(Problem(where=f"--output {path}", found=found, expected=expected, hint=hint))


def _json(path: Path, predictions: Iterable[Prediction]) -> int:
    number = 0
    with staged(path) as file:
        file.write("[")
        for number, prediction in enumerate(predictions, 1):
            file.write(f"{',' if number > 1 else ''}\n{json_text(plain(prediction))}")
        file.write("\n]\n")
    return number


def _json_lines(path: Path, predictions: Iterable[Prediction]) -> int:
    return write_json_lines(path, predictions)


def with_inputs(predictions: Iterable[Prediction], rows: Rows) -> Iterator[Prediction]:
    """The predictions with their inputs behind the id; `rows` has them in the same order. Labels are left out."""
    for number, prediction in enumerate(predictions):
        yield {"id": prediction["id"], **_inputs_of(rows, number), **prediction}


def _inputs_of(rows: Rows, number: int) -> dict[str, Any]:
    """The texts of one row by role; tokens as the text that they are words of."""
    cells = {role: rows.values[role][number] for role in INPUT_ROLES if role in rows.values}
    return {"text" if role == "tokens" else role: getattr(cell, "text", cell) for role, cell in cells.items()}


def _delimited(path: Path, predictions: Iterable[Prediction], delimiter: str) -> int:
    with staged(path) as file:
        return _write_delimited(file, table_rows(predictions), delimiter)


def _write_delimited(file: TextIO, table: Iterator[dict[str, Any]], delimiter: str) -> int:
    writer, number = None, 0
    for row in table:
        number += 1
        if writer is None:
            writer = csv.DictWriter(file, list(row), delimiter=delimiter, lineterminator="\n")
            writer.writerow({name: spreadsheet_cell(name) for name in row})
        writer.writerow({name: _as_cell(value) for name, value in row.items()})
    return number


def _parquet(path: Path, predictions: Iterable[Prediction]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table, number = table_rows(predictions), 0
    part = list(islice(table, ROWS_AT_ONCE))
    schema = _schema_of(part)
    with staged_bytes(path) as file, pq.ParquetWriter(file, schema) as writer:
        while part:
            writer.write_table(pa.Table.from_pylist(part, schema))
            number += len(part)
            part = list(islice(table, ROWS_AT_ONCE))
    return number


def _xlsx(path: Path, predictions: Iterable[Prediction]) -> int:
    """One sheet; every cell of the data is text, so a spreadsheet evaluates none."""
    import xlsxwriter

    number = 0
    with staged_bytes(path) as file, xlsxwriter.Workbook(file, {"constant_memory": True}) as book:
        sheet = book.add_worksheet("predictions")
        for number, row in enumerate(table_rows(predictions), 1):
            if number == 1:
                for column, name in enumerate(row):
                    sheet.write_string(0, column, name)
            for column, value in enumerate(row.values()):
                if isinstance(value, int | float):
                    sheet.write_number(number, column, value)
                elif value is not None:
                    text = value if isinstance(value, str) else json_text(value)
                    sheet.write_string(number, column, text[:MOST_CELL_CHARACTERS])
    return number


def _schema_of(part: Sequence[Mapping[str, Any]]) -> pa.Schema:
    """Column types by column name, because a column of the first rows may be all null.

    A column that fasttune's own tasks do not write takes the type of its first values.
    """
    import pyarrow as pa

    texts = pa.list_(pa.string())
    entity = {"type": pa.string(), "text": pa.string(), "start": pa.int64(), "end": pa.int64(), "score": pa.float64()}
    known = {
        **dict.fromkeys(("id", *INPUT_ROLES, "label", "answer"), pa.string()),
        **dict.fromkeys(("score", "no_answer_probability"), pa.float64()),
        **dict.fromkeys(("start", "end"), pa.int64()),
        **dict.fromkeys(("labels", "tokens", "tags"), texts),
        "entities": pa.list_(pa.struct(list(entity.items()))),
    }

    def type_of(field: pa.Field) -> pa.DataType:
        return pa.float64() if field.name.startswith(PROBABILITY) else known.get(field.name, field.type)

    return pa.schema([(field.name, type_of(field)) for field in pa.Table.from_pylist([*part] or [{"id": ""}]).schema])


WRITERS: dict[str, Callable[[Path, Iterable[Prediction]], int]] = {
    ".csv": lambda path, predictions: _delimited(path, predictions, ","),
    ".tsv": lambda path, predictions: _delimited(path, predictions, "\t"),
    ".jsonl": _json_lines,
    ".json": _json,
    ".parquet": _parquet,
    ".xlsx": _xlsx,
    ".conll": _conll,
    ".doccano.jsonl": _doccano,
}
INPUT_ROLES = ("text", "text_pair", "question", "context", "tokens")


def table_rows(predictions: Iterable[Prediction]) -> Iterator[dict[str, Any]]:
    """One flat row per prediction, all with the same columns; a number that is not finite becomes None."""
    for prediction in predictions:
        # n_best does not fit into a flat row; the JSON formats have it.
        row = {key: value for key, value in prediction.items() if key not in ("probabilities", "n_best")}
        probabilities = prediction.get("probabilities", {})
        yield plain(row | {f"{PROBABILITY}{name}": value for name, value in probabilities.items()})


def _as_cell(value: Any) -> Any:
    """A list becomes JSON, because labels may contain commas; a text is escaped for spreadsheets."""
    if isinstance(value, list | dict):
        return json_text(value)
    return spreadsheet_cell(value) if isinstance(value, str) else value
