"""Generate positive and negative reviews of restaurants, hotels and shops, so that a first run needs no download.

A review is positive or negative as a whole. Its opinions are put into words with denial, hearsay, expectation and
contrast, so that the same words occur in reviews of both kinds and only their order and structure reveal the opinion.
All phrases were written for fasttune; the reviews depend only on the seed.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from typing import TypeVar

from fasttune.data.starter import reviews_phrases as phrases
from fasttune.data.starter.reviews_hotel import HOTEL
from fasttune.data.starter.reviews_places import Aspect, Place
from fasttune.data.starter.reviews_restaurant import RESTAURANT
from fasttune.data.starter.reviews_shop import SHOP

T = TypeVar("T")

SPLIT_SIZES = {"train": 4000, "validation": 500, "test": 500}
LABELS = ("negative", "positive")

_SHARE_POSITIVE = 0.52  # real reviews are never exactly balanced
_PLACE_WEIGHTS = (4, 3, 3)
# The numbers of sentences with and without an opinion, each with its weight. A sentence has about 13 words.
_NUM_OPINIONS = {1: 66, 2: 26, 3: 8}
_NUM_FACTS = {0: 90, 1: 10}
# How an opinion is expressed.
_FORMS = {
    "corrected": 8,
    "feared or hoped": 3,
    "replaced": 5,
    "denied": 9,
    "confirmed": 5,
    "contrasted": 22,
    "outweighed": 7,
    "verdict": 19,
    "pair": 9,
    "plain": 13,
}
_CHANCE_ADJECTIVE = 0.7  # otherwise a clause of the aspect's own
_CHANCE_DENIED_ADJECTIVE = 0.2  # of writing "was anything but bland" for "was tasty"
_OWN_WEIGHTS = (20, 20, 20, 40)  # of the reviewer's own clauses: experienced, judged, event, any
_CHANCE_CONCLUDED = 0.15  # of a contrast to end with the visit as a whole
_CHANCE_CONCEDED = 0.12  # of a contrast to be a verdict with a concession
_CHANCE_SHORT_FORM = 0.5  # "wasn't"
_CHANCE_OPENER = 0.25

_ANY_PLACE = Aspect(  # a review of any place may be about the place as a whole
    clauses=(
        ("everything was as it should be", "nothing was as it should be"),
        ("everything went right", "everything went wrong"),
        ("everything worked", "nothing worked"),
    ),
    subjects=(("the place", "was"), ("the whole experience", "was"), ("the visit", "was")),
    good=("great", "wonderful", "fantastic", "good", "nice", "perfect", "excellent"),
    bad=("awful", "terrible", "horrible", "bad", "dreadful", "disappointing"),
)


def generate(seed: int = 42, *, moved_share: float = 0.0) -> dict[str, list[dict[str, str]]]:
    """Return the splits "train" (4,000 rows), "validation" and "test" (500 each), a pure function of the arguments.

    A row has the fields `id`, `text`, `label` ("negative" or "positive") and `label_was_moved`: "yes" for the
    `moved_share` of the training rows that have the other label, as human labels do, else "no". The texts and the
    other labels do not depend on `moved_share`. No text occurs twice, and no held-out text nearly so.
    """
    from fasttune.data.starter.leaks import numbered, replace_near_duplicates  # needs NumPy, which help does without

    rng = random.Random(f"reviews {seed}")  # strings are hashed with SHA-512, independently of PYTHONHASHSEED
    seen: set[str] = set()

    def draw() -> dict[str, str]:
        while True:
            good = rng.random() < _SHARE_POSITIVE
            text = _Writer(rng).review(good)
            if text not in seen:
                seen.add(text)
                return {"text": text, "label": LABELS[good], "label_was_moved": "no"}

    splits = {split: [draw() for _ in range(size)] for split, size in SPLIT_SIZES.items()}
    replace_near_duplicates(splits, lambda row: row["text"], draw)
    splits = numbered(splits)
    train = splits["train"]
    for row in random.Random(f"labels {seed}").sample(train, round(moved_share * len(train))):
        row |= {"label": LABELS[1 - LABELS.index(row["label"])], "label_was_moved": "yes"}
    return splits


class _Writer:
    """Writes a review; tracks the phrases and aspects it has used, so that the review does not repeat itself."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.place: Place = rng.choices((RESTAURANT, HOTEL, SHOP), weights=_PLACE_WEIGHTS)[0]
        self.companion = rng.choice(phrases.COMPANIONS)
        self.things = rng.sample(self.place.things, 2)
        aspects = (*self.place.aspects, _ANY_PLACE)
        self.unused_aspects = rng.sample(aspects, len(aspects))
        self.used_phrases: set[object] = set()

    def review(self, good: bool) -> str:
        """Return the text of a positive (`good`) or negative review."""
        body = [self._opinion(good) for _ in range(self._drawn(_NUM_OPINIONS))]
        opening, *facts = self._facts(self._drawn(_NUM_FACTS)) or [""]
        for fact in facts:
            body.insert(self.rng.randrange(len(body) + 1), fact)
        return " ".join([opening, *body]).strip()

    def _opinion(self, good: bool) -> str:
        """Return a sentence, or two, that express a `good` or bad opinion."""
        rng, form = self.rng, self._drawn(_FORMS)
        if form == "verdict" or len(self.unused_aspects) < 2:
            return self._verdict(good)
        aspect, other = self.unused_aspects.pop(), self.unused_aspects.pop()
        if form == "plain":
            template = self._unused(phrases.OPENERS) if rng.random() < _CHANCE_OPENER else "{S}."
            return self._filled(template, s=self._own_clause(aspect, good))
        if form == "pair":
            x, y = self._own_clause(aspect, good), self._own_clause(other, good)
            return self._filled(self._unused(phrases.PAIRS), x=x, y=y)
        if form in ("contrasted", "outweighed"):
            return self._contrast(form, aspect, other, good)
        if form == "replaced":
            slots = {
                "the_o": self._noun_phrase(aspect, not good),
                "the_o2": self._noun_phrase(other, not good),
                "the_s": self._noun_phrase(aspect, good),
            }
            return self._filled(self._unused(phrases.REPLACED), s=self._own_clause(aspect, good), **slots)
        pair = self._clause_pair(aspect)
        if form == "feared or hoped":
            template = self._side(self._unused(phrases.FEARED_OR_HOPED), good)
        else:
            templates = {"corrected": phrases.CORRECTED, "denied": phrases.DENIED, "confirmed": phrases.CONFIRMED}
            template = self._unused(templates[form])
        return self._filled(template, s=self._side(pair, good), o=self._side(pair, not good))

    def _contrast(self, form: str, minor: Aspect, major: Aspect, good: bool) -> str:
        rng = self.rng
        if form == "outweighed":
            template = self._side(self._unused(phrases.OUTWEIGHED), good)
        elif rng.random() < _CHANCE_CONCEDED:
            template = f"{self._side(rng.choice(phrases.CONCEDED), good)}, {rng.choice(phrases.CONCESSIONS)}."
        else:
            template = self._unused(phrases.CONTRASTED)
        concludes = form == "contrasted" and rng.random() < _CHANCE_CONCLUDED
        it, was = rng.choice(minor.subjects)
        return self._filled(
            template,
            x=self._own_clause(minor, not good),
            y=self._side(rng.choice(phrases.CONCLUDED), good) if concludes else self._own_clause(major, good),
            the_x=self._noun_phrase(minor, not good),
            the_y=self._noun_phrase(major, good),
            adjective=rng.choice(minor.bad if good else minor.good),
            it=it,
            was=was,
        )

    def _verdict(self, good: bool) -> str:
        rng = self.rng
        return self._filled(
            self._side(self._unused(phrases.VERDICTS), good),
            thing=rng.choice(self.things),
            had=self.place.had,
            visit=rng.choice(self.place.visits),
            name=rng.choice(self.place.names),
            a_good=_with_article(rng.choice(_ANY_PLACE.good)),
            a_bad=_with_article(rng.choice(_ANY_PLACE.bad)),
        )

    def _facts(self, count: int) -> list[str]:
        """Return `count` sentences without an opinion, the first of which opens the review."""
        if not count:
            return []
        rng = self.rng
        thing, thing2 = self.things
        slots = {
            "thing": thing,
            "thing2": thing2,
            "a_thing": _with_article(thing),
            "a_thing2": _with_article(thing2),
            "day": rng.choice(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")),
            "month": rng.choice(("January", "March", "April", "May", "June", "August", "October", "November")),
            "number": rng.choice(("two", "three", "four", "five")),
            "number2": str(rng.randrange(3, 10)),
            "floor": rng.choice(("first", "second", "third", "fourth")),
            "hour": rng.choice(("six", "seven", "eight")),
            "hour2": rng.choice(("nine", "ten", "eleven")),
            "minutes": rng.choice(("two", "five", "ten", "fifteen")),
        }
        templates = [rng.choice(self.place.openings), *rng.sample(self.place.facts, count - 1)]
        return [self._filled(template, **slots) for template in templates]

    # Clauses

    def _clause_pair(self, aspect: Aspect) -> tuple[str, str]:
        """Return a good clause and its opposite, which also fit where somebody else is quoted."""
        rng = self.rng
        if rng.random() >= _CHANCE_ADJECTIVE:
            return rng.choice(aspect.clauses)
        subject, verb = rng.choice(aspect.subjects)
        good, bad = self._described(aspect, True), self._described(aspect, False)
        return f"{subject} {verb} {good}", f"{subject} {verb} {bad}"

    def _own_clause(self, aspect: Aspect, good: bool) -> str:
        """Return a clause of the reviewer's own."""
        rng = self.rng
        kind = rng.choices(("experienced", "judged", "event", "clause"), _OWN_WEIGHTS)[0]
        it, _ = rng.choice(aspect.subjects)
        if kind == "experienced":
            return self._side(rng.choice(phrases.EXPERIENCED), good).format(it=it)
        if kind == "event":
            return self._side(self._unused(self.place.events), good)
        if kind == "clause":
            return self._side(self._clause_pair(aspect), good)
        same, other = self._side((aspect.good, aspect.bad), good), self._side((aspect.bad, aspect.good), good)
        return rng.choice(phrases.JUDGED).format(it=it, same=rng.choice(same), other=rng.choice(other))

    def _described(self, aspect: Aspect, good: bool) -> str:
        """Return what follows the verb: adjectives, or a denial of the opposite ones."""
        denies = self.rng.random() < _CHANCE_DENIED_ADJECTIVE
        adjectives = self.rng.sample(aspect.good if good != denies else aspect.bad, 2)
        return self.rng.choice(phrases.DESCRIBED_BY_DENIAL if denies else phrases.DESCRIBED).format(*adjectives)

    def _noun_phrase(self, aspect: Aspect, good: bool) -> str:
        noun = self.rng.choice(aspect.subjects)[0].removeprefix("the ")
        return f"the {self.rng.choice(aspect.good if good else aspect.bad)} {noun}"

    # Words

    def _drawn(self, weights: dict[T, int]) -> T:
        return self.rng.choices(list(weights), list(weights.values()))[0]

    def _side(self, pair: Sequence[T], good: bool) -> T:
        return pair[0 if good else 1]

    def _unused(self, templates: Sequence[T]) -> T:
        template = self.rng.choice([template for template in templates if template not in self.used_phrases])
        self.used_phrases.add(template)
        return template

    def _filled(self, template: str, **slots: str) -> str:
        """Return the sentence, with or without short forms."""
        slots |= {"who": self.rng.choice(phrases.SOURCES), "companion": self.companion}
        slots |= {name.capitalize(): _capitalised(value) for name, value in slots.items()}
        text = template.format(**slots)
        if self.rng.random() < _CHANCE_SHORT_FORM:
            text = re.sub(r"\b(was|were|would|did|could|is|are|do|does|had) not\b", r"\1n't", text)
        return text


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
