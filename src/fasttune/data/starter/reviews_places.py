"""The structure of the phrases about one kind of place (restaurant, hotel, shop).

An aspect has pairs of clauses, (good, bad), that share as many words as possible, so that no single word reveals the
opinion. Every clause is a main clause in the past tense without "I", "we" or "our", because it must also fit after
"a colleague had told me that" and "on an earlier visit".
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Aspect:
    """Something that a review can praise or criticise.

    `subjects` are noun phrases with a verb; any subject goes with any adjective of `good` and `bad`.
    """

    clauses: tuple[tuple[str, str], ...]
    subjects: tuple[tuple[str, str], ...]
    good: tuple[str, ...]
    bad: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """A kind of place: its aspects and other phrases about it.

    `things` fill "Best ... I have had in years"; `had` is that verb; `visits` fill "I could not have asked for a better
    ...". `events` are pairs of clauses, (good, bad), that may have "I" and "we". `openings` (at most one, at the start)
    and `facts` carry no opinion.
    """

    aspects: tuple[Aspect, ...]
    events: tuple[tuple[str, str], ...]
    things: tuple[str, ...]
    had: str
    visits: tuple[str, ...]
    names: tuple[str, ...]
    openings: tuple[str, ...]
    facts: tuple[str, ...]
