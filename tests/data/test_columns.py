"""Which column is what, and the texts and labels of a column."""

import datasets
import pytest

from fasttune.data.columns import Column, label_values, resolve, text_values
from fasttune.errors import DataError

TEXT = Column("text", "what is classified", True, ("text", "sentence", "review", "content"))
PAIR = Column("text_pair", "the second text of a pair", False, ("text_pair", "sentence2"), follows="text")
LABEL = Column("label", "the class", True, ("label", "labels", "class"))
COLUMNS = (TEXT, PAIR, LABEL)


def names(given, available, columns=COLUMNS):
    return resolve(columns, given, available, "data.csv").names


def refused(given, available, columns=COLUMNS):
    with pytest.raises(DataError) as caught:
        resolve(columns, given, available, "data.csv")
    return caught.value.problems


def dataset(values, feature=None, column="label"):
    return datasets.Dataset.from_dict(
        {column: values}, features=datasets.Features({column: feature}) if feature else None
    )


def test_given_names_are_taken_without_a_note():
    resolved = resolve(COLUMNS, {"text": "B", "label": "A", "text_pair": None}, ["A", "B"], "data.csv")
    assert resolved.names == {"text": "B", "label": "A"} and resolved.notes == ()


def test_usual_names_are_guessed_and_said():
    resolved = resolve(COLUMNS, {}, ["id", "Review", " LABEL ", "sentence2"], "data.csv")
    assert resolved.names == {"text": "Review", "text_pair": "sentence2", "label": " LABEL "}
    assert resolved.notes[0] == "data.csv: column 'Review' is used as the text"
    assert len(resolved.notes) == 3


def test_the_second_text_is_guessed_only_with_the_first():
    available = ["sentence", "sentence2", "y"]
    assert names({"label": "y"}, available) == {"label": "y", "text": "sentence", "text_pair": "sentence2"}
    assert names({"label": "y", "text": "sentence"}, available) == {"label": "y", "text": "sentence"}
    assert names({"text_pair": "y"}, ["sentence", "sentence2", "y", "label"])["text_pair"] == "y"


def test_texts_are_a_sequence_without_being_a_list():
    values = [f"text {number}" for number in range(2500)]
    texts = text_values(dataset(values), "label", "data.csv")
    assert list(texts) == values
    assert (texts[0], texts[-1], texts[1000]) == (values[0], values[-1], values[1000])
    assert texts[998:2003:2] == values[998:2003:2] and texts[7:3] == [] and texts[2490:] == values[2490:]


def test_of_two_columns_the_other_one_is_left():
    assert names({}, ["Comment", "label"]) == {"text": "Comment", "label": "label"}
    assert names({"text": "x"}, ["x", "y"]) == {"text": "x", "label": "y"}
    assert refused({"text": "x"}, ["x", "sentence2", "y"])[0].code == "E201"  # of three columns none is the other one
    resolved = resolve(COLUMNS, {}, ["label", "Comment"], "data.csv")
    assert resolved.notes[0] == "data.csv: column 'Comment' is used as the text: the only column left"


def test_a_column_named_as_the_role_goes_before_other_usual_names():
    assert names({}, ["review", "text", "label"])["text"] == "text"


def test_a_column_already_given_to_one_role_is_not_guessed_for_another():
    assert names({"label": "text"}, ["text", "review"]) == {"label": "text", "text": "review"}


@pytest.mark.parametrize(
    ("available", "roles"),
    [(["Review", "sentence", "label"], ["text"]), (["A", "B", "label"], ["text"]), (["A", "B"], ["text", "label"])],
)
def test_more_than_one_possibility_is_asked_for(available, roles):
    (problem,) = refused({}, available)
    assert problem.code == "E201"
    for role in roles:
        assert f"the {role} (" in problem.found and f"data.columns.{role}=COLUMN" in problem.hint


def test_too_few_columns():
    assert [problem.code for problem in refused({}, ["text"])] == ["E201"]
    assert [problem.code for problem in refused({}, [])] == ["E201"]


@pytest.mark.parametrize(
    ("column", "hint"),
    [
        ("Opinion", "data.columns.label=Opinion"),
        ("My Review", "'data.columns.label=My Review'"),
        ("#1 String", "'data.columns.label=\"#1 String\"'"),
        ("no", "'data.columns.label=\"no\"'"),
        ("it's", "'data.columns.label=\"it'\"'\"'s\"'"),
    ],
)
def test_the_hint_can_be_typed(column, hint):
    (problem,) = refused({"label": column}, [column, "a column", "another column"])
    assert problem.hint == f"data.columns.text=COLUMN {hint}"


