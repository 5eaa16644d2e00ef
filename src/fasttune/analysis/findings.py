"""`analyse`: everything that the report says about the rows of a scored split, as one JSON object."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from fasttune.analysis import properties as of
from fasttune.analysis.breakdown import FEW_ROWS, by_label, confusions, entity_errors, groups
from fasttune.analysis.drift import LabelCounts, shifts, unseen_share
from fasttune.analysis.mistakes import mistakes, similar_training_rows, suspects
from fasttune.analysis.scored import Scored
from fasttune.analysis.shortcuts import property_shortcuts, word_shortcuts
from fasttune.analysis.slices import Slice, weak_slices
from fasttune.data.holdout import Split
from fasttune.data.tokens.store import TokenStore
from fasttune.tasks import Task
from fasttune.tasks.metrics.calibration import confidences, expected_error, reliability
from fasttune.tasks.targets import MultiLabel, SingleLabel
from fasttune.tasks.text_classification import classes_of

UNLIKELY = 0.05  # probability of a label
MOST_ROWS = 20_000  # of a split, whose texts are measured, drawn at random


def analyse(
    scored: Scored,
    train: Split,
    others: Sequence[Split],
    stores: Mapping[str, TokenStore],
    unknown: int | None,
    metric: str,
) -> dict[str, Any]:
    """The findings on a scored split. `others`: all held-out splits; `unknown`: the id of the unknown token.

    `metric`: the one that chose the weights; the task's own if rows have none of it, such as the loss.
    """
    metric = metric if metric in scored.sums.metrics else _metric(scored)
    train_properties, known = training_properties(scored.task, train)
    found: dict[str, Any] = {
        "split": scored.split.name,
        "num_rows": len(scored),
        "metric": metric,
        "by_label": by_label(scored.sums),
        "confusions": confusions(scored.sums),
        "reliability": _reliability(scored),
        "groups": groups(scored, metric),
        "entity_errors": entity_errors(scored),
        "suspects": suspects(scored),
        "surprising": _surprising(scored),
    }
    found["few_rows"] = [one["name"] for one in found["by_label"] if 0 < one["num_true"] < FEW_ROWS]
    found["slices"], found["searched"] = _slices(scored, known, unknown, metric)
    found["shortcuts"] = _shortcuts(scored, train, stores["train"], train_properties)
    found["drift"] = [
        _drift(scored, split, train_properties, known, stores) for split in others if split.name != train.name
    ]
    worst = mistakes(scored)
    similar = similar_training_rows(scored, [one["row"] for one in worst], train, stores["train"])
    found["mistakes"] = [{**one, "similar": rows} for one, rows in zip(worst, similar, strict=True)]
    return found


def _metric(scored: Scored) -> str:
    """The task's own metric, or the first that rows have."""
    names = scored.sums.metrics
    return scored.task.primary_metric if scored.task.primary_metric in names else names[0]


def _sample(number: int) -> np.ndarray:
    if number <= MOST_ROWS:
        return np.arange(number)
    return np.sort(np.random.default_rng(0).choice(number, MOST_ROWS, replace=False))


