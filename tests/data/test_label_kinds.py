"""One class, several labels or a number: told by the cells, or as asked."""

from __future__ import annotations

import numpy as np
import pytest

from fasttune.data.label_kinds import encode_label_sets, encode_numbers, kind_of, parts_of
from fasttune.data.labels import Vocabulary
from fasttune.errors import DataError

VOCABULARY = Vocabulary(("a", "b", "c"), {"a": 0, "b": 1, "c": 2})


@pytest.mark.parametrize(
    ("cells", "settings", "expected"),
    [
        (["good", "bad", "good"], {}, ("single-label", None)),
        (["0", "1", "2"], {}, ("single-label", None)),
        (["1.0", "2.0"], {}, ("single-label", None)),
        (["0.5", "3", "2.75"], {}, ("regression", None)),
        ([".5", "1e-05", "2."], {}, ("regression", None)),
        (["0.5", "3", "2.75"], {"has_names": True}, ("single-label", None)),
        (["0", "1", "4"], {"problem": "regression"}, ("regression", None)),
        (["0.5", "1.5"], {"problem": "single-label"}, ("single-label", None)),
        ([("a",), ("a", "b"), ()], {}, ("multi-label", None)),
        (["2", "25", "2,25", "3"], {}, ("multi-label", ",")),
        (["a", "b", "a; b"], {}, ("multi-label", ";")),
        (["a", "b", "a;c"], {"has_names": True}, ("single-label", None)),
        (["food, drink", "food, drink", "room"], {}, ("single-label", None)),
        (["food, drink", "room"], {"problem": "multi-label"}, ("multi-label", ",")),
        (["a b", "a"], {"separator": " "}, ("multi-label", " ")),
        (["a,b", "a", "b"], {"problem": "single-label"}, ("single-label", None)),
    ],
)
def test_what_labels_are(cells: list, settings: dict, expected: tuple) -> None:
    asked = {"problem": "auto", "separator": None, "has_names": False, **settings}
    found = kind_of(cells, asked["problem"], asked["separator"], asked["has_names"], "rows")
    assert (found.problem, found.separator) == expected
    inferred = asked["problem"] == "auto" and expected[0] != "single-label"
    assert bool(found.note) == inferred, "what was inferred is said"


@pytest.mark.parametrize("problem", ["single-label", "regression"])
def test_lists_are_refused_where_one_label_was_asked_for(problem: str) -> None:
    with pytest.raises(
        DataError, match=r"found .*row 2.*expected one label per row.*\n.*problem=multi-label"
    ) as caught:
        kind_of(["a", ("a", "b")], problem, None, False, "rows")
    assert caught.value.problems[0].code == "E205"


def test_labels_that_may_be_one_or_several_are_asked_about() -> None:
    with pytest.raises(
        DataError, match=r"E218 rows: label 'a;c' contains label 'a': it .*\n.*problem=multi-label if ';'"
    ):
        kind_of(["a", "b", "a;c"], "auto", None, False, "rows")  # c alone is no label of another row


def test_a_decimal_comma_is_asked_about() -> None:
    with pytest.raises(DataError, match=r"E218 rows: labels such as '1,5' are ambiguous.*\n.*problem=multi-label"):
        kind_of(["1", "1,5", "2", "2,5", "5"], "auto", None, False, "rows")
    assert kind_of(["1", "1,5", "5"], "multi-label", None, False, "rows").problem == "multi-label"
    assert kind_of(["2", "25", "2,25"], "auto", None, False, "rows").problem == "multi-label"


def test_measured_numbers_are_no_classes_and_grades_are() -> None:
    with pytest.raises(
        DataError, match=r"E217 rows: 21 different numbers such as 0.5 look measured.*\n.*problem=regression"
    ):
        kind_of([f"{number}.5" for number in range(21)], "single-label", None, False, "rows")
    grades = [f"{number}.5" for number in range(20)]
    assert kind_of(grades, "single-label", None, False, "rows").problem == "single-label"
    assert (
        kind_of([f"{number}.5" for number in range(21)], "single-label", None, True, "rows").problem == "single-label"
    )


def test_numbers_outside_their_range_are_named() -> None:
    assert encode_numbers(["0", "5"], "rows", (0, 5)).tolist() == [0, 5]
    with pytest.raises(DataError, match=r"E232 rows: found -1 \(row 2, row 3\), expected 0 to 5"):
        encode_numbers(["0", "-1", "5.1"], "rows", (0, 5))


def test_parts_of_a_cell() -> None:
    assert parts_of("a, b,,c ", ",") == ("a", "b", "c") and parts_of("", ",") == ()
    assert parts_of(("a", "b"), ",") == ("a", "b") and parts_of("a,b", None) == ("a,b",)


def test_label_sets_become_ones_and_zeros() -> None:
    found = encode_label_sets([("a", "c"), (), ("b", "b")], VOCABULARY, "rows")
    assert found.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    with pytest.raises(DataError, match=r"label 'd' in 2 rows \(first: row 2\), never in the training data") as caught:
        encode_label_sets([("a",), ("d",), ("d", "b")], VOCABULARY, "rows")
    assert caught.value.problems[0].code == "E214"


def test_numbers_are_read_and_anything_else_refused() -> None:
    found = encode_numbers(["1", "-2.5", "5.000", "1e-05", ".5", " 7 "], "rows")
    assert np.array_equal(found, [1.0, -2.5, 5.0, 1e-05, 0.5, 7.0])
    with pytest.raises(DataError, match=r"found 'many' \(row 2.*expected a number in every row") as caught:
        encode_numbers(["1", "many", "3"], "rows")
    assert caught.value.problems[0].code == "E222"
