"""Tags of words that mark entities: the forms in which they are written, and tags from spans of characters.

A tag is O, or a position and a type. Three forms are in use: B-PER (or B_PER), PER-B (or PER_B), and a bare B if all
entities are of one type. Positions: B begins an entity, I or M continues it, E or L ends it, S, U or W is an entity of
one word.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from fasttune.data.problems import Problems, counted, some_of
from fasttune.errors import Problem, shown

if TYPE_CHECKING:
    from fasttune.data.tokens.words import Sentence

Form = Literal["prefix", "suffix", "bare"]
OUTSIDE = "O"
POSITIONS = frozenset("BIEMSLUW")
PREFIX = re.compile(r"([BIEMSLUW])[-_](.+)", re.DOTALL)
SUFFIX = re.compile(r"(.+)[-_]([BIEMSLUW])", re.DOTALL)
EXAMPLES: dict[Form, str] = {"prefix": "B-PER", "suffix": "PER-B", "bare": "B"}

# The keys of a span in datasets, with the names that other tools write.
START_KEYS, END_KEYS = ("start", "start_offset", "begin"), ("end", "end_offset", "stop")
LABEL_KEYS = ("label", "type", "entity_group", "entity", "tag", "class")


class Span(NamedTuple):
    """Characters [start, end) of a text are an entity of type `label`."""

    start: int
    end: int
    label: str


def form_of(tags: Iterable[str]) -> Form | None:
    """The form of entity tags; None if they are no entity tags, such as parts of speech, or mix two forms."""
    positions = set(tags) - {OUTSIDE}
    if not positions:
        return None
    if positions <= POSITIONS:
        return "bare" if "B" in positions or "I" in positions else None
    if all(map(PREFIX.fullmatch, positions)):
        return "prefix"
    return "suffix" if all(map(SUFFIX.fullmatch, positions)) else None


def parts_of_tag(tag: str, form: Form) -> tuple[str, str]:
    """Position and type of a tag; O has no type, and neither has a bare tag."""
    if tag == OUTSIDE or form == "bare":
        return tag, ""
    match = (PREFIX if form == "prefix" else SUFFIX).fullmatch(tag)
    if match is None:  # a tag outside of the vocabulary that gave the form
        return OUTSIDE, ""
    position, kind = match.groups() if form == "prefix" else match.groups()[::-1]
    return position, kind


def odd_tags(tags: Iterable[str]) -> tuple[Form, list[str]] | None:
    """The form that most tags have and the tags that are not of it, if some but not all are entity tags; else None."""
    kinds = sorted(set(tags) - {OUTSIDE})
    by_form: dict[Form, list[str]] = {
        "prefix": [tag for tag in kinds if PREFIX.fullmatch(tag)],
        "suffix": [tag for tag in kinds if SUFFIX.fullmatch(tag) and not PREFIX.fullmatch(tag)],
    }
    form = max(by_form, key=lambda form: len(by_form[form]))
    fitting = by_form[form]
    begins = any(parts_of_tag(tag, form)[0] in "BS" for tag in fitting)
    if form_of(kinds) is not None or not begins or 2 * len(fitting) <= len(kinds):
        return None
    return form, [tag for tag in kinds if tag not in fitting]


def are_spans(cells: Sequence[Any]) -> bool:
    """Whether the cells are lists of spans, objects with a start, an end and a label; empty lists may be among them."""
    lists = [cell for cell in cells if cell]
    return bool(lists) and all(isinstance(cell, list) and all(map(_is_span, cell)) for cell in lists)


def spans_in(cell: Sequence[Mapping[str, Any]]) -> list[Span]:
    """The spans of a cell, unchecked."""
    return [
        Span(int(_value(value, START_KEYS)), int(_value(value, END_KEYS)), str(_value(value, LABEL_KEYS) or ""))
        for value in cell
    ]


def _is_span(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_value(value, keys) is not None for keys in (START_KEYS, END_KEYS))


def _value(span: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((span[key] for key in keys if span.get(key) is not None), None)


class SpanTags:
    """Turns spans of characters into a B or I tag for each word.

    Collects what it changed: spans that begin or end inside a word are extended to whole words, and of spans that
    overlap the longest is kept. `problems`: spans that are not in their text.
    """

    def __init__(self, where: str):
        self.where, self.problems = where, Problems(where)
        self.extended: list[str] = []
        self.overlapping: list[str] = []

    def tags(self, sentence: Sentence, cell: Sequence[Mapping[str, Any]] | None, place: str) -> tuple[str, ...]:
        spans = [span for value in cell or () if (span := self._checked(sentence.text, value, place)) is not None]
        words: list[tuple[int, int, str]] = []  # the words [first, last] of each span
        for span in spans:
            inside = [i for i, (start, end) in enumerate(sentence.spans) if start < span.end and end > span.start]
            if not inside:
                continue  # only white space
            first, last = inside[0], inside[-1]
            if sentence.spans[first][0] < span.start or sentence.spans[last][1] > span.end:
                whole = sentence.text[sentence.spans[first][0] : sentence.spans[last][1]]
                self.extended.append(f"{place}: {shown(sentence.text[span.start : span.end])} to {shown(whole)}")
            words.append((first, last, span.label))
        tags = [OUTSIDE] * len(sentence.spans)
        for first, last, label in sorted(words, key=lambda item: (item[0] - item[1], item[0])):  # the longest first
            if any(tag != OUTSIDE for tag in tags[first : last + 1]):
                begin, end = sentence.spans[first][0], sentence.spans[last][1]
                self.overlapping.append(f"{place}: {label} {shown(sentence.text[begin:end])}")
                continue
            tags[first : last + 1] = [f"B-{label}", *[f"I-{label}"] * (last - first)]
        return tuple(tags)

    def notes(self) -> tuple[str, ...]:
        notes = []
        if self.extended:
            number = counted(len(self.extended), "span")
            notes.append(f"{self.where}: extended {number} that cut a word to whole words ({some_of(self.extended)})")
        if self.overlapping:
            number = counted(len(self.overlapping), "span")
            notes.append(
                f"{self.where}: left out {number} that overlap a longer one, because a word has one tag "
                f"({some_of(self.overlapping)})"
            )
        return tuple(notes)

    def _checked(self, text: str, value: Mapping[str, Any], place: str) -> Span | None:
        start, end = _value(value, START_KEYS), _value(value, END_KEYS)
        label = _value(value, LABEL_KEYS)
        where = f"{self.where} {place}"
        if label is None or not str(label).strip():
            self.problems.add(Problem(code="E262", where=where, found=f"the span {start} to {end} has no label"))
            return None
        if not (isinstance(start, int) and isinstance(end, int) and 0 <= start < end <= len(text)):
            self.problems.add(
                Problem(
                    code="E262",
                    where=where,
                    found=f"the span {start} to {end} ({label}) is not in the text, which has {len(text):,} characters",
                    hint="start and end count characters from 0; the character at end is the first one behind the span",
                )
            )
            return None
        return Span(start, end, str(label))
