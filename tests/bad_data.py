"""57 data problems and the messages that fasttune prints for them, listed in docs/reference/data-problems.md."""

from __future__ import annotations

import gzip
import io
import json
import stat
import zipfile
from dataclasses import dataclass, field
from typing import Any

WORDS = ["good", "bad", "food", "room", "staff", "slow", "great", "never", "again"]
Content = str | bytes


def text(number: int) -> str:
    """A text for each number, of words in the tiny tokenizer's vocabulary."""
    first, second = WORDS[number % 9], WORDS[number // 9 % 9]
    return f"the {first} was not {second} w{number % 60} and w{number // 60} w{number * 7 % 60}"


def csv(*extra: str, number: int = 20, header: str = "text,label", labels: tuple[str, ...] = ("pos", "neg")) -> str:
    rows = [f"{text(row)},{labels[row % len(labels)]}" for row in range(number)]
    return "\n".join([header, *rows, *extra]) + "\n"


def lines(*rows: dict[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def zipped(name: str, content: str, mode: int = stat.S_IFREG | 0o644) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        archive.writestr(info, content)
    return file.getvalue()


CONTEXT = "Zoë met Ann in Paris."
QUESTIONS = "task=question-answering"


def question(answer: str = "Ann", start: Any = 8, asked: str = "Who came?", context: str = CONTEXT) -> dict[str, Any]:
    starts = start if isinstance(start, list) else [start]
    return {"question": asked, "context": context, "answers": {"text": [answer], "answer_start": starts}}


def questions(*rows: dict[str, Any]) -> str:
    good = [question(context=f"{CONTEXT} {WORDS[number]}") for number in range(8)]
    return lines(*good, *rows)


def known_questions() -> str:
    """Questions of words in the tiny tokenizer's vocabulary; the last answer is a whole context."""
    contexts = [text(number) for number in range(9)]
    asked = "was the food good"
    rows = [question(context.split()[1], 4, asked, context) for context in contexts[:8]]
    return lines(*rows, question(contexts[8], 0, asked, contexts[8]))


def squad(**changes: Any) -> str:
    asked = {"id": "q", "question": "Who came?", "answers": [{"text": "Ann", "answer_start": 8}], **changes}
    return json.dumps({"data": [{"title": "A", "paragraphs": [{"context": CONTEXT, "qas": [asked]}]}]})


@dataclass(frozen=True)
class Case:
    """`fasttune check` with `arguments`, run in a folder with `files`; `says`: what the output must contain.

    Codes: E... is an error, W... a warning, N... a note, and `right` means that the data is read without a message.
    """

    number: str
    what: str
    files: dict[str, Content]
    code: str
    says: tuple[str, ...]
    arguments: tuple[str, ...] = ("data.csv",)
    is_read: bool = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_read", not self.code.startswith("E"))


def one(
    number: str, what: str, content: Content, code: str, *says: str, name: str = "data.csv", also: str = ""
) -> Case:
    return Case(number, what, {name: content}, code, says, (name, *also.split()))


def deep(depth: int) -> str:
    return '{"text": ' + "[" * depth + "]" * depth + ', "label": 1}\n'


LATIN = csv('"très long, fermé",neg').encode("latin-1")
LONG = " ".join(["good food"] * 40)
UNKNOWN = "the room was great and the staff was never slow zzyzx"
CASES = [
    Case(
        "D1",
        "a missing path",
        {"Data.csv": csv()},
        "E101",
        ("data.csv: no such file", "did you mean Data.csv?"),
    ),
    Case(
        "D2",
        "a folder with files of several kinds",
        {"data/a.csv": csv(), "data/b.jsonl": lines(question())},
        "E102",
        ("pass the files: 'data/*.csv'",),
        ("data",),
    ),
    one("D3", "an empty file", "", "E103", "data.csv: the file is empty (0 bytes)"),
    one("D4", "a header and no rows", "text,label\n", "E104", "there are no rows below the header"),
    one("D5", "a row with too many commas", csv("well, yes,neg"), "E110", "row 22: found 3 fields", "'neg'"),
    one("D6", "a row that is too short", csv("well"), "E111", "row 22: found 1 field ('label' missing)"),
    one("D7", "a quote that is never closed", csv('"well,neg'), "E112", "row 22"),
    one("D8", "UTF-16", csv().encode("utf-16"), "N120", "read as UTF-16, as its byte order mark says"),
    one(
        "D9",
        "Latin-1",
        LATIN,
        "E121",
        "row 22: found byte 0xE8",
        "data.encoding=cp1252: fermé, très",
        "data.encoding=cp1250: fermé, trčs",
    ),
    one(
        "D10",
        "two encodings in one file",
        csv("schön,pos").encode() + b"caf\xe9,neg\n",
        "E122",
        "row 23",
        "1 row of valid UTF-8",
    ),
    one("D11", "NUL bytes", csv("we\0ll,neg"), "E123", "row 22: found a NUL character"),
    one("D12", "a byte order mark", b"\xef\xbb\xbf" + csv().encode(), "right", "Ready to train"),
    one(
        "D13",
        "line endings of several systems",
        csv().replace("\n", "\r\n", 9).replace("\n", "\r", 0) + "well,neg\rfine,pos\r",
        "right",
        "Ready to train",
    ),
    one("D14", "semicolons in a .csv", csv().replace(",", ";"), "N", "fields are separated by a semicolon"),
    one(
        "D15", "two columns with the same name", csv(header="text,text"), "E113", "row 1: two columns are named 'text'"
    ),
    one("D16", "no header", "\n".join(csv().split("\n")[1:]), "N", "read without a header", "data.header=true"),
    one("D17", "an Excel file called .csv", b"PK\x03\x04" + bytes(40), "E105", "a spreadsheet"),
    one(
        "D18",
        "a truncated .gz",
        gzip.compress(csv(number=900).encode())[:-200],
        "E106",
        "truncated or damaged after",
        name="data.csv.gz",
    ),
    one(
        "D19",
        "an archive that expands beyond the limit",
        gzip.compress(b"text,label\n" + bytes(10**6)),
        "E107",
        "more than 10,000 bytes",
        "data.max_bytes=100000",
        name="data.csv.gz",
        also="data.max_bytes=10000",
    ),
    one(
        "D20",
        "a .zip with paths outside the archive",
        zipped("../data.csv", csv()),
        "E108",
        "a path outside itself: '../data.csv'",
        name="data.zip",
    ),
    one(
        "D21",
        "a pickle file",
        b"\x80\x04K\x01.",
        "E109",
        "found a .pkl file",
        "fasttune never reads pickle",
        name="data.pkl",
    ),
    one(
        "D22",
        "a broken line of JSON",
        lines({"text": "a", "label": 1}) + '{"text": "b", "label": oops}\n',
        "E115",
        "line 2 column 24: found 'oops}', expected a value",
        name="data.jsonl",
    ),
    one(
        "D23",
        "questions for a text classifier",
        squad(),
        "E116",
        "as in SQuAD",
        "task=question-answering",
        name="data.json",
        also="task=text-classification",
    ),
    one(
        "D24",
        "a key missing in some lines",
        lines({"text": "a", "label": 1}, {"text": "b"}),
        "E117",
        "the key 'label' is missing in 1 of 2 rows (first: row 2)",
        name="data.jsonl",
    ),
    one("D25", "NaN in JSON", '{"text": "a", "label": NaN}\n', "E118", "line 1: found NaN", name="data.jsonl"),
    one(
        "D26", "JSON nested 2,000 deep", deep(2000), "E119", "line 1: found values nested too deeply", name="data.jsonl"
    ),
    one(
        "D27",
        "columns that could all be the text",
        "Pro,Contra,Stars\n" + "".join(f"{text(row)},{text(row + 50)},{row % 2}\n" for row in range(20)),
        "E201",
        "cannot tell which column is the text",
        "'Contra': ",
        "data.columns.text=COLUMN",
    ),
    one(
        "D28",
        "a misspelt column name",
        csv(),
        "E202",
        "data.columns.label: found 'lable'",
        "data.columns.label=label",
        also="data.columns.label=lable",
    ),
    one(
        "D29",
        "one column for two roles",
        csv(),
        "E203",
        "'text' is already data.columns.text",
        also="data.columns.text=text data.columns.label=text",
    ),
    one(
        "D30",
        "empty texts (NA and null are texts)",
        csv(",pos", " ,neg", "NA,pos", "null,neg"),
        "E210",
        "2 empty texts (row 22, row 23)",
        "data.drop_empty=true",
    ),
    one("D31", "empty labels", csv("well,", "fine, "), "N", "dropped 2 rows without a label (empty)"),
    one("D32", "one class only", csv(labels=("pos",)), "E212", "all 20 rows have the label 'pos'"),
    one("D33", "a label that occurs once", csv("well,fair"), "E213", "1 row of class 'fair'"),
    Case(
        "D34",
        "a test label that training never saw",
        {"data.csv": csv(), "test.csv": "text,label\nwell,neutral\n"},
        "E214",
        ("test.csv: found label 'neutral' in 1 row",),
        ("data.csv", "data.test=test.csv"),
    ),
    one(
        "D35",
        "labels that look alike",
        csv("well,Pos ", "fine,Pos "),
        "E215",
        "labels 'pos' (10 rows) and 'Pos ' (2 rows) look alike",
    ),
    one(
        "D36",
        "labels from 1 to 5",
        csv(number=30, labels=tuple("12345")),
        "N",
        "labels 1, 2, 3, 4, 5 are classes 0 to 4",
    ),
    one(
        "D37",
        "a label column of free texts",
        "text,label\n" + "".join(f"{text(row)},I liked number {row}\n" for row in range(20)),
        "E216",
        "20 different labels in 20 rows",
        "name the column",
    ),
    one(
        "D38",
        "measurements as classes",
        "text,label\n" + "".join(f"{text(row)},{row / 7:.3f}\n" for row in range(30)),
        "E217",
        "30 different numbers such as 0.000",
        "problem=regression",
        also="problem=single-label",
    ),
    one(
        "D39",
        "cells with several labels and cells with one",
        csv(*(f"{text(90 + row)},pos|sad" for row in range(4))),
        "E218",
        "label 'pos|sad' contains label 'pos'",
        "problem=multi-label",
    ),
    one(
        "D40",
        "labels that are row numbers",
        "text,label\n" + "".join(f"{text(row)},{row}\n" for row in range(30)),
        "W219",
        "labels rise or fall with every row",
        also="problem=regression",
    ),
    one(
        "D41",
        "a pair with one column",
        csv(),
        "E230",
        "data.columns.text_pair: found 'hypothesis'",
        also="data.columns.text=text data.columns.text_pair=hypothesis",
    ),
    one(
        "D42",
        "pairs of a text and itself",
        "text,text_pair,label\n"
        + "".join(f"{text(row)},{text(row + 40 * (row > 3))},{row % 2}\n" for row in range(20)),
        "W231",
        "pairs with two identical texts",
    ),
    one(
        "D43",
        "a score out of range",
        csv("well,7.5", labels=("0.5", "4.5")),
        "E232",
        "found 7.5",
        "0 to 5 (data.label_range)",
        also="data.label_range=[0,5]",
    ),
    one(
        "D44",
        "an answer with a wrong start",
        questions(question(start=7)),
        "E240",
        "row 9: answer 'Ann' does not start at 7",
        "answer_start should be 8",
        "data.fix_spans=true",
        name="data.jsonl",
    ),
    one(
        "D45",
        "an answer that is not in its context",
        questions(question("Bob")),
        "E241",
        "row 9: answer 'Bob' does not occur in the context",
        name="data.jsonl",
    ),
    one(
        "D46",
        "an answer in another Unicode form",
        questions(question("Zoe\u0308", 0)),
        "E242",
        "row 9: answer 'Zoe\\u0308' is 'Zo\\xeb' in the context",
        "data.fix_spans=true",
        name="data.jsonl",
    ),
    one("D47", "an empty question", questions(question(asked=" ")), "E243", "1 empty text (row 9)", name="data.jsonl"),
    one(
        "D48",
        "more starts than answers",
        questions(question(start=[8, 9])),
        "E244",
        "row 9",
        "answer_start",
        name="data.jsonl",
    ),
    one(
        "D49",
        "a start counted in bytes",
        questions(question("Paris", 16)),
        "E245",
        "row 9: answer 'Paris' does not start at 16 (counted in bytes)",
        "answer_start should be 15",
        name="data.jsonl",
    ),
    one(
        "D50",
        "an answer longer than the limit",
        known_questions(),
        "W246",
        "1 answer can never be predicted",
        "row 9",
        name="data.jsonl",
        also="evaluation.max_answer_length=3 data.validation=data.jsonl preprocessing.doc_stride=16",
    ),
    one(
        "D51",
        "an unanswerable question with an answer",
        squad(is_impossible=True),
        "E247",
        "article 1, paragraph 1, question 1: found is_impossible: true together with answers",
        name="data.json",
    ),
    Case(
        "D52",
        "rows in training and test",
        {"data.csv": csv(), "test.csv": "text,label\n" + text(3) + ",neg\n" + text(44) + ",pos\n"},
        "W250",
        ("1 row repeats a text of train", "row 2 of row 5", "data.drop_duplicates=true"),
        ("data.csv", "data.test=test.csv"),
    ),
    one(
        "D53",
        "one text with two labels",
        csv(f"{text(3)},pos"),
        "W251",
        "1 text has conflicting labels (row 5 = row 22)",
    ),
    one(
        "D54",
        "no validation rows",
        csv(),
        "N",
        "validation: 2 rows (10%) held out of the training rows, stratified by label, data.seed 42",
    ),
    one(
        "D55",
        "fewer rows than a batch",
        csv(),
        "E252",
        "18 training rows",
        "training.batch_size=18",
        also="training.batch_size=32",
    ),
    one(
        "D56",
        "texts longer than the model reads",
        csv(*(f"{LONG} w{row},{'pos' if row % 2 else 'neg'}" for row in range(12))),
        "W253",
        "of the texts are truncated to 64 tokens",
        "preprocessing.long_text=head_tail",
    ),
    one(
        "D57",
        "words that the tokenizer does not know",
        csv(*(f"{UNKNOWN} w{row},{'pos' if row % 2 else 'neg'}" for row in range(20))),
        "W254",
        "of the tokens are unknown to the tokenizer",
    ),
]
