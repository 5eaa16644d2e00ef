"""Flatten SQuAD v1.1 and v2.0 files, and those of its relatives: articles -> paragraphs -> questions with answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fasttune.data.answer_cells import flag_of, pairs_of
from fasttune.data.problems import Problems, counted, some_of
from fasttune.errors import DataError, Problem, shown

Row = dict[str, Any]


NO_ANSWERS: dict[str, list[Any]] = {"text": [], "answer_start": []}
# The first key is SQuAD's; the others are those of its relatives.
CONTEXT, QUESTION, ID = ("context", "context_text"), ("question", "query_text"), ("id", "query_id")


def is_squad(value: Any) -> bool:
    """Return whether a JSON document is a SQuAD file, or an article or a paragraph of one."""
    if not isinstance(value, dict):
        return False
    articles = value.get("data")
    return _is_article(value) or (isinstance(articles, list) and bool(articles) and _is_article(articles[0]))


def _is_article(value: Any) -> bool:
    return isinstance(value, dict) and (isinstance(value.get("paragraphs"), list) or _is_paragraph(value))


def _is_paragraph(value: dict[str, Any]) -> bool:
    return isinstance(value.get("qas"), list) and any(key in value for key in CONTEXT)


def are_answers(value: Any) -> bool:
    """Return whether a cell has answers in the form of the hub: {"text": [...], "answer_start": [...]}."""
    return (
        isinstance(value, dict)
        and set(value) == {"text", "answer_start"}
        and all(isinstance(part, list) for part in value.values())
        and all(isinstance(text, str) for text in value["text"])
        and all(start is None or type(start) is int for start in value["answer_start"])
    )


def flat_rows(document: dict[str, Any], where: str) -> list[Row]:
    """Return one row per question: id, title, context, question and answers in the form of the hub.

    The answers are left out if the file has none at all. A question with is_impossible has no answers; its
    plausible_answers are ignored. A start that the file leaves out is None.
    """
    problems = Problems(where)
    rows: list[Row] = []
    open_ids: list[str] = []  # of questions that should have an answer, by is_impossible, but list none
    articles = document.get("data", [document])
    for number, article in enumerate(articles, start=1):
        rows += _of_article(article, f"{where} article {number}", problems, open_ids)
    if len(open_ids) == len(rows):  # questions to predict
        rows = [{key: value for key, value in row.items() if key != "answers"} for row in rows]
    elif open_ids:
        found = f"{counted(len(open_ids), 'question')} with is_impossible: false and no answer ({some_of(open_ids)})"
        hint = "is_impossible: true if the context has no answer; otherwise add the answer, or remove the question"
        problems.add(Problem(code="E247", where=where, found=found, hint=hint))
    if any("answers" in row for row in rows):
        for row in rows:
            if "answers" not in row:
                found = f"question {row['id']} has neither answers nor is_impossible, but other questions do"
                problems.add(Problem(code="E124", where=where, found=found))
    problems.raise_if_any()
    if not rows:
        raise DataError(Problem(code="E104", where=where, found="the file has no questions"))
    return rows


def _of_article(article: Any, where: str, problems: Problems, open_ids: list[str]) -> Iterator[Row]:
    if _is_article(article) and "paragraphs" not in article:
        article = {**article, "paragraphs": [article]}
    for position, paragraph in enumerate(_part(article, "paragraphs", list, where, problems) or (), start=1):
        place = f"{where}, paragraph {position}"
        context = _part(paragraph, _key_of(paragraph, CONTEXT), str, place, problems)
        for number, question in enumerate(_part(paragraph, "qas", list, place, problems) or (), start=1):
            question_place = f"{place}, question {number}"
            text = _part(question, _key_of(question, QUESTION), str, question_place, problems)
            if context is None or text is None:
                continue
            title = article.get("title")
            row_id = question.get(_key_of(question, ID))
            row: Row = {
                "id": question_place if row_id is None else str(row_id),
                "title": "" if title is None else str(title),
                "context": context,
                "question": text,
            }
            num_problems = len(problems)
            impossible = _is_impossible(question, question_place, problems)
            answers = _answers(question, impossible, question_place, problems)
            if impossible is False and answers == NO_ANSWERS and len(problems) == num_problems:
                open_ids.append(row["id"])
            yield row if answers is None else {**row, "answers": answers}


def _key_of(holder: Any, names: tuple[str, ...]) -> str:
    return next((name for name in names if isinstance(holder, dict) and name in holder), names[0])


def _is_impossible(question: Row, where: str, problems: Problems) -> bool | None:
    given = question.get("is_impossible")
    try:
        return flag_of(given)
    except ValueError:
        found, expected = f"is_impossible: {shown(given)}", "true or false"
        problems.add(Problem(code="E124", where=where, found=found, expected=expected))
        return None


def _answers(question: Row, impossible: bool | None, where: str, problems: Problems) -> dict[str, list[Any]] | None:
    """Return the answers, or None if the question has no such entry, as in a file of questions to predict."""
    given = question.get("answers")
    if given is None and not impossible:
        return None
    try:
        pairs = pairs_of(given, None, "")
    except (KeyError, TypeError, ValueError):
        expected = 'a list of {"text": ..., "answer_start": ...}, as in SQuAD files'
        problems.add(Problem(code="E124", where=where, found=f"answers: {shown(given)}", expected=expected))
        return NO_ANSWERS
    if impossible and pairs:
        found = f"is_impossible: true together with answers {shown(given)}"
        expected = "no answers to an impossible question (plausible_answers may list near misses)"
        hint = 'is_impossible: false, or "answers": []'
        problems.add(Problem(code="E247", where=where, found=found, expected=expected, hint=hint))
    return {"text": [text for text, _ in pairs], "answer_start": [start for _, start in pairs]}


def _part(holder: Any, key: str, kind: type, where: str, problems: Problems) -> Any:
    """Return `holder[key]`; if it is missing or has the wrong type, add a problem and return None."""
    value = holder.get(key) if isinstance(holder, dict) else None
    if isinstance(value, kind) and not isinstance(value, bool):
        return value
    found = f"{key}: {shown(value)}" if isinstance(holder, dict) and key in holder else f"no {key}"
    problems.add(
        Problem(
            code="E124",
            where=where,
            found=found,
            expected=f"a {'list' if kind is list else 'string'}, as in SQuAD files",
        )
    )
    return None
