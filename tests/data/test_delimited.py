"""CSV and TSV: cells stay unchanged; delimiters and quoting are detected and reported."""

import csv
import io

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fasttune.data.formats import delimited
from fasttune.data.sources import load_source
from fasttune.errors import DataError


def read(tmp_path, content, name="data.csv"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_source(str(path))


def codes(tmp_path, content, name="data.csv"):
    with pytest.raises(DataError) as caught:
        read(tmp_path, content, name)
    return [problem.code for problem in caught.value.problems]


def test_every_cell_stays_a_string_as_it_stands(tmp_path):
    content = "text,label\nNA,01\nnull,1\nNone,1.0\n, nan \nTrue,2020-01-01\n"
    source = read(tmp_path, content)
    assert source.dataset["text"][:] == ["NA", "null", "None", "", "True"]
    assert source.dataset["label"][:] == ["01", "1", "1.0", " nan ", "2020-01-01"]
    assert {feature.dtype for feature in source.dataset.features.values()} == {"string"}
    assert source.notes == ()


def test_an_unnamed_index_column_is_kept(tmp_path):
    assert read(tmp_path, ",text\n0,a\n1,b\n").dataset[1] == {"": "1", "text": "b"}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(tmp_path, end):
    source = read(tmp_path, end.join(["text,label", "a,1", '"b\nc\r\nd",2', ""]))
    assert source.dataset["text"][:] == ["a", "b\nc\r\nd"]


def test_mixed_line_ends_and_a_missing_last_one(tmp_path):
    assert read(tmp_path, "text,label\r\na,1\nb,2\rc,3").dataset["label"][:] == ["1", "2", "3"]


def test_characters_that_only_look_like_line_ends_do_not_end_a_row(tmp_path):
    assert read(tmp_path, "text,label\na\u2028b\x85c\x0bd,1\n").dataset["text"][:] == ["a\u2028b\x85c\x0bd"]


def test_empty_lines_between_rows_are_said(tmp_path):
    source = read(tmp_path, "text,label\na,1\n\n\nb,2\n\n\n")
    assert source.dataset.num_rows == 2
    assert [note.split(": ")[1] for note in source.notes] == ["ignored 2 empty lines between rows"]
    assert source.place(1) == "row 5"


@pytest.mark.parametrize(
    ("delimiter", "called"), [(",", None), (";", "a semicolon"), ("\t", "a tab"), ("|", "a vertical bar")]
)
def test_the_delimiter_of_a_csv_file_is_detected_and_said(tmp_path, delimiter, called):
    rows = [["text", "label"], ["good, really; yes", "1"], ['a "quoted" word | or two', "0"]]
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter).writerows(rows)
    source = read(tmp_path, buffer.getvalue())
    assert [list(row.values()) for row in source.dataset] == rows[1:]
    said = [note for note in source.notes if "separated" in note]
    assert said == ([f"{tmp_path}/data.csv: fields are separated by {called}"] if called else [])


def test_commas_in_the_text_do_not_make_a_semicolon_file_a_comma_file(tmp_path):
    source = read(tmp_path, "text;label\n" + "yes, no;1\nwell, perhaps;0\n" * 40)
    assert source.dataset.column_names == ["text", "label"]


def test_a_single_column_is_no_reason_to_look_for_another_delimiter(tmp_path):
    assert read(tmp_path, "text\na;b\nc;d\n").dataset["text"][:] == ["a;b", "c;d"]


def test_a_tab_file_called_csv_without_quoting(tmp_path):
    source = read(tmp_path, 'text\tlabel\n"open\t1\nfine\t0\nclosed"\t1\n')
    assert source.dataset["text"][:] == ['"open', "fine", 'closed"']
    assert read(tmp_path, 'text\tlabel\n"open\t1\nfine, yes\t0\n').dataset["text"][:] == ['"open', "fine, yes"]


def test_unbalanced_quotes_in_a_tsv_file_are_text_and_said(tmp_path):
    source = read(tmp_path, 'label\ttext\n1\t"I went home\n0\tfine\n1\tthen he said bye"\n', "data.tsv")
    assert source.dataset["text"][:] == ['"I went home', "fine", 'then he said bye"']
    assert len(source.notes) == 1 and "read as text" in source.notes[0]


