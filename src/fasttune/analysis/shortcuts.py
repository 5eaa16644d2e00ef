"""Shortcuts: a word, or a property such as the length, that gives the label away in the training rows.

A model learns them first, and fails on texts without them. A word that fits a label, such as "awful" to one star, is no
shortcut: one occurs in a large part of the rows of a label and almost never elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fasttune.analysis.properties import Properties, as_matrix, words_of
from fasttune.tasks.metrics.intervals import wilson

MIN_ROWS = 20  # with the word
MIN_PRECISION = 0.9  # of the rows with the word, the share with the label: the lower end of its interval
MIN_COVERAGE = 0.3  # of the rows with the label, the share with the word
MAX_BASE = 0.8  # a label of nearly all rows is given away by anything
MIN_GAIN = 0.2  # of accuracy, by knowing one property alone
MOST_ROWS = 20_000
MOST_SHOWN = 5


@dataclass(frozen=True)
class WordShortcut:
    """`word` occurs in `num_with_word` training rows; in `precision` of them the label is `label`.

    `coverage`: the share of the rows with the label that have the word.
    """

    word: str
    label: str
    num_with_word: int
    precision: float
    coverage: float


@dataclass(frozen=True)
class PropertyShortcut:
    """Knowing only this property, `accuracy` of the training rows are classified correctly; `majority`: without it."""

    name: str
    accuracy: float
    majority: float


def word_shortcuts(texts: Sequence[str], has_label: np.ndarray, names: Sequence[str]) -> list[WordShortcut]:
    """The words that give a label away. `has_label` (N, K) bool: the labels of each training row."""
    from sklearn.feature_extraction.text import CountVectorizer

    if len(texts) < MIN_ROWS:
        return []
    vectorizer = CountVectorizer(analyzer=lambda text: {*words_of(text)}, binary=True, min_df=MIN_ROWS)
    try:
        occurs = vectorizer.fit_transform(texts)
    except ValueError:  # no word occurs in MIN_ROWS rows
        return []
    together = np.asarray(occurs.T @ has_label.astype(np.float64))  # (words, K)
    with_word, with_label = np.asarray(occurs.sum(axis=0)).ravel(), has_label.sum(axis=0)
    found = []
    for word, number in zip(*np.nonzero(together >= MIN_COVERAGE * np.maximum(with_label, 1)), strict=True):
        low, _ = wilson(together[word, number], with_word[word])
        if low < MIN_PRECISION or with_label[number] > MAX_BASE * len(texts) or together[word, number] < MIN_ROWS:
            continue
        found.append(
            WordShortcut(
                str(vectorizer.get_feature_names_out()[word]),
                str(names[number]),
                int(with_word[word]),
                float(together[word, number] / with_word[word]),
                float(together[word, number] / with_label[number]),
            )
        )
    return sorted(found, key=lambda one: (-one.coverage, -one.precision, one.word))[:MOST_SHOWN]


def property_shortcuts(properties: Properties, labels: np.ndarray) -> list[PropertyShortcut]:
    """The properties that classify rows alone, by a tree with one split per class. `labels` (N,) int."""
    from sklearn.model_selection import cross_val_predict
    from sklearn.tree import DecisionTreeClassifier

    names, values = as_matrix(properties)
    counts = np.bincount(labels)
    if len(labels) < 5 * MIN_ROWS or np.count_nonzero(counts) < 2:
        return []
    majority = float(counts.max() / len(labels))
    found = []
    for number, name in enumerate(names):
        tree = DecisionTreeClassifier(max_leaf_nodes=min(np.count_nonzero(counts), 8), min_samples_leaf=MIN_ROWS)
        predicted = cross_val_predict(tree, values[:, number : number + 1], labels, cv=3)
        accuracy = float((predicted == labels).mean())
        if accuracy >= majority + MIN_GAIN:
            found.append(PropertyShortcut(name, accuracy, majority))
    return sorted(found, key=lambda one: -one.accuracy)[:MOST_SHOWN]
