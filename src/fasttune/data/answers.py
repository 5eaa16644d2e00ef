"""Read the gold answers of questions, and check that each occurs in its context at its start.

A cell has the form of the hub ({"text": [...], "answer_start": [...]}), of SQuAD files ([{"text": ...,
"answer_start": ...}]), or is one text, with its start in a separate column. No text means that there is no answer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

from fasttune.data.formats.text_file import Place
from fasttune.data.problems import Problems, counted
from fasttune.errors import Problem, shown

NOWHERE = -1  # the start of an answer that does not occur in its context, or at several places


class Answer(NamedTuple):
    """Characters [start, start + len(text)) of the context are `text`, unless `start` is NOWHERE."""

    text: str
    start: int


@dataclass
class Answers:
    """The answers of each row; `num_moved` had a wrong start and have the right one now, `num_nowhere` have none."""

    rows: list[tuple[Answer, ...]] = field(default_factory=list)
    num_moved: int = 0
    num_nowhere: int = 0

    @property
    def note(self) -> str:
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
    num_answers = num_wrong = num_repairable = 0
    of_row = enumerate(zip(cells, starts if starts is not None else repeat(None), contexts, strict=False))
    for row, (cell, start, context) in of_row:
        answers = []
        try:
            pairs = pairs_of(cell, start)
        except (KeyError, TypeError, ValueError):
            wrong_form = f"answer_start {shown(start)}" if isinstance(cell, str) else f"{shown(cell)} as answers"
            problems.add(_form_problem(f"{where} {place(row)}", wrong_form))
            continue
        num_answers += len(pairs)
        for text, given_start in pairs:
            if not text.strip():
                problems.add(_form_problem(f"{where} {place(row)}", "a blank answer"))
                continue
            begin = _checked_start(text, given_start, context)
            repaired = _repaired(text, context) if begin is None and fix else None
            if begin is not None:
                answers.append(Answer(text, begin))
            elif repaired is not None and (repaired.start != NOWHERE or given_start is not None):
                answers.append(repaired)
                result.num_moved += repaired.start != NOWHERE
                result.num_nowhere += repaired.start == NOWHERE
            else:
                problems.add(_problem(text, given_start, context, f"{where} {place(row)}"))
                num_wrong += 1
                num_repairable += _repaired(text, context).start != NOWHERE
        result.rows.append(tuple(answers))
    if num_wrong > 1:
        problems.lead(_summary(num_wrong, num_answers, num_repairable, where))
    problems.raise_if_any()
    return result


def _summary(num_wrong: int, num_answers: int, num_repairable: int, where: str) -> Problem:
    return Problem(
        code="E240",
        where=where,
        found=f"{num_wrong:,} of {num_answers:,} answers do not match their context at answer_start",
        hint=f"data.fix_spans=true repairs {num_repairable:,} of them and sets the others aside",
    )


def pairs_of(cell: Any, start: Any) -> list[tuple[str, int | None]]:
    """The answers of a cell with their given starts; KeyError, TypeError or ValueError for any other form."""
    if cell is None or cell == "":
        return []
    if isinstance(cell, str):
        if start in (None, ""):
            return [(cell, None)]
        if float(start) != int(float(start)):
            raise ValueError
        return [(cell, int(float(start)))]
    if isinstance(cell, dict):
        pairs = list(zip(cell["text"], cell["answer_start"], strict=True))
    else:
        pairs = [(answer["text"], answer["answer_start"]) for answer in cell]
    for text, begin in pairs:
        if not isinstance(text, str) or not isinstance(begin, int) or isinstance(begin, bool):
            raise TypeError
    return [(text, begin) for text, begin in pairs if text]


def _checked_start(text: str, given: int | None, context: str) -> int | None:
    """Where the answer begins; None if it does not begin at the given start, or if none is given and it is unclear."""
    if given is None:
        return _only_place(text, context)
    return given if given >= 0 and context.startswith(text, given) else None


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
        return Problem(code="E241", where=where, found=found, hint=fix if given is not None else "")
    if given is None:
        return Problem(
            code="E248",
            where=where,
            found=f"answer {shown(text)} occurs {len(places)} times in the context and has no start",
            hint="data.columns.answer_start=...",
        )
    nearest = min(places, key=lambda place: abs(place - given))
    unit = "" if given == nearest else _unit_of(given, context[:nearest])
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


def _unit_of(start: int, before: str) -> str:
    """The unit in which `start` is right, if it is not characters; Java and JavaScript count UTF-16 code units.

    `before`: the context before the answer.
    """
    if len(before.encode()) == start:
        return " (counted in bytes)"
    if "\r\n" in before and len(before.replace("\r\n", "\n")) == start:
        return " (counted with \\r\\n as one character)"
    return " (counted in UTF-16 code units)" if len(before.encode("utf-16-le")) // 2 == start else ""


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
