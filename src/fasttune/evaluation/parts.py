"""Predictions of many rows in parts, so that a killed `predict --output` continues where it was.

Parts are JSON lines of PART_ROWS predictions in a hidden folder beside the output. The output is written from them at
the end, whatever its format, and the folder is removed.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from fasttune.evaluation.predictor import ROWS_AT_ONCE
from fasttune.runs.folder import read_json, write_json, write_json_lines
from fasttune.tasks import Prediction, Rows
from fasttune.training.run import Log

PART_ROWS = ROWS_AT_ONCE  # so that rows are computed together with the same rows, and to the same bits, after a kill


@contextmanager
def in_parts(
    output: Path, plan: Mapping[str, Any], rows: Rows, predict: Callable[[Rows], Iterator[Prediction]], log: Log
) -> Iterator[Iterator[Prediction]]:
    """The predictions of all rows in order; whole parts of an earlier call with the same `plan` are not computed again.

    `plan`: everything that decides the predictions. The block writes the output; the parts are removed if it succeeds.
    Few rows have no parts.
    """
    if len(rows) <= PART_ROWS:
        yield predict(rows)
        return
    folder = output.with_name(f".{output.name}.parts")
    own = {**plan, "num_rows": len(rows), "part_rows": PART_ROWS}
    if (folder / "plan.json").exists() and read_json(folder / "plan.json") != own:
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "plan.json", own)
    yield _parts(folder, rows, predict, log)
    shutil.rmtree(folder)


def _parts(folder: Path, rows: Rows, predict: Callable[[Rows], Iterator[Prediction]], log: Log) -> Iterator[Prediction]:
    number = 0
    while (part := folder / f"{number:06}.jsonl").exists():
        with part.open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)
        number += 1
    done = number * PART_ROWS
    if done:
        log(f"{min(done, len(rows)):,} of {len(rows):,} rows were predicted by an earlier call")
    if done >= len(rows):
        return
    predicted = predict(rows.take(range(done, len(rows))))
    while some := list(islice(predicted, PART_ROWS)):
        write_json_lines(folder / f"{number:06}.jsonl", some)
        number += 1
        yield from some
