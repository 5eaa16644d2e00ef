"""Precision, recall and F1 of the entities of tag sequences, as in CoNLL-2003: span and type must both be correct.

The forms of tags are those of `data.tokens.tags`. Malformed sequences, and those of IOB1, are read as by conlleval: a
tag that continues no entity of the same type begins one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fasttune.data.tokens.tags import OUTSIDE, Form, parts_of_tag

METRICS = ("precision", "recall", "f1", "f1_macro", "accuracy")
BEGINS, ENDS = frozenset("BSUW"), frozenset("ESLUW")


class Entity(NamedTuple):
    """Words [start, stop) of one `type`, which is empty if tags have positions only."""

    start: int
    stop: int
    type: str


def entities_of(tags: Sequence[str], form: Form = "prefix") -> list[Entity]:
    """The entities of `tags` such as ["B-PER", "I-PER", "O", "S-LOC"], in order."""
    found: list[Entity] = []
    start: int | None = None
    current = ""
    for index, tag in enumerate([*tags, OUTSIDE]):
        position, kind = parts_of_tag(tag, form)
        if start is not None and (position == OUTSIDE or kind != current or position in BEGINS):
            found.append(Entity(start, index, current))
            start = None
        if position != OUTSIDE and start is None:
            start, current = index, kind
        if start is not None and position in ENDS:
            found.append(Entity(start, index + 1, current))
            start = None
    return found


def score(
    predicted: Iterable[Sequence[str]],
    gold: Iterable[Sequence[str]],
    names: Sequence[str] = METRICS,
    form: Form = "prefix",
) -> dict[str, float]:
    """The named metrics in 0..1; 0 if the denominator is 0.

    `precision`, `recall` and `f1` are over all entities, `f1_macro` is the mean over types, `accuracy` is over tags.
    """
    num_correct, num_predicted, num_gold = Counter[str](), Counter[str](), Counter[str]()
    num_correct_tags = num_tags = 0
    for predicted_tags, gold_tags in zip(predicted, gold, strict=True):
        predicted_entities, gold_entities = set(entities_of(predicted_tags, form)), set(entities_of(gold_tags, form))
        num_correct.update(entity.type for entity in predicted_entities & gold_entities)
        num_predicted.update(entity.type for entity in predicted_entities)
        num_gold.update(entity.type for entity in gold_entities)
        num_correct_tags += sum(tag == correct for tag, correct in zip(predicted_tags, gold_tags, strict=True))
        num_tags += len(gold_tags)
    types = sorted({*num_predicted, *num_gold})
    f1_by_type = [_ratio(2 * num_correct[kind], num_predicted[kind] + num_gold[kind]) for kind in types]
    values = {
        "precision": _ratio(num_correct.total(), num_predicted.total()),
        "recall": _ratio(num_correct.total(), num_gold.total()),
        "f1": _ratio(2 * num_correct.total(), num_predicted.total() + num_gold.total()),
        "f1_macro": _ratio(sum(f1_by_type), len(types)),
        "accuracy": _ratio(num_correct_tags, num_tags),
    }
    return {name: values[name] for name in names}


def counts_of(
    predicted: Sequence[Sequence[str]], gold: Sequence[Sequence[str]], form: Form = "prefix"
) -> tuple[np.ndarray, list[str]]:
    """(N, 3K + 2) counts per row: correct, predicted and gold entities by type, correct tags, tags; and the types."""
    found = [[entities_of(tags, form) for tags in side] for side in (predicted, gold)]
    types = sorted({entity.type for side in found for row in side for entity in row})
    column = {kind: number for number, kind in enumerate(types)}
    counts = np.zeros((len(gold), 3 * len(types) + 2))
    for row, (mine, theirs) in enumerate(zip(*found, strict=True)):
        for part, chosen in enumerate(({*mine} & {*theirs}, {*mine}, {*theirs})):
            for entity in chosen:
                counts[row, part * len(types) + column[entity.type]] += 1
        pairs = zip(predicted[row], gold[row], strict=True)
        counts[row, -2:] = sum(tag == correct for tag, correct in pairs), len(gold[row])
    return counts, types


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0
