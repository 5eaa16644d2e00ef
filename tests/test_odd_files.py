"""Thirty real-world CSV files: each is read as intended or refused with a precise question, and never guessed wrong."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from fasttune.api import recipe_of
from fasttune.data.pipeline import read_splits
from fasttune.errors import DataError
from fasttune.tasks import TASKS

PLACES = ["the hotel", "this café", "our train", "the old shop", "that beach", "the museum", "her office", "the park"]
ENDS = [
    "was a joy from start to end",
    "left us cold, sorry to say",
    "is worth a second visit",
    "cost more than it gave",
]
TEXTS = [f"{place} {end}" for place in PLACES for end in ENDS]
CHINESE = [
    f"{place}{end}"
    for place in ("酒店房间", "这家餐厅", "这本小说", "新款笔记本", "昨天的电影", "楼下的超市")
    for end in ("非常干净舒服", "让人十分失望")
]
ROWS = range(32)


def table(header: str, *columns: list[object], mark: str = ",", quote: bool = False) -> str:
    """Cells as writers of such files write them: quoted where they hold the mark, or all of them."""

    def cell(value: object) -> str:
        text = str(value)
        return '"' + text.replace('"', '""') + '"' if quote or mark in text or '"' in text or "\n" in text else text

    rows = [mark.join(map(cell, row)) for row in zip(*columns, strict=True)]
    return "\n".join([*([header] if header else []), *rows]) + "\n"


def labels(*names: object) -> list[object]:
    return [names[row % len(names)] for row in ROWS]


@dataclass(frozen=True)
class Odd:
    """`columns` that are taken and `names` of the labels, or the `code` and the `hint` of what is asked."""

    what: str
    content: str | bytes
    columns: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    code: str = ""
    hint: str = ""
    file: str = "data.csv"
    overrides: tuple[str, ...] = ()


TWO = ("bad", "good")
FILES = [
    Odd("plain", table("text,label", TEXTS, labels("good", "bad")), ("text", "label"), TWO),
    Odd("other names, other case", table("Review,Sentiment", TEXTS, labels(*TWO)), ("Review", "Sentiment"), TWO),
    Odd("label first", table("Stars,Comment", labels(1, 2, 3), TEXTS), ("Comment", "Stars"), ("1", "2", "3")),
    Odd("semicolons", table("text;label", TEXTS, labels(*TWO), mark=";"), ("text", "label"), TWO),
    Odd("tabs in a .csv", table("text\tlabel", TEXTS, labels(*TWO), mark="\t"), ("text", "label"), TWO),
    Odd("bars", table("text|label", TEXTS, labels(*TWO), mark="|"), ("text", "label"), TWO),
    Odd("everything quoted", table('"text","label"', TEXTS, labels(*TWO), quote=True), ("text", "label"), TWO),
    Odd(
        "line ends inside quotes",
        table("text,label", [text.replace(" ", "\n", 1) for text in TEXTS], labels(*TWO)),
        ("text", "label"),
        TWO,
    ),
    Odd(
        "quotes inside quotes",
        table("text,label", [f'"{text}"' for text in TEXTS], labels(*TWO)),
        ("text", "label"),
        TWO,
    ),
    Odd(
        "tabs and loose quotes",
        table("text\tlabel", TEXTS, labels(*TWO), mark="\t").replace("joy", '15" joy'),
        ("text", "label"),
        TWO,
        file="data.tsv",
    ),
    Odd(
        "a byte order mark", b"\xef\xbb\xbf" + table("text,label", TEXTS, labels(*TWO)).encode(), ("text", "label"), TWO
    ),
    Odd(
        "UTF-16 of a spreadsheet",
        table("text\tlabel", TEXTS, labels(*TWO), mark="\t").encode("utf-16"),
        ("text", "label"),
        TWO,
    ),
    Odd("Windows line ends", table("text,label", TEXTS, labels(*TWO)).replace("\n", "\r\n"), ("text", "label"), TWO),
    Odd("old Mac line ends", table("text,label", TEXTS, labels(*TWO)).replace("\n", "\r"), ("text", "label"), TWO),
    Odd("empty lines between", table("text,label", TEXTS, labels(*TWO)).replace("\n", "\n\n"), ("text", "label"), TWO),
    Odd(
        "packed",
        gzip.compress(table("text,label", TEXTS, labels(*TWO)).encode()),
        ("text", "label"),
        TWO,
        file="data.csv.gz",
    ),
    Odd("zeros before numbers", table("text,label", TEXTS, labels("01", "02")), ("text", "label"), ("01", "02")),
    Odd("NA as a label", table("text,label", TEXTS, labels("NA", "yes")), ("text", "label"), ("NA", "yes")),
    Odd("true and false", table("text,label", TEXTS, labels("True", "False")), ("text", "label"), ("False", "True")),
    Odd(
        "German names, told by their cells",
        table("Nr,Meinung,Urteil", list(ROWS), TEXTS, labels(*TWO)),
        ("Meinung", "Urteil"),
        TWO,
    ),
    Odd(
        "Chinese, told by the cells",
        table("编号,内容,情感", list(range(12)), CHINESE, ["好", "坏"] * 6),
        ("内容", "情感"),
        ("坏", "好"),
    ),
    Odd(
        "many columns, only one is read and one learned",
        table(
            "id,url,when,said,kind",
            list(ROWS),
            [f"http://a/{row}" for row in ROWS],
            [f"2024-01-{row % 28 + 1:02}" for row in ROWS],
            TEXTS,
            labels(*TWO),
        ),
        ("said", "kind"),
        TWO,
    ),
    Odd("an index without a name", table(",text,label", list(ROWS), TEXTS, labels(*TWO)), ("text", "label"), TWO),
    Odd(
        "pairs",
        table("sentence1,sentence2,label", TEXTS, TEXTS[1:] + TEXTS[:1], labels(0, 1)),
        ("sentence1", "sentence2", "label"),
        ("0", "1"),
    ),
    Odd("no header", table("", TEXTS, labels(*TWO)), ("column1", "column2"), TWO),
    Odd(
        "no header, and reported",
        table("", labels(*TWO), TEXTS),
        ("column2", "column1"),
        TWO,
        overrides=("data.header=false",),
    ),
    Odd("cp1252", table("text,label", TEXTS, labels(*TWO)).encode("cp1252"), ("text", "label"), TWO),
    Odd(
        "cp1252 or cp1250",
        table("text,label", [f"{text}, très" for text in TEXTS], labels(*TWO)).encode("cp1252"),
        code="E121",
        hint="the setting whose words are right",
    ),
    Odd(
        "cp1252, and reported",
        table("text,label", TEXTS, labels(*TWO)).encode("cp1252"),
        ("text", "label"),
        TWO,
        overrides=("data.encoding=cp1252",),
    ),
    Odd(
        "two texts",
        table("pro,contra,fits", TEXTS, TEXTS[::-1], labels(0, 1)),
        code="E201",
        hint="data.columns.text=COLUMN",
    ),
    Odd(
        "two kinds of labels",
        table("said,mood,sure", TEXTS, labels(*TWO), labels("y", "n", "?")),
        code="E201",
        hint="data.columns.text=said data.columns.label=COLUMN",
    ),
    Odd(
        "an unquoted comma",
        table("text,label", TEXTS, labels(*TWO)) + "well, well,good\n",
        code="E110",
        hint="double quotes",
    ),
    Odd(
        "look-alike labels",
        table("text,label", TEXTS, labels("pos", "Pos ", "neg")),
        code="E215",
        hint="spell them the same",
    ),
]


@pytest.mark.parametrize("odd", FILES, ids=lambda odd: odd.what)
def test_guessed_right_or_asked_precisely(odd: Odd, tmp_path: Path) -> None:
    path = tmp_path / odd.file
    path.write_bytes(odd.content if isinstance(odd.content, bytes) else odd.content.encode())
    recipe, _ = recipe_of(path, odd.overrides)
    if odd.code:
        with pytest.raises(DataError) as caught:
            read_splits(recipe, TASKS)
        (problem,) = caught.value.problems
        assert problem.code == odd.code
        assert odd.hint in problem.hint
        return
    splits = read_splits(recipe, TASKS)
    assert tuple(splits.columns.values()) == odd.columns
    assert tuple(splits.task.state()["label2id"]) == odd.names
    number = len(CHINESE) if odd.columns == ("内容", "情感") else len(TEXTS)
    assert sum(len(split.rows) for split in splits.all()) == number


def test_there_are_thirty_and_more() -> None:
    assert len(FILES) >= 30


def test_the_task_is_told_by_the_columns_also_of_large_files(tmp_path: Path) -> None:
    """Of a large file only the beginning is read to tell; where that does not do, all of it."""
    path = tmp_path / "data.jsonl"
    row = {"question": "Who came?", "context": "Ann came. " * 50, "answers": {"text": ["Ann"], "answer_start": [0]}}
    path.write_text((json.dumps(row) + "\n") * 3000, encoding="utf-8")
    assert recipe_of(path)[0].task == "question-answering"
    assert recipe_of(path, ["task=text-classification"])[0].task == "text-classification"
    assert recipe_of(path, {"task": "text-classification"})[0].task == "text-classification"
    path = tmp_path / "data.json"
    path.write_text(json.dumps([{"tokens": ["Ann", "came"], "tags": ["B-PER", "O"]}] * 60_000), encoding="utf-8")
    assert recipe_of(path)[0].task == "token-classification"
    path = tmp_path / "data.csv"
    path.write_bytes(("question,context,answers\n" + '"é\n",b,c\n' * 300_000).encode("cp1252"))
    assert recipe_of(path, ["data.encoding=cp1252"])[0].task == "question-answering"
    assert recipe_of(path, {"data": {"encoding": "cp1252"}})[0].task == "question-answering"
    assert recipe_of(path)[0].task == "text-classification", "it cannot be read, which is reported later"
    assert recipe_of(tmp_path / "nothing.csv")[0].task == "text-classification"
