"""SQuAD files become flat rows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fasttune.data.sources import load_source
from fasttune.errors import DataError

CONTEXT = "Ann came at noon."


def document(*questions: dict[str, Any], **changes: Any) -> dict[str, Any]:
    paragraph = {"context": CONTEXT, "qas": list(questions), **changes}
    return {"version": "v2.0", "data": [{"title": "Ann", "paragraphs": [paragraph]}]}


def question(number: int, **changes: Any) -> dict[str, Any]:
    made = {"id": f"q{number}", "question": "Who came?", "answers": [{"text": "Ann", "answer_start": 0}], **changes}
    return {key: value for key, value in made.items() if value is not ...}


def rows_of(folder: Path, content: Any) -> list[dict[str, Any]]:
    path = folder / "squad.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return load_source(str(path)).dataset.to_list()


def test_one_row_a_question(tmp_path: Path) -> None:
    asked = [
        question(1),
        question(2, answers=[{"text": "Ann", "answer_start": 0}, {"text": "noon", "answer_start": 12}]),
        question(3, is_impossible=True, answers=[], plausible_answers=[{"text": "noon", "answer_start": 12}]),
    ]
    common = {"title": "Ann", "context": CONTEXT, "question": "Who came?"}
    assert rows_of(tmp_path, document(*asked)) == [
        {"id": "q1", **common, "answers": {"text": ["Ann"], "answer_start": [0]}},
        {"id": "q2", **common, "answers": {"text": ["Ann", "noon"], "answer_start": [0, 12]}},
        {"id": "q3", **common, "answers": {"text": [], "answer_start": []}},
    ]


def test_articles_alone_and_files_of_questions_only(tmp_path: Path) -> None:
    article = document(question(1, answers=...))["data"][0]
    expected = [{"id": "q1", "title": "Ann", "context": CONTEXT, "question": "Who came?"}]
    assert rows_of(tmp_path, article) == rows_of(tmp_path, [article]) == expected


@pytest.mark.parametrize(
    ("content", "where", "found"),
    [
        (document(question(1, question=7)), "article 1, paragraph 1, question 1", "question: 7"),
        (document(question(1), context=...), "article 1, paragraph 1", "context: Ellipsis"),
        (document({"id": "q"}), "article 1, paragraph 1, question 1", "no question"),
        (document(question(1, answers=7)), "article 1, paragraph 1, question 1", "answers: 7"),
        (document(question(1, answers=[{"a": 1}])), "article 1, paragraph 1, question 1", "answers: [{'a': 1}]"),
        (document(question(1), qas={}), "article 1, paragraph 1", "qas: {}"),
        (
            document(question(1), question(2, answers=...)),
            "",
            "question q2 has neither answers nor is_impossible, but other questions do",
        ),
    ],
)
def test_what_is_missing_is_said_with_its_place(tmp_path: Path, content: Any, where: str, found: str) -> None:
    text = json.dumps(content, default=lambda value: None)
    path = tmp_path / "squad.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_source(str(path))
    problem = caught.value.problems[0]
    assert problem.code == "E124" and problem.where == f"{path} {where}".rstrip()
    assert problem.found == found.replace("Ellipsis", "None")


def test_a_file_without_questions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the file has no questions"):
        rows_of(tmp_path, document())


@pytest.mark.real_data
def test_published_files(real_data: Path) -> None:
    assert load_source(str(real_data / "squad_v1" / "dev.json")).dataset.num_rows == 4961
    found = load_source(str(real_data / "squad_v2" / "sixteen_articles.json")).dataset
    assert found.num_rows == 6078 and sum(not answers["text"] for answers in found["answers"]) == 3168
    assert len(set(found["title"])) == 16
