"""Generate restaurant, hotel and shop reviews with 1 to 5 stars, so that a first run needs no download.

A review starts from what its author thinks: some aspects of a place are good or bad, and one of them may weigh more.
The stars follow from that (`stars_of`). Only then is the opinion put into words, with denial, hearsay, earlier visits
and contrast, so that the same words occur in reviews of every rating and only their structure reveals it. All phrases
were written for fasttune; the reviews depend only on the seed and use only the standard library.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

from fasttune.data.starter import reviews_phrases as phrases
from fasttune.data.starter.reviews_hotel import HOTEL
from fasttune.data.starter.reviews_places import Place
from fasttune.data.starter.reviews_restaurant import RESTAURANT
from fasttune.data.starter.reviews_shop import SHOP

SPLIT_SIZES = {"train": 3000, "validation": 500, "test": 500}
LABELS = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars")

_STAR_WEIGHTS = (19, 19, 20, 21, 21)  # real ratings are never exactly balanced
_PLACE_WEIGHTS = (4, 3, 3)
# Words per review are log-normally distributed, as in real reviews; a word is about 1.15 tokens here.
_MEDIAN_WORDS = 40.0
_SIGMA_WORDS = 0.66
_MOST_WORDS = 300
_SHORT_WORDS = 13  # shorter reviews are one or two short sentences without aspects

_MAIN_WEIGHT = 2  # of an aspect that the review calls decisive
# How an opinion is expressed: by correcting its opposite, by denying it, by confirming what others say, or directly.
_CHANCES_FRAMED = {"corrected": 0.40, "denied": 0.06, "confirmed": 0.10}
_CHANCE_ADJECTIVE = 0.6
_CHANCE_NEGATED = 0.15  # of writing "was anything but bland" for "was tasty"
_CHANCE_JOINED = 0.3
_CHANCE_CONTRAST = 0.8
_CHANCE_EVEN_NUMBERS = 0.6  # of a review with 2 or 4 stars having as much good as bad, and saying what decided
_CHANCE_VERDICT = {1: 0.4, 2: 0.5, 3: 0.4, 4: 0.5, 5: 0.4}  # higher if good and bad are weighed


@dataclass(frozen=True)
class Opinion:
    """The author's opinion on an aspect; `weight` is 2 if the review calls it decisive, else 1."""

    aspect: int
    good: bool
    weight: int = 1


def stars_of(opinions: Iterable[Opinion]) -> int:
    """Return 1 to 5 stars: nothing good, more bad than good, an even balance, more good than bad, nothing bad."""
    opinions = list(opinions)
    good = Fraction(sum(o.weight for o in opinions if o.good), sum(o.weight for o in opinions))
    if good in (0, 1):
        return 5 if good else 1
    half = Fraction(1, 2)
    if good == half:
        return 3
    return 4 if good > half else 2


def generate(seed: int = 42, *, moved_share: float = 0.03) -> dict[str, list[dict[str, str]]]:
    """Return the splits "train" (3,000 rows), "validation" and "test" (500 each), a pure function of the arguments.

    A row has the fields `id`, `text`, `label` ("1 star" to "5 stars") and `label_was_moved`: "yes" for the
    `moved_share` of the training rows whose label was moved by one star, as in human ratings, else "no". The texts and
    the other labels do not depend on `moved_share`. No text occurs twice.
    """
    rng = random.Random(f"reviews {seed}")  # strings are hashed with SHA-512, independently of PYTHONHASHSEED
    seen: set[str] = set()
    splits = {}
    for split, size in SPLIT_SIZES.items():
        rows: list[dict[str, str]] = []
        while len(rows) < size:
            star = rng.choices((1, 2, 3, 4, 5), weights=_STAR_WEIGHTS)[0]
            text = _Writer(rng).review(star)
            if text not in seen:
                seen.add(text)
                row_id = f"{split}-{len(rows) + 1:04d}"
                rows.append({"id": row_id, "text": text, "label": LABELS[star - 1], "label_was_moved": "no"})
        splits[split] = rows
    _move_labels(splits["train"], moved_share, random.Random(f"labels {seed}"))
    return splits


