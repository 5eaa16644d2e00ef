"""Precision, recall and F1 of the entities of tag sequences, as in CoNLL-2003: span and type must both be correct.

Tags are O, or a position and a type such as B-PER. BIO: B begins an entity, I continues it. BIOES and BILOU: E or L
ends it, S or U is an entity of one word. BMES: M continues it. Malformed sequences are read as by conlleval: a tag that
continues no entity of the same type begins one.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

METRICS = ("precision", "recall", "f1", "f1_macro", "accuracy")
OUTSIDE = "O"
BEGINS, ENDS = frozenset("BSU"), frozenset("ESLU")
TAG = re.compile(r"O|[BIEMSLU]-.+", re.DOTALL)


class Entity(NamedTuple):
    """Words [start, stop) of one `type`."""

    start: int
    stop: int
    type: str


def are_entities(tags: Iterable[str]) -> bool:
    """Whether the tags mark entities rather than, say, parts of speech."""
    tags = set(tags)
    return tags != {OUTSIDE} and all(TAG.fullmatch(tag) for tag in tags)


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """The entities of `tags` such as ["B-PER", "I-PER", "O", "S-LOC"], in order."""
    found: list[Entity] = []
    start, current = 0, ""
    for index, tag in enumerate([*tags, OUTSIDE]):
        position, kind = tag[0], tag[2:]
        if current and (kind != current or position in BEGINS):
            found.append(Entity(start, index, current))
            current = ""
        if kind and not current:
            start, current = index, kind
        if current and position in ENDS:
            found.append(Entity(start, index + 1, current))
            current = ""
    return found


def score(
    predicted: Iterable[Sequence[str]], gold: Iterable[Sequence[str]], names: Sequence[str] = METRICS
) -> dict[str, float]:
    """The named metrics in 0..1; 0 if the denominator is 0.

    `precision`, `recall` and `f1` are over all entities, `f1_macro` is the mean over types, `accuracy` is over tags.
    """
    num_correct, num_predicted, num_gold = Counter[str](), Counter[str](), Counter[str]()
    num_correct_tags = num_tags = 0
    for predicted_tags, gold_tags in zip(predicted, gold, strict=True):
        predicted_entities, gold_entities = set(entities_of(predicted_tags)), set(entities_of(gold_tags))
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


def _ratio(numerator: float, denominator: float) -> float:
    return numerator / denominator if denominator else 0.0
