"""Answers and entities where people look at rows, on a terminal and in a notebook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fasttune import api
from fasttune.cli import commands as cli
from fasttune.security.terminal import Terminal
from fasttune.tasks import preview
from fasttune.tasks.highlights import Mark, marks_of, text_of
from fasttune.tasks.preview import Preview, pieces_of

QUESTION = {
    "question": "Who?",
    "context": "Ann met Bob.",
    "answers": {"text": ["Bob", "Ann", "Bo"], "answer_start": [8, 0, 8]},
}
SENTENCE = {"tokens": ["Ann", "Lee", "came", "to", "巴", "黎"], "tags": ["B-PER", "I-PER", "O", "O", "B-LOC", "I-LOC"]}


def test_answers_and_entities_are_found_where_they_stand() -> None:
    assert marks_of(QUESTION) == {"context": [Mark(0, 3, "answer"), Mark(8, 10, "answer")]}
    assert marks_of({**QUESTION, "answers": "Bob"}) == {"context": [Mark(8, 11, "answer")]}
    assert marks_of(SENTENCE) == {"tokens": [Mark(0, 7, "PER"), Mark(16, 18, "LOC")]}
    assert text_of(SENTENCE["tokens"]) == "Ann Lee came to 巴黎"


@pytest.mark.parametrize(
    "row",
    [
        {"text": "well", "label": "1"},
        {**QUESTION, "answers": {"text": ["Bob"], "answer_start": [7]}},
        {**QUESTION, "answers": 7},
        {**QUESTION, "answers": None},
        {**SENTENCE, "tags": ["O"]},
        {**SENTENCE, "tags": ["NN", "NN", "VB", "TO", "NN", "NN"]},
        {**SENTENCE, "tokens": "Ann Lee"},
    ],
)
def test_what_cannot_be_marked_is_not(row: dict) -> None:
    assert marks_of(row) == {}


def test_a_mark_far_down_is_shown_with_what_is_round_it() -> None:
    text = "x" * 1000 + "Ann" + "y" * 1000
    pieces = list(pieces_of(text, [Mark(1000, 1003, "answer")]))
    assert [piece.text for piece in pieces if piece.name] == ["Ann"]
    assert pieces[0].text == "(850 characters before) ... "
    assert pieces[-1].text.endswith("... (753 more characters)")
    assert [piece.text for piece in pieces_of("short", [])] == ["short"]


def test_rows_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(preview, "Terminal", lambda **options: Terminal(width=100, **options))
    preview.print_rows(Preview("data", ["a note"], [QUESTION, {**QUESTION, "context": "[red]\x1b[31mAnn"}]))
    said = capsys.readouterr().out
    assert "[Ann] met [Bo]b." in said and "a note" in said
    assert "[red]\\x1b[31mAnn" in said


def test_rows_in_a_notebook_are_text() -> None:
    row = {**QUESTION, "question": "<script>alert(1)</script>", "context": "Ann met <b>Bob</b>."}
    html = Preview("data <i>", [], [row])._repr_html_()
    assert "<mark title='answer'>Ann</mark> met &lt;b&gt;" in html
    assert "<script>" not in html and "<i>" not in html


def test_tokens_are_shown_where_they_are_asked_for(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "data.csv"
    path.write_text("text,label\ngood food,1\n")
    assert api.show(str(path), num_rows=1).tokens is None
    assert api.show(str(path), num_rows=1, tokenizer=str(tiny_model)).tokens == [["[CLS]", "good", "food", "[SEP]"]]
    assert cli.run(["show", str(path), "-n", "1", "--tokens", "--model", str(tiny_model), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == {"text": "good food", "label": "1", "model_tokens": ["[CLS]", "good", "food", "[SEP]"]}
    assert cli.run(["show", str(path), "-n", "1", "--tokens", "--model", str(tiny_model)]) == 0
    assert "4: [CLS] good food [SEP]" in capsys.readouterr().out
    path.write_text("Review,Title,label\ngood food,bad room,1\n")
    named = api.show(str(path), num_rows=1, tokenizer=str(tiny_model), overrides=["data.columns.text=Title"])
    assert named.tokens == [["[CLS]", "bad", "room", "[SEP]"]]
    path.write_bytes("text,label\ncafé,1\n".encode("cp1252"))
    assert cli.run(["show", str(path), "data.encoding=cp1252", "-n", "1", "--json"]) == 0
    assert "café" in capsys.readouterr().out
