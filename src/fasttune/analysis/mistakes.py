"""Rank a model's mistakes, find similar training rows, and list the labels that are probably wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from fasttune.analysis.properties import words_of
from fasttune.analysis.scored import Scored, as_text, cut, gold_of, inputs_of
from fasttune.data.holdout import Split
from fasttune.data.tokens.store import TokenStore
from fasttune.tasks.targets import MultiLabel
from fasttune.tasks.text_classification import classes_of

NUM_MISTAKES, NUM_SUSPECTS = 20, 30
SUSPICIOUS_LOSS = np.log(5)  # of a label with a probability of 1 / 5
MIN_SIMILARITY = 0.5  # of the sets of words: the Jaccard index
MOST_COMPARED = 20_000  # training rows
CUT_OF_LIST = 200  # characters of a text in a list


def mistakes(scored: Scored) -> list[dict[str, Any]]:
    """The wrong predictions whose label is most surprising; without probabilities of labels, the largest errors.

    Among questions with equal errors, those whose answer has the highest score.
    """
    errors = scored.sums.errors()
    losses = scored.task.row_losses(scored.results, scored.store, scored.split.rows)
    wrong = np.flatnonzero(errors > 0)
    if losses is None:
        scores = {row: found.get("score") or 0.0 for row, found in _pairs(scored, wrong.tolist())}
        order = sorted(wrong.tolist(), key=lambda row: (-errors[row], -scores[row], row))
    else:
        order = wrong[np.argsort(-losses[wrong], kind="stable")].tolist()
    chosen = order[:NUM_MISTAKES]
    found = []
    for row, prediction in _pairs(scored, chosen):
        rows = scored.split.rows
        found.append(
            {
                "row": row,
                "id": rows.ids[row],
                "place": rows.place(row),
                "inputs": inputs_of(scored.split, row),
                "label": scored.gold(row),
                "prediction": as_text(prediction),
                "explained": _explained(scored, row, prediction),
                "score": prediction.get("score"),
                "loss": None if losses is None else float(losses[row]),
                "error": float(errors[row]),
            }
        )
    return found


def _explained(scored: Scored, row: int, prediction: dict[str, Any]) -> str | None:
    """The label whose words are of interest: the predicted one; of several, a wrong one, or else a missed one."""
    target = classes_of(scored.task)
    if not isinstance(target, MultiLabel):
        return prediction.get("label")
    has_label = scored.store.targets["labels"][row] > 0
    gold = {name for name, given in zip(target.vocabulary.names, has_label, strict=True) if given}
    given = prediction["probabilities"]
    wrong = [name for name in prediction["labels"] if name not in gold]
    missed = [name for name in gold if name not in prediction["labels"]]
    return max(wrong, key=given.__getitem__) if wrong else min(missed, key=given.__getitem__) if missed else None


def _pairs(scored: Scored, rows: Sequence[int]) -> list[tuple[int, dict[str, Any]]]:
    return list(zip(rows, scored.predictions(rows), strict=True))


def suspects(scored: Scored) -> list[dict[str, Any]]:
    """Rows whose label the model finds least likely: the label may be wrong (Chong, Hong & Manning, 2022)."""
    task = scored.task
    losses = task.row_losses(scored.results, scored.store, scored.split.rows)
    if losses is None or classes_of(task) is None:
        return []
    wrong = np.flatnonzero((scored.sums.errors() > 0) & (losses > SUSPICIOUS_LOSS))
    chosen = wrong[np.argsort(-losses[wrong], kind="stable")][:NUM_SUSPECTS].tolist()
    texts = list(task.input_texts(scored.split.rows.take(chosen)))
    return [
        {
            "id": scored.split.rows.ids[row],
            "place": scored.split.rows.place(row),
            "text": cut(text, CUT_OF_LIST),
            "label": scored.gold(row),
            "suggestion": as_text(prediction),
            "loss": float(losses[row]),
        }
        for (row, prediction), text in zip(_pairs(scored, chosen), texts, strict=True)
    ]


def similar_training_rows(
    scored: Scored, rows: Sequence[int], train: Split, train_store: TokenStore
) -> list[list[dict[str, Any]]]:
    """For each of these rows, the training row with the most words in common, if they have half of them in common."""
    from sklearn.feature_extraction.text import CountVectorizer

    number = min(len(train.rows), MOST_COMPARED)
    if not len(rows) or not number:
        return [[] for _ in rows]
    compared = np.linspace(0, len(train.rows) - 1, number).astype(np.int64)
    task = scored.task
    texts = list(task.input_texts(train.rows.take(compared)))
    own = list(task.input_texts(scored.split.rows.take(rows)))
    vectorizer = CountVectorizer(analyzer=lambda text: {*words_of(text)}, binary=True)
    counts = vectorizer.fit_transform([*own, *texts])
    mine, theirs = counts[: len(own)], counts[len(own) :]
    shared = np.asarray((mine @ theirs.T).todense(), dtype=np.float64)
    sizes = [np.asarray(part.sum(axis=1)).ravel() for part in (mine, theirs)]
    similarity = shared / np.maximum(sizes[0][:, None] + sizes[1][None, :] - shared, 1)
    found = []
    for best, value in zip(similarity.argmax(axis=1), similarity.max(axis=1), strict=True):
        row = int(compared[best])
        similar = {
            "place": train.rows.place(row),
            "text": cut(texts[int(best)], CUT_OF_LIST),
            "label": gold_of(task, train, train_store, row),
            "similarity": float(value),
        }
        found.append([similar] if value >= MIN_SIMILARITY else [])
    return found
