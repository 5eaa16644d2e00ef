"""Entities of tag sequences, and precision, recall and F1 of them, as CoNLL-2003 counts: span and type must be right.

Tags are O, or a position and a type such as B-PER. BIO: B begins, I goes on. BIOES and BILOU: E or L ends, S or U
stands alone; BMES: M goes on. A sequence that is not well-formed is read as conlleval reads it: a tag that continues
nothing of its own type begins an entity.
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
    """Whether these are tags of entities, and not, say, parts of speech."""
    tags = set(tags)
    return tags != {OUTSIDE} and all(TAG.fullmatch(tag) for tag in tags)


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """In order; `tags` such as ["B-PER", "I-PER", "O", "S-LOC"]."""
    found: list[Entity] = []
    start, kind = 0, ""
    for position, tag in enumerate([*tags, OUTSIDE]):
        place, here = tag[0], tag[2:]
        if kind and (here != kind or place in BEGINS):
            found.append(Entity(start, position, kind))
            kind = ""
        if here and not kind:
            start, kind = position, here
        if kind and place in ENDS:
            found.append(Entity(start, position + 1, kind))
            kind = ""
    return found


def score(
    predicted: Iterable[Sequence[str]], right: Iterable[Sequence[str]], names: Sequence[str] = METRICS
) -> dict[str, float]:
    """The named metrics in 0..1, 0 where there is nothing to divide by.

    `precision`, `recall` and `f1` over all entities, `f1_macro` the mean of types, `accuracy` that of tags.
    """
    hits, found, wanted = Counter[str](), Counter[str](), Counter[str]()
    num_right = num_tags = 0
    for one, other in zip(predicted, right, strict=True):
        ours, theirs = set(entities_of(one)), set(entities_of(other))
        hits.update(entity.type for entity in ours & theirs)
        found.update(entity.type for entity in ours)
        wanted.update(entity.type for entity in theirs)
        num_right += sum(tag == wish for tag, wish in zip(one, other, strict=True))
        num_tags += len(other)
    types = sorted({*found, *wanted})
    values = {
        "precision": _share(hits.total(), found.total()),
        "recall": _share(hits.total(), wanted.total()),
        "f1": _share(2 * hits.total(), found.total() + wanted.total()),
        "f1_macro": _share(
            sum(_share(2 * hits[kind], found[kind] + wanted[kind]) for kind in types),
            len(types),
        ),
        "accuracy": _share(num_right, num_tags),
    }
    return {name: values[name] for name in names}


def _share(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
