"""Generate pairs of sentences that mean the same or not, as in GLUE MRPC, so that a first run needs no download.

Two sentences state a fact in different words. If they do not mean the same, the value, the place or the kind of fact
differs. Everything depends only on the seed.
"""

from __future__ import annotations

import random

from fasttune.data.starter.facts import KINDS, draw_places, sentence, stated
from fasttune.data.starter.leaks import numbered, replace_near_duplicates

SPLIT_SIZES = {"train": 1500, "validation": 250, "test": 250}
LABELS = ("different", "same")
_CHANCE_SAME = 0.5


def generate(seed: int = 42) -> dict[str, list[dict[str, str]]]:
    """Return the splits "train" (1,500 rows), "validation" and "test" (250 each), a pure function of the seed.

    A row has `id`, `sentence1`, `sentence2` and `label`. No pair occurs twice, and no held-out pair nearly
    repeats a pair of an earlier split.
    """
    rng = random.Random(f"pairs {seed}")
    seen: set[tuple[str, str]] = set()

    def draw() -> dict[str, str]:
        while True:
            first, second, label = _pair(rng)
            if (first, second) not in seen:
                seen.add((first, second))
                return {"sentence1": first, "sentence2": second, "label": label}

    splits = {split: [draw() for _ in range(size)] for split, size in SPLIT_SIZES.items()}
    replace_near_duplicates(splits, lambda row: f"{row['sentence1']}\n{row['sentence2']}", draw)
    return numbered(splits)


def _pair(rng: random.Random) -> tuple[str, str, str]:
    place, other_place = (place.subject for place in draw_places(rng, 2))
    kind = rng.choice(list(KINDS))
    value = KINDS[kind].make(rng)
    template, other_template = rng.sample(KINDS[kind].statements, 2)
    first = sentence(template, place, value)
    if rng.random() < _CHANCE_SAME:
        return first, sentence(other_template, place, value), LABELS[1]
    change = rng.choice(("value", "place", "kind"))
    if change == "place":
        return first, stated(rng, kind, other_place, value), LABELS[0]
    if change == "kind":
        kind = rng.choice([other for other in KINDS if other != kind])
        return first, stated(rng, kind, place, KINDS[kind].make(rng)), LABELS[0]
    other_value = value
    while other_value == value:
        other_value = KINDS[kind].make(rng)
    return first, stated(rng, kind, place, other_value), LABELS[0]
