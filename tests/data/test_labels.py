"""The classes: their order, their names, and what cannot be one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttune.data.columns import Vocabulary, encode_labels, label_vocabulary
from fasttune.errors import DataError


def refused(values, label_names=None):
    with pytest.raises(DataError) as caught:
        label_vocabulary(values, label_names, "data.csv")
    return caught.value.problems


@pytest.mark.parametrize(
    ("values", "names"),
    [
        (["10", "9", "-1", "9"], ("-1", "9", "10")),
        (["pos", "neg", "Zero"], ("Zero", "neg", "pos")),
        (["10", "9", "x"], ("10", "9", "x")),
        (["false", "true"], ("false", "true")),
        (["02", "01", "10"], ("01", "02", "10")),
    ],
)
def test_numbers_by_value_and_names_sorted(values, names):
    vocabulary = label_vocabulary(values)
    assert vocabulary.names == names
    assert vocabulary.index == {name: number for number, name in enumerate(names)}


@pytest.mark.parametrize(
    ("values", "label_names", "names", "numbers"),
    [
        (["0", "1", "0"], ["bad", "good"], ("bad", "good"), [0, 1, 0]),
        (["0", "2"], ["bad", "so so", "good"], ("bad", "so so", "good"), [0, 2]),
        (["good", "bad"], ["good", "bad"], ("good", "bad"), [0, 1]),
        (["0", "1"], [1, 0], ("1", "0"), [1, 0]),
        (["true", "false"], [True, False], ("true", "false"), [0, 1]),
        (["5", "1"], {1: "bad", 5: "good"}, ("bad", "good"), [1, 0]),
        (["b", "a", "c"], {"b": "yes", "a": "no", "c": "yes"}, ("yes", "no"), [0, 1, 0]),
        (["1", "01"], ["01", "1"], ("01", "1"), [1, 0]),
    ],
)
def test_label_names_say_names_and_order(values, label_names, names, numbers):
    vocabulary = label_vocabulary(values, label_names)
    assert vocabulary.names == names
    assert encode_labels(values, vocabulary, "data.csv") == numbers


def test_labels_that_label_names_lacks():
    problems = refused(["pos", "pos", "Neg", "other"], ["neg", "pos"])
    assert [(problem.code, problem.found, problem.hint) for problem in problems] == [
        ("E220", "label 'Neg' in 1 row, which data.label_names does not list", "did you mean neg?"),
        ("E220", "label 'other' in 1 row, which data.label_names does not list", ""),
    ]
    assert [problem.code for problem in refused(["1", "2"], ["bad", "good"])] == ["E220", "E220"]
    assert [problem.code for problem in refused(["1", "2"], {1: "bad"})] == ["E220"]


def test_a_name_twice_in_a_list():
    assert [problem.code for problem in refused(["a", "b"], ["a", "b", "a"])] == ["E221"]


@pytest.mark.parametrize("label_names", [None, ["pos", "neg"]])
def test_one_class_only(label_names):
    (problem,) = refused(["pos"] * 500, label_names)
    assert (problem.code, problem.found) == ("E212", "all 500 rows have the label 'pos'")


@pytest.mark.parametrize(
    "values",
    [
        ["pos", "Pos "],
        ["1", "01"],
        ["1", "1.0"],
        ["a b", "a  b"],
        ["\uff21", "A"],
        ["+1", "1"],
        ["stra\u00dfe", "STRASSE"],
    ],
)
def test_look_alikes(values):
    assert [problem.code for problem in refused([*values, *values, "x"])] == ["E215"]


def test_free_text_or_ids_as_labels():
    assert [problem.code for problem in refused([f"id {number % 600}" for number in range(6000)])] == ["E216"]
    assert [problem.code for problem in refused([f"id {number % 7}" for number in range(12)])] == ["E216"]
    assert len(label_vocabulary([f"id {number % 500}" for number in range(6000)]).names) == 500
    assert len(label_vocabulary(["a", "b", "c"]).names) == 3
    many = [str(number) for number in range(600)]
    assert len(label_vocabulary(many, many).names) == 600


def test_numbers_with_fractions_are_ordered_by_value():
    assert label_vocabulary(["10.5", ".5", "1e0", "3"] * 2).names == (".5", "1e0", "3", "10.5")


def test_many_different_numbers_may_be_scores():
    assert "problem=regression" in refused([str(number / 7) for number in range(6000)])[0].hint
    assert "regression" not in refused([f"id {number}" for number in range(6000)])[0].hint


def test_lists_are_no_classes():
    with pytest.raises(
        DataError, match=r"test.csv: found \['pos', 'neg'\] \(row 2\), expected one label per row"
    ) as caught:
        encode_labels(["pos", ("pos", "neg")], Vocabulary(("neg", "pos"), {"neg": 0, "pos": 1}), "test.csv")
    assert caught.value.problems[0].code == "E205"


def test_unseen_labels_are_counted_with_the_first_row():
    vocabulary = Vocabulary(("neg", "pos"), {"neg": 0, "pos": 1})
    with pytest.raises(DataError) as caught:
        encode_labels(["pos", "neutral", "Pos", "neutral"], vocabulary, "test.csv", lambda index: f"row {index + 2}")
    assert [(problem.code, problem.found, problem.hint) for problem in caught.value.problems] == [
        (
            "E214",
            "label 'neutral' in 2 rows (first: row 3), never in the training data",
            "add training rows with this label, or remove these rows",
        ),
        ("E214", "label 'Pos' in 1 row (first: row 4), never in the training data", "did you mean pos?"),
    ]


@given(st.lists(st.integers(0, 4), min_size=10).filter(lambda values: len(set(values)) > 1))
def test_encoding_and_the_names_are_inverse(values):
    labels = [str(value) for value in values]
    vocabulary = label_vocabulary(labels)
    assert [vocabulary.names[number] for number in encode_labels(labels, vocabulary, "data.csv")] == labels
