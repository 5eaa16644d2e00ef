"""The analysis of a finished run: read from its folder, or computed again for runs that have none."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

from fasttune.analysis.drift import LabelCounts
from fasttune.analysis.findings import analyse, drift_of, label_counts, training_properties
from fasttune.analysis.scored import Scored
from fasttune.data.pipeline import encode, read_splits
from fasttune.errors import DataError, UsageError
from fasttune.evaluation.attribution import explains, words_behind
from fasttune.evaluation.other_data import read_to_predict
from fasttune.evaluation.own_split import read_own_split, refuse_foreign_addresses
from fasttune.evaluation.predictor import Predictor
from fasttune.runs.folder import RunFolder, read_json, write_json
from fasttune.tasks import TASKS
from fasttune.training.run import Log
from fasttune.training.scoring import predict_split

NUM_EXPLAINED = 10  # mistakes whose words are measured


def complete(folder: RunFolder, log: Log) -> None:
    """Write analysis.json and attributions.json where a finished run lacks them."""
    has_analysis = folder.analysis.exists()
    if has_analysis and folder.attributions.exists():
        return
    predictor = Predictor.open(folder.path)
    predictor.log = log
    if not has_analysis:
        try:
            found = _analysis(predictor)
        except (DataError, UsageError) as error:
            log(f"no analysis of the rows: {error.problems[0]}")
            return
        if found is None:
            return
        write_json(folder.analysis, found)
    if explains(predictor):
        write_json(folder.attributions, _attributions(predictor, read_json(folder.analysis)["mistakes"]))


def drift_to(folder: RunFolder, data: Any, command: str, log: Log) -> dict[str, Any]:
    """How the rows of another file, and the labels predicted for them, differ from the training rows.

    `command`: what to type with a setting, if the file cannot be read without one.
    """
    predictor = Predictor.open(folder.path)
    predictor.log = log
    refuse_foreign_addresses(folder, predictor.recipe)
    task = predictor.task
    read = read_to_predict(predictor, data, command)
    splits = read_splits(predictor.recipe, TASKS)
    labels: list[LabelCounts | None] = [None, None]
    if explains(predictor):
        train = encode(splits.train, task, predictor.setup.tokenizer, predictor.setup.max_length)
        predicted = Counter(
            name
            for one in predictor.predict_rows(read.split.rows, read.split.where)
            for name in one.get("labels", [one.get("label")])
            if name is not None
        )
        labels = [label_counts(task, train), LabelCounts(dict(predicted), len(read.split.rows))]
    found = drift_of(task, replace(read.split, name=read.split.where), *training_properties(task, splits.train), labels)
    return {**found, "predicted": True}


def _analysis(predictor: Predictor) -> dict[str, Any] | None:
    """As the end of a run writes it, for runs of earlier versions; None for tasks without sums of rows."""
    split, task, setup = read_own_split(predictor, None), predictor.task, predictor.setup
    splits = read_splits(predictor.recipe, TASKS)
    stores = {one.name: encode(one, task, setup.tokenizer, setup.max_length) for one in splits.all()}
    stores[split.name] = encode(split, task, setup.tokenizer, setup.max_length)
    results = predict_split(setup, task, stores[split.name]).results
    sums = task.row_sums(results, stores[split.name], split.rows)
    if sums is None:
        return None
    scored = Scored(task, split, stores[split.name], results, sums)
    metric = predictor.recipe.evaluation.metric_for_best_model or task.primary_metric
    return analyse(scored, splits.train, splits.all(), stores, setup.tokenizer.unk_token_id, metric)


def _attributions(predictor: Predictor, mistakes: list[dict[str, Any]]) -> dict[str, Any]:
    """By row, the words that drove the prediction of the worst mistakes."""
    chosen = mistakes[:NUM_EXPLAINED]
    found = words_behind(predictor, [one["inputs"] for one in chosen], [one["explained"] for one in chosen])
    return {str(one["row"]): words for one, words in zip(chosen, found, strict=True)}
