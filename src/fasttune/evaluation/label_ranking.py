"""`fasttune labels`: which training labels are probably wrong?

Each training row is predicted by a model that has not seen it, and the rows are ranked by their loss. For fine-tuned
encoders this finds more wrong labels than confident learning (Chong, Hong & Manning, EMNLP 2022). The ranking is a CSV
file that a person edits, and that `data.corrections` takes back. A killed ranking resumes with the fold it was at.
"""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fasttune.data.corrections import COLUMNS, cell_text
from fasttune.data.duplicates import exact_groups
from fasttune.data.holdout import GROUP
from fasttune.data.label_kinds import parts_of
from fasttune.data.pipeline import Split, read_splits
from fasttune.data.splits import merged_groups
from fasttune.errors import Problem, UsageError
from fasttune.evaluation.own_split import refuse_foreign_addresses
from fasttune.recipe import Recipe
from fasttune.recipe import load as load_recipe
from fasttune.runs.folder import RunFolder, plain, read_json, write_json, write_json_lines, write_text
from fasttune.security.text import spreadsheet_cell
from fasttune.tasks import TASKS
from fasttune.tasks.targets import MultiLabel, SingleLabel
from fasttune.tasks.text_classification import TEXTS, TextClassification, classes_of
from fasttune.training.fit import fit_in_folder
from fasttune.training.run import Log

FOLDS = 3
SMALLEST = 1e-12  # a probability
# Settings of the run that a fold does without: it trains on fewer rows, and no row of its held-out fold may help.
OF_A_FOLD: dict[str, Any] = {
    "data": {
        "test": None,
        "test_fraction": 0.0,
        "unlabelled": None,
        "corrections": None,
        "max_train_samples": None,
        "max_eval_samples": None,
        "drop_duplicates": False,
        "header": "auto",
        "encoding": None,
        "no_label": None,
    },
    "training": {"seeds": None, "teacher": None, "replay": 0.0, "mlm_epochs": 0},
    "evaluation": {
        "eval_strategy": "no",
        "early_stopping_patience": None,
        "baselines": False,
        "calibrate": False,
        "tune_threshold": False,
        "min_precision": None,
    },
    "output": {"save_strategy": "no", "save_steps": None, "mirror": None},
    "tracking": {"report_to": "none"},
}


@dataclass(frozen=True)
class RankedLabel:
    """A training row, its `label` as the file writes it, the label that the model finds most likely, and the loss."""

    row: str
    label: str
    suggestion: str
    loss: float
    text: str


def rank_labels(
    folder: RunFolder, log: Log, folds: int = FOLDS, max_seconds: float | None = None
) -> tuple[list[RankedLabel], Path]:
    """The training labels by falling loss, and labels.csv, which holds them.

    `max_seconds`: for all folds together. UsageError for tasks without classes, DataError if the data have changed.
    """
    recipe = load_recipe(folder.recipe)
    refuse_foreign_addresses(folder, recipe)
    splits = read_splits(recipe, TASKS)
    task, train = splits.task, splits.train
    target = classes_of(task)
    if not isinstance(task, TextClassification) or target is None or splits.stream:
        found = "its training rows are a stream" if splits.stream else f"its task, {task.name}, has no classes"
        raise UsageError(Problem(where=f"labels {folder.path}", found=found, expected="a text classifier with classes"))
    if not 2 <= folds <= len(train.rows):
        raise UsageError(Problem(where="--folds", found=str(folds), expected=f"2 to {len(train.rows):,}"))
    place = folder.path / "labels"
    plan = {"folds": folds, "max_seconds": max_seconds, "rows": train.sha256(type(task))}
    if (place / "plan.json").exists() and read_json(place / "plan.json") != plan:
        shutil.rmtree(place)
    place.mkdir(exist_ok=True)
    write_json(place / "plan.json", plan)
    fold_of = _folds(task, train, folds, recipe.training.seed)
    names = target.vocabulary.names
    given = np.zeros((len(train.rows), len(names)))
    for fold in range(folds):
        kept = place / f"fold-{fold + 1}.json"
        if not kept.exists():
            number = int((fold_of == fold).sum())
            log(f"fold {fold + 1} of {folds}: training without {number:,} rows, then predicting them")
            seconds = None if max_seconds is None else max_seconds / folds
            predicted = _out_of_fold(recipe, target, train, fold_of == fold, place / f"fold-{fold + 1}", seconds, log)
            write_json(kept, plain(predicted))
        for row, probabilities in read_json(kept).items():
            given[int(row)] = [probabilities[name] for name in names]
    ranked = _ranked(task, train, np.clip(given, SMALLEST, 1 - SMALLEST))
    return ranked, _written(folder.label_ranking, ranked)


