"""Files that are nearly right: what is repaired and reported, what is asked, what is refused with its row."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from data.published import CHINESE, GOOD_BAD, SENTENCES, SPANS, TAGS, TEXTS, WORDS, columns_of, lines, sheet, table
from hypothesis import given
from hypothesis import strategies as st

import fasttune
from fasttune.api import recipe_of
from fasttune.cli import commands as cli
from fasttune.data.formats.encodings import certain_encoding
from fasttune.data.pipeline import read_splits
from fasttune.data.reading import TRAIN, Reader
from fasttune.data.rows import Rows
from fasttune.data.sources import load_source
from fasttune.data.tokens.language import MAX_PIECES, pieces_per_word
from fasttune.data.tokens.tags import SpanTags
from fasttune.data.tokens.words import words_of
from fasttune.errors import DataError
from fasttune.evaluation import predictions
from fasttune.tasks import TASKS


def put(folder: Path, name: str, content: str | bytes) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def read(path: Path, *settings: str) -> tuple[Rows, list[str]]:
    """The training rows of a file, and the notes."""
    recipe, _ = recipe_of(str(path), settings)
    reader = Reader(recipe, TASKS)
    rows = reader.rows(recipe.data.train, TRAIN)[0].rows
    task = reader.task_class.from_rows(rows, reader.recipe, path.name)
    return rows, [*reader.notes, *task.notes]


def refused(path: Path, *settings: str) -> str:
    with pytest.raises(DataError) as raised:
        read(path, *settings)
    return str(raised.value)


# --- one word per row -----------------------------------------------------------------------------------------------

FLAT = [(number, word, tag) for number, row in enumerate(WORDS) for word, tag in zip(row, TAGS[number], strict=True)]


def test_words_without_anything_that_ends_a_sentence_are_asked_about(tmp_path: Path) -> None:
    _, words, tags = zip(*FLAT, strict=True)
    text = refused(put(tmp_path, "ner.csv", table(["word", "tag"], words, tags)), "task=token-classification")
    assert text.startswith("E143") and "'Ann', 'came', 'to'" in text and "sentence_id" in text


def test_columns_of_words_without_empty_lines_are_asked_about(tmp_path: Path) -> None:
    content = columns_of(mark=" ").replace("\n\n", "\n")
    assert refused(put(tmp_path, "train.txt", content)).startswith("E143 ")
    rows, _ = read(put(tmp_path, "train.conll", content))
    assert len(rows) == 1, "one long sentence, as the extension says"


def test_words_and_tags_with_commas_and_without_a_header(tmp_path: Path) -> None:
    rows, _ = read(put(tmp_path, "train.csv", columns_of(mark=",")))
    assert rows.values["tags"] == list(map(tuple, TAGS))


def test_a_sentence_whose_rows_are_apart_is_named(tmp_path: Path) -> None:
    numbers, words, tags = zip(*FLAT, strict=True)
    numbers = (*numbers[:-1], 0)
    text = refused(put(tmp_path, "ner.csv", table(["sentence_id", "word", "tag"], numbers, words, tags)))
    assert text.startswith("E143 ") and "row 11: sentence '0' again; its first rows are at row 2" in text


def test_a_row_without_a_word_is_named(tmp_path: Path) -> None:
    numbers, words, tags = zip(*FLAT, strict=True)
    words = (*words[:3], "", *words[4:])
    text = refused(put(tmp_path, "ner.csv", table(["sentence_id", "word", "tag"], numbers, words, tags)))
    assert "E260" in text and "row 5, column 'word': the row has no word" in text


def test_single_words_with_classes_are_texts(tmp_path: Path) -> None:
    rows, _ = read(put(tmp_path, "words.csv", table(["word", "label"], "abcdef", GOOD_BAD)), "data.columns.text=word")
    assert list(rows.values["text"]) == list("abcdef")


def test_the_other_columns_become_lists_too(tmp_path: Path) -> None:
    numbers, words, tags = zip(*FLAT, strict=True)
    pos = [word.upper() for word in words]
    source = load_source(
        str(put(tmp_path, "ner.csv", table(["sentence_id", "word", "POS", "tag"], numbers, words, pos, tags)))
    )
    assert source.dataset.column_names == ["id", "tokens", "POS", "tags"]
    assert source.dataset["POS"][0] == [word.upper() for word in WORDS[0]]
    assert source.place(1) == "row 7", "the line of its first word"


# --- tags -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("odd", "form"), [("PER", "B-PER"), ("LOC-B", "B-PER"), ("0", "B-PER")])
def test_a_tag_of_another_form_is_named_with_its_row(odd: str, form: str, tmp_path: Path) -> None:
    tags = [TAGS[0], [odd, *TAGS[1][1:]]]
    path = put(tmp_path, "train.jsonl", lines(*({"tokens": w, "tags": t} for w, t in zip(WORDS, tags, strict=True))))
    text = refused(path)
    assert text.startswith("E263 ") and f"row 2: found the tag '{odd}', while most tags have the form {form}" in text


def test_entity_tags_in_lower_case_are_refused(tmp_path: Path) -> None:
    assert "E263" in refused(put(tmp_path, "train.conll", columns_of(tags=[[t.lower() for t in row] for row in TAGS])))


def test_tags_in_one_cell_are_tags_and_no_class(tmp_path: Path) -> None:
    cells = [" ".join(row) for row in TAGS]
    rows, _ = read(put(tmp_path, "rows.tsv", table(["sentence", "label"], map(" ".join, WORDS), cells, mark="\t")))
    assert rows.values["tags"] == list(map(tuple, TAGS))


# --- spans of characters --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("span", "found"),
    [
        (
            {"start": 12, "end": 99, "label": "LOC"},
            "the span 12 to 99 (LOC) is not in the text, which has 18 characters",
        ),
        ({"start": 5, "end": 5, "label": "LOC"}, "the span 5 to 5 (LOC) is not in the text"),
        ({"start": 0, "end": 3, "label": ""}, "the span 0 to 3 has no label"),
    ],
)
def test_a_span_that_cannot_be_is_named_with_its_row(span: dict[str, Any], found: str, tmp_path: Path) -> None:
    rows = [{"text": text, "spans": [dict(zip(("start", "end", "label"), x, strict=True)) for x in spans]}
            for text, spans in zip(SENTENCES, SPANS, strict=True)]  # fmt: skip
    rows[0]["spans"].append(span)
    text = refused(put(tmp_path, "train.jsonl", lines(*rows)))
    assert text.startswith("E262 ") and f"row 1: {found}" in text


def test_spans_that_cut_words_or_overlap_are_reported(tmp_path: Path) -> None:
    rows = [{"text": "Ann saw Newcastle.", "label": [[0, 3, "PER"], [8, 11, "ADJ"]]},
            {"text": "the University of Oxford", "label": [[4, 24, "ORG"], [18, 24, "LOC"]]}]  # fmt: skip
    read_rows, notes = read(put(tmp_path, "all.jsonl", lines(*rows)))
    assert read_rows.values["tags"] == [("B-PER", "O", "B-ADJ", "O"), ("O", "B-ORG", "I-ORG", "I-ORG")]
    assert "extended 1 span that cut a word to whole words (row 1: 'New' to 'Newcastle')" in " ".join(notes)
    assert "left out 1 span that overlap a longer one" in " ".join(notes) and "row 2: LOC 'Oxford'" in " ".join(notes)


@given(st.lists(st.sampled_from(["Ann", "left", "York", ".", "北", "京"]), min_size=1, max_size=8), st.data())
def test_tags_of_whole_words_give_the_same_spans_back(words: list[str], data: st.DataObject) -> None:
    sentence = words_of(" ".join(words))
    first = data.draw(st.integers(0, len(sentence.spans) - 1))
    last = data.draw(st.integers(first, len(sentence.spans) - 1))
    span = {"start": sentence.spans[first][0], "end": sentence.spans[last][1], "label": "X"}
    reader = SpanTags("rows")
    tags = reader.tags(sentence, [span], "row 1")
    assert tags == ("O",) * first + ("B-X",) + ("I-X",) * (last - first) + ("O",) * (len(tags) - last - 1)
    assert not reader.problems and not reader.notes()


def test_spans_written_into_a_cell(tmp_path: Path) -> None:
    cells = [json.dumps([dict(zip(("start", "end", "label"), x, strict=True)) for x in spans]) for spans in SPANS]
    rows, _ = read(put(tmp_path, "rows.csv", table(["text", "spans"], SENTENCES, cells)))
    assert rows.values["tags"] == list(map(tuple, TAGS))


def test_classes_of_label_studio_and_several_annotators(tmp_path: Path) -> None:
    about = {"annotator": 1, "annotation_id": 1, "created_at": "2026-01-02"}
    rows = [{"id": n, "text": text, "topics": {"choices": labels} if len(labels) > 1 else labels[0], **about}
            for n, (text, labels) in enumerate(zip(TEXTS, [["a", "b"], ["a"], ["b"]] * 2, strict=True))]  # fmt: skip
    found, _ = read(put(tmp_path, "min.json", json.dumps(rows)))
    assert found.values["label"][:2] == [("a", "b"), ("a",)]
    results = [{"result": [{"value": {"choices": [label]}}]} for label in ("a", "b")]
    tasks = [
        {"id": n, "data": {"text": text}, "annotations": results if n else results[1:]} for n, text in enumerate(TEXTS)
    ]
    found, notes = read(put(tmp_path, "full.json", json.dumps(tasks)))
    assert list(found.values["label"]) == ["b", *"aaaaa"]
    assert "used the first annotation of 5 texts with several" in " ".join(notes)


def test_an_object_that_the_tool_does_not_write_is_named(tmp_path: Path) -> None:
    rows = [{"text": SENTENCES[0], "label": [[0, 3, "PER"]]}, {"text": SENTENCES[1], "label": [[0, "x", "PER"]]}]
    with pytest.raises(DataError, match=r"E126 .*line 2: .*expected an annotated text as doccano writes it"):
        load_source(str(put(tmp_path, "all.jsonl", lines(*rows))))


def test_entities_of_brat_that_are_not_in_their_text_are_named(tmp_path: Path) -> None:
    put(tmp_path, "c/1.txt", SENTENCES[0])
    put(tmp_path, "c/1.ann", "T1\tPER 0 3\tAnn\nT2\tLOC 11 16\tParis\nR1\tIn Arg1:T1 Arg2:T2\n")
    with pytest.raises(DataError, match=r"E262 .*1.ann line 2: 'Paris' at 11 to 16, where the text has ' Pari'"):
        load_source(str(tmp_path / "c"))


# --- labels ---------------------------------------------------------------------------------------------------------


def test_minus_one_beside_other_numbers_is_asked_about(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", table(["text", "label"], TEXTS, [0, 1, -1, 0, 1, -1]))
    text = refused(path)
    assert text.startswith("E219 ") and "label -1 in 2 rows (row 4, row 7) beside 0, 1" in text
    rows, notes = read(path, "data.no_label=-1")
    assert list(rows.values["label"]) == ["0", "1", "0", "1"]
    assert "dropped 2 rows without a label ('-1')" in " ".join(notes)
    assert list(read(path, "problem=regression")[0].values["label"]) == ["0", "1", "-1", "0", "1", "-1"]
    assert list(read(path, 'data.label_names=["-1", "0", "1"]')[0].values["label"]) == ["0", "1", "-1", "0", "1", "-1"]


@pytest.mark.parametrize("labels", [[1, -1] * 3, ["+", "-"] * 3])
def test_two_opposite_classes_are_no_missing_labels(labels: list[Any], tmp_path: Path) -> None:
    rows, _ = read(put(tmp_path, "rows.csv", table(["text", "label"], TEXTS, labels)))
    assert list(rows.values["label"]) == list(map(str, labels))


def test_more_empty_texts_than_a_few_are_refused(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", table(["text", "label"], [*TEXTS, ""], [*GOOD_BAD, "good"]))
    assert refused(path).startswith("E210 ")
    assert len(read(path, "data.drop_empty=true")[0]) == 6


def test_lists_of_zeros_and_ones_of_two_labels_are_asked_about(tmp_path: Path) -> None:
    rows = [{"text": text, "labels": [n % 2, 1 - n % 2]} for n, text in enumerate(TEXTS)]
    assert "E218" in refused(put(tmp_path, "rows.jsonl", lines(*rows)))
    rows[0]["labels"] = [1, 1]
    found, _ = read(put(tmp_path, "rows.jsonl", lines(*rows)))
    assert found.values["label"][:2] == [("0", "1"), ("0",)]


def test_a_column_per_label_may_be_named_and_holds_only_zeros_and_ones(tmp_path: Path) -> None:
    content = table(["id", "text", "a", "b", "c"], range(6), TEXTS, [1, 0] * 3, [0, 1] * 3, [1, 1, 0] * 2)
    path = put(tmp_path, "rows.csv", content)
    rows, _ = read(path, "data.columns.label=[a, c]")
    assert rows.values["label"][:2] == [("a", "c"), ("c",)]
    assert "expected columns of" in refused(path, "data.columns.label=[a, d]")
    path = put(tmp_path, "rows.csv", content.replace("1,0,1\n", "2,0,1\n"))
    assert "found '2' (row 2, row 6), expected 0 or 1" in refused(path, "data.columns.label=[a, b]")


def test_two_columns_of_zeros_and_ones_may_be_no_labels(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", table(["text", "toxic", "is_member"], TEXTS, [1, 0] * 3, [0, 0, 1] * 2))
    text = refused(path)
    assert text.startswith("E201 ") and '\'data.columns.label=["toxic", "is_member"]\' if each is a label' in text
    assert list(read(path, "data.columns.label=toxic")[0].values["label"]) == ["1", "0"] * 3


def test_columns_of_zeros_and_ones_beside_a_label_are_no_labels(tmp_path: Path) -> None:
    flags = [[1, 0] * 3, [0, 0, 1] * 2, [1, 1, 0] * 2]
    path = put(tmp_path, "rows.csv", table(["text", "mood", "a", "b", "c"], TEXTS, GOOD_BAD, *flags))
    assert "cannot tell which column is the label" in refused(path)


def test_columns_per_label_are_scored_and_predicted(tiny_model: Path, tmp_path: Path) -> None:
    texts = [f"the {word} was w{n}" for n in range(20) for word in ("food", "room")]
    path = put(tmp_path, "rows.csv", table(["comment", "food", "room"], texts, [1, 0] * 20, [0, 1] * 20))
    recipe = {"model": str(tiny_model), "data": {"train": str(path), "columns": {"label": ["food", "room"]}},
              "training": {"max_steps": 2, "device": "cpu", "precision": "fp32"}}  # fmt: skip
    run = fasttune.fit(recipe, output=tmp_path / "run", progress=False)
    assert run.is_complete
    assert "label:\n    - food\n    - room\n" in (tmp_path / "run" / "recipe.yaml").read_text()
    assert fasttune.evaluate(tmp_path / "run", data=str(path)).keys() >= {"eval_loss"}


@pytest.mark.parametrize("cell", ["['joy' 'fear']", '["joy", "fear"]', "['joy', 'fear']"])
def test_lists_as_programs_print_them(cell: str, tmp_path: Path) -> None:
    cells = [cell, "['joy']", "[]", "['fear']", "['joy']", "['fear']"]
    rows, _ = read(put(tmp_path, "rows.csv", table(["text", "labels"], TEXTS, cells)))
    assert rows.values["label"][:3] == [("joy", "fear"), ("joy",), ()]


def test_a_cell_that_is_no_list_beside_lists_is_named(tmp_path: Path) -> None:
    cells = ["['joy']", "['fear']", "['joy' + 1]", "[]", "['joy']", "['fear']"]
    text = refused(put(tmp_path, "rows.csv", table(["text", "labels"], TEXTS, cells)))
    assert "E205" in text and "\"['joy' + 1]\" (row 4)" in text


def test_a_test_file_without_labels_is_not_scored(tmp_path: Path) -> None:
    train = put(
        tmp_path, "train.csv", table(["text", "label"], [f"{t} {n}" for n in range(10) for t in TEXTS], GOOD_BAD * 10)
    )
    test = put(tmp_path, "test.csv", table(["id", "text"], range(6), TEXTS))
    recipe, _ = recipe_of(str(train), [f"data.test={test}"])
    splits = read_splits(recipe, TASKS)
    assert splits.test is None and "has no labels and is not scored" in " ".join(splits.notes)


# --- JSON of one object ---------------------------------------------------------------------------------------------

ROWS = [{"text": text, "label": label} for text, label in zip(TEXTS, GOOD_BAD, strict=True)]


@pytest.mark.parametrize(
    "document",
    [
        {"version": 1, "data": ROWS},
        {"text": TEXTS, "label": GOOD_BAD},
        {name: {str(n): row[name] for n, row in enumerate(ROWS)} for name in ("text", "label")},
        {"columns": ["text", "label"], "index": list(range(6)), "data": [list(row.values()) for row in ROWS]},
    ],
    ids=["rows under a key", "lists", "pandas", "pandas, split"],
)
def test_one_object_that_holds_all_rows(document: dict[str, Any], tmp_path: Path) -> None:
    rows, _ = read(put(tmp_path, "rows.json", json.dumps(document)))
    assert list(rows.values["text"]) == TEXTS and list(rows.values["label"]) == GOOD_BAD


# --- columns --------------------------------------------------------------------------------------------------------


def test_unsure_means_a_question_with_values_and_no_column_by_position(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", table(["A", "B", "C"], TEXTS, GOOD_BAD, [1, 2, 3] * 2))
    text = refused(path)
    assert "'B': good, bad" in text and "'C': 1, 2, 3" in text
    assert text.endswith("hint: data.columns.text=A data.columns.label=COLUMN")


def test_the_command_line_shows_the_whole_line_to_type(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = put(tmp_path, "my rows.csv", table(["A", "B", "C"], TEXTS, GOOD_BAD, [1, 2, 3] * 2))
    assert cli.run(["train", str(path), "training.max_steps=2"]) == 4
    said = capsys.readouterr().err
    assert f"type: fasttune train '{path}' training.max_steps=2 data.columns.text=A data.columns.label=COLUMN" in said


def test_a_column_that_nobody_reads_never_makes_a_file_unreadable(tmp_path: Path) -> None:
    rows = [{"text": t, "label": x, **({"more": 1} if n else {"other": "a"}), "mixed": [1, "a"][n % 2]}
            for n, (t, x) in enumerate(zip(TEXTS, GOOD_BAD, strict=True))]  # fmt: skip
    path = put(tmp_path, "rows.jsonl", lines(*rows))
    assert len(read(path)[0]) == 6
    assert "E117" in refused(path, "data.columns.label=more")
    assert "E125" in refused(path, "data.columns.label=mixed")


# --- spreadsheets and CSV -------------------------------------------------------------------------------------------


def test_a_workbook_with_two_filled_sheets_is_asked_about(tmp_path: Path) -> None:
    import xlsxwriter

    book = xlsxwriter.Workbook(str(tmp_path / "data.xlsx"))
    for name, mark in (("May", "m"), ("June", "j")):
        page = book.add_worksheet(name)
        for number, row in enumerate([["text", "label"], *zip([f"{t} {mark}" for t in TEXTS], GOOD_BAD, strict=True)]):
            page.write_row(number, 0, row)
    book.close()
    path = tmp_path / "data.xlsx"
    assert "E144" in refused(path) and "'May' (7 rows), 'June' (7 rows)" in refused(path)
    assert read(path, "data.sheet=June")[0].values["text"][0].endswith(" j")
    assert "did" in refused(path, "data.sheet=Juni") or "data.sheet=June" in refused(path, "data.sheet=Juni")


def test_a_row_of_a_sheet_is_named_by_its_number_in_the_program(tmp_path: Path) -> None:
    sheet([["Title", None], [], ["text", "label"], ["two\nlines", "a"], ["", "b"], ["ok", "a"]])(tmp_path)
    text = refused(tmp_path / "data.xlsx", "data.drop_empty=false")
    assert "1 empty text (row 5)" in text


def test_a_spreadsheet_that_is_none_or_too_large_is_refused(tmp_path: Path) -> None:
    assert "E127" in refused(put(tmp_path, "data.xlsx", b"PK\x03\x04 no workbook"))
    sheet([["text", "label"], *([t, x] for t, x in zip(TEXTS, GOOD_BAD, strict=True))])(tmp_path)
    assert "E107" in refused(tmp_path / "data.xlsx", "data.max_bytes=100")


def test_a_total_is_asked_about_and_never_dropped_unasked(tmp_path: Path) -> None:
    path = put(tmp_path, "rows.csv", table(["review", "stars"], [*TEXTS, "Total"], [*([1, 2] * 3), 9]))
    text = refused(path)
    assert text.startswith("E145 ") and "row 8: the last row looks like a total ('Total', '9')" in text
    assert len(read(path, "data.total_row=drop")[0]) == 6
    assert len(read(path, "data.total_row=keep")[0]) == 7


@pytest.mark.parametrize("header", [["email", "spam"], ["0", "1"]])
def test_a_header_that_may_be_a_row_is_asked_about_with_a_preview(header: list[str], tmp_path: Path) -> None:
    text = refused(put(tmp_path, "rows.csv", table(header, TEXTS, [header[1], "x"] * 3)))
    assert text.startswith("E114 ") and f"'{TEXTS[0]}' | '{header[1]}'" in text


def test_a_title_is_skipped_only_above_a_header(tmp_path: Path) -> None:
    titled = "Reviews of May\n\n" + table(["review", "stars"], TEXTS, [1, 2] * 3)
    rows, notes = read(put(tmp_path, "rows.csv", titled))
    assert list(rows.values["text"]) == TEXTS and "skipped 1 title line above the header" in " ".join(notes)
    assert "E1" in refused(put(tmp_path, "rows.csv", "Reviews of May\n" + table(None, TEXTS[:2], ["x", "y"])))


@pytest.mark.parametrize(
    ("text", "encoding", "certain"),
    [
        ("für schöne Größe, „gut“, 5 €", "cp1252", "cp1252"),
        ("I\u2019m sure it\u2019s “fine”", "cp1252", "cp1252"),
        ("très élevé", "cp1252", None),  # or trčs, in cp1250
        ("für schöne Größe", "mac-roman", None),
        ("Příliš žluťoučký", "cp1250", None),
        ("очень хорошо", "cp1251", None),
        ("这不是我们在的那一家酒店", "gb18030", "gb18030"),
        ("이 호텔은 정말 좋아요", "euc_kr", None),
        ("このホテルはとても良いです", "shift_jis", None),
        ("這不是我們在的那一家酒店", "big5", None),
    ],
)
def test_an_encoding_is_certain_only_if_no_other_gives_plausible_text(
    text: str, encoding: str, certain: str | None
) -> None:
    assert certain_encoding(text.encode(encoding)) == certain


# --- writing --------------------------------------------------------------------------------------------------------


def tagged_rows(path: Path) -> tuple[list[dict[str, Any]], Rows]:
    """The gold tags of a file as predictions."""
    recipe, _ = recipe_of(str(path))
    reader = Reader(recipe, TASKS)
    rows = reader.rows(recipe.data.train, TRAIN)[0].rows
    task = reader.task_class.from_rows(rows, reader.recipe, path.name)
    numbers = [[task.target.vocabulary.index[tag] for tag in tags] for tags in rows.values["tags"]]  # type: ignore[attr-defined]

    store = SimpleNamespace(  # one token per word
        starts=np.cumsum([0, *map(len, numbers)]),
        rows=np.arange(len(numbers)),
        token_features={"word": np.concatenate([np.arange(len(row)) for row in numbers])},
    )
    results = np.array([[number, 1.0] for row in numbers for number in row])
    return list(task.decode(results, store, rows)), rows  # type: ignore[arg-type]


def test_conll_columns_come_back_byte_for_byte(tmp_path: Path) -> None:
    path = put(tmp_path, "train.conll", columns_of())
    predictions.write(tmp_path / "out.conll", predictions.with_inputs(*tagged_rows(path)))
    assert (tmp_path / "out.conll").read_bytes() == path.read_bytes()


def test_doccano_comes_back_byte_for_byte(tmp_path: Path) -> None:
    rows = [
        {"id": n, "text": t, "label": [list(x) for x in s]}
        for n, (t, s) in enumerate(zip(SENTENCES, SPANS, strict=True))
    ]
    path = put(tmp_path, "all.jsonl", lines(*rows))
    predictions.write(tmp_path / "out.doccano.jsonl", predictions.with_inputs(*tagged_rows(path)))
    assert (tmp_path / "out.doccano.jsonl").read_bytes() == path.read_bytes()


def test_other_forms_are_written_as_spans_of_characters(tmp_path: Path) -> None:
    rows = [[text, {"entities": spans}] for text, spans in zip(SENTENCES, SPANS, strict=True)]
    path = put(tmp_path, "train.json", json.dumps(rows))
    predictions.write(tmp_path / "out.jsonl", predictions.with_inputs(*tagged_rows(path)))
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [[(e["start"], e["end"], e["type"]) for e in row["entities"]] for row in written] == SPANS
    again, _ = read(tmp_path / "out.jsonl", "data.columns.tokens=text", "data.columns.tags=entities")
    assert [tuple(tags) for tags in again.values["tags"]] == list(map(tuple, TAGS))


def test_tags_cannot_be_written_for_classes(tmp_path: Path) -> None:
    rows = Rows(["0"], {"text": ["good"]})
    with pytest.raises(fasttune.Error, match="predictions without tags"):
        predictions.write(tmp_path / "out.conll", predictions.with_inputs([{"id": "0", "label": "a"}], rows))
    assert not (tmp_path / "out.conll").exists()


# --- the language of the texts --------------------------------------------------------------------------------------

GERMAN = "Das Zimmer war sehr sauber und das Personal freundlich, aber das Frühstück war eine Enttäuschung. " * 8
ENGLISH = "The room was very clean and the staff were friendly, but breakfast was a disappointment for us. " * 8


def test_a_language_that_the_tokenizer_splits_into_pieces() -> None:
    from fasttune.training.model import load_tokenizer

    tokenizer = load_tokenizer("embedded")
    english, german = pieces_per_word([ENGLISH], tokenizer), pieces_per_word([GERMAN], tokenizer)
    assert english is not None and english < 1.2
    assert german is not None and german > MAX_PIECES
    assert pieces_per_word(["".join(CHINESE) * 20], tokenizer) is None, "no spaces between words"
    assert pieces_per_word(["too short"], tokenizer) is None


def test_a_folder_with_the_name_of_a_shipped_recipe_is_asked_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "mrpc/train.tsv", table(["text", "label"], TEXTS, GOOD_BAD, mark="\t"))
    with pytest.raises(fasttune.Error, match=r"E314 mrpc: .*\n.*\./mrpc for the folder"):
        recipe_of("mrpc")
    assert recipe_of("./mrpc")[0].data.train == "./mrpc"
    put(tmp_path, "mrpc/recipe.yaml", "")  # a run folder
    assert recipe_of("mrpc")[0].data.train == "nyu-mll/glue:mrpc:train"


def test_check_shows_what_was_understood_and_the_first_rows(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": f"the food was w{n} w{n // 2}", "label": [[4, 8, "DISH"]]} for n in range(40)]
    path = put(tmp_path, "all.jsonl", lines(*rows))
    assert cli.run(["check", str(path), f"model={tiny_model}", "training.precision=fp32", "training.device=cpu"]) == 0
    out, err = capsys.readouterr()
    assert "  task        token-classification\n  columns     tokens = 'text', tags = 'spans'\n  labels      2: " in err
    assert "the [food] DISH was w" in out and out.count("[food] DISH") == 3