def test_quotes_inside_a_tsv_field_show_that_nothing_is_quoted(tmp_path):
    source = read(tmp_path, 'label\ttext\n1\t"all of it"\n0\the said "no"\n', "data.tsv")
    assert source.dataset["text"][:] == ['"all of it"', 'he said "no"']


@pytest.mark.parametrize(
    ("cell", "value"),
    [('"a\tb"', "a\tb"), ('"a\nb"', "a\nb"), ('"he said ""no"""', 'he said "no"'), ('"plain"', "plain")],
)
def test_a_quoted_tsv_file_is_read_as_such_and_said(tmp_path, cell, value):
    source = read(tmp_path, f"text\tlabel\n{cell}\t1\nb\t0\n", "data.tsv")
    assert source.dataset["text"][:] == [value, "b"]
    assert len(source.notes) == 1 and "read as quoting" in source.notes[0]


def test_a_tsv_file_without_quotes_needs_no_note(tmp_path):
    assert read(tmp_path, "text\tlabel\na\t1\nb\t0\n", "data.txt").notes == ()


def test_one_ragged_row_of_an_unquoted_tsv_file_is_the_only_problem(tmp_path):
    assert codes(tmp_path, 'text\tlabel\n"a\t1\nb\t0\textra\nc"d\t1\n', "data.tsv") == ["E110"]


def test_one_ragged_row_of_a_quoted_tsv_file_is_the_only_problem(tmp_path):
    assert codes(tmp_path, 'text\tlabel\n"a\tb"\t1\nb\n"c\td"\t1\n', "data.tsv") == ["E111"]


def test_utf16_is_read_by_its_byte_order_mark_and_said(tmp_path):
    source = read(tmp_path, "text,label\ncaf\u00e9,1\n".encode("utf-16"))
    assert source.dataset["text"][:] == ["caf\u00e9"]
    assert len(source.notes) == 1 and "UTF-16" in source.notes[0]


def test_a_utf8_byte_order_mark_is_not_part_of_the_first_name(tmp_path):
    source = read(tmp_path, b"\xef\xbb\xbftext,label\na,1\n")
    assert source.dataset.column_names == ["text", "label"] and source.notes == ()


def test_long_fields_and_the_limit_of_the_csv_module_is_put_back(tmp_path):
    before = csv.field_size_limit(1000)
    try:
        assert len(read(tmp_path, f"text,label\n{'x' * 300_000},1\n").dataset[0]["text"]) == 300_000
        assert csv.field_size_limit() == 1000
    finally:
        csv.field_size_limit(before)


def test_row_numbers_are_lines_of_the_file(tmp_path):
    source = read(tmp_path, 'text,label\n"a\nb\nc",1\nd,2\n')
    assert [source.place(index) for index in range(2)] == ["row 2", "row 5"]


def test_all_problems_of_a_file_come_together_and_are_capped(tmp_path):
    assert codes(tmp_path, "text,label,label\na,1\nb,1,2,3\n") == ["E111", "E110", "E113"]
    with pytest.raises(DataError) as caught:
        read(tmp_path, "text,label\n" + "a,b,c\n" * 100)
    assert len(caught.value.problems) == 21
    assert caught.value.problems[-1].found == "80 more problems"


@pytest.mark.parametrize(
    "rows",
    [
        "good stuff,positive\nbad stuff,negative\nfine,positive\nmore,positive\n",
        "1,nice\n0,awful\n1,good\n",
    ],
)
def test_a_first_row_of_data_is_not_taken_for_a_header(tmp_path, rows):
    assert codes(tmp_path, rows) == ["E114"]


@pytest.mark.parametrize("rows", ["text,spam\na,spam\nb,spam\nc,ham\n", "2019,name\n1,a\n2,b\n", "a,b\nc,d\ne,f\n"])
def test_a_header_is_not_taken_for_data(tmp_path, rows):
    assert read(tmp_path, rows).dataset.num_rows >= 2