def test_wrong_names_come_together():
    problems = refused({"text": "texd", "label": "zzz", "answers": "x"}, ["text", "label"])
    assert [(problem.code, problem.where) for problem in problems] == [
        ("E202", "data.columns.text"),
        ("E202", "data.columns.label"),
        ("E206", "data.columns.answers"),
    ]
    assert problems[0].hint == "data.columns.text=text" and problems[1].hint == "data.columns.label=..."
    assert problems[0].expected == "a column of data.csv: 'text', 'label'"


def test_one_column_for_two_roles():
    (problem,) = refused({"text": "a", "label": "a"}, ["a", "b"])
    assert (problem.code, problem.where) == ("E203", "data.columns.label")


def test_texts_as_they_stand():
    values = ["NA", "null", " a ", "01"]
    assert list(text_values(dataset(values), "label", "data.csv")) == values
    assert list(text_values(dataset(values).select([3, 0]), "label", "data.csv")) == ["01", "NA"]
    assert list(text_values(dataset(values, datasets.Value("large_string")), "label", "data.csv")) == values


def test_empty_texts_are_listed_by_row():
    values = ["a", None, "", " \t\n", "b", "\u3000", "\xa0", ""]
    with pytest.raises(DataError) as caught:
        text_values(dataset(values, column="text"), "text", "data.csv", place=lambda index: f"row {index + 2}")
    (problem,) = caught.value.problems
    assert (problem.code, problem.where) == ("E210", "data.csv, column 'text'")
    assert problem.found == "6 empty texts (row 3, row 4, row 5, row 7, row 8, ...)"


def test_a_column_of_nulls_is_empty():
    with pytest.raises(DataError, match=r"E210.*2 empty texts"):
        text_values(dataset([None, None]), "label", "data.csv")


@pytest.mark.parametrize(
    ("values", "feature"), [([1, 2], None), ([["a"], ["b"]], None), ([0, 1], datasets.ClassLabel(names=["a", "b"]))]
)
def test_a_text_column_without_texts(values, feature):
    with pytest.raises(DataError, match="E204"):
        text_values(dataset(values, feature), "label", "data.csv")


def test_a_text_column_without_texts_names_one_with_texts():
    both = datasets.Dataset.from_dict({"stars": [1], "review": ["a"]})
    with pytest.raises(DataError) as caught:
        text_values(both, "stars", "data.csv")
    assert caught.value.problems[0].hint == "data.columns.text=review"


@pytest.mark.parametrize(
    ("values", "feature", "expected"),
    [
        (["01", "1", " pos"], None, ["01", "1", " pos"]),
        ([1, 0, -2], None, ["1", "0", "-2"]),
        ([True, False], None, ["true", "false"]),
        ([1.0, 4.0], None, ["1", "4"]),
        ([1, 0], datasets.ClassLabel(names=["neg", "pos"]), ["pos", "neg"]),
        ([1.0, 2.5], None, ["1", "2.5"]),
        ([["a"], ["a", "b"], []], None, [("a",), ("a", "b"), ()]),
        ([[1, 0], []], datasets.List(datasets.ClassLabel(names=["neg", "pos"])), [("pos", "neg"), ()]),
    ],
)
def test_labels_are_written_out(values, feature, expected):
    assert label_values(dataset(values, feature), "label", "data.csv") == expected


@pytest.mark.parametrize(
    ("values", "feature", "found"),
    [
        (["a", "", None, "  "], None, "3 empty labels (row 2, row 3, row 4)"),
        ([1.0, float("nan"), None], None, "2 empty labels (row 2, row 3)"),
        ([1, None], None, "1 empty label (row 2)"),
        ([0, -1, None], datasets.ClassLabel(names=["a", "b"]), "2 empty labels (row 2, row 3)"),
    ],
)
def test_empty_labels(values, feature, found):
    with pytest.raises(DataError) as caught:
        label_values(dataset(values, feature), "label", "data.csv")
    assert [(problem.code, problem.found) for problem in caught.value.problems] == [("E211", found)]


@pytest.mark.parametrize(("values", "code"), [([float("inf")], "E205"), ([{"a": 1}], "E205")])
def test_labels_that_are_no_classes(values, code):
    with pytest.raises(DataError) as caught:
        label_values(dataset(values), "label", "data.csv")
    assert [problem.code for problem in caught.value.problems] == [code]
