"""Baselines of a run: what the same rows give without fine-tuning, and what fine-tuning gains.

The most frequent class, TF-IDF with logistic regression, and the frozen start model with logistic regression on the
mean of its tokens' vectors; for numbers, the mean and ridge regression. Letters: N rows, D hidden width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import nn

from fasttune.data.pipeline import Split
from fasttune.data.reading import TRAIN
from fasttune.data.tokens.store import TokenStore
from fasttune.parallel.collectives import raise_on_all_ranks
from fasttune.recipe import load as load_recipe
from fasttune.tasks.metrics.intervals import Difference, differences, intervals
from fasttune.tasks.metrics.sums import RowSums
from fasttune.tasks.targets import MultiLabel, Regression, SingleLabel
from fasttune.tasks.text_classification import TextClassification
from fasttune.training.card import gain_of
from fasttune.training.mean_head import MEAN_HEAD
from fasttune.training.run import TrainingRun
from fasttune.training.scoring import predict_split
from fasttune.training.setup import set_up

FEWEST_ROWS = 100  # in training and in the scored split; fewer tell nothing apart
MOST_TRAINING_ROWS = 5_000  # drawn with the seed; more change a baseline little and cost minutes
WORDS_PER_TEXT = 3  # fewer on average means that the script has no spaces: count characters instead
MOST_NGRAMS = 100_000
CERTAIN = 100.0  # a logit
INVERSE_REGULARIZATION = 10.0  # scikit-learn's C; features have length 1


def baselines(run: TrainingRun, split: Split, sums: RowSums) -> list[dict[str, Any]]:
    """The baselines of a scored split, each with the paired difference of the model; empty where none apply.

    `sums`: those of the model on this split.
    """
    task, recipe = run.splits.task, run.recipe
    train = run.splits.train.rows
    applies = isinstance(task, TextClassification) and min(len(train), len(split.rows)) >= FEWEST_ROWS
    if not applies or not recipe.evaluation.baselines or run.has_time_limit:
        return []
    assert isinstance(task, TextClassification)
    chosen = _sample(len(train), recipe.training.seed)
    labels = run.stores[TRAIN].targets["labels"][chosen]  # a row is one example
    gold = run.stores[split.name].targets["labels"]
    metric = run.metric.removeprefix("eval_")
    metric = metric if metric in task.target.metrics else task.target.metrics[0]  # it may be the loss
    found = []
    for name, predicted in _predictions(run, split, task, chosen, np.asarray(labels)):
        own = replace(task.target.row_sums(_as_logits(task, predicted), np.asarray(gold)), clusters=sums.clusters)
        difference = next(one for one in differences(own, sums) if one.metric == metric)
        found.append({"split": split.name, **_as_json(name, len(chosen), own, difference)})
    return found


def _predictions(
    run: TrainingRun, split: Split, task: TextClassification, chosen: np.ndarray, labels: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """The name of each baseline, and its predictions for the split: classes, 0 and 1 per label, or numbers."""
    target, number = task.target, len(split.rows)
    is_numbers = isinstance(target, Regression)
    if isinstance(target, SingleLabel):
        yield "most frequent class", np.full(number, np.bincount(labels).argmax())
    elif isinstance(target, MultiLabel):
        yield "labels of most rows", np.tile(labels.mean(axis=0) >= 0.5, (number, 1))
    else:
        yield "mean of the labels", np.full(number, labels.mean())
    words = "ridge regression" if is_numbers else "logistic regression"
    estimate = _estimator(target, len(np.unique(labels)) if labels.ndim == 1 else 2)
    texts = [list(task.input_texts(rows)) for rows in (run.splits.train.rows.take(chosen), split.rows)]
    yield f"TF-IDF, {words}", estimate(*_tfidf(*texts), labels)
    yield f"frozen encoder, {words}", estimate(*_features(run, chosen, split), labels)


def _estimator(target: Any, num_classes: int) -> Callable[[Any, Any, np.ndarray], np.ndarray]:
    """A function of training features, features and training labels that returns predictions."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.multiclass import OneVsRestClassifier

    def predict(train: Any, features: Any, labels: np.ndarray) -> np.ndarray:
        regression: Any = LogisticRegression(C=INVERSE_REGULARIZATION, max_iter=300, tol=1e-3)
        if isinstance(target, Regression):
            return np.asarray(Ridge(alpha=1 / INVERSE_REGULARIZATION).fit(train, labels).predict(features))
        if isinstance(target, MultiLabel):
            return np.asarray(OneVsRestClassifier(regression).fit(train, labels > 0).predict(features))
        if num_classes == 1:
            return np.full(features.shape[0], labels[0])
        return np.asarray(regression.fit(train, labels).predict(features))

    return predict