@pytest.mark.parametrize(
    ("text", "encoding", "guess"),
    [
        ("na\u00efve caf\u00e9 \u201cd\u00e9j\u00e0 vu\u201d", "cp1252", "cp1252"),
        ("\u9152\u5e97\u5f88\u597d\uff0c\u623f\u95f4\u5f88\u5927\u3002", "gb18030", "gb18030"),
        ("\u043e\u0447\u0435\u043d\u044c \u0445\u043e\u0440\u043e\u0448\u043e", "cp1251", "cp1251"),
    ],
)
def test_other_encodings_are_guessed_but_never_read(tmp_path, text, encoding, guess):
    with pytest.raises(DataError) as caught:
        read(tmp_path, f"text,label\n{text},1\n".encode(encoding))
    (problem,) = caught.value.problems
    assert problem.code == "E121" and problem.where.endswith("data.csv row 2")
    is_certain = f"looks like {guess}" in problem.found and problem.hint == f"data.encoding={guess}"
    assert is_certain or problem.preview[0].startswith(f"data.encoding={guess}: "), "or one of several"


def test_utf16_without_a_byte_order_mark_is_guessed(tmp_path):
    with pytest.raises(DataError, match=r"E121.*looks like UTF-16LE"):
        read(tmp_path, "text,label\nabc,1\n".encode("utf-16-le"))


# NUL is refused, and half a surrogate pair cannot be written.
CELLS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
WITH_TROUBLE = CELLS | st.lists(st.sampled_from(list('",;\t|\r\n \'"')), max_size=6).map("".join)


@st.composite
def tables(draw):
    num_columns = draw(st.integers(2, 4))
    row = st.lists(WITH_TROUBLE, min_size=num_columns, max_size=num_columns)
    return draw(st.lists(row, min_size=1, max_size=8))


@settings(max_examples=200)
@given(
    rows=tables(),
    # Not "\n" with QUOTE_MINIMAL: older Pythons leave a CR unquoted there, which cannot be told from a line end.
    how=st.sampled_from([("\r\n", csv.QUOTE_MINIMAL), ("\r\n", csv.QUOTE_ALL), ("\n", csv.QUOTE_ALL)]),
    part=st.sampled_from([2, delimited.RECORDS_PER_CHUNK]),
)
def test_any_table_of_strings_that_csv_writes_is_read_back_identical(tmp_path_factory, rows, how, part):
    end, quoting = how
    path = tmp_path_factory.mktemp("table") / "data.csv"
    names = ["text", *(f"c{number}" for number in range(1, len(rows[0])))]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator=end, quoting=quoting).writerows([names, *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "RECORDS_PER_CHUNK", part)
        dataset = load_source(str(path)).dataset
    assert dataset.column_names == names
    assert [list(row.values()) for row in dataset] == rows


@settings(max_examples=100)
@given(rows=tables())
def test_any_table_that_csv_writes_with_tabs_is_read_back_identical(tmp_path_factory, rows):
    # Quoted rows whose lines also split into the right number of fields look like a file without quoting: see
    # test_unbalanced_quotes_in_a_tsv_file_are_text_and_said.
    in_rows = ["".join(row) for row in rows]
    assume(not any("\t" in cells and ("\n" in cells or "\r" in cells) for cells in in_rows))
    path = tmp_path_factory.mktemp("table") / "data.tsv"
    names = ["text", *(f"c{number}" for number in range(1, len(rows[0])))]
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter="\t").writerows([names, *rows])
    assert [list(row.values()) for row in load_source(str(path)).dataset] == rows


def test_a_lone_carriage_return_in_a_file_of_one_column_is_no_line_end(tmp_path):
    assert codes(tmp_path, "text\nfirst\rstill the first\nsecond\n") == ["E139"]
    with pytest.raises(DataError, match=r"E139 .*data\.csv row 3: found a carriage return"):
        read(tmp_path, "text\r\na\r\nb\rb\r\n")
    assert read(tmp_path, 'text\n"first\rstill"\nsecond\n').dataset["text"][:] == ["first\rstill", "second"]
    assert read(tmp_path, "text\rfirst\rsecond\r").dataset["text"][:] == ["first", "second"]
