"""Invented places and facts about them, for the generated questions and pairs.

All names and sentences were written for fasttune. A fact is one property of one place; each kind of fact can be stated
and asked for in several ways. Everything depends only on the given random numbers and uses only the standard library.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

NAMES = (
    *("Alder", "Birchwood", "Calder", "Dunmore", "Eastley", "Fenwick", "Garrow", "Hollis", "Ingram", "Jarrow"),
    *("Kestrel", "Linden", "Marlow", "Norwood", "Oakham", "Penrose", "Quarry", "Rowan", "Selby", "Tarrant"),
    *("Ulster Street", "Varley", "Wexley", "Yarrow", "Zeller", "Ashdown", "Bramley", "Corfield", "Dorset Lane"),
)
NOUNS = ("museum", "library", "bridge", "theatre", "school", "garden", "station", "harbour", "mill", "tower", "market")
FIRST_NAMES = (
    *("Ada", "Boris", "Clara", "Dmitri", "Elena", "Farid", "Greta", "Hugo", "Ines", "Jonas", "Katya", "Liang"),
    *("Mira", "Nils", "Olga", "Pablo", "Rosa", "Stefan", "Tove", "Umar", "Vera", "Wei", "Yusuf", "Zora"),
)
LAST_NAMES = (
    *("Abel", "Brandt", "Castell", "Dahl", "Ekman", "Faber", "Grimaldi", "Hassan", "Ivers", "Jensen", "Kowal"),
    *("Lund", "Moreau", "Nakata", "Ortega", "Petrov", "Quist", "Rossi", "Sato", "Thorne", "Vidal", "Wolff", "Zhou"),
)
TOWNS = (
    *("Arlen", "Brookside", "Carrow Bay", "Dellwater", "Elmstead", "Farhaven", "Grenholm", "Hartfield", "Istley"),
    *("Kingsmoor", "Lower Tisbury", "Millbrook", "Northgate", "Old Marsh", "Port Wendel", "Ravenford", "Saltmere"),
)
MATERIALS = (
    "red brick",
    "pale sandstone",
    "grey granite",
    "oak and glass",
    "cast iron",
    "white limestone",
    "raw concrete",
)
TREASURES = (
    *("its collection of clocks", "its painted ceiling", "a staircase without a single nail", "its winter concerts"),
    *("the oldest map of the region", "its walled rose beds", "a whispering gallery", "its blue tiles"),
)
REASONS = (
    "a flood",
    "a fire on the roof",
    "the long war",
    "a lack of money",
    "an outbreak of fever",
    "a broken heating pipe",
)


def _person(rng: random.Random) -> str:
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def _year(rng: random.Random) -> str:
    return str(rng.randint(1790, 2015))


def _one_of(values: tuple[str, ...]) -> Callable[[random.Random], str]:
    return lambda rng: rng.choice(values)


@dataclass(frozen=True)
class Kind:
    """A kind of fact. `statements` contain {subject} and {value}, `questions` {subject}; `make` draws a value."""

    statements: tuple[str, ...]
    questions: tuple[str, ...]
    make: Callable[[random.Random], str]


KINDS = {
    "founder": Kind(
        ("{subject} was founded by {value}.", "{value} founded {subject}.", "It was {value} who founded {subject}."),
        ("Who founded {subject}?", "By whom was {subject} founded?"),
        _person,
    ),
    "architect": Kind(
        ("{value} drew the plans of {subject}.", "The plans of {subject} are the work of {value}."),
        ("Who drew the plans of {subject}?", "Whose work are the plans of {subject}?"),
        _person,
    ),
    "director": Kind(
        ("Today {subject} is run by {value}.", "{value} has been in charge of {subject} for some years."),
        ("Who runs {subject} today?", "Who is in charge of {subject}?"),
        _person,
    ),
    "opened": Kind(
        ("{subject} was opened in {value}.", "The public first entered {subject} in {value}."),
        ("When was {subject} opened?", "In which year did the public first enter {subject}?"),
        _year,
    ),
    "rebuilt": Kind(
        ("In {value} {subject} was rebuilt.", "Most of {subject} was rebuilt in {value}."),
        ("When was {subject} rebuilt?", "In which year was {subject} rebuilt?"),
        _year,
    ),
    "town": Kind(
        ("{subject} stands in {value}.", "Visitors find {subject} in {value}.", "The home of {subject} is {value}."),
        ("Where does {subject} stand?", "In which town do visitors find {subject}?"),
        _one_of(TOWNS),
    ),
    "material": Kind(
        ("{subject} is built of {value}.", "The walls of {subject} are of {value}."),
        ("What is {subject} built of?", "What are the walls of {subject} made of?"),
        _one_of(MATERIALS),
    ),
    "cost": Kind(
        ("Building {subject} cost {value}.", "{value} were spent on {subject}."),
        ("How much did building {subject} cost?", "How much was spent on {subject}?"),
        lambda rng: f"{rng.randint(2, 90)} million crowns",
    ),
    "visitors": Kind(
        ("Each year {value} come to see {subject}.", "{subject} is visited by {value} a year."),
        ("How many people come to see {subject} each year?", "By how many people is {subject} visited?"),
        lambda rng: f"{rng.randint(2, 95)},000 people",
    ),
    "treasure": Kind(
        ("{subject} is known for {value}.", "Most people visit {subject} for {value}."),
        ("What is {subject} known for?", "What do most people visit {subject} for?"),
        _one_of(TREASURES),
    ),
    "closure": Kind(
        ("{value} closed {subject} for two years.", "For two years {subject} was closed because of {value}."),
        ("Why was {subject} closed for two years?", "What closed {subject} for two years?"),
        _one_of(REASONS),
    ),
}


@dataclass(frozen=True)
class Place:
    """A place. `subject` is its full name with the article; `noun` is what it is."""

    subject: str
    noun: str


def draw_places(rng: random.Random, number: int) -> list[Place]:
    """Draw places with different names and nouns, so that `the mill` is unambiguous."""
    names, nouns = rng.sample(NAMES, number), rng.sample(NOUNS, number)
    return [Place(f"the {name} {noun.capitalize()}", noun) for name, noun in zip(names, nouns, strict=True)]


def stated(rng: random.Random, kind: str, subject: str, value: str) -> str:
    """Return a sentence that states a fact."""
    return sentence(rng.choice(KINDS[kind].statements), subject, value)


def sentence(template: str, subject: str, value: str = "") -> str:
    text = template.format(subject=subject, value=value)
    return text[0].upper() + text[1:]
