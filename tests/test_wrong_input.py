"""What a user reads for data of each task that cannot be learned from: found before any step, exit code 4."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fasttune.cli import commands as cli

CONTEXT = "Zoë met Ann in Paris."
QUESTIONS = "task=question-answering"
BATCH = "training.batch_size=2"
WORDS = "task=token-classification"


def question(text: str, start: int, asked: str = "Who came?") -> dict[str, Any]:
    return {"question": asked, "context": CONTEXT, "answers": {"text": [text], "answer_start": [start]}}


PAIR = {"sentence1": "Ann came.", "label": "1"}
CASES: dict[str, tuple[list[dict[str, Any]], list[str], str]] = {
    "answer_start off by one": (
        [question("Ann", 8), question("Ann", 9)],
        [QUESTIONS],
        "E245 rows.jsonl row 2: answer 'Ann' does not start at 9 (counted in bytes): the context has 'nn ' there; "
        "answer_start should be 8\n",
    ),
    "answer_start one too few": (
        [question("Ann", 8), question("Ann", 7)],
        [QUESTIONS],
        "E240 rows.jsonl row 2: answer 'Ann' does not start at 7: the context has ' An' there; "
        "answer_start should be 8\n",
    ),
    "answer not in the context": (
        [question("Ann", 8), question("Bob", 8)],
        [QUESTIONS],
        "E241 rows.jsonl row 2: answer 'Bob' does not occur in the context\n",
    ),
    "offsets in bytes": (
        [question("Paris", 16)],
        [QUESTIONS],
        "E245 rows.jsonl row 1: answer 'Paris' does not start at 16 (counted in bytes): the context has 'aris.' "
        "there; answer_start should be 15\n",
    ),
    "stride of max_length": (
        [question("Ann", 8)] * 2,
        [QUESTIONS, "data.validation=rows.jsonl", "preprocessing.max_length=32", BATCH, "preprocessing.doc_stride=32"],
        "E257 rows.jsonl: 2 questions of up to 3 tokens (id 0, id 1) leave too little room for the context: "
        "no question fits (preprocessing.max_length 32, minus 3 special tokens, minus preprocessing.doc_stride 32, "
        "minus 1 to advance)\n  hint: preprocessing.doc_stride=25",
    ),
    "question longer than max_length": (
        [question("Ann", 8), question("Ann", 8, "Who " * 40)],
        [QUESTIONS, "data.validation=rows.jsonl", "preprocessing.max_length=32", BATCH, "preprocessing.doc_stride=4"],
        "E257 rows.jsonl: the question of 40 tokens (id 1) leaves too little room for the context: questions may have "
        "at most 24 tokens (preprocessing.max_length 32, minus 3 special tokens, minus preprocessing.doc_stride 4, "
        "minus 1 to advance)\n  hint: shorter questions, or a larger max_length",
    ),
    "pair column missing": (
        [PAIR, {**PAIR, "label": "0"}],
        ["data.columns.text_pair=sentence2"],
        "E202 data.columns.text_pair: found 'sentence2', expected a column of rows.jsonl: 'sentence1', 'label'",
    ),
    "tags of other length than tokens": (
        [{"tokens": ["Ann", "came"], "tags": ["B-PER", "O"]}, {"tokens": ["Ann", "came"], "tags": ["O"]}],
        [WORDS],
        "E261 rows.jsonl row 2: found 2 words and 1 tag, expected one tag per word",
    ),
    "free text as label": (
        [{"text": f"review {number}", "label": f"I liked number {number}"} for number in range(12)],
        [],
        "E216 rows.jsonl: found 12 different labels in 12 rows, such as",
    ),
    "label unseen in training": (
        [{"text": f"review {number}", "label": "good" if number % 2 else "bad"} for number in range(12)],
        ["data.validation=others.jsonl"],
        "E214 others.jsonl: found label 'goood' in 1 row (first: row 1), never in the training data, "
        "expected one of 'bad', 'good'\n  hint: did you mean good?",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_data_is_named_with_its_row_and_a_remedy(
    case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, overrides, expected = CASES[case]
    monkeypatch.chdir(tmp_path)
    for name, content in (("rows.jsonl", rows), ("others.jsonl", [{"text": "fine", "label": "goood"}])):
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert cli.run(["train", "rows.jsonl", *overrides]) == 4
    said = capsys.readouterr()
    assert said.err.startswith(f"error: {expected}"), said.err
    assert "Traceback" not in said.err and not said.out
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before, "no file is made or changed"
