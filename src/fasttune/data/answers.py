"""The right answers of questions, in the forms people keep them, and whether they stand where they are said to.

A cell holds them as the hub does ({"text": [...], "answer_start": [...]}), as SQuAD files do ([{"text": ...,
"answer_start": ...}]), or as one text, with its start in a column of its own. No text means that there is no answer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

from fasttune.data.formats.text_file import Place
from fasttune.data.problems import Problems
from fasttune.errors import Problem, shown

NOWHERE = -1  # the start of an answer that does not stand in its context


class Answer(NamedTuple):
    """Characters [start, start + len(text)) of the context are `text`, unless `start` is NOWHERE."""

    text: str
    start: int


@dataclass
class Answers:
    """The answers of each row; `num_moved` stood elsewhere, `num_nowhere` do not stand in their context at all."""

    rows: list[tuple[Answer, ...]] = field(default_factory=list)
    num_moved: int = 0
    num_nowhere: int = 0

    @property
    def note(self) -> str:
        if not self.num_moved and not self.num_nowhere:
            return ""
        lost = sum(bool(row) and all(answer.start == NOWHERE for answer in row) for row in self.rows)
        return (
            f"data.fix_spans: {self.num_moved:,} answers moved to the only place where they stand, as written there; "
            f"{self.num_nowhere:,} stand nowhere and are for scoring only, which leaves {lost:,} questions without one "
            "to learn from"
        )


def read_answers(
    cells: Sequence[Any], starts: Sequence[Any] | None, contexts: Sequence[str], where: str, place: Place, fix: bool
) -> Answers:
    """All answers, checked; DataError names those that are not where they are said to be, unless `fix` moves them.

    `starts`: a column of starts, for cells that are texts; without one the text must stand in its context just once.
    """
    problems = Problems(where)
    found = Answers()
    num_answers = num_wrong = num_repairable = 0
    of_row = enumerate(zip(cells, starts if starts is not None else repeat(None), contexts, strict=False))
    for row, (cell, start, context) in of_row:
        answers = []
        try:
            pairs = pairs_of(cell, start)
        except (KeyError, TypeError, ValueError):
            found_as = f"answer_start {shown(start)}" if isinstance(cell, str) else f"{shown(cell)} as answers"
            problems.add(_form_problem(f"{where} {place(row)}", found_as))
            continue
        num_answers += len(pairs)
        for text, said in pairs:
            if not text.strip():
                problems.add(_form_problem(f"{where} {place(row)}", "a blank answer"))
                continue
            begin = _place(text, said, context)
            repaired = _repaired(text, context) if begin is None and fix else None
            if begin is not None:
                answers.append(Answer(text, begin))
            elif repaired is not None and (repaired.start != NOWHERE or said is not None):
                answers.append(repaired)
                found.num_moved += repaired.start != NOWHERE
                found.num_nowhere += repaired.start == NOWHERE
            else:
                problems.add(_problem(text, said, context, f"{where} {place(row)}"))
                num_wrong += 1
                num_repairable += _repaired(text, context).start != NOWHERE
        found.rows.append(tuple(answers))
    if num_wrong > 1:
        problems.lead(_sum_of(num_wrong, num_answers, num_repairable, where))
    problems.raise_if_any()
    return found


def _sum_of(num_wrong: int, num_answers: int, num_repairable: int, where: str) -> Problem:
    return Problem(
        code="E240",
        where=where,
        found=f"{num_wrong:,} of {num_answers:,} answers that are not where they are said to be",
        expected="none",
        hint=f"data.fix_spans=true repairs {num_repairable:,} of them and sets the others aside",
    )


def pairs_of(cell: Any, start: Any) -> list[tuple[str, int | None]]:
    """Texts, and where they are said to begin; KeyError, TypeError or ValueError for any other form."""
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


def _place(text: str, said: int | None, context: str) -> int | None:
    """Where the answer begins; None where that is not so, or not clear."""
    if said is None:
        return _only_place(text, context)
    return said if said >= 0 and context.startswith(text, said) else None


def _repaired(text: str, context: str) -> Answer:
    """At the only place where it stands, or as the context writes it; else nowhere."""
    begin = _only_place(text, context)
    if begin is not None:
        return Answer(text, begin)
    other = _otherwise_written(text, context) if text not in context else None
    return other[1] if other is not None else Answer(text, NOWHERE)


def _form_problem(where: str, found: str) -> Problem:
    return Problem(
        code="E244",
        where=where,
        found=found,
        expected="a text, or texts with their first characters",
        hint='{"text": ["Paris"], "answer_start": [27]}, or a text with its start in a column of its own',
    )


def _problem(text: str, said: int | None, context: str, where: str) -> Problem:
    """What is wrong with this answer, with the place where the text does stand."""
    fix = "count in characters from 0; data.fix_spans=true moves those that stand once and sets the others aside"
    count = len(_places(text, context))
    if count == 0 and (other := _otherwise_written(text, context)) is not None:
        form, written = other
        return Problem(
            code="E242",
            where=where,
            found=f"answer {text!a}, which the context writes {written.text!a}: the same in form {form}",
            expected="the answer as its context writes it, letter by letter",
            hint="data.fix_spans=true takes it as the context writes it",
        )
    if count == 0:
        expected = "a text that stands in the context letter by letter"
        hint = fix if said is not None else ""
        found = f"answer {shown(text)}, not in the context"
        return Problem(code="E241", where=where, found=found, expected=expected, hint=hint)
    if said is None:
        return Problem(
            code="E248",
            where=where,
            found=f"answer {shown(text)} at {count} places of the context, and no start",
            expected="a column with its first character",
            hint="data.columns.answer_start=...",
        )
    nearest = min(_places(text, context), key=lambda place: abs(place - said))
    counted = "" if said == nearest else _other_count(context[:nearest], said)
    stands = shown(context[said : said + len(text)]) if 0 <= said < len(context) else "no character of the context"
    return Problem(
        code="E245" if counted else "E240",
        where=where,
        found=f"answer {shown(text)} at {said}{counted}, where {stands} stands",
        expected=f"answer_start {nearest}",
        hint=fix,
    )


def _other_count(before: str, said: int) -> str:
    """In what a start is counted that is right otherwise; Java and JavaScript count UTF-16 code units."""
    if len(before.encode()) == said:
        return " (counted in bytes)"
    if "\r\n" in before and len(before.replace("\r\n", "\n")) == said:
        return " (counted with \\r\\n as one character)"
    return " (counted in UTF-16 code units)" if len(before.encode("utf-16-le")) // 2 == said else ""


def _otherwise_written(text: str, context: str) -> tuple[str, Answer] | None:
    """The Unicode form in which the answer stands in the context after all, and the first such place as it is there."""
    for form in ("NFC", "NFKC"):
        wanted = unicodedata.normalize(form, text)
        if wanted not in unicodedata.normalize(form, context):
            continue
        longest = 2 * len(unicodedata.normalize("NFKD", text))
        for start in range(len(context)):
            # One comparison for each start: a contract has 40,000 of them, and an answer may be 300 characters long.
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
