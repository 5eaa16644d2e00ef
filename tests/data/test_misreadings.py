"""Files that were once read as something else: each is read right, or asked about."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from data.published import GOOD_BAD, TEXTS, lines, table
from data.test_files_of_people import put, read, refused

from fasttune.data.columns import resolve
from fasttune.data.file_stream import open_stream
from fasttune.data.formats.storage import ReadOptions
from fasttune.data.precheck import refuse_early
from fasttune.errors import DataError
from fasttune.tasks import TASKS

MORE = [f"{text} {n}" for n in range(5) for text in TEXTS]
BOTH = ["good", "bad"] * 15
NUMBERS = [n // 3 for n in range(30)]  # of sentences of three words
FLAGS = [[1, 0, 1] * 10, [0, 1, 1] * 10, [1, 1, 0] * 10]


THREE = ["quality", "price", "service"] * 2


@pytest.mark.parametrize(
    ("content", "code", "says"),
    [
        (table(None, TEXTS, THREE), "", ""),
        (table(None, TEXTS, "abcdef"), "E114", "it holds a whole text"),
        ("topic,text\n" + table(None, GOOD_BAD, TEXTS), "", ""),
        ("sep=;\n" + table(["A", "B"], TEXTS, GOOD_BAD, mark=";"), "", ""),
        ("Survey,by me,\n" + table(["Kommentar", "Note", "Datum"], TEXTS, GOOD_BAD, ["2026-05-01"] * 6), "", ""),
        ("review,\n" + table(None, TEXTS, GOOD_BAD), "", ""),
    ],
    ids=["a usual name as label", "nothing occurs again", "header", "sep=", "title of two cells", "half a header"],
)
def test_the_first_rows_of_a_table(content: str, code: str, says: str, tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", content)
    if code:
        text = refused(path)
        assert code in text and says in text
        return
    rows, _ = read(path)
    assert sorted(rows.values["text"]) == sorted(TEXTS), "no row is lost and none is added"


@pytest.mark.parametrize(
    ("names", "extra"),
    [
        (("is_member", "is_verified", "has_image"), {}),
        (("annotator1", "annotator2", "annotator3"), {}),
        (("a", "b", "train"), {}),
        (("a", "b", "c"), {"price": [f"{n}.37" for n in range(30)]}),
    ],
)
def test_columns_of_zeros_and_ones_that_may_be_no_labels(
    names: tuple[str, ...], extra: dict[str, list[Any]], tmp_path: Path
) -> None:
    path = put(tmp_path, "rows.csv", table(["text", *extra, *names], MORE, *extra.values(), *FLAGS))
    assert "if each is a label" in refused(path)


def test_a_flag_that_says_nothing_is_no_negative(tmp_path: Path) -> None:
    flags = [[1, 0, 1, 1, 0, 1], [1, 1, 0, 0, 1, 1], [0, "", 1, -1, 1, 0]]
    rows, notes = read(put(tmp_path, "rows.csv", table(["text", "a", "b", "c"], TEXTS, *flags)))
    assert len(rows) == 4 and "dropped 2 rows without a label" in " ".join(notes)


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        (["joy, love", "fear, joy", "anger, fear"] * 10, "may be several: 'joy' is also part of other labels"),
        (["2,50", "3,75", "0,25"] * 10, "a decimal comma"),
        ([*["1", "2", "3"] * 9, "1", "2", "3.2"], "'3.2' in one row, and whole numbers in all others"),
        (["?", "a", "b"] * 10, "label '?' in 10 of 30 rows: is it a class"),
        (["-1.0", "0.0", "1.0"] * 10, "label -1 in 10 rows"),
    ],
)
def test_labels_with_two_readings(labels: list[str], says: str, tmp_path: Path) -> None:
    assert says in refused(put(tmp_path, "rows.csv", table(["text", "label"], MORE, labels)))


def test_probabilities_are_no_labels(tmp_path: Path) -> None:
    rows = [{"text": text, "label": [0.9, 0.1] if n % 2 else [0.2, 0.8]} for n, text in enumerate(TEXTS)]
    assert "a list of fractions" in refused(put(tmp_path, "rows.jsonl", lines(*rows)))


def test_an_average_below_the_ratings_is_a_total(tmp_path: Path) -> None:
    content = table(["text", "label"], [*MORE, "Average rating"], [*["1", "2", "3"] * 10, "2.1"])
    assert refused(put(tmp_path, "rows.csv", content)).startswith("E145 ")


def test_labels_in_merged_cells_are_asked_about(tmp_path: Path) -> None:
    content = table(["category", "text"], ["a", *[""] * 14, "b", *[""] * 14], MORE)
    assert refused(put(tmp_path, "rows.csv", content)).startswith("E211 ")


@pytest.mark.parametrize("column", ["date", "year", "author"])
def test_where_a_text_comes_from_is_no_label(column: str, tmp_path: Path) -> None:
    cells = {"date": ["2026-05-01", "2026-05-02"], "year": ["2025", "2026"], "author": ["Ann", "Bob"]}[column]
    assert "E201" in refused(put(tmp_path, "rows.csv", table([column, "text", "n"], cells * 15, MORE, range(30))))


def test_a_word_in_its_sentence_is_a_text(tmp_path: Path) -> None:
    words = [f"word{n}" for n in range(6)]
    path = put(tmp_path, "rows.csv", table(["word", "label", "sentence"], words, GOOD_BAD, TEXTS))
    assert list(read(path, "data.columns.text=sentence")[0].values["text"]) == TEXTS


def test_sentence_numbers_that_begin_anew_in_each_document(tmp_path: Path) -> None:
    content = table(["doc", "sentence_id", "word", "tag"], [0, 0, 1, 1], [0, 0, 0, 0], "abcd", ["B-X", "O"] * 2)
    assert len(read(put(tmp_path, "rows.csv", content))[0]) == 2


# --- columns of words -----------------------------------------------------------------------------------------------


def test_nested_entities_are_asked_about(tmp_path: Path) -> None:
    content = "# x\n1\tTSV\tB-ORG\tO\n2\tKöln\tI-ORG\tB-LOC\n\n# y\n1\tBerlin\tB-LOC\tO\n2\t.\tO\tO\n"
    path = put(tmp_path, "NER-de.tsv", content)
    assert refused(path).startswith("E146 ")
    rows, _ = read(path, "data.columns.tags=column3")
    assert rows.values["tags"] == [("B-ORG", "I-ORG"), ("B-LOC", "O")]


@pytest.mark.parametrize(
    "content",
    ["B-ORG\tEU\nO\tcalls\n\nO\tno\n", "EU\tB-ORG\t\ncalls\tO\t\n\nno\tO\t\n"],
    ids=["the tag first", "a tab at the end"],
)
def test_other_orders_of_columns(content: str, tmp_path: Path) -> None:
    rows, _ = read(put(tmp_path, "rows.conll", content))
    assert [sentence.words for sentence in rows.values["tokens"]] == [["EU", "calls"], ["no"]]
    assert rows.values["tags"] == [("B-ORG", "O"), ("O",)]


def test_a_non_breaking_space_is_part_of_a_word(tmp_path: Path) -> None:
    rows, _ = read(put(tmp_path, "rows.conll", "10\u00a0000 B-NUM\nmen O\n\nno O\n"))
    assert rows.values["tokens"][0].words == ["10\u00a0000", "men"]


# --- folders and lines ----------------------------------------------------------------------------------------------


def texts_in(folder: Path, *names: str) -> Path:
    for name in names:
        for number, text in enumerate(TEXTS[:3]):
            put(folder, f"{name}/{number}.txt", text)
    return folder


def test_a_stray_file_loses_no_class(tmp_path: Path) -> None:
    texts_in(tmp_path, "pos", "neg")
    put(tmp_path, "neg/Thumbs.db", "x")
    put(tmp_path, "neg/4.TXT", TEXTS[4])
    rows, notes = read(tmp_path)
    assert list(rows.values["label"]) == ["neg"] * 4 + ["pos"] * 3
    assert "left out neg/Thumbs.db, which is no text" in " ".join(notes)


def test_splits_of_texts_are_no_classes(tmp_path: Path) -> None:
    assert refused(texts_in(tmp_path, "train", "test")).startswith("E102 ")


def test_labels_of_fasttext_in_a_table_are_a_column(tmp_path: Path) -> None:
    labels = [f"__label__{label}" for label in GOOD_BAD]
    rows, _ = read(put(tmp_path, "rows.tsv", table(["id", "text", "label"], range(6), TEXTS, labels, mark="\t")))
    assert list(rows.values["text"]) == TEXTS


def test_a_line_of_fasttext_without_a_label_is_dropped(tmp_path: Path) -> None:
    content = "".join(f"__label__{label} {text}\n" for text, label in zip(MORE, BOTH, strict=True)) + "no label here\n"
    rows, notes = read(put(tmp_path, "rows.train", content))
    assert list(rows.values["label"]) == BOTH and "dropped 1 row without a label" in " ".join(notes)


# --- annotation tools and JSON --------------------------------------------------------------------------------------


def test_empty_entities_beside_a_label(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label, "entities": []} for text, label in zip(TEXTS, GOOD_BAD, strict=True)]
    assert list(read(put(tmp_path, "rows.jsonl", lines(*rows)))[0].values["label"]) == GOOD_BAD


def task(text: str, *results: dict[str, Any], **data: str) -> dict[str, Any]:
    return {"id": 1, "data": {"review": text, **data}, "annotations": [{"result": list(results)}]}


def choice(label: str, control: str = "mood") -> dict[str, Any]:
    return {"from_name": control, "type": "choices", "value": {"choices": [label]}}


def test_label_studio_with_other_keys_relations_and_texts_that_wait(tmp_path: Path) -> None:
    tasks = [task(text, choice(label), author="me") for text, label in zip(TEXTS, GOOD_BAD, strict=True)]
    tasks.append(task("not annotated", author="me"))
    rows, notes = read(put(tmp_path, "all.json", json.dumps(tasks)))
    assert list(rows.values["text"]) == TEXTS and list(rows.values["label"]) == GOOD_BAD
    assert "left out 1 text" in " ".join(notes)
    span = {"type": "labels", "value": {"start": 0, "end": 3, "labels": ["PER"]}}
    tasks = [task("Ann came", span, {"type": "relation", "from_id": "a", "to_id": "b"}), task("no one came")]
    rows, _ = read(put(tmp_path, "spans.json", json.dumps(tasks)))
    assert rows.values["tags"] == [("B-PER", "O"), ("O", "O", "O")]


def test_classes_of_several_controls_are_asked_about(tmp_path: Path) -> None:
    tasks = [task(text, choice("a"), choice("b", "topic")) for text in TEXTS]
    assert "E147 " in refused(put(tmp_path, "all.json", json.dumps(tasks)))


def test_a_frame_by_rows(tmp_path: Path) -> None:
    rows = [{"text": text, "label": label} for text, label in zip(TEXTS, GOOD_BAD, strict=True)]
    by_row = {str(number): row for number, row in enumerate(rows)}
    assert list(read(put(tmp_path, "index.json", json.dumps(by_row)))[0].values["text"]) == TEXTS
    with_schema = {"schema": {"fields": [], "primaryKey": ["index"]}, "data": rows}
    assert list(read(put(tmp_path, "table.json", json.dumps(with_schema)))[0].values["text"]) == TEXTS


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("Bardzo ładny pokój, życzę miłego dnia, źle oświetlony hol", "cp1250"),
        ("Das Zimmer war schön und für die Größe günstig", "cp850"),
        ("Das Zimmer war schön und für die Größe günstig", "mac-roman"),
        ("La chambre était très propre et agréable, à côté", "cp1252"),
    ],
)
def test_a_hint_of_an_encoding_gives_the_text(text: str, encoding: str, tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", table(["text", "label"], [text, *TEXTS[1:]], GOOD_BAD).encode(encoding))
    message = refused(path)
    word = next(word.strip(",") for word in sorted(text.split()) if not word.isascii())
    assert f"hint: data.encoding={encoding}" in message or f"data.encoding={encoding}: " in message
    assert word in message or "looks like" in message
    assert read(path, f"data.encoding={encoding}")[0].values["text"][0] == text


# --- streams and the command line: the same readings ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("rows.txt", "".join(f"__label__{label} {text}\n" for text, label in zip(MORE, BOTH, strict=True))),
        (
            "rows.csv",
            table(["sentence_id", "word", "tag"], [n // 3 for n in range(30)], ["w"] * 30, ["B-X", "O", "O"] * 10),
        ),
        ("rows.csv", "Report,\n" + table(["text", "label"], MORE, BOTH)),
        ("rows.csv", "sep=;\n" + table(["text", "label"], MORE, BOTH, mark=";")),
    ],
    ids=["fastText", "one word per row", "a title", "sep="],
)
def test_what_a_stream_cannot_read_piece_by_piece_is_refused(name: str, content: str, tmp_path: Path) -> None:
    path = put(tmp_path, name, content)
    with pytest.raises(DataError, match=r"E138|E1\d\d|E201"):
        stream = open_stream(str(path), "train", ReadOptions(), 100, 1)
        columns = stream.window(0, 0).dataset.column_names
        assert columns != ["text", "label"], "the header is not among the rows"
        resolve(TASKS["text-classification"].columns, {}, columns, "rows")


@pytest.mark.parametrize(
    ("content", "settings"),
    [
        (table(["text", "a", "b"], MORE, *FLAGS[:2]), ["data.columns.label=[a, b]"]),
        ("Report of May,,\n" + table(["text", "who", "mood"], MORE, MORE, BOTH), ["data.columns.label=mood"]),
        (table(None, MORE, BOTH, range(30)), ["data.columns.text=column1", "data.columns.label=column2"]),
    ],
    ids=["several columns", "a title", "no header"],
)
def test_the_command_line_checks_columns_as_training_reads_them(
    content: str, settings: list[str], tmp_path: Path
) -> None:
    path = put(tmp_path, "rows.csv", content)
    refuse_early(str(path), settings)
    assert len(read(path, *settings)[0]) == 30
    with pytest.raises(DataError, match=r"E202 data\.columns\.text: found 'txet'"):
        refuse_early(str(put(tmp_path, "plain.csv", table(["text", "label"], MORE, BOTH))), ["data.columns.text=txet"])
