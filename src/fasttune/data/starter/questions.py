"""Generate questions with contexts, in the hub's SQuAD format, so that a first run needs no download.

A context states some facts about two or three invented places, or about ten; only the first sentence on a place names
it. A question asks for one fact about one place. It has no answer if the context does not state this fact, even if it
states the same kind of fact about another place. Everything depends only on the seed.
"""

from __future__ import annotations

import random
from typing import Any

from fasttune.data.starter.facts import KINDS, Place, draw_places, sentence, stated

SPLIT_SIZES = {"train": 1000, "validation": 200, "test": 200}
QUESTIONS_A_CONTEXT = 5
_CHANCE_UNANSWERABLE = 0.2
_CHANCE_LONG = 0.06  # of a context with ten places, which is read in several windows
_REST = (
    "The street is busy at noon and quiet at night.",
    "Nobody remembers what stood there before.",
    "Guided tours start every hour, except on Mondays.",
    "A small shop sells postcards and warm bread.",
    "Old people still tell stories about it.",
)


def generate(seed: int = 42) -> dict[str, list[dict[str, Any]]]:
    """Return the splits "train" (1,000 rows), "validation" and "test" (200 each), a pure function of the seed.

    A row has `id`, `context`, `question` and `answers` {"text", "answer_start"}, empty if there is no answer. No
    context occurs in two splits.
    """
    rng = random.Random(f"questions {seed}")
    splits: dict[str, list[dict[str, Any]]] = {}
    for split, size in SPLIT_SIZES.items():
        rows: list[dict[str, Any]] = []
        while len(rows) < size:
            for row in _questions(rng):
                rows.append({"id": f"{split}-{len(rows) + 1:04d}", **row})
        splits[split] = rows[:size]
    return splits


def _questions(rng: random.Random) -> list[dict[str, Any]]:
    """Return a context with its questions."""
    places = draw_places(rng, 10 if rng.random() < _CHANCE_LONG else rng.randint(2, 3))
    context, stated_facts = _context(rng, places)
    open_facts = [(place, kind) for place in places for kind in KINDS if (place, kind) not in stated_facts]
    rows = []
    for place, kind in rng.sample(list(stated_facts), QUESTIONS_A_CONTEXT):
        answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
        if rng.random() < _CHANCE_UNANSWERABLE:
            place, kind = rng.choice(open_facts)
        else:
            start, value = stated_facts[place, kind]
            answers = {"text": [value], "answer_start": [start]}
        question = sentence(rng.choice(KINDS[kind].questions), place.subject)
        rows.append({"context": context, "question": question, "answers": answers})
    return rows


def _context(rng: random.Random, places: list[Place]) -> tuple[str, dict[tuple[Place, str], tuple[int, str]]]:
    """Return the text, and for each fact the start of its value and the value."""
    text, stated_facts = "", {}
    for place in places:
        kinds = rng.sample(list(KINDS), rng.randint(3, 6))
        for number, kind in enumerate(kinds):
            value = KINDS[kind].make(rng)
            statement = stated(rng, kind, place.subject if number == 0 else f"the {place.noun}", value)
            # The first letter of the sentence may have been capitalised.
            begin = statement.lower().rindex(value.lower())
            stated_facts[place, kind] = (len(text) + begin, statement[begin : begin + len(value)])
            text += statement + " "
            if rng.random() < 0.25:
                text += rng.choice(_REST) + " "
    return text.rstrip(), stated_facts
