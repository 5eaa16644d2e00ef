"""Predictions of many rows in parts, so that a killed `predict --output` continues where it was.

A part is the predictions of one piece of the source with their inputs, as JSON lines in a hidden folder beside the
output. The output is written from the parts at the end, whatever its format, and the folder is removed.
"""

from __future__ import annotations

import glob
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fasttune.evaluation.other_data import Pieces, in_place, without_text, without_values
from fasttune.evaluation.predictions import with_inputs
from fasttune.evaluation.predictor import ROWS_AT_ONCE, Predictor, Tally
from fasttune.runs.folder import read_json, write_json, write_json_lines
from fasttune.security.paths import STAGED
from fasttune.tasks import Prediction

PART_ROWS = ROWS_AT_ONCE  # so that rows are computed together with the same rows, and to the same bits, after a kill
MOST_BYTES = 1 << 25  # of a file that is read as a whole


@contextmanager
def in_parts(
    output: Path, plan: Mapping[str, Any], pieces: Pieces, predictor: Predictor
) -> Iterator[Iterator[Prediction]]:
    """The predictions of all rows with their inputs, in order.

    Whole parts of an earlier call with the same `plan`, which is everything that decides the predictions, are not
    computed again. The block writes the output; the parts are removed if it succeeds. A single piece has no part.
    """
    folder = output.with_name(f".{output.name}.parts")
    if pieces.num_pieces <= 1:
        yield _predictions(None, pieces, predictor)
        return
    own = {**plan, "rows": pieces.fingerprint, "num_pieces": pieces.num_pieces}
    if (folder / "plan.json").exists() and read_json(folder / "plan.json") != own:
        shutil.rmtree(folder)
    if folder.exists():  # a call that was killed while it wrote the output has left it unfinished
        for unfinished in output.parent.glob(f".{glob.escape(output.name)}.*{STAGED}"):
            unfinished.unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "plan.json", own)
    yield _predictions(folder, pieces, predictor)
    shutil.rmtree(folder)


def _predictions(folder: Path | None, pieces: Pieces, predictor: Predictor) -> Iterator[Prediction]:
    """`folder`: of the parts; None keeps none."""
    number = num_rows = num_empty = 0
    while folder is not None and (part := folder / f"{number:06}.jsonl").exists():
        with part.open(encoding="utf-8") as lines:
            for line in lines:
                num_rows += 1
                yield json.loads(line)
        number += 1
    if number:
        predictor.log(f"{num_rows:,} rows were predicted by an earlier call")
    tally, nothing = Tally(), None
    for piece in range(number, pieces.num_pieces):
        read = pieces.read(piece, num_rows)
        if read.empty and nothing is None:
            nothing = without_values(next(predictor.predict_rows(pieces.example, pieces.where, Tally(1))))
        predicted = predictor.predict_rows(read.split.rows, pieces.where, tally)
        found = with_inputs(in_place(predicted, read, nothing), read.rows)
        if folder is not None:
            some = list(found)
            write_json_lines(folder / f"{piece:06}.jsonl", some)
            found = iter(some)
        yield from found
        num_rows += len(read.rows)
        num_empty += len(read.empty)
    predictor.log_truncated(tally, pieces.where)
    if num_empty and pieces.num_rows is None:  # otherwise reading has said so
        predictor.log(without_text(pieces.where, num_empty))
