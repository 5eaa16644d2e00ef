"""Scores by label, question word, answer length and entity, with their 95 % intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from fasttune.analysis.properties import words_of
from fasttune.analysis.scored import Scored
from fasttune.tasks.metrics import intervals
from fasttune.tasks.metrics.entities import Entity, entities_of
from fasttune.tasks.metrics.sums import ANSWERS, CLASSES, ENTITIES, LABELS, TAGS, RowSums
from fasttune.tasks.token_classification import TokenClassification

MOST_CLASSES = 30  # in a table of confusions
MOST_CONFUSED = 10
FEW_ROWS = 10  # of a label: its scores say little
QUESTION_WORDS = ("what", "who", "when", "where", "which", "how many", "how much", "how", "why")
OTHER = "other"
ENTITY_ERRORS = ("correct", "wrong boundary", "wrong type", "missed", "invented")


def by_label(sums: RowSums) -> list[dict[str, Any]]:
    """Precision, recall and F1 of each class, label or entity type."""
    if sums.kind not in (CLASSES, LABELS, TAGS, ENTITIES):
        return []
    found = []
    for name, correct, predicted, true in zip(sums.names, *map(np.ndarray.tolist, sums.by_name()), strict=True):
        low, high = intervals.wilson(correct, true) if true else (None, None)
        found.append(
            {
                "name": name,
                "num_true": true,
                "num_predicted": predicted,
                "precision": correct / predicted if predicted else 0.0,
                "recall": correct / true if true else 0.0,
                "recall_low": low,
                "recall_high": high,
                "f1": 2 * correct / (predicted + true) if predicted + true else 0.0,
            }
        )
    return found


def confusions(sums: RowSums) -> dict[str, Any] | None:
    """The table of true and predicted classes, if it is of readable size, and the most frequent confusions."""
    if sums.kind != CLASSES:
        return None
    counts = sums.confusions()
    order = np.argsort(-np.where(np.eye(len(counts), dtype=bool), 0, counts), axis=None, kind="stable")[:MOST_CONFUSED]
    most = []
    for true, predicted in zip(*np.unravel_index(order, counts.shape), strict=True):
        if true != predicted and counts[true, predicted]:
            names = {"label": sums.names[true], "prediction": sums.names[predicted]}
            number = int(counts[true, predicted])
            most.append({**names, "num_rows": number, "share": number / int(counts[true].sum())})
    table = counts.tolist() if len(counts) <= MOST_CLASSES else None
    return {"names": list(sums.names), "counts": table, "most": most}


def groups(scored: Scored, metric: str) -> list[dict[str, Any]]:
    """Scores of groups of rows that are usual for the task: titles, and for each group its score."""
    return [{"title": title, "groups": _scores(scored.sums, names, metric)} for title, names in _group_names(scored)]


def _group_names(scored: Scored) -> Iterator[tuple[str, list[str]]]:
    values = scored.split.rows.values
    if scored.sums.kind == ANSWERS:
        yield "question word", [_question_word(text) for text in values["question"]]
        lengths = [min((len(words_of(answer.text)) for answer in given), default=0) for given in values["answers"]]
        yield "words of the shortest answer", [_binned(length, (0, 1, 2, 3, 6, 11)) for length in lengths]
    windows = scored.store.num_windows if len(scored.store) == len(scored) else np.bincount(scored.store.rows)
    if windows.max() > 1:
        yield "windows", [_binned(int(number), (1, 2, 3, 5)) for number in windows]


def _question_word(text: str) -> str:
    words = words_of(text)
    pairs = [" ".join(words[at : at + 2]) for at in range(len(words))]
    places = {
        word: (pairs if " " in word else words).index(word) for word in QUESTION_WORDS if word in (*pairs, *words)
    }
    return min(places, key=lambda word: (places[word], -len(word))) if places else OTHER


def _binned(number: int, starts: Sequence[int]) -> str:
    """The name of the bin of a number; each bin begins at one of `starts`, and the last has no end."""
    place = int(np.searchsorted(starts, number, "right")) - 1
    if place == len(starts) - 1:
        return f"{starts[place]}+"
    last = starts[place + 1] - 1
    return str(starts[place]) if last == starts[place] else f"{starts[place]}-{last}"


def _scores(sums: RowSums, names: Sequence[str], metric: str) -> list[dict[str, Any]]:
    """The metric of each group with at least FEW_ROWS rows, by name in order of their numbers or alphabet."""
    array = np.array(names)
    found = []
    for name in sorted({*names}, key=_in_order):
        rows = np.flatnonzero(array == name)
        if len(rows) < FEW_ROWS:
            continue
        part = sums.take(rows)
        low, high = intervals.intervals(part)[metric]
        value = float(part.measure()[metric])
        found.append({"name": name, "num_rows": len(rows), "value": value, "low": low, "high": high})
    return found


def _in_order(name: str) -> tuple[float, str]:
    digits = name.rstrip("+").partition("-")[0]
    return (float(digits), name) if digits.isdigit() else (np.inf, name)


def entity_errors(scored: Scored) -> dict[str, Any] | None:
    """How entities were found or not: at all, by number of words, and by type."""
    task = scored.task
    if not isinstance(task, TokenClassification) or task.form is None:
        return None
    form = task.form
    gold = [entities_of(tags, form) for tags in task.gold_tags(scored.split.rows)]
    predicted = [entities_of(tags, form) for tags, _ in task.tags(scored.results, scored.store, scored.split.rows)]
    kinds = dict.fromkeys(ENTITY_ERRORS, 0)
    lengths: dict[str, list[int]] = {}
    for theirs, mine in zip(gold, predicted, strict=True):
        for entity in theirs:
            kind = _kind(entity, mine)
            kinds[kind] += 1
            lengths.setdefault(_binned(entity.stop - entity.start, (1, 2, 3, 4)), []).append(kind == "correct")
        kinds["invented"] += sum(not any(_overlap(entity, other) for other in theirs) for entity in mine)
    by_length = []
    for name, found in sorted(lengths.items()):
        low, high = intervals.wilson(sum(found), len(found))
        by_length.append(
            {"name": name, "num_rows": len(found), "value": sum(found) / len(found), "low": low, "high": high}
        )
    return {"kinds": kinds, "by_length": by_length}


def _kind(entity: Entity, predicted: Sequence[Entity]) -> str:
    if entity in predicted:
        return "correct"
    if any(other[:2] == entity[:2] for other in predicted):
        return "wrong type"
    return "wrong boundary" if any(_overlap(entity, other) for other in predicted) else "missed"


def _overlap(a: Entity, b: Entity) -> bool:
    return a.start < b.stop and b.start < a.stop
