"""Entities of tag sequences, and precision, recall and F1 of them, as CoNLL-2003 counts: span and type must be right.

Tags are O, or a position and a type such as B-PER. BIO: B begins, I goes on. BIOES: E ends, S stands alone. A sequence
that is not well-formed is read as conlleval reads it: an I (or E) that continues nothing of its type begins an entity.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

OUTSIDE = "O"
BEGINS, ENDS = frozenset("BS"), frozenset("ES")


@dataclass(frozen=True, order=True)
class Entity:
    """Tokens [start, stop) of one `type`."""

    start: int
    stop: int
    type: str


def entities_of(tags: Sequence[str]) -> list[Entity]:
    """In order; `tags` such as ["B-PER", "I-PER", "O", "S-LOC"]."""
    found: list[Entity] = []
    start, kind = 0, ""
    for position, tag in enumerate([*tags, OUTSIDE]):
        place, _, here = (OUTSIDE, "", "") if tag == OUTSIDE else (tag[0], "", tag[2:])
        if kind and (place == OUTSIDE or place in BEGINS or here != kind):
            found.append(Entity(start, position, kind))
            kind = ""
        if place != OUTSIDE and not kind:
            start, kind = position, here
        if kind and place in ENDS:
            found.append(Entity(start, position + 1, kind))
            kind = ""
    return found


def score(predicted: Iterable[Sequence[str]], right: Iterable[Sequence[str]]) -> dict[str, float]:
    """`precision`, `recall`, `f1` over all entities and `f1_macro` over types, in 0..1; 0 where there are none."""
    hits, found, wanted = Counter[str](), Counter[str](), Counter[str]()
    for one, other in zip(predicted, right, strict=True):
        ours, theirs = set(entities_of(one)), set(entities_of(other))
        hits.update(entity.type for entity in ours & theirs)
        found.update(entity.type for entity in ours)
        wanted.update(entity.type for entity in theirs)
    types = sorted({*found, *wanted})
    per_type = [_f1(hits[kind], found[kind], wanted[kind]) for kind in types]
    return {
        "precision": hits.total() / found.total() if found else 0.0,
        "recall": hits.total() / wanted.total() if wanted else 0.0,
        "f1": _f1(hits.total(), found.total(), wanted.total()),
        "f1_macro": sum(per_type) / len(types) if types else 0.0,
    }


def _f1(hits: int, found: int, wanted: int) -> float:
    return 2 * hits / (found + wanted) if found + wanted else 0.0
