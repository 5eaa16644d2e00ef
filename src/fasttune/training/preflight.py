"""`fasttune check`: everything that comes before training, and a forecast, in a temporary folder that is deleted."""

from __future__ import annotations

import tempfile
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fasttune.data.audit import audit_rows
from fasttune.data.pipeline import Splits, read_splits
from fasttune.data.reading import TEST, TRAIN, VALIDATION
from fasttune.errors import Problem
from fasttune.recipe import Recipe
from fasttune.recipe.types import seconds_of
from fasttune.runs.checkpoint.space import check_space, needed_bytes
from fasttune.runs.folder import DEFAULT_PARENT, RunFolder
from fasttune.tasks import TASKS
from fasttune.tasks.preview import Preview, first_rows
from fasttune.training.forecast import Forecast, measure
from fasttune.training.prepare import build_run, data_report, num_saves
from fasttune.training.run import Log
from fasttune.training.time_budget import MARGIN, in_words, most_steps

SAMPLE = 20_000  # rows per split that are tokenized; the error of a share of 1 % is then about 0.2 %
SAMPLE_IF_FROZEN = 1_000  # fewer, because frozen layers run over all of them before the first step


@dataclass(frozen=True)
class Checked:
    """`report`: the content of data_report.json. `recipe`: with every automatic choice filled in."""

    recipe: Recipe
    warnings: list[Problem]
    report: dict[str, Any] = field(repr=False)
    forecast: Forecast
    rows: Preview = field(repr=False)  # the first training rows

    def as_json(self) -> dict[str, Any]:
        return {"forecast": asdict(self.forecast), **self.report}


def check(recipe: Recipe, log: Log) -> Checked:
    begin = time.perf_counter()
    splits = read_splits(recipe, TASKS)
    audit = audit_rows(splits.all(), splits.task)
    num_rows = {split.name: len(split.rows) for split in splits.all()}
    if splits.stream is not None:
        num_rows[TRAIN] = splits.stream.files.num_rows
    if recipe.training.teacher is not None and splits.unlabelled is not None:
        num_rows[TRAIN] += len(splits.unlabelled.rows)
    sampled = _sampled(splits, SAMPLE_IF_FROZEN if recipe.training.freeze_layers else SAMPLE, recipe.data.seed)
    with tempfile.TemporaryDirectory(prefix="fasttune-check-") as folder:
        run = build_run(recipe, sampled, RunFolder(Path(folder) / "run"), log, audit, num_rows[TRAIN])
        try:
            output = run.recipe.output
            needed = needed_bytes(run.setup.model, num_saves(run), output.save_total_limit)
            check_space(Path(recipe.output.dir or DEFAULT_PARENT), needed)
            report = data_report(run, audit)
            forecast = measure(run, num_rows)
            if recipe.training.seeds is not None:
                log(f"training.seeds: the forecast is for one of {len(recipe.training.seeds)} runs")
            if recipe.training.mlm_epochs:
                log("training.mlm_epochs: the forecast leaves out the time of masked language modeling")
            max_time = recipe.training.max_time
            if max_time is not None:
                left = seconds_of(max_time) * (1 - MARGIN) - (time.perf_counter() - begin)
                fitting = most_steps(run.recipe, forecast, left)
                log(f"training.max_time {max_time}: {in_words(run.recipe, forecast, fitting)}")
        finally:
            run.close()
    return Checked(run.recipe, audit.warnings, report, forecast, first_rows(splits.train.rows, splits.task))


def _sampled(splits: Splits, size: int, seed: int) -> Splits:
    """At most `size` rows of each split, with a note if there are more."""
    notes = list(splits.notes)
    sampled = {split.name: split.limited(size, seed, []) for split in splits.all()}
    for split in splits.all():
        if len(split.rows) > size:
            notes.append(f"{split.name}: counted tokens in a random sample of {size:,} of {len(split.rows):,} rows")
    return replace(
        splits,
        train=sampled[TRAIN],
        validation=sampled.get(VALIDATION),
        test=sampled.get(TEST),
        notes=notes,
        stream=None,
        unlabelled=splits.unlabelled.limited(size, seed, []) if splits.unlabelled is not None else None,
    )
