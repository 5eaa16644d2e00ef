"""Flatten SQuAD v1.1 and v2.0 files into rows: articles -> paragraphs -> questions with answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fasttune.data.problems import Problems
from fasttune.errors import DataError, Problem, shown

Row = dict[str, Any]


def is_squad(value: Any) -> bool:
    """Return whether a JSON document is a SQuAD file, or an article of one."""
    if not isinstance(value, dict):
        return False
    articles = value.get("data")
    return isinstance(value.get("paragraphs"), list) or (
        isinstance(articles, list)
        and bool(articles)
        and isinstance(articles[0], dict)
        and isinstance(articles[0].get("paragraphs"), list)
    )


def are_answers(value: Any) -> bool:
    """Return whether a cell has answers in the form of the hub: {"text": [...], "answer_start": [...]}."""
    return (
        isinstance(value, dict)
        and set(value) == {"text", "answer_start"}
        and all(isinstance(part, list) for part in value.values())
        and all(isinstance(text, str) for text in value["text"])
        and all(type(start) is int for start in value["answer_start"])
    )


def flat_rows(document: dict[str, Any], where: str) -> list[Row]:
    """Return one row per question: id, title, context, question and answers in the form of the hub.

    The answers are left out if the file has none at all. A question with is_impossible has no answers; its
    plausible_answers are ignored.
    """
    problems = Problems(where)
    rows: list[Row] = []
    articles = document.get("data", [document])
    for number, article in enumerate(articles, start=1):
        rows += _of_article(article, f"{where} article {number}", problems)
    if any("answers" in row for row in rows):
        for row in rows:
            if "answers" not in row:
                found = f"question {row['id']} has neither answers nor is_impossible, but other questions do"
                problems.add(Problem(code="E124", where=where, found=found))
    problems.raise_if_any()
    if not rows:
        raise DataError(Problem(code="E104", where=where, found="the file has no questions"))
    return rows


def _of_article(article: Any, where: str, problems: Problems) -> Iterator[Row]:
    for position, paragraph in enumerate(_part(article, "paragraphs", list, where, problems) or (), start=1):
        place = f"{where}, paragraph {position}"
        context = _part(paragraph, "context", str, place, problems)
        for number, question in enumerate(_part(paragraph, "qas", list, place, problems) or (), start=1):
            question_place = f"{place}, question {number}"
            text = _part(question, "question", str, question_place, problems)
            if context is None or text is None:
                continue
            title = article.get("title")
            row_id = question.get("id")
            row: Row = {
                "id": question_place if row_id is None else str(row_id),
                "title": "" if title is None else str(title),
                "context": context,
                "question": text,
            }
            answers = _answers(question, question_place, problems)
            yield row if answers is None else {**row, "answers": answers}


def _answers(question: Row, where: str, problems: Problems) -> dict[str, list[Any]] | None:
    """Return the answers, or None if the question has no such entry, as in a file of questions to predict."""
    if question.get("is_impossible") is True:
        if question.get("answers"):
            found = f"is_impossible: true together with answers {shown(question['answers'])}"
            expected = "no answers to an impossible question (plausible_answers may list near misses)"
            hint = 'is_impossible: false, or "answers": []'
            problems.add(Problem(code="E247", where=where, found=found, expected=expected, hint=hint))
        return {"text": [], "answer_start": []}
    if question.get("answers") is None:
        return None
    answers: dict[str, list[Any]] = {"text": [], "answer_start": []}
    for answer in _part(question, "answers", list, where, problems) or ():
        text = _part(answer, "text", str, where, problems)
        start = _part(answer, "answer_start", int, where, problems)
        if text is not None and start is not None:
            answers["text"].append(text)
            answers["answer_start"].append(start)
    return answers


def _part(holder: Any, key: str, kind: type, where: str, problems: Problems) -> Any:
    """Return `holder[key]`; if it is missing or has the wrong type, add a problem and return None."""
    value = holder.get(key) if isinstance(holder, dict) else None
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    names = {list: "a list", str: "a string", int: "an integer"}
    found = f"{key}: {shown(value)}" if isinstance(holder, dict) and key in holder else f"no {key}"
    problems.add(Problem(code="E124", where=where, found=found, expected=f"{names[kind]}, as in SQuAD files"))
    return None