def _tfidf(train: Sequence[str], texts: Sequence[str]) -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer

    has_spaces = sum(len(text.split()) for text in train) >= WORDS_PER_TEXT * len(train)
    unit = {"ngram_range": (1, 2)} if has_spaces else {"ngram_range": (1, 3), "analyzer": "char"}
    vectorizer = TfidfVectorizer(sublinear_tf=True, max_features=MOST_NGRAMS, token_pattern=r"(?u)\b\w+\b", **unit)
    return vectorizer.fit_transform(train), vectorizer.transform(texts)


def _features(run: TrainingRun, chosen: np.ndarray, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """(N, D): the mean of each row's token vectors by the start model, of length 1, for training rows and the split."""
    task, recipe = run.splits.task, load_recipe(run.recipe, {"model_head": MEAN_HEAD})
    setup = raise_on_all_ranks(lambda: set_up(recipe, recipe.model, task), local_rank_first=True)
    model: Any = setup.model
    model.dense = nn.Identity()
    train = run.stores[TRAIN]
    stores = train if len(chosen) == len(train) else _taken(train, chosen), run.stores[split.name]
    means = [predict_split(setup, task, replace(store, targets={})).results for store in stores]
    first, second = (mean / np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12) for mean in means)
    return first, second


def _taken(store: TokenStore, rows: np.ndarray) -> TokenStore:
    """The examples of these rows, of which each has one."""
    starts, lengths = store.starts[rows], store.lengths[rows]
    positions = np.concatenate(
        [np.arange(start, start + length) for start, length in zip(starts, lengths, strict=True)]
    )
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    inputs = {name: values[positions] for name, values in store.inputs.items()}
    sequences = None
    if store.sequences is not None:
        of_examples = [
            store.sequences[(store.sequences >= start) & (store.sequences < start + length)] - start + bound
            for start, length, bound in zip(starts, lengths, bounds, strict=False)
        ]
        sequences = np.concatenate([*of_examples, bounds[-1:]])
    return TokenStore(inputs, bounds, np.arange(len(rows)), store.num_tokens_cut[rows], sequences=sequences)


def _sample(number: int, seed: int) -> np.ndarray:
    """At most MOST_TRAINING_ROWS of the training rows."""
    if number <= MOST_TRAINING_ROWS:
        return np.arange(number)
    return np.sort(np.random.default_rng(seed).choice(number, MOST_TRAINING_ROWS, replace=False))


def _as_logits(task: TextClassification, predicted: np.ndarray) -> np.ndarray:
    """Logits that make the task predict this."""
    if isinstance(task.target, SingleLabel):
        return np.where(predicted[:, None] == np.arange(len(task.target.vocabulary.names)), CERTAIN, 0.0)
    if isinstance(task.target, MultiLabel):
        return np.where(predicted > 0, CERTAIN, -CERTAIN)
    return predicted[:, None].astype(np.float64)


def _as_json(name: str, num_rows: int, own: RowSums, difference: Difference) -> dict[str, Any]:
    metric = difference.metric
    low, high = intervals(own)[metric]
    return {
        "name": name,
        "num_training_rows": num_rows,
        "metric": metric,
        "value": difference.a,
        "low": low,
        "high": high,
        "difference": difference.difference,
        "difference_low": difference.low,
        "difference_high": difference.high,
        "p_value": difference.p_value,
        "metrics": {key: float(value) for key, value in own.measure().items()},
    }


def lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The baselines as a small table, for the log."""
    if not found:
        return
    width = max(len(one["name"]) for one in found)
    yield f"{found[0]['metric']} without fine-tuning, on the same {found[0]['split']} rows"
    for one in found:
        gain, low, high = gain_of(one)
        gained = f"{gain:+.4f}, 95 % interval {low:+.4f} to {high:+.4f}"
        yield f"  {one['name']:<{width}}  {one['value']:.4f}   fine-tuning: {gained}"