def _move_labels(rows: list[dict[str, str]], share: float, rng: random.Random) -> None:
    """Move the labels of a `share` of the rows by one star, in place."""
    for index in rng.sample(range(len(rows)), round(share * len(rows))):
        star = LABELS.index(rows[index]["label"])
        moved = rng.choice([other for other in (star - 1, star + 1) if 0 <= other < len(LABELS)])
        rows[index] |= {"label": LABELS[moved], "label_was_moved": "yes"}


class _Writer:
    """Writes a review; tracks the phrases it has used, so that the review does not repeat itself."""

    def __init__(self, rng: random.Random):
        self.rng = rng
        self.place: Place = rng.choices((RESTAURANT, HOTEL, SHOP), weights=_PLACE_WEIGHTS)[0]
        self.companion = rng.choice(phrases.COMPANIONS)
        self.unused_clauses = [self._shuffled(aspect.clauses) for aspect in self.place.aspects]
        self.described: set[int] = set()  # the aspects that already have an adjective
        self.unused_frames = self._shuffled(phrases.FRAMES)
        self.unused_openers = self._shuffled(phrases.OPENERS)
        self.unused_turns = self._shuffled(phrases.TURNS)
        self.unused_links = self._shuffled(phrases.LINKS)

    def review(self, star: int) -> str:
        """Return the text of a review with `star` stars."""
        words = min(self.rng.lognormvariate(0.0, _SIGMA_WORDS) * _MEDIAN_WORDS, _MOST_WORDS)
        if words < _SHORT_WORDS:
            return self._short(star)
        verdict = self.rng.random() < _CHANCE_VERDICT[star]
        num_facts = int(words / 55 + self.rng.random() * 0.8)
        num_sentences = max(1, round((words - 13 * num_facts - 9 * verdict) / 13))
        body = self._body(star, num_sentences)
        opening, facts = self._facts(num_facts)
        for fact in facts:
            body.insert(self.rng.randrange(len(body) + 1), fact)
        last = [self._verdict(star)] if verdict else []
        return " ".join([*opening, *body, *last])

    def _short(self, star: int) -> str:
        thing = self.rng.choice(self.place.things)
        text = self.rng.choice(phrases.SHORT[star]).format(thing=thing, had=self.place.had)
        kind = self.rng.random()
        if kind < 0.5:
            return text
        return f"{text} {self._verdict(star)}" if kind < 0.8 else self._verdict(star)

    def _verdict(self, star: int) -> str:
        template = self.rng.choice(phrases.VERDICTS[star])
        visit, name = self.rng.choice(self.place.visits), self.rng.choice(self.place.names)
        return template.format(visit=visit, name=name, Companion=_capitalised(self.companion))

    def _facts(self, count: int) -> tuple[list[str], list[str]]:
        """Return `count` sentences without an opinion: at most one opening, and the others."""
        rng = self.rng
        things = rng.sample(self.place.things, 2)
        slots = {
            "thing": things[0],
            "thing2": things[1],
            "a_thing": _with_article(things[0]),
            "a_thing2": _with_article(things[1]),
            "companion": self.companion,
            "Companion": _capitalised(self.companion),
            "day": rng.choice(("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")),
            "month": rng.choice(("January", "March", "April", "May", "June", "August", "October", "November")),
            "number": rng.choice(("two", "three", "four", "five")),
            "number2": str(rng.randrange(3, 10)),
            "floor": rng.choice(("first", "second", "third", "fourth")),
            "hour": rng.choice(("six", "seven", "eight")),
            "hour2": rng.choice(("nine", "ten", "eleven")),
            "minutes": rng.choice(("two", "five", "ten", "fifteen")),
        }
        opening = [rng.choice(self.place.openings).format(**slots)] if count else []
        num_facts = max(0, min(count - 1, len(self.place.facts)))
        return opening, [fact.format(**slots) for fact in rng.sample(self.place.facts, num_facts)]

    # Opinions

    def _plan(self, star: int, num_sentences: int) -> list[Opinion]:
        """Return opinions for about `num_sentences` sentences; an even balance needs a weight unless `star` is 3."""
        rng = self.rng
        num_aspects = len(self.place.aspects)
        wanted = max(1, round(num_sentences * rng.uniform(0.55, 1.0)))
        if star == 3:
            num_good = num_bad = max(1, min(num_aspects // 2, wanted // 2))
        elif star == 5:
            num_good, num_bad = min(num_aspects, wanted), 0
        elif star == 1:
            num_good, num_bad = 0, min(num_aspects, wanted)
        else:
            major = max(1, min(num_aspects - 1, wanted - 1))
            if rng.random() < _CHANCE_EVEN_NUMBERS:
                half = max(1, min(num_aspects // 2, wanted // 2))
                return self._opinions(half, half)
            minor = 2 if major >= 5 and rng.random() < 0.4 else 1
            major = min(major, num_aspects - minor)
            num_good, num_bad = (major, minor) if star == 4 else (minor, major)
        return self._opinions(num_good, num_bad)

    def _opinions(self, num_good: int, num_bad: int) -> list[Opinion]:
        aspects = self.rng.sample(range(len(self.place.aspects)), num_good + num_bad)
        return [Opinion(aspect, index < num_good) for index, aspect in enumerate(aspects)]

    def _body(self, star: int, num_sentences: int) -> list[str]:
        """Return about `num_sentences` sentences whose opinions amount to `star` stars."""
        rng = self.rng
        opinions = self._plan(star, num_sentences)
        good, bad = ([o for o in opinions if o.good is sign] for sign in (True, False))
        contrast: tuple[Opinion, Opinion] | None = None
        if good and bad:
            must = len(opinions) > num_sentences or (len(good) == len(bad) and star != 3)
            if must or rng.random() < _CHANCE_CONTRAST:
                minor, major = (
                    (bad[0], good[0]) if star == 4 or (star == 3 and rng.random() < 0.5) else (good[0], bad[0])
                )
                if star != 3:
                    major = Opinion(major.aspect, major.good, _MAIN_WEIGHT)
                contrast = minor, major
        contrasted = {o.aspect for o in contrast or ()}
        others = [o for o in opinions if o.aspect not in contrasted]
        assert stars_of([*(contrast or ()), *others]) == star, "the planned opinions give another number of stars"
        units = [[o] for o in self._shuffled(others)]
        if contrast:
            units.insert(rng.randrange(len(units) + 1), list(contrast))
        even = len(good) == len(bad)
        elaborated = opinions
        if not even:
            elaborated = good if star > 3 else bad
        extra = self._extra_sentences(elaborated, num_sentences - len(units), even)
        return self._sentences(units, extra, star)

    def _extra_sentences(self, opinions: list[Opinion], budget: int, even: bool) -> dict[int, int]:
        """Return the extra sentences per aspect; `even`: the same number for all, so that both sides weigh the same."""
        extra = dict.fromkeys((o.aspect for o in opinions), 0)
        room = {aspect: len(self.unused_clauses[aspect]) - 1 for aspect in extra}
        if even:
            share = min(budget // len(extra), *room.values())
            return dict.fromkeys(extra, max(0, share))
        for _ in range(budget):
            free = [aspect for aspect in extra if extra[aspect] < room[aspect]]
            if not free:
                break
            extra[self.rng.choice(free)] += 1
        return extra

    # Words

    def _sentences(self, units: list[list[Opinion]], extra: dict[int, int], star: int) -> list[str]:
        rng = self.rng
        sentences = []
        before: bool | None = None  # whether the previous opinion was good; None at the start and after a contrast
        while units:
            unit = units.pop(0)
            if len(unit) == 2:
                templates = phrases.EVEN if star == 3 else phrases.DECIDED
                sentences.append(self._joined(rng.choice(templates), *unit))
                before = None
            elif units and len(units[0]) == 1 and units[0][0].good == unit[0].good and rng.random() < _CHANCE_JOINED:
                unit += units.pop(0)
                sentences.append(self._joined(rng.choice(phrases.PAIRS), *unit))
                before = unit[0].good
            else:
                sentences.append(self._opinion(unit[0], before))
                before = unit[0].good
            for opinion in unit:
                for _ in range(extra.get(opinion.aspect, 0)):
                    sentences.append(self._opinion(opinion, before))
                    before = opinion.good
        return sentences

    def _joined(self, template: str, first: Opinion, second: Opinion) -> str:
        x, y = self._clause(first), self._clause(second)
        return template.format(x=x, y=y, X=_capitalised(x), Y=_capitalised(y))

    def _opinion(self, opinion: Opinion, before: bool | None) -> str:
        """Return a sentence that expresses `opinion`; `before`: whether the previous opinion was good."""
        rng = self.rng
        chances = list(_CHANCES_FRAMED.values())
        kind = rng.choices((0, 1, 2, None), weights=[*chances, 1 - sum(chances)])[0]
        if kind is not None and self.unused_frames:
            return self._framed(rng.choice(self.unused_frames.pop()[kind]), opinion)
        clause = self._clause(opinion)
        turned = before is not None and before != opinion.good
        linked = before is not None and before == opinion.good
        if turned and self.unused_turns and rng.random() < 0.6:
            return self.unused_turns.pop().format(s=clause)
        if linked and self.unused_links and rng.random() < 0.3:
            return self.unused_links.pop().format(s=clause)
        if self.unused_openers and rng.random() < 0.3:
            return self.unused_openers.pop().format(s=clause)
        return f"{_capitalised(clause)}."

    def _framed(self, template: str, opinion: Opinion) -> str:
        same, opposite = self._clause_pair(opinion)
        corrects = "{o}" in template and "{s}" in template
        if corrects and opinion.aspect not in self.described and self.rng.random() < 0.5:
            same = self._adjective_clause(opinion)  # answers a detail with an overall judgement
        who = self.rng.choice(phrases.SOURCES)
        return template.format(
            s=same,
            o=opposite,
            who=who,
            Who=_capitalised(who),
            companion=self.companion,
            Companion=_capitalised(self.companion),
        )

    def _clause(self, opinion: Opinion) -> str:
        """Return a clause that agrees with `opinion`, sometimes by negating an adjective for the opposite."""
        unused = self.unused_clauses[opinion.aspect]
        if unused and (opinion.aspect in self.described or self.rng.random() >= _CHANCE_ADJECTIVE):
            return unused.pop()[0 if opinion.good else 1]
        return self._adjective_clause(opinion)

    def _clause_pair(self, opinion: Opinion) -> tuple[str, str]:
        """Return a clause that agrees with `opinion`, and its opposite."""
        unused = self.unused_clauses[opinion.aspect]
        adjective = opinion.aspect not in self.described and self.rng.random() < _CHANCE_ADJECTIVE
        if unused and not adjective:
            good, bad = unused.pop()
            return (good, bad) if opinion.good else (bad, good)
        aspect = self.place.aspects[opinion.aspect]
        self.described.add(opinion.aspect)
        subject, verb = self.rng.choice(aspect.subjects)
        good, bad = (f"{subject} {verb} {self.rng.choice(adjectives)}" for adjectives in (aspect.good, aspect.bad))
        return (good, bad) if opinion.good else (bad, good)

    def _adjective_clause(self, opinion: Opinion) -> str:
        rng = self.rng
        self.described.add(opinion.aspect)
        aspect = self.place.aspects[opinion.aspect]
        subject, verb = rng.choice(aspect.subjects)
        negated = rng.random() < _CHANCE_NEGATED
        first, second = rng.sample(aspect.good if opinion.good != negated else aspect.bad, 2)
        forms: tuple[str, ...]
        if negated:
            forms = ("anything but {0}", "far from {0}", "not in the least {0}", "never {0}", "neither {0} nor {1}")
        else:
            forms = ("{0}", "really {0}", "{0} and {1}", "both {0} and {1}")
        return f"{subject} {verb} {rng.choice(forms).format(first, second)}"

    def _shuffled(self, items: Iterable) -> list:
        items = list(items)
        self.rng.shuffle(items)
        return items


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"
