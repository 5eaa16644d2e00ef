"""Questions in the forms in which data sets publish them, read with the file name as the only setting."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fasttune.api import recipe_of
from fasttune.data.reading import ANY, Reader
from fasttune.errors import DataError
from fasttune.tasks import TASKS

Row = dict[str, Any]
WHO, WHERE, WHY = "Who was seen?", "Where?", "Why?"
CONTEXT = "Zoë saw Ann. Later Ann flew to Paris."
NO_ANSWER: tuple[Any, ...] = ()
ANN, PARIS = ("Ann", 8), ("Paris", 31)  # the first Ann; there are two
BOTH = [(WHO, CONTEXT, (ANN,)), (WHERE, CONTEXT, (PARIS,))]
OPEN = [*BOTH, (WHY, CONTEXT, NO_ANSWER)]


class Found(NamedTuple):
    rows: list[tuple[Any, ...]]
    notes: tuple[str, ...]
    ids: list[str]


def read(path: Path, **overrides: Any) -> Found:
    recipe, _ = recipe_of(str(path), [f"data.{name}={value}" for name, value in overrides.items()])
    rows = Reader(recipe, TASKS).rows(recipe.data.train, "train")[0].rows
    assert recipe.task == "question-answering"
    for context, answers in zip(rows.values["context"], rows.values["answers"], strict=True):
        assert all(context.startswith(*answer) for answer in answers)
    values = (rows.values[role] for role in ("question", "context", "answers"))
    found = [(asked, context, tuple(map(tuple, answers))) for asked, context, answers in zip(*values, strict=True)]
    return Found(found, rows.notes, list(rows.ids))


def refused(path: Path, **overrides: Any) -> list[tuple[str, str]]:
    """The code and the text of each problem."""
    with pytest.raises(DataError) as caught:
        read(path, **overrides)
    return [(problem.code, str(problem).replace(f"{path} ", "")) for problem in caught.value.problems]


def write(folder: Path, name: str, content: Any) -> Path:
    """Dicts as the ending of `name` says: an object or a list as .json, else rows."""
    path = folder / name
    if name.endswith(".json"):
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    elif name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in content), encoding="utf-8")
    elif name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(content), path)
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    return path


# --- SQuAD's relatives ----------------------------------------------------------------------------------------------


def answer(pair: tuple[str, int], **more: Any) -> Row:
    return {"text": pair[0], "answer_start": pair[1], **more}


def paragraph(*questions: Row, **more: Any) -> Row:
    return {"context": CONTEXT, "qas": list(questions), **more}


def asked(question: str, *answers: Any, **more: Any) -> Row:
    return {"question": question, "answers": list(answers), **more}


def squad(*questions: Row, article: Row | None = None, **more: Any) -> Row:
    return {"version": "v1.0", "data": [{**(article or {}), "paragraphs": [paragraph(*questions, **more)]}]}


GERMAN = {"document_id": 43958, "question_id": 51870, "answer_end": 11}
NESTED: dict[str, tuple[Any, list[tuple[Any, ...]], list[str]]] = {
    "cmrc2018: ids of articles and paragraphs": (
        squad(
            asked(WHO, answer(ANN), answer(ANN), answer(("Zoë saw Ann", 0)), id="DEV_0_QUERY_0"),
            asked(WHERE, answer(PARIS), id="DEV_0_QUERY_1"),
            article={"id": "DEV_0", "title": "Zoë"},
            id="DEV_0",
        ),
        [(WHO, CONTEXT, (ANN, ANN, ("Zoë saw Ann", 0))), (WHERE, CONTEXT, (PARIS,))],
        ["DEV_0_QUERY_0", "DEV_0_QUERY_1"],
    ),
    "cmrc2018, first release: other keys, texts without starts": (
        [
            {
                "context_id": "TRIAL_0",
                "context_text": CONTEXT,
                "qas": [{"query_text": WHERE, "query_id": "TRIAL_0_QUERY_0", "answers": ["Paris", "to Paris"]}],
                "title": "Zoë",
            }
        ],
        [(WHERE, CONTEXT, (PARIS, ("to Paris", 28)))],
        ["TRIAL_0_QUERY_0"],
    ),
    "DRCD: answers with ids": (
        squad(
            asked(WHO, answer(ANN, id="1"), id="1001-10-1"),
            asked(WHERE, answer(PARIS, id="1"), id="1001-10-2"),
            article={"title": "Zoë", "id": "1001"},
            id="1001-10",
        ),
        BOTH,
        ["1001-10-1", "1001-10-2"],
    ),
    "DuReader-robust: no titles": (
        squad(asked(WHO, answer(ANN), id="81f"), asked(WHERE, answer(PARIS), id="4c0")),
        BOTH,
        ["81f", "4c0"],
    ),
    "DuReader-checklist: an empty answer at -1": (
        squad(
            asked(WHO, answer(ANN), id="a", type="in-domain", is_impossible=False),
            asked(WHERE, answer(PARIS), id="b", type="in-domain", is_impossible=False),
            asked(WHY, answer(("", -1)), id="c", type="in-domain", is_impossible=True),
            title="",
        ),
        OPEN,
        ["a", "b", "c"],
    ),
    "GermanQuAD: numbers as ids, answers with an end and a category": (
        squad(
            asked(WHO, answer(ANN, answer_id=1, answer_category="SHORT", **GERMAN), id=51870, is_impossible=False),
            asked(WHERE, answer(PARIS, answer_id=2, answer_category="LONG", **GERMAN), id=51871, is_impossible=False),
            document_id=43958,
        ),
        BOTH,
        ["51870", "51871"],
    ),
    "KorQuAD 1.0": (
        {**squad(asked(WHO, answer(ANN), id="6566495-0-0"), article={"title": "Zoë"}), "version": "KorQuAD_v1.0"},
        BOTH[:1],
        ["6566495-0-0"],
    ),
    "haystack: is_impossible with and without answers": (
        squad(
            asked(WHO, answer(ANN, answer_category=None, **GERMAN), id=1, is_impossible=False, annotator="x"),
            asked(WHERE, answer(PARIS, answer_category="SHORT", **GERMAN), id=2, is_impossible=False),
            asked(WHY, id=3, is_impossible=True),
            document_id=7,
            document_name="zoe.txt",
        ),
        OPEN,
        ["1", "2", "3"],
    ),
    "one answer that is an object": (
        squad(
            {"question": WHO, "id": 1, "answers": answer(ANN)}, {"question": WHERE, "id": 2, "answers": answer(PARIS)}
        ),
        BOTH,
        ["1", "2"],
    ),
    "answers of a question in the form of the hub": (
        squad({"question": WHO, "id": 1, "answers": {"text": ["Ann"], "answer_start": [8]}}),
        BOTH[:1],
        ["1"],
    ),
    "starts as texts, is_impossible as 0 and 1": (
        squad(
            asked(WHO, {"text": "Ann", "answer_start": "8"}, id=1, is_impossible=0), asked(WHY, id=2, is_impossible=1)
        ),
        [BOTH[0], OPEN[2]],
        ["1", "2"],
    ),
    "an answer without a start that occurs once": (
        squad(asked(WHO, answer(ANN), id=1), asked(WHERE, {"text": "Paris"}, id=2)),
        BOTH,
        ["1", "2"],
    ),
    "paragraphs without articles": (
        {"data": [paragraph(asked(WHO, answer(ANN), id=1)), paragraph(asked(WHERE, answer(PARIS), id=2))]},
        BOTH,
        ["1", "2"],
    ),
}


@pytest.mark.parametrize("name", NESTED)
def test_relatives_of_squad(name: str, tmp_path: Path) -> None:
    content, rows, ids = NESTED[name]
    assert read(write(tmp_path, "dev.json", content)) == (rows, (), ids)


def test_a_file_of_paragraphs_by_line(tmp_path: Path) -> None:
    lines = [paragraph(asked(WHO, answer(ANN), id=1)), paragraph(asked(WHERE, answer(PARIS), id=2))]
    assert read(write(tmp_path, "dev.jsonl", lines)).rows == BOTH


def test_an_answerable_question_without_an_answer_is_not_taken_for_an_unanswerable_one(tmp_path: Path) -> None:
    content = squad(asked(WHO, answer(ANN), id=1, is_impossible=False), asked(WHERE, id=2, is_impossible=False))
    ((code, text),) = refused(write(tmp_path, "dev.json", content))
    assert code == "E247" and "1 question with is_impossible: false and no answer (2)" in text
    assert "hint: is_impossible: true if the context has no answer" in text


def test_a_file_in_which_no_question_is_answered_has_questions_to_predict(tmp_path: Path) -> None:
    path = write(tmp_path, "test.json", squad(asked(WHO, id=1, is_impossible=False)))
    recipe, _ = recipe_of({"task": "question-answering", "data": {"train": str(path)}})
    assert list(Reader(recipe, TASKS).rows(str(path), ANY, need_labels=False)[0].rows.values["question"]) == [WHO]
    with pytest.raises(DataError, match="E201"):
        Reader(recipe, TASKS).rows(str(path), "train")


@pytest.mark.parametrize(
    ("wrong", "code", "text"),
    [
        (asked(WHERE, answer(PARIS), is_impossible=True, id=2), "E247", "question 2: found is_impossible: true"),
        (asked(WHERE, answer(PARIS), is_impossible="maybe", id=2), "E124", "question 2: found is_impossible: 'maybe'"),
        (asked(WHERE, {"answer_start": 3}, id=2), "E124", "question 2: found answers: [{'answer_start': 3}]"),
        ({"answers": [answer(PARIS)], "id": 2}, "E124", "question 2: found no question"),
        (asked(WHERE, answer(("Paris", 30)), id=2), "E240", "row 2: answer 'Paris' does not start at 30"),
        (asked(WHERE, answer(("Rome", 31)), id=2), "E241", "row 2: answer 'Rome' does not occur in the context"),
        (asked(WHERE, {"text": "Ann"}, id=2), "E248", "row 2: answer 'Ann' occurs 2 times in the context"),
    ],
)
def test_wrong_questions_are_named(wrong: Row, code: str, text: str, tmp_path: Path) -> None:
    ((found, message),) = refused(write(tmp_path, "dev.json", squad(asked(WHO, answer(ANN), id=1), wrong)))
    assert found == code and text in message


# --- rows -----------------------------------------------------------------------------------------------------------


def rows_with(*cells: Row, **more: Any) -> list[Row]:
    return [
        {"id": f"q{number}", "title": "Zoë", "context": CONTEXT, "question": question, **cell, **more}
        for number, (question, cell) in enumerate(zip((WHO, WHERE, WHY), cells, strict=False))
    ]


HUB: dict[str, list[Any]] = {  # answers to the three questions; the last has none
    "the hub": [
        {"text": ["Ann"], "answer_start": [8]},
        {"text": ["Paris"], "answer_start": [31]},
        {"text": [], "answer_start": []},
    ],
    "objects in a list": [[answer(ANN)], [answer(PARIS)], []],
    "objects in a list, with ends": [[answer(ANN, answer_end=11)], [answer(PARIS, answer_end=36)], []],
}


@pytest.mark.parametrize("ending", ["jsonl", "json", "parquet"])
@pytest.mark.parametrize("form", HUB)
def test_rows_of_the_hub(form: str, ending: str, tmp_path: Path) -> None:
    rows = rows_with(*({"answers": cell} for cell in HUB[form]), source="wiki", level=3)
    assert read(write(tmp_path, f"train.{ending}", rows)).rows == OPEN


def test_one_object_as_answers(tmp_path: Path) -> None:
    rows = rows_with({"answers": answer(ANN)}, {"answers": answer(PARIS)})
    assert read(write(tmp_path, "train.jsonl", rows)).rows == BOTH


def test_an_unused_key_never_makes_rows_unreadable(tmp_path: Path) -> None:
    rows = rows_with(*({"answers": cell} for cell in HUB["the hub"]))
    rows[0] |= {"plausible_answers": [], "level": 1, "meta": {"a": [1]}, "many": [1, "a"]}
    rows[1] |= {"level": "hard", "meta": "none", "many": [[]]}
    rows[2] |= {"level": None, "meta": 1.5, "many": []}
    path = write(tmp_path, "train.jsonl", rows)
    assert read(path).rows == OPEN
    assert any(
        "row 1 and" in problem or "row 2" in problem for _, problem in refused(path, **{"columns.group": "level"})
    )
    del rows[1]["question"]
    ((code, text),) = refused(write(tmp_path, "train.jsonl", rows))
    assert code == "E117" and "the key 'question' is missing in 1 of 3 rows (first: row 2)" in text


WRITTEN = {
    "JSON": json.dumps,
    "Python": str,
    "NumPy in pandas": lambda cell: str({key: np.array(part) for key, part in cell.items()}),
    "NumPy objects in pandas": lambda cell: str(
        {
            "text": np.array(cell["text"], dtype=object),
            "answer_start": np.array(cell["answer_start"], dtype=np.int32),
        }
    ),
}


@pytest.mark.parametrize("form", WRITTEN)
def test_answers_written_into_a_cell(form: str, tmp_path: Path) -> None:
    cells = [{"answers": WRITTEN[form](cell)} for cell in HUB["the hub"]]
    assert read(write(tmp_path, "train.csv", rows_with(*cells))).rows == OPEN


@pytest.mark.parametrize("write_out", [json.dumps, str], ids=["JSON", "Python"])
def test_lists_of_objects_written_into_a_cell(write_out: Any, tmp_path: Path) -> None:
    cells = [{"answers": write_out(cell)} for cell in HUB["objects in a list"]]
    assert read(write(tmp_path, "train.csv", rows_with(*cells))).rows == OPEN


def test_what_pandas_writes_of_a_file_of_the_hub(tmp_path: Path) -> None:
    rows = rows_with(*({"answers": cell} for cell in HUB["the hub"]))
    frame = pd.read_parquet(write(tmp_path, "train.parquet", rows))
    frame.to_csv(tmp_path / "train.csv")
    assert "array(['Paris']" in (tmp_path / "train.csv").read_text()
    assert read(tmp_path / "train.csv").rows == OPEN


@pytest.mark.parametrize(
    ("text", "start", "more"),
    [
        ("answer_text", "answer_start", {"answer_end": "0"}),
        ("answer", "start", {"end": "0"}),
        ("answer", "answer_start", {"text": "a note"}),
        ("text", "answer_start", {"c_id": "0"}),
        ("Answer", "Answer_Start", {}),
        ("answers", "answer_begin", {}),
        ("answer_text", "start_index", {"is_impossible": ""}),
        ("answers.text", "answers.answer_start", {}),
    ],
)
def test_texts_and_starts_in_two_columns(text: str, start: str, more: Row, tmp_path: Path) -> None:
    cells = [{text: "Ann", start: "8"}, {text: "Paris", start: "31.0"}, {text: "", start: ""}]
    assert read(write(tmp_path, "train.csv", rows_with(*cells, **more))).rows == OPEN


@pytest.mark.parametrize("context", ["passage", "paragraph"])
def test_other_names_of_the_context(context: str, tmp_path: Path) -> None:
    rows = [{context: CONTEXT, "query": WHO, "answer": "Ann", "start": "8"}]
    assert read(write(tmp_path, "train.tsv".replace("tsv", "csv"), rows)).rows == BOTH[:1]


def test_lists_of_texts_and_of_starts_in_two_columns(tmp_path: Path) -> None:
    cells = [
        {"answers.text": ["Ann", "Ann"], "answers.answer_start": [8, 19]},
        {"answers.text": ["Paris"], "answers.answer_start": [31]},
    ]
    expected = [(WHO, CONTEXT, (ANN, ("Ann", 19))), BOTH[1]]
    assert read(write(tmp_path, "train.jsonl", rows_with(*cells))).rows == expected
    written = [{name: str(cell) for name, cell in row.items()} for row in cells]
    assert read(write(tmp_path, "train.csv", rows_with(*written))).rows == expected


def test_answers_without_starts_occur_once(tmp_path: Path) -> None:
    rows = rows_with({"answers": {"text": ["saw Ann"]}}, {"answers": {"text": ["Paris"]}})
    expected = [(WHO, CONTEXT, (("saw Ann", 4),)), BOTH[1]]
    assert read(write(tmp_path, "train.jsonl", rows)).rows == expected
    plain = rows_with({"answers": "saw Ann"}, {"answers": "Paris"})
    assert read(write(tmp_path, "train.csv", plain)).rows == expected


def test_answers_without_starts_that_are_unclear_are_named(tmp_path: Path) -> None:
    rows = rows_with({"answers": "Ann"}, {"answers": "Paris"}, {"answers": "Rome"})
    summary, *others = refused(write(tmp_path, "train.csv", rows))
    assert summary[0] == "E248" and "2 of 3 answers have no start and do not occur exactly once" in summary[1]
    assert [code for code, _ in others] == ["E248", "E241"]
    assert "row 2" in others[0][1] and "data.columns.answer_start=" in others[0][1]
    assert "row 4" in others[1][1] and "remove the row" in others[1][1]


def test_a_table_without_starts_is_read_with_the_line_of_the_message(tmp_path: Path) -> None:
    path = write(tmp_path, "train.csv", rows_with({"answer": "saw Ann"}, {"answer": "Paris"}))
    recipe, _ = recipe_of(str(path))
    with pytest.raises(DataError, match=r"E116 (.|\n)*hint: task=question-answering"):
        Reader(recipe, TASKS).rows(str(path), "train")
    recipe, _ = recipe_of(str(path), ["task=question-answering"])
    assert Reader(recipe, TASKS).rows(str(path), "train")[0].rows.values["answers"] == [(("saw Ann", 4),), (PARIS,)]


@pytest.mark.parametrize(
    "cell",
    [
        "{'text': ['Ann'], 'answer_start': [8",  # cut off by a limit of the cell
        "{'text': ['Ann' 'Zoë'], 'answer_start': [8 0]}",
        "['Zoë' 'Ann']",  # to Python this is one text
        '{"answer_start": [8]}',
        '{"text": ["Ann", "Zoë"], "answer_start": [8]}',
        '["Ann", 8]',
    ],
)
def test_cells_that_are_no_answers_are_named(cell: str, tmp_path: Path) -> None:
    rows = rows_with({"answers": cell}, {"answers": '{"text": ["Paris"], "answer_start": [31]}'})
    ((code, text),) = refused(write(tmp_path, "train.csv", rows))
    assert code == "E244" and "row 2" in text and '{"text": ["Paris"], "answer_start": [27]}' in text


@pytest.mark.parametrize("text", ["[1, 2]", "['a']", '{"text": 1}', "[citation needed]", "{x}"])
def test_a_text_that_looks_like_a_list_is_a_text(text: str, tmp_path: Path) -> None:
    rows = [{"question": WHO, "context": f"It prints a, then {text}.", "answers": text, "answer_start": "18"}]
    assert read(write(tmp_path, "train.csv", rows)).rows == [(WHO, rows[0]["context"], ((text, 18),))]


def test_two_brackets_are_no_answer_or_a_text(tmp_path: Path) -> None:
    rows = [{"question": WHO, "context": "It prints [].", "answers": "[]"}]
    assert refused(write(tmp_path, "train.csv", rows))[0][0] == "E244"


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        ((False, True, True), "1 question with is_impossible: true and an answer (row 2)"),
        ((False, False, False), "1 question with is_impossible: false and no answer (row 3)"),
    ],
)
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_a_column_is_impossible_must_agree_with_the_answers(
    flags: tuple[bool, ...], text: str, ending: str, tmp_path: Path
) -> None:
    rows = rows_with(*({"answers": cell} for cell in HUB["the hub"]))
    for row, flag in zip(rows, flags, strict=True):
        row["is_impossible"] = flag
    ((code, message),) = refused(write(tmp_path, f"train.{ending}", rows))
    if ending == "csv":  # the header is row 1
        text = text.replace("row 3", "row 4").replace("row 2", "row 3")
    assert code == "E247" and text in message and "is_impossible" in message.partition("hint:")[2]


def test_a_column_is_impossible_that_agrees_changes_nothing(tmp_path: Path) -> None:
    rows = rows_with(*({"answers": cell} for cell in HUB["the hub"]))
    for row in rows:
        row["is_impossible"] = not row["answers"]["text"]
    assert read(write(tmp_path, "train.parquet", rows)).rows == OPEN


# --- starts in other units ------------------------------------------------------------------------------------------

SMILE = "\U0001f600"
LINES = "One.\r\nTwo.\r\nAnn came.\r\nThen Bob."


def one(context: str, text: str, start: int) -> Row:
    return {"question": WHO, "context": context, "answers": {"text": [text], "answer_start": [start]}}


UNITS: dict[str, tuple[str, list[Row], list[tuple[str, int]]]] = {
    "bytes": (
        "in bytes",
        [one("Ann came.", "Ann", 0), one("中文 Ann.", "Ann", 7), one("ë, é: Bob", "Bob", 8)],
        [("Ann", 0), ("Ann", 3), ("Bob", 6)],
    ),
    "bytes, where the text is also at the start counted in characters": (
        "in bytes",
        [one("ééAnAnAn", "An", 4), one("中文 Ann.", "Ann", 7)],
        [("An", 2), ("Ann", 3)],
    ),
    "UTF-16": (
        "in UTF-16 code units",
        [one("Ann came.", "Ann", 0), one(f"{SMILE}{SMILE} Ann", "Ann", 5), one(f"é{SMILE} Bob", "Bob", 4)],
        [("Ann", 0), ("Ann", 3), ("Bob", 3)],
    ),
    "offsets of a text with \\n, context with \\r\\n": (
        r"with \r\n as one character",
        [one(LINES, "Ann", 10), one(LINES, "Bob", 25), one(LINES, "Two.\nAnn", 5)],
        [("Ann", 12), ("Bob", 28), ("Two.\r\nAnn", 6)],
    ),
    "offsets of a text with \\r\\n, context with \\n": (
        "with line ends of two characters",
        [
            one(LINES.replace("\r\n", "\n"), text, start)
            for text, start in (("Ann", 12), ("Bob", 28), ("Two.\r\nAnn", 6))
        ],
        [("Ann", 10), ("Bob", 25), ("Two.\nAnn", 5)],
    ),
    "from 1": (
        "from 1",
        [one("Ann came.", "Ann", 1), one("中文 Ann.", "Ann", 4), one("So Bob", "Bob", 4)],
        [("Ann", 0), ("Ann", 3), ("Bob", 3)],
    ),
}


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize("name", UNITS)
def test_starts_in_one_other_unit_are_converted(name: str, ending: str, tmp_path: Path) -> None:
    unit, rows, expected = UNITS[name]
    if ending == "csv":
        rows = [{**row, "answers": json.dumps(row["answers"])} for row in rows]
    path = write(tmp_path, f"train.{ending}", rows)
    found = read(path)
    assert [answers for _, _, answers in found.rows] == [(pair,) for pair in expected]
    assert found.notes == (f"{path}: answer_start is counted {unit}; converted to characters from 0",)


def test_starts_in_characters_stay_although_another_unit_fits(tmp_path: Path) -> None:
    context = f"{SMILE}{SMILE}\r\n\n\nxaax"  # the only other unit that finds an "a" counts from 1
    found = read(write(tmp_path, "train.jsonl", [one(context, "a", 8)]))
    assert found == ([(WHO, context, (("a", 8),))], (), ["0"])


@pytest.mark.parametrize(
    ("rows", "codes"),
    [
        ([one("é Ann", "Ann", 3)], ["E245"]),  # in bytes, or from 1
        ([one("é Ann", "Ann", 3), one("é Bob", "Bob", 3)], ["E240", "E245", "E245"]),
        ([one("中文 Ann", "Ann", 7), one("中文 Bob", "Bob", 3)], ["E245"]),  # bytes, and characters
        ([one("中文 Ann", "Ann", 7), one("中文 Bob", "Bob", 4)], ["E240", "E245", "E245"]),  # bytes, and from 1
        ([one("中文 Ann", "Ann", 7), one("中文 Bob", "Bob", 6)], ["E240", "E245", "E240"]),  # nothing explains this
        ([one("中文 Ann", "Ann", 7), one("中文 Bob", "Rome", 7)], ["E240", "E245", "E241"]),
        ([one("Ann", "Ann", -3)], ["E240"]),
    ],
)
def test_starts_that_no_unit_or_several_explain_are_errors(rows: list[Row], codes: list[str], tmp_path: Path) -> None:
    found = refused(write(tmp_path, "train.jsonl", rows))
    assert [code for code, _ in found] == codes
    assert all("data.fix_spans=true" in text for _, text in found)
    assert all("row " in text for _, text in found[-1:])


def test_two_units_that_fit_are_both_named(tmp_path: Path) -> None:
    rows = [one("é Ann", "Ann", 3), one("é Bob", "Bob", 3)]
    path = write(tmp_path, "train.jsonl", rows)
    assert "counted in bytes or from 1, all would be right" in refused(path)[0][1]
    assert [answers for _, _, answers in read(path, fix_spans="true").rows] == [(("Ann", 2),), (("Bob", 2),)]


@pytest.mark.real_data
def test_cmrc2018_is_refused_and_repaired(real_data: Path, tmp_path: Path) -> None:
    """Its wrong answers follow no unit."""
    problems = refused(real_data / "cmrc2018" / "dev.json")
    assert problems[0][0] == "E240" and "data.fix_spans=true repairs 7 of them" in problems[0][1]
