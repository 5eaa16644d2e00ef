"""JSON lines and JSON lists: types are kept, and what lenient JSON readers accept is an error."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fasttune.data.formats import json_rows
from fasttune.data.sources import from_rows, load_source
from fasttune.errors import DataError


def read(tmp_path, content, name="data.jsonl"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_source(str(path))


ROWS = [{"text": "a", "label": 1, "tags": ["x"], "ok": True}, {"text": None, "label": 2, "tags": [], "ok": False}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("data.jsonl", "\n".join(map(json.dumps, ROWS))),
        ("data.ndjson", "\r\n\r\n".join(map(json.dumps, ROWS)) + "\n"),
        ("data.json", json.dumps(ROWS)),
        ("data.json", json.dumps(ROWS, indent=2)),
        ("data.json", "\n".join(map(json.dumps, ROWS))),
        ("data.jsonl", b"\xef\xbb\xbf" + "\n".join(map(json.dumps, ROWS)).encode()),
    ],
)
def test_values_keep_their_types(tmp_path, name, content):
    dataset = read(tmp_path, content, name).dataset
    assert list(dataset) == ROWS
    assert dataset.features["label"].dtype == "int64" and dataset.features["ok"].dtype == "bool"


def test_numbers_written_as_text_stay_text(tmp_path):
    assert read(tmp_path, '{"label": "01"}\n{"label": "NA"}\n').dataset["label"][:] == ["01", "NA"]


def test_one_object_in_a_json_file_is_one_row(tmp_path):
    assert list(read(tmp_path, '{"text": "a", "label": 1}', "data.json").dataset) == [{"text": "a", "label": 1}]


def test_the_order_of_keys_may_differ_between_lines(tmp_path):
    dataset = read(tmp_path, '{"a": 1, "b": 2}\n{"b": 4, "a": 3}\n').dataset
    assert dataset["a"][:] == [1, 3] and dataset["b"][:] == [2, 4]


def test_empty_lines_count_as_lines_of_the_file(tmp_path):
    source = read(tmp_path, '{"a": 1}\n\n\n{"a": 2}\n')
    assert source.place(1) == "row 4"


@pytest.mark.parametrize(
    ("content", "codes"),
    [
        ('{"a": 1}\n{"a": }\n[1]\n{"a": NaN}\n{"a": 1, "a": 2}\n', ["E115", "E126", "E118", "E113"]),
        ('{"a": 1e999}\n', ["E118"]),
        ('{"a": "\\ud83d"}\n', ["E121"]),
        ('{"a": "\\ud83d\\ude00"}\n{"b": 1}\n', ["E117", "E117"]),
        ('{"a": 1}\n{"a": "x"}\n{"a": true}\n', ["E125"]),
        ('{"a": [1]}\n{"a": ["x"]}\n', ["E125"]),
        ('{"a": 99999999999999999999}\n', ["E125"]),
        ('{"a": ' + "[" * 100_000 + "]" * 100_000 + "}\n", ["E119"]),
        ('{"a": ' + "1" * 10_000 + "}\n", ["E115"]),
        ('{"paragraphs": [], "title": "x"}\n', ["E104"]),
        ("\n\n", ["E104"]),
    ],
)
def test_what_json_readers_let_pass_is_an_error(tmp_path, content, codes):
    with pytest.raises(DataError) as caught:
        read(tmp_path, content)
    assert [problem.code for problem in caught.value.problems] == codes


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ('[{"a": 1}, 2]', "E126"),
        ('{"data": {"a": 1}}', "E126"),
        ("[1, 2", "E115"),
        ('{"a": 1', "E115"),
        ("[]", "E104"),
        ("[NaN]", "E118"),
        ('{"data": [{"title": "x", "paragraphs": []}]}', "E104"),
        ('[{"title": "x", "paragraphs": []}]', "E104"),
    ],
)
def test_json_documents_that_are_not_rows(tmp_path, content, code):
    with pytest.raises(DataError) as caught:
        read(tmp_path, content, "data.json")
    assert [problem.code for problem in caught.value.problems] == [code]


def test_the_place_of_an_error_is_line_and_column_of_the_file(tmp_path):
    for name, content in (("x.jsonl", '{"a": 1}\n{"a": 1, "b": }\n'), ("x.json", '[{"a": 1},\n{"a": 1, "b": }]')):
        with pytest.raises(DataError) as caught:
            read(tmp_path, content, name)
        (problem,) = caught.value.problems
        assert problem.where.endswith("line 2 column 15")


def test_rows_given_in_python():
    source = from_rows(ROWS)
    assert list(source.dataset) == ROWS
    assert source.fingerprint == from_rows(list(ROWS)).fingerprint != from_rows(ROWS[:1]).fingerprint
    assert source.place(1) == "row 2"


@pytest.mark.parametrize("rows", [[], [1], [{1: "a"}], [{"a": 1}, {"b": 1}], [{"a": float("nan")}], [{"a": "\ud800"}]])
def test_rows_that_are_no_table(rows):
    with pytest.raises(DataError):
        from_rows(rows)


CELLS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**40), 2**40),
    st.floats(allow_infinity=False, allow_nan=False, width=32),
    st.text(max_size=2),
    st.lists(st.integers(0, 3), max_size=2),
    st.fixed_dictionaries({"text": st.lists(st.text(max_size=1), max_size=1), "answer_start": st.just([])}),
    st.fixed_dictionaries({"x": st.sampled_from([1, "s"])}),
)
NUMBERS = st.one_of(st.integers(0, 9), st.floats(0, 9), st.none())
NO_ANSWERS = st.sampled_from([None, {"text": [], "answer_start": []}])
COLUMNS = st.sampled_from(
    [st.none(), st.integers(0, 9), NUMBERS, st.one_of(st.none(), st.text(max_size=2)), NO_ANSWERS, CELLS]
)


@st.composite
def lines(draw):
    cells = {name: draw(COLUMNS) for name in draw(st.sets(st.sampled_from("abc"), min_size=1))}
    optional = draw(st.sampled_from([{}, {"d": CELLS}]))
    return draw(st.lists(st.fixed_dictionaries(cells, optional=optional), min_size=1, max_size=7))


def outcome(path):
    """The table and its types, or what is wrong with it."""
    try:
        dataset = load_source(str(path)).dataset
    except DataError as error:
        return str(error)
    return dataset.features, list(dataset)


@settings(max_examples=200)
@given(rows=lines())
def test_a_file_that_is_read_in_parts_gives_what_it_gives_as_a_whole(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("rows") / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    whole = outcome(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_rows, "ROWS_AT_ONCE", 2)
        assert outcome(path) == whole