def _slices(
    scored: Scored, known: Counter[str], unknown: int | None, metric: str
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The weak slices with their scores, and what was searched."""
    chosen = _sample(len(scored))
    rows, sums = scored.split.rows.take(chosen), scored.sums.take(chosen)
    tokens = of.of_tokens(scored.store, len(scored), unknown)
    measured = {**of.of_texts(list(scored.task.input_texts(rows)), known), **of.of_rows(rows)}
    measured |= {name: values[chosen] for name, values in tokens.items()}
    errors = sums.errors()

    def as_json(one: Slice) -> dict[str, Any]:
        inside = one.members(measured)
        values = [float(sums.take(np.flatnonzero(part)).measure()[metric]) for part in (inside, ~inside)]
        return {**asdict(one), "num_rows": int(inside.sum()), "value": values[0], "rest": values[1]}

    found = [as_json(one) for one in weak_slices(measured, errors, sums.clusters)]
    return found, {"num_rows": len(chosen), "properties": of.as_matrix(measured)[0]}


def _shortcuts(scored: Scored, train: Split, store: TokenStore, properties: of.Properties) -> dict[str, Any]:
    """Words and properties that give the label of training rows away, and how the model does without the words."""
    task, target = scored.task, classes_of(scored.task)
    if target is None:
        return {"words": [], "properties": []}
    chosen = _sample(len(train.rows))
    texts = list(task.input_texts(train.rows.take(chosen)))
    names, labels = target.vocabulary.names, np.asarray(store.targets["labels"])[chosen]
    words = [asdict(one) for one in word_shortcuts(texts, _has_label(target, labels), names)]
    if words:
        gold = _has_label(target, np.asarray(scored.store.targets["labels"]))
        correct = scored.sums.errors() == 0
        words_of_rows = [{*of.words_of(text)} for text in task.input_texts(scored.split.rows)]
        for one in words:
            labelled = gold[:, names.index(one["label"])]
            has_word = np.array([one["word"] in words for words in words_of_rows])
            for name, part in (("with", labelled & has_word), ("without", labelled & ~has_word)):
                one[f"num_{name}"] = int(part.sum())
                one[f"correct_{name}"] = int(correct[part].sum())
    alone = property_shortcuts(properties, labels) if isinstance(target, SingleLabel) else []
    return {"words": words, "properties": [asdict(one) for one in alone]}


def _has_label(target: SingleLabel | MultiLabel, encoded: np.ndarray) -> np.ndarray:
    """(N, K) bool: the labels of each row."""
    if isinstance(target, MultiLabel):
        return encoded > 0
    return encoded[:, None] == np.arange(len(target.vocabulary.names))


def _drift(
    scored: Scored, split: Split, train: of.Properties, known: Counter[str], stores: Mapping[str, TokenStore]
) -> dict[str, Any]:
    labels = [label_counts(scored.task, stores[name]) for name in ("train", split.name)]
    return drift_of(scored.task, split, train, known, labels)


def drift_of(
    task: Task,
    split: Split,
    train: of.Properties,
    known: Counter[str],
    labels: Sequence[LabelCounts | None] = (None, None),
) -> dict[str, Any]:
    """How rows differ from the training rows, whose properties and words are given; `labels`: counts of both."""
    rows = split.rows.take(_sample(len(split.rows)))
    texts = list(task.input_texts(rows))
    measured = {**of.of_texts(texts, known), **of.of_rows(rows)}
    found = [asdict(one) for one in shifts(train, measured, *labels)]
    return {"split": split.name, "shifts": found, "unseen_words": unseen_share(texts, known)}


def training_properties(task: Task, train: Split) -> tuple[of.Properties, Counter[str]]:
    """The properties of the training rows, or of a sample of them, and in how many each word occurs."""
    rows = train.rows.take(_sample(len(train.rows)))
    texts = list(task.input_texts(rows))
    known = of.document_frequencies(texts)
    return {**of.of_texts(texts, known), **of.of_rows(rows)}, known


def label_counts(task: Task, store: TokenStore) -> LabelCounts | None:
    """The rows of each label; None for numbers and other tasks."""
    target = classes_of(task)
    if target is None:
        return None
    counts = {name: n for name, n in target.describe(store.targets["labels"]).items() if name != "(none)"}
    return LabelCounts(counts, len(store.targets["labels"]))


def _surprising(scored: Scored) -> dict[str, float] | None:
    """How many labels had a probability below UNLIKELY, and how many would if all probabilities were honest."""
    target = classes_of(scored.task)
    if not isinstance(target, SingleLabel):
        return None
    given = target.probabilities(scored.results)
    unlikely = given < UNLIKELY
    labels = np.asarray(scored.store.targets["labels"])
    observed = int(unlikely[np.arange(len(labels)), labels].sum())
    return {"observed": observed, "expected": float((given * unlikely).sum())}


def _reliability(scored: Scored) -> dict[str, Any] | None:
    """Confidence beside accuracy, of the probabilities that are shown."""
    target = classes_of(scored.task)
    if target is None:
        return None
    right = _has_label(target, np.asarray(scored.store.targets["labels"]))
    given = target.probabilities(scored.results)
    confidence, is_right = confidences(given, right, one_of=isinstance(target, SingleLabel))
    bins = [asdict(one) for one in reliability(confidence, is_right)]
    return {"bins": bins, "ece": expected_error(confidence, is_right)}
