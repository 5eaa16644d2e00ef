"""Generated questions with contexts, in the hub's form of SQuAD, so that a first run needs no download.

A context tells of two or three made-up places, each by some of its facts; only the first sentence on a place names it.
A question asks for one fact of one place. Where that was not told the question has no answer, although another place
may have such a fact. Everything depends on the seed alone.
"""

from __future__ import annotations

import random
from typing import Any

from fasttune.data.starter.facts import KINDS, Place, draw_places, sentence, stated

SPLIT_SIZES = {"train": 1000, "validation": 200, "test": 200}
QUESTIONS_A_CONTEXT = 5
_CHANCE_UNANSWERABLE = 0.2
_CHANCE_LONG = 0.06  # that a context has so many places that it is read in several windows
_REST = (
    "The street is busy at noon and quiet at night.",
    "Nobody remembers what stood there before.",
    "Guided tours start every hour, except on Mondays.",
    "A small shop sells postcards and warm bread.",
    "Old people still tell stories about it.",
)


def generate(seed: int = 42) -> dict[str, list[dict[str, Any]]]:
    """The splits "train" (1,000 rows), "validation" and "test" (200 each), a pure function of the seed.

    A row has `id`, `context`, `question` and `answers` {"text", "answer_start"}, empty where there is no answer. No
    context occurs in two splits.
    """
    rng = random.Random(f"questions {seed}")
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, size in SPLIT_SIZES.items():
        rows: list[dict[str, Any]] = []
        while len(rows) < size:
            for row in _asked(rng):
                rows.append({"id": f"{split}-{len(rows) + 1:04d}", **row})
        splits[split] = rows[:size]
    return splits


def _asked(rng: random.Random) -> list[dict[str, Any]]:
    """A context with its questions."""
    places = draw_places(rng, 10 if rng.random() < _CHANCE_LONG else rng.randint(2, 3))
    context, told = _context(rng, places)
    open_facts = [(place, kind) for place in places for kind in KINDS if (place, kind) not in told]
    rows = []
    for place, kind in rng.sample(list(told), QUESTIONS_A_CONTEXT):
        answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
        if rng.random() < _CHANCE_UNANSWERABLE:
            place, kind = rng.choice(open_facts)
        else:
            start, value = told[place, kind]
            answers = {"text": [value], "answer_start": [start]}
        question = sentence(rng.choice(KINDS[kind].questions), place.subject)
        rows.append({"context": context, "question": question, "answers": answers})
    return rows


def _context(rng: random.Random, places: list[Place]) -> tuple[str, dict[tuple[Place, str], tuple[int, str]]]:
    """The text, and where in it the value of each fact stands."""
    text, told = "", {}
    for place in places:
        kinds = rng.sample(list(KINDS), rng.randint(3, 6))
        for number, kind in enumerate(kinds):
            value = KINDS[kind].make(rng)
            said = stated(rng, kind, place.subject if number == 0 else f"the {place.noun}", value)
            # The first letter of a sentence may have become a capital one.
            begin = said.lower().rindex(value.lower())
            told[place, kind] = (len(text) + begin, said[begin : begin + len(value)])
            text += said + " "
            if rng.random() < 0.25:
                text += rng.choice(_REST) + " "
    return text.rstrip(), told
