"""Check that each gold answer occurs in its context at its start, which counts characters from 0.

If every start of a file is right when counted in one other unit, the starts are converted.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import repeat
from typing import Any, NamedTuple

from fasttune.data.answer_cells import Pair, pairs_of
from fasttune.data.formats.text_file import Place
from fasttune.data.problems import Problems, counted
from fasttune.errors import Problem, shown

LINE_END = re.compile("\r?\n")
REMOVE = "write the answer as the context spells it, or remove the row"
NOWHERE = -1  # the start of an answer that does not occur in its context, or at several places


class Answer(NamedTuple):
    """Characters [start, start + len(text)) of the context are `text`, unless `start` is NOWHERE."""

    text: str
    start: int


def _in_bytes(context: str, start: int) -> str:
    return context.encode()[:start].decode()


def _in_utf16(context: str, start: int) -> str:
    return context.encode("utf-16-le")[: 2 * start].decode("utf-16-le")


def _with_line_ends(context: str, start: int, width: int) -> str:
    """The context before `start`, if each of its line ends, \\n or \\r\\n, counts as `width` characters."""
    counted = position = 0
    for line_end in LINE_END.finditer(context):
        after = counted + line_end.start() - position + width
        if start <= after - width:
            break
        counted, position = after, line_end.end()
    return context[: position + start - counted]


def _from_1(context: str, start: int) -> str:
    return context[: start - 1] if start else ""


# How a start may count, other than in characters from 0. Each function returns the context before the start, or raises
# ValueError if the start is inside a character. Java and JavaScript count UTF-16 code units.
READINGS: dict[str, Callable[[str, int], str]] = {
    "in bytes": _in_bytes,
    "with \\r\\n as one character": partial(_with_line_ends, width=1),
    "with line ends of two characters": partial(_with_line_ends, width=2),
    "in UTF-16 code units": _in_utf16,
    "from 1": _from_1,
}


@dataclass
class Answers:
    """The answers of each row; `num_moved` had a wrong start and have the right one now, `num_nowhere` have none.

    `reading`: how all starts of the file were counted, a key of READINGS; empty if in characters from 0.
    """

    rows: list[tuple[Answer, ...]] = field(default_factory=list)
    num_moved: int = 0
    num_nowhere: int = 0
    reading: str = ""

    @property
    def note(self) -> str:
        if self.reading:
            return f"answer_start is counted {self.reading}; converted to characters from 0"
        if not self.num_moved and not self.num_nowhere:
            return ""
        lost = sum(bool(row) and all(answer.start == NOWHERE for answer in row) for row in self.rows)
        parts = []
        if self.num_moved:
            parts.append(f"moved {counted(self.num_moved, 'answer')} to the only occurrence in the context")
        if self.num_nowhere:
            number = counted(self.num_nowhere, "answer")
            parts.append(f"{number} without exactly one occurrence kept for scoring only")
        if lost:
            parts.append(f"{counted(lost, 'question')} without an answer to train on")
        return f"data.fix_spans: {'; '.join(parts)}"


def read_answers(
    cells: Sequence[Any], starts: Sequence[Any] | None, contexts: Sequence[str], where: str, place: Place, fix: bool
) -> Answers:
    """All answers, checked; DataError names those with a wrong start, unless `fix` moves them.

    `starts`: a column of starts, for cells that are texts; without it, each text must occur exactly once.
    """
    problems = Problems(where)
    result = Answers()
    pairs_by_row: list[list[Pair]] = []
    of_row = enumerate(zip(cells, starts if starts is not None else repeat(None), contexts, strict=False))
    for row, (cell, start, context) in of_row:
        try:
            pairs = pairs_of(cell, start, context)
        except (KeyError, TypeError, ValueError):
            is_start = isinstance(cell, str) and start not in (None, "")
            wrong_form = f"answer_start {shown(start)}" if is_start else f"{shown(cell)} as answers"
            problems.add(_form_problem(f"{where} {place(row)}", wrong_form))
            pairs = []
        if any(not text.strip() for text, _ in pairs):
            problems.add(_form_problem(f"{where} {place(row)}", "a blank answer"))
        pairs_by_row.append([(text, begin) for text, begin in pairs if text.strip()])
    fitting = _fitting_readings(pairs_by_row, contexts)
    result.reading = fitting[0] if len(fitting) == 1 else ""
    num_wrong = num_repairable = num_without_start = 0
    for row, (pairs, context) in enumerate(zip(pairs_by_row, contexts, strict=True)):
        answers = []
        for text, given_start in pairs:
            begin = _checked_start(text, given_start, context, result.reading)
            repaired = _repaired(text, context) if begin is None and fix else None
            if begin is not None:
                answers.append(begin)
            elif repaired is not None and (repaired.start != NOWHERE or given_start is not None):
                answers.append(repaired)
                result.num_moved += repaired.start != NOWHERE
                result.num_nowhere += repaired.start == NOWHERE
            else:
                problems.add(_problem(text, given_start, context, f"{where} {place(row)}"))
                num_wrong += 1
                num_without_start += given_start is None
                num_repairable += _repaired(text, context).start != NOWHERE
        result.rows.append(tuple(answers))
    if num_wrong > 1:
        summary = _summary(num_wrong, sum(map(len, pairs_by_row)), num_repairable, num_without_start, where)
        if fitting:
            summary = replace(summary, hint=f"{summary.hint}; counted {' or '.join(fitting)}, all would be right")
        problems.lead(summary)
    problems.raise_if_any()
    return result


def _summary(num_wrong: int, num_answers: int, num_repairable: int, num_without_start: int, where: str) -> Problem:
    of_all = f"{num_wrong:,} of {num_answers:,} answers"
    if num_without_start == num_wrong:
        found = f"{of_all} have no start and do not occur exactly once in their context"
        return Problem(code="E248", where=where, found=found, hint="add their starts, or remove these rows")
    return Problem(
        code="E240",
        where=where,
        found=f"{of_all} do not match their context at answer_start",
        hint=f"data.fix_spans=true repairs {num_repairable:,} of them and sets the others aside",
    )


def _fitting_readings(pairs_by_row: Sequence[Sequence[Pair]], contexts: Sequence[str]) -> list[str]:
    """The readings by which every start of a file is right; empty if all are right as they are.

    Answers that are right as they are count too: a file in which some are right in characters and some in bytes has
    wrong rows, and no unit.
    """
    wrong = [
        (text, start, context)
        for text, start, context in _with_start(pairs_by_row, contexts)
        if not context.startswith(text, start)
    ]
    # Wrong starts come first, because they rule out most readings at once.
    fitting = [reading for reading in READINGS if wrong and all(_read_as(reading, *answer) for answer in wrong)]
    return [
        reading
        for reading in fitting
        if all(_read_as(reading, *answer) for answer in _with_start(pairs_by_row, contexts))
    ]


def _with_start(pairs_by_row: Sequence[Sequence[Pair]], contexts: Sequence[str]) -> Iterator[tuple[str, int, str]]:
    """The text, the given start and the context of each answer that has a start."""
    for pairs, context in zip(pairs_by_row, contexts, strict=True):
        yield from ((text, start, context) for text, start in pairs if start is not None)


def _read_as(reading: str, text: str, start: int, context: str) -> Answer | None:
    """The answer at `start`, counted as `reading` says; None if the context has another text there."""
    try:
        begin = len(READINGS[reading](context, start)) if start >= 0 else NOWHERE
    except ValueError:
        return None
    # An answer of several lines has the line ends of its context.
    for spelled in (text, text.replace("\n", "\r\n"), text.replace("\r\n", "\n")):
        if begin >= 0 and context.startswith(spelled, begin):
            return Answer(spelled, begin)
    return None


def _checked_start(text: str, given: int | None, context: str, reading: str) -> Answer | None:
    """The answer at its given start; None if another text is there, or if it has no start and is unclear."""
    if given is None:
        begin = _only_place(text, context)
        return None if begin is None else Answer(text, begin)
    if reading:
        return _read_as(reading, text, given, context)
    return Answer(text, given) if given >= 0 and context.startswith(text, given) else None


def _repaired(text: str, context: str) -> Answer:
    """The answer at its only occurrence, or as the context spells it; else at NOWHERE."""
    begin = _only_place(text, context)
    if begin is not None:
        return Answer(text, begin)
    match = _in_other_unicode_form(text, context) if text not in context else None
    return match[1] if match is not None else Answer(text, NOWHERE)


def _form_problem(where: str, found: str) -> Problem:
    return Problem(
        code="E244",
        where=where,
        found=found,
        expected="a text, or texts with their starts",
        hint='{"text": ["Paris"], "answer_start": [27]}, or a text with its start in a separate column',
    )


def _problem(text: str, given: int | None, context: str, where: str) -> Problem:
    """What is wrong with this answer, and where the text does occur."""
    fix = "count characters from 0; data.fix_spans=true moves answers that occur once and sets the others aside"
    places = _places(text, context)
    if not places and (match := _in_other_unicode_form(text, context)) is not None:
        form, answer = match
        return Problem(
            code="E242",
            where=where,
            found=f"answer {text!a} is {answer.text!a} in the context: they match only after {form} normalization",
            hint="data.fix_spans=true uses the spelling of the context",
        )
    if not places:
        found = f"answer {shown(text)} does not occur in the context"
        return Problem(code="E241", where=where, found=found, hint=fix if given is not None else REMOVE)
    if given is None:
        return Problem(
            code="E248",
            where=where,
            found=f"answer {shown(text)} occurs {len(places)} times in the context and has no start",
            hint="data.columns.answer_start=..., a column with its first character, from 0; or remove the row",
        )
    nearest = min(places, key=lambda place: abs(place - given))
    unit = "" if given == nearest else _unit_of(given, text, nearest, context)
    if 0 <= given < len(context):
        text_there = f"the context has {shown(context[given : given + len(text)])} there"
    else:
        text_there = "the context has no such character"
    return Problem(
        code="E245" if unit else "E240",
        where=where,
        found=f"answer {shown(text)} does not start at {given}{unit}: {text_there}; answer_start should be {nearest}",
        hint=fix,
    )


def _unit_of(start: int, text: str, place: int, context: str) -> str:
    """The unit in which `start` is right, if it is not characters from 0."""
    for reading in READINGS:
        answer = _read_as(reading, text, start, context)
        if answer is not None and answer.start == place:
            return f" (counted {reading})"
    return ""


def _in_other_unicode_form(text: str, context: str) -> tuple[str, Answer] | None:
    """The Unicode form in which the answer does occur in the context, and its first occurrence as spelled there."""
    for form in ("NFC", "NFKC"):
        wanted = unicodedata.normalize(form, text)
        if wanted not in unicodedata.normalize(form, context):
            continue
        longest = 2 * len(unicodedata.normalize("NFKD", text))
        for start in range(len(context)):
            # Rule out most starts with one comparison: a long context has tens of thousands of starts, each with
            # hundreds of possible ends.
            if not unicodedata.normalize(form, context[start : start + longest]).startswith(wanted):
                continue
            for end in range(start + 1, min(start + longest, len(context)) + 1):
                if unicodedata.normalize(form, context[start:end]) == wanted:
                    return form, Answer(context[start:end], start)
    return None


def _only_place(text: str, context: str) -> int | None:
    first = context.find(text)
    return first if first >= 0 and context.find(text, first + 1) < 0 else None


def _places(text: str, context: str) -> list[int]:
    places, position = [], context.find(text)
    while position >= 0:
        places.append(position)
        position = context.find(text, position + 1)
    return places
