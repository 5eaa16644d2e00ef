"""Answers in every format, and the errors for answers whose offsets do not match."""

from __future__ import annotations

from typing import Any

import pytest

from fasttune.data.answers import NOWHERE, Answer, Answers, read_answers
from fasttune.errors import DataError, Problem

CONTEXT = "Zoë saw Ann. Later Ann saw the café in Paris."


def read(cell: Any, start: Any = None, fix: bool = False, with_starts: bool = False) -> Answers:
    starts = [start] if with_starts or start is not None else None
    return read_answers([cell], starts, [CONTEXT], "rows.csv", lambda row: f"row {row + 1}", fix)


def refused(*args: Any, **kwargs: Any) -> Problem:
    with pytest.raises(DataError) as caught:
        read(*args, **kwargs)
    (problem,) = caught.value.problems
    return problem


@pytest.mark.parametrize(
    ("cell", "start", "expected"),
    [
        ({"text": ["Ann", "Zoë"], "answer_start": [19, 0]}, None, (Answer("Ann", 19), Answer("Zoë", 0))),
        ([{"text": "Ann", "answer_start": 8}], None, (Answer("Ann", 8),)),
        ({"text": [], "answer_start": []}, None, ()),
        ([], None, ()),
        ("Paris", None, (Answer("Paris", 39),)),
        ("Ann", "19", (Answer("Ann", 19),)),
        ("Ann", 8, (Answer("Ann", 8),)),
        ("", None, ()),
        (None, None, ()),
    ],
)
def test_the_forms_that_people_keep(cell: Any, start: Any, expected: tuple[Answer, ...]) -> None:
    found = read(cell, start)
    assert found.rows == [expected] and found.note == ""


@pytest.mark.parametrize(
    ("cell", "start", "code", "found"),
    [
        ("Ann", 7, "E240", "'Ann' does not start at 7: the context has ' An' there; answer_start should be 8"),
        ("Ann", 18, "E240", "'Ann' does not start at 18: the context has ' An' there; answer_start should be 19"),
        ("Ann", 21, "E240", "'Ann' does not start at 21: the context has 'n s' there; answer_start should be 19"),
        ("Ann", -3, "E240", "'Ann' does not start at -3: the context has no such character; answer_start should be 8"),
        (
            "Ann",
            999,
            "E240",
            "'Ann' does not start at 999: the context has no such character; answer_start should be 19",
        ),
        ("Rome", 3, "E241", "'Rome' does not occur in the context"),
        ("Rome", None, "E241", "'Rome' does not occur in the context"),
        ("Ann", None, "E248", "'Ann' occurs 2 times in the context and has no start"),
    ],
)
def test_answers_that_are_not_where_they_should_be(cell: Any, start: Any, code: str, found: str) -> None:
    problem = refused(cell, start)
    assert (problem.code, problem.found, problem.expected) == (code, f"answer {found}", "")
    assert problem.where == "rows.csv row 1"
    assert ("data.fix_spans=true" in problem.hint) == (start is not None)


@pytest.mark.parametrize(
    ("cell", "start"),
    [
        (7, None),
        ({"answer_start": [8]}, None),
        ({"text": ["Ann", "Zoë"], "answer_start": [8]}, None),
        ({"text": [3], "answer_start": [8]}, None),
        ([{"text": "Ann", "answer_start": "eight"}], None),
        ([{"text": "Ann", "answer_start": True}], None),
        (["Ann", 8], None),
        ("Ann", "eight"),
        ("Ann", "8.5"),
        (" ", 7),
        ({"text": [" "], "answer_start": [3]}, None),
    ],
)
def test_other_forms_are_refused_with_an_example(cell: Any, start: Any) -> None:
    problem = refused(cell, start)
    assert problem.code == "E244" and "answer_start" in problem.hint


def test_all_problems_at_once() -> None:
    with pytest.raises(DataError) as caught:
        read_answers(["Rome", "Ann", 5], None, [CONTEXT] * 3, "rows.csv", lambda row: f"row {row + 1}", False)
    summary, *others = caught.value.problems
    assert [problem.code for problem in others] == ["E244", "E241", "E248"]
    assert summary.found == "2 of 2 answers have no start and do not occur exactly once in their context"


def test_fixing_moves_what_stands_once_and_sets_the_rest_aside() -> None:
    cells = [
        {"text": ["Paris", "Zoë"], "answer_start": [41, 0]},
        {"text": ["Ann"], "answer_start": [9]},  # stands twice: which one is meant is not known
        {"text": ["Rome", "café"], "answer_start": [3, 31]},
    ]
    found = read_answers(cells, None, [CONTEXT] * 3, "rows.csv", lambda row: f"row {row + 1}", True)
    assert found.rows == [
        (Answer("Paris", 39), Answer("Zoë", 0)),
        (Answer("Ann", NOWHERE),),
        (Answer("Rome", NOWHERE), Answer("café", 31)),
    ]
    assert found.note == (
        "data.fix_spans: moved 1 answer to the only occurrence in the context; "
        "2 answers without exactly one occurrence kept for scoring only; 1 question without an answer to train on"
    )


@pytest.mark.parametrize("start", [0, 3, None])
def test_an_answer_in_another_unicode_form_is_told_and_fixed(start: int | None) -> None:
    """The context has a letter with its accent, the answer has them apart."""
    problem = refused("Zoe\u0308", start)
    assert problem.code == "E242" and "data.fix_spans=true" in problem.hint
    assert problem.found == ("answer 'Zoe\\u0308' is 'Zo\\xeb' in the context: they match only after NFC normalization")
    found = read_answers(["Zoe\u0308"], [start], [CONTEXT], "rows", lambda row: "row 1", True)
    assert found.rows == [(Answer("Zoë", 0),)] and found.num_moved == 1


def test_the_form_is_found_in_the_middle_and_with_other_widths() -> None:
    for context, answer, expected in (
        ("x cafe\u0301 y", "caf\u00e9", Answer("cafe\u0301", 2)),
        ("um \uff11\uff12 Uhr", "12", Answer("\uff11\uff12", 3)),
    ):
        found = read_answers([answer], [0], [context], "rows", lambda row: "row 1", True)
        assert found.rows == [(expected,)]


def test_without_a_start_fixing_cannot_help() -> None:
    assert refused("Rome", None, fix=True).code == "E241" and refused("Ann", None, fix=True).code == "E248"


def test_places_that_overlap_are_two_places() -> None:
    args = (["banana"], "rows", lambda row: f"row {row + 1}")
    with pytest.raises(DataError, match="E248"):
        read_answers(["ana"], None, *args, False)
    found = read_answers([{"text": ["ana"], "answer_start": [0]}], None, *args, True)
    assert found.rows == [(Answer("ana", NOWHERE),)]


def test_a_wrong_start_is_named() -> None:
    assert refused("Ann", "eight").found == "answer_start 'eight'"
    assert read("Ann", "8.0").rows == [(Answer("Ann", 8),)]  # as pandas writes whole numbers beside missing ones