def _folds(task: TextClassification, train: Split, folds: int, seed: int) -> np.ndarray:
    """(N,) the fold of each row: stratified by label; rows with the same text or group are in the same fold."""
    from sklearn.model_selection import StratifiedGroupKFold

    strata = np.asarray(task.strata(train.rows, train.where))
    ties = [exact_groups(task.input_texts(train.rows)).tolist()]
    if GROUP in train.rows.values:
        ties.append(list(train.rows.values[GROUP]))
    groups = merged_groups(ties)
    fold_of = np.zeros(len(strata), dtype=np.int64)
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fold, (_, held_out) in enumerate(splitter.split(strata, strata, groups)):
        fold_of[held_out] = fold
    return fold_of


def _out_of_fold(
    recipe: Recipe,
    target: SingleLabel | MultiLabel,
    train: Split,
    is_held_out: np.ndarray,
    place: Path,
    max_seconds: float | None,
    log: Log,
) -> dict[str, dict[str, float]]:
    """Row -> the probabilities of the held-out rows by a model trained on the others."""
    roles = [role for role in TEXTS if role in train.rows.values]
    files = {name: place.with_name(f"{place.name}-{name}.jsonl") for name in ("train", "validation")}
    for name, rows in (("train", np.flatnonzero(~is_held_out)), ("validation", np.flatnonzero(is_held_out))):
        write_json_lines(files[name], (_record(target, train, roles, int(row)) for row in rows))
    own = RunFolder(place)
    columns = {**{role: role for role in roles}, "label": "label", "group": None, "time": None}
    changes = {section: dict(fields) for section, fields in OF_A_FOLD.items()}
    changes["data"] |= {name: str(path) for name, path in files.items()}
    changes["data"] |= {"columns": columns, "label_names": list(target.vocabulary.names), "label_separator": None}
    changes["output"] |= {"dir": str(place)}
    if max_seconds is not None:
        changes["training"] |= {"max_time": f"{max_seconds:.0f}s"}
    if recipe.training.max_steps > 0:
        changes["training"] |= {"max_steps": max(1, round(recipe.training.max_steps * (~is_held_out).mean()))}
    changes["training"] |= {"batch_size": min(recipe.training.batch_size, int((~is_held_out).sum()))}
    run = fit_in_folder(
        load_recipe(recipe, changes),
        own,
        resume=own.is_run,
        allow_changes=False,
        log=log,
        observers=(),
        scores_test=False,
    )
    if not run.is_complete:
        raise KeyboardInterrupt
    with own.predictions("validation").open(encoding="utf-8") as lines:
        predicted = {found["id"]: found["probabilities"] for found in map(json.loads, lines)}
    shutil.rmtree(place)
    for path in files.values():
        path.unlink()
    return predicted


def _record(target: SingleLabel | MultiLabel, train: Split, roles: Sequence[str], row: int) -> dict[str, Any]:
    values = train.rows.values
    names = target.vocabulary.names
    encoded = target.encode([values["label"][row]], train.where)[0]
    label = names[int(encoded)] if isinstance(target, SingleLabel) else [names[k] for k in np.flatnonzero(encoded)]
    return {"id": str(row), **{role: values[role][row] for role in roles}, "label": label}


def _ranked(task: TextClassification, train: Split, given: np.ndarray) -> list[RankedLabel]:
    target = task.target
    assert isinstance(target, SingleLabel | MultiLabel)
    encoded = np.asarray(target.encode(train.rows.values["label"], train.where))
    cells = train.rows.values["label"]
    separator = getattr(target, "separator", None)
    as_written = _as_written(target, [part for cell in cells for part in parts_of(cell, separator)], train.where)
    if isinstance(target, SingleLabel):
        losses = -np.log(given[np.arange(len(given)), encoded])
        best = [as_written[int(number)] for number in given.argmax(axis=1)]
    else:
        likely = np.where(encoded > 0, given, 1 - given)
        losses = -np.log(likely).sum(axis=1)
        found = [tuple(as_written[int(k)] for k in np.flatnonzero(row)) for row in given >= 0.5]
        best = [separator.join(labels) if separator else cell_text(labels) for labels in found]
    texts = list(task.input_texts(train.rows))
    return [
        RankedLabel(train.rows.ids[row], cell_text(cells[row]), best[row], float(losses[row]), texts[row])
        for row in np.argsort(-losses, kind="stable").tolist()
    ]


def _as_written(target: SingleLabel | MultiLabel, labels: Sequence[str], where: str) -> dict[int, str]:
    """Class -> the value that the data write for it most often, or its name if they have none."""
    index = target.vocabulary.index_for({*map(str, labels)})
    written = dict(enumerate(target.vocabulary.names))
    for value, _ in reversed(Counter(map(str, labels)).most_common()):
        written[index[value]] = value
    return written


def _written(path: Path, ranked: Sequence[RankedLabel]) -> Path:
    """Write the ranking; a file that differs, because somebody has edited it, stays, and another name is taken."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for one in ranked:
        writer.writerow(map(spreadsheet_cell, (one.row, one.label, one.suggestion, f"{one.loss:.4f}", one.text)))
    content, number, target = text.getvalue(), 2, path
    while target.exists() and target.read_bytes() != content.encode():
        target, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    write_text(target, content)
    return target
