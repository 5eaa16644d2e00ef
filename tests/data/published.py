"""Data sets in the shapes in which they are published, made small; what fasttune must understand of each.

Every case is a test in test_published_formats.py and a row of docs/reference/formats.md.
"""

from __future__ import annotations

import csv
import datetime
import gzip
import io
import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xlsxwriter

Content = str | bytes | Callable[[Path], None]
TEXTS = [
    "the hotel was a joy from start to end",
    "our train left us cold, sorry to say",
    "that beach is worth a second visit",
    "the museum cost more than it gave",
    "her office was quiet and full of light",
    "the old shop closed before we came",
]
GOOD_BAD = ["good", "bad", "good", "bad", "good", "bad"]
CHINESE = [
    "这家酒店的房间非常干净舒服",
    "昨天看的那部电影让人十分失望",
    "楼下的超市东西又多又便宜",
    "新买的笔记本用了三天就坏了",
]
WORDS = [["Ann", "came", "to", "Paris", "."], ["Bob", "left", "New", "York", "."]]
TAGS = [["B-PER", "O", "O", "B-LOC", "O"], ["B-PER", "O", "B-LOC", "I-LOC", "O"]]
SENTENCES = ["Ann came to Paris.", "Bob left New York."]
SPANS = [[(0, 3, "PER"), (12, 17, "LOC")], [(0, 3, "PER"), (9, 17, "LOC")]]


@dataclass(frozen=True)
class Published:
    """`files`: name -> content. `argument`: what is typed behind `fasttune train`, after the path of a file or folder.

    `rows`: what is understood, as (text or words, label or tags) of each row; `labels`: the names in their order.
    """

    what: str
    files: dict[str, Content]
    task: str
    rows: list[tuple[Any, Any]]
    labels: tuple[str, ...]
    argument: str = ""
    settings: tuple[str, ...] = ()
    note: str = ""


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def table(
    header: Sequence[str] | None, *columns: Sequence[Any], mark: str = ",", quoting: int = csv.QUOTE_MINIMAL
) -> str:
    file = io.StringIO()
    writer = csv.writer(file, delimiter=mark, lineterminator="\n", quoting=quoting)  # type: ignore[arg-type]
    if header is not None:
        writer.writerow(header)
    writer.writerows(zip(*columns, strict=True))
    return file.getvalue()


def columns_of(*more: Sequence[Sequence[str]], mark: str = "\t", tags: Sequence[Sequence[str]] = TAGS) -> str:
    """Words and tags, one word per line, with further columns between them."""
    sentences = []
    for number, (words, marks) in enumerate(zip(WORDS, tags, strict=True)):
        cells = [words, *(column[number] for column in more), marks]
        sentences.append("".join(mark.join(row) + "\n" for row in zip(*cells, strict=True)))
    return "\n".join(sentences)


def by_character(tags: Sequence[str], mark: str) -> str:
    return "".join(f"{character}{mark}{tag}\n" for character, tag in zip("王小明在北京", tags, strict=True)) + "\n"


def sheet(rows: Sequence[Sequence[Any]], name: str = "data.xlsx", others: Sequence[str] = ()) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        book = xlsxwriter.Workbook(str(folder / name), {"default_date_format": "yyyy-mm-dd"})
        page = book.add_worksheet("Reviews")
        for number, row in enumerate(rows):
            page.write_row(number, 0, row)
        for other in others:
            book.add_worksheet(other)
        book.close()

    return write


def ods(rows: Sequence[Sequence[str]]) -> bytes:
    cells = "".join(
        "<table:table-row>"
        + "".join(
            f'<table:table-cell office:value-type="string"><text:p>{cell}</text:p></table:table-cell>' for cell in row
        )
        + "</table:table-row>"
        for row in rows
    )
    name = "urn:oasis:names:tc:opendocument:xmlns"
    content = (
        f'<?xml version="1.0"?><office:document-content xmlns:office="{name}:office:1.0" '
        f'xmlns:table="{name}:table:1.0" xmlns:text="{name}:text:1.0"><office:body><office:spreadsheet>'
        f'<table:table table:name="Reviews">{cells}</table:table></office:spreadsheet></office:body>'
        "</office:document-content>"
    )
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        archive.writestr("content.xml", content)
        archive.writestr(
            "META-INF/manifest.xml",
            f'<manifest:manifest xmlns:manifest="{name}:manifest:1.0"></manifest:manifest>',
        )
    return file.getvalue()


def label_studio(text: str, spans: Sequence[tuple[int, int, str]]) -> dict[str, Any]:
    result = [
        {"value": {"start": start, "end": end, "text": text[start:end], "labels": [label]}, "type": "labels"}
        for start, end, label in spans
    ]
    return {"id": 1, "data": {"text": text}, "annotations": [{"was_cancelled": False, "result": result}]}


def span_objects(spans: Sequence[tuple[int, int, str]], *names: str) -> list[dict[str, Any]]:
    return [dict(zip(names, span, strict=True)) for span in spans]


def brat(spans: Sequence[tuple[int, int, str]], text: str) -> str:
    return "".join(f"T{n}\t{label} {a} {b}\t{text[a:b]}\n" for n, (a, b, label) in enumerate(spans, 1))


CLASSES = list(zip(TEXTS, GOOD_BAD, strict=True))
STARS = [(text, str(number % 2 + 1)) for number, text in enumerate(TEXTS)]
ZERO_ONE = [(text, str(number % 2)) for number, text in enumerate(TEXTS)]
ENTITIES = [(tuple(words), tuple(tags)) for words, tags in zip(WORDS, TAGS, strict=True)]
BIO = ("B-LOC", "B-PER", "I-LOC", "O")
POS = [["NNP", "VBD", "TO", "NNP", "."], ["NNP", "VBD", "NNP", "NNP", "."]]
CHUNKS = [["B-NP", "B-VP", "B-PP", "B-NP", "O"], ["B-NP", "B-VP", "B-NP", "I-NP", "O"]]
TEXT, TOKEN = "text-classification", "token-classification"
SETS = [["joy", "love"], ["joy"], [], ["fear"], ["love"], ["joy", "fear"]]
SET_ROWS = [(text, tuple(labels)) for text, labels in zip(TEXTS, SETS, strict=True)]
SET_NAMES = ("fear", "joy", "love")
FLAGS = {name: [int(name in labels) for labels in SETS] for name in ("joy", "love", "fear")}
FLAG_ROWS = [(text, tuple(name for name in FLAGS if name in labels)) for text, labels in zip(TEXTS, SETS, strict=True)]


def replaced(tags: Sequence[Sequence[str]], how: Callable[[str], str]) -> list[list[str]]:
    return [[tag if tag == "O" else how(tag) for tag in row] for row in tags]


def tagged(tags: Sequence[Sequence[str]]) -> list[tuple[Any, Any]]:
    return [(tuple(words), tuple(row)) for words, row in zip(WORDS, tags, strict=True)]


SUFFIXED = replaced(TAGS, lambda tag: f"{tag[2:]}-{tag[0]}")
UNDERSCORED = replaced(TAGS, lambda tag: tag.replace("-", "_"))
IOB1 = [["I-PER", "O", "O", "I-LOC", "O"], ["I-PER", "O", "I-LOC", "I-LOC", "O"]]
BIOES = [["S-PER", "O", "O", "S-LOC", "O"], ["S-PER", "O", "B-LOC", "E-LOC", "O"]]
BMEWO = [["W-PER", "O", "O", "W-LOC", "O"], ["W-PER", "O", "B-LOC", "E-LOC", "O"]]
BARE = replaced(TAGS, lambda tag: tag[0])
NAME_TAGS = ["B-NAME", "M-NAME", "E-NAME", "O", "B-LOC", "E-LOC"]
CHARACTERS = [(tuple("王小明在北京"), tuple(NAME_TAGS))] * 2
DOCUMENT = "-DOCSTART- -X- -X- O\n\n"
EACH_WORD = [
    (str(n + 1), w, t) for n, (ws, ts) in enumerate(zip(WORDS, TAGS, strict=True)) for w, t in zip(ws, ts, strict=True)
]
IDS, FLAT_WORDS, FLAT_TAGS = zip(*EACH_WORD, strict=True)
FIRST_ONLY = [f"Sentence: {n}" if i == 0 or IDS[i - 1] != n else "" for i, n in enumerate(IDS)]

CASES = [
    # --- named entities ---
    Published(
        "CoNLL-2003 (eng.testa)", {"eng.testa": DOCUMENT + columns_of(POS, CHUNKS, mark=" ")}, TOKEN, ENTITIES, BIO
    ),
    Published(
        "CoNLL-2002, glued -DOCSTART-",
        {"esp.train": "-DOCSTART- -X- O\n" + columns_of(POS, mark=" ")},
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published("WNUT 2017 (two columns, tabs)", {"wnut17train.conll": columns_of()}, TOKEN, ENTITIES, BIO),
    Published("two columns in .txt", {"train.txt": columns_of(mark=" ")}, TOKEN, ENTITIES, BIO),
    Published("two columns with a header in .tsv", {"train.tsv": "Word\tTag\n" + columns_of()}, TOKEN, ENTITIES, BIO),
    Published(
        "GermEval 2014 (numbered words, comments)",
        {
            "NER-de-train.tsv": "\n".join(
                f"# source {n}\n" + "".join(f"{i}\t{w}\t{t}\n" for i, (w, t) in enumerate(zip(ws, ts, strict=True), 1))
                for n, (ws, ts) in enumerate(zip(WORDS, TAGS, strict=True))
            )
        },
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published("IOB1", {"train.iob": columns_of(tags=IOB1)}, TOKEN, tagged(IOB1), ("I-LOC", "I-PER", "O")),
    Published(
        "BIOES",
        {"train.bioes": columns_of(tags=BIOES)},
        TOKEN,
        tagged(BIOES),
        ("B-LOC", "E-LOC", "O", "S-LOC", "S-PER"),
    ),
    Published(
        "BMEWO",
        {"train.conll": columns_of(tags=BMEWO)},
        TOKEN,
        tagged(BMEWO),
        ("B-LOC", "E-LOC", "O", "W-LOC", "W-PER"),
    ),
    Published(
        "bare B, I, O",
        {"train.conll": columns_of(tags=BARE)},
        TOKEN,
        tagged(BARE),
        ("B", "I", "O"),
        note="tags mark entities",
    ),
    Published(
        "PER-B",
        {"train.conll": columns_of(tags=SUFFIXED)},
        TOKEN,
        tagged(SUFFIXED),
        ("LOC-B", "LOC-I", "O", "PER-B"),
        note="tags mark entities",
    ),
    Published(
        "B_PER",
        {"train.conll": columns_of(tags=UNDERSCORED)},
        TOKEN,
        tagged(UNDERSCORED),
        ("B_LOC", "B_PER", "I_LOC", "O"),
        note="tags mark entities",
    ),
    Published(
        "Resume NER (.char.bmes)",
        {"train.char.bmes": by_character(NAME_TAGS, " ") * 2},
        TOKEN,
        CHARACTERS,
        ("B-LOC", "B-NAME", "E-LOC", "E-NAME", "M-NAME", "O"),
    ),
    Published(
        "Weibo NER (.ner)",
        {"weibo.ner": by_character(NAME_TAGS, "\t") * 2},
        TOKEN,
        CHARACTERS,
        ("B-LOC", "B-NAME", "E-LOC", "E-NAME", "M-NAME", "O"),
    ),
    Published(
        "Universal Dependencies (.conllu)",
        {
            "train.conllu": "\n".join(
                "".join(
                    f"{i}\t{w}\t{w}\t{p}\t_\t_\t0\t_\t_\t_\n" for i, (w, p) in enumerate(zip(ws, ps, strict=True), 1)
                )
                for ws, ps in zip(WORDS, POS, strict=True)
            )
        },
        TOKEN,
        tagged(POS),
        (".", "NNP", "TO", "VBD"),
    ),
    Published(
        "Kaggle NER corpus (Sentence #, first row only)",
        {"ner_dataset.csv": table(["Sentence #", "Word", "Tag"], FIRST_ONLY, FLAT_WORDS, FLAT_TAGS)},
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published(
        "simpletransformers (sentence_id, words, labels)",
        {"train.csv": table(["sentence_id", "words", "labels"], IDS, FLAT_WORDS, FLAT_TAGS)},
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published(
        "words with empty lines in .csv", {"train.csv": "word,tag\n" + columns_of(mark=",")}, TOKEN, ENTITIES, BIO
    ),
    Published(
        "the hub's tokens and ner_tags as JSON lines",
        {"train.jsonl": lines(*({"tokens": w, "ner_tags": t} for w, t in zip(WORDS, TAGS, strict=True)))},
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published(
        "words and labels as JSON lines",
        {"train.jsonl": lines(*({"words": w, "labels": t} for w, t in zip(WORDS, TAGS, strict=True)))},
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published(
        "text and label, both lists (CLUENER-like)",
        {"train.json": lines(*({"text": w, "label": t} for w, t in zip(WORDS, TAGS, strict=True)))},
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published(
        "lists written as text in CSV cells",
        {"train.csv": table(["tokens", "tags"], map(str, WORDS), map(str, TAGS))},
        TOKEN,
        ENTITIES,
        BIO,
    ),
    # --- entities as spans of characters ---
    Published(
        "doccano (JSONL)",
        {
            "all.jsonl": lines(
                *(
                    {"id": n, "text": s, "label": [list(x) for x in p], "Comments": []}
                    for n, (s, p) in enumerate(zip(SENTENCES, SPANS, strict=True))
                )
            )
        },
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published(
        "doccano (with relations)",
        {
            "all.jsonl": lines(
                *(
                    {
                        "id": n,
                        "text": s,
                        "entities": span_objects(p, "start_offset", "end_offset", "label"),
                        "relations": [],
                    }
                    for n, (s, p) in enumerate(zip(SENTENCES, SPANS, strict=True))
                )
            )
        },
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published(
        "Label Studio (JSON)",
        {"project-1.json": json.dumps([label_studio(s, p) for s, p in zip(SENTENCES, SPANS, strict=True)])},
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published(
        "Label Studio (JSON-MIN)",
        {
            "project-1.json": json.dumps(
                [
                    {
                        "text": s,
                        "id": n,
                        "label": [{"start": a, "end": b, "text": s[a:b], "labels": [x]} for a, b, x in p],
                        "annotator": 1,
                        "annotation_id": n,
                        "created_at": "2026-01-02",
                        "updated_at": "2026-01-02",
                        "lead_time": 1.5,
                    }
                    for n, (s, p) in enumerate(zip(SENTENCES, SPANS, strict=True))
                ]
            )
        },
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published(
        "Prodigy",
        {
            "ner.jsonl": lines(
                *(
                    {"text": s, "_input_hash": n, "spans": span_objects(p, "start", "end", "label"), "answer": "accept"}
                    for n, (s, p) in enumerate(zip(SENTENCES, SPANS, strict=True))
                ),
                {"text": "no", "_input_hash": 9, "spans": [], "answer": "reject"},
            )
        },
        TOKEN,
        ENTITIES,
        BIO,
        note="left out 1 text",
    ),
    Published(
        "spaCy's training tuples",
        {"train.json": json.dumps([[s, {"entities": p}] for s, p in zip(SENTENCES, SPANS, strict=True)])},
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published(
        "text and spans as JSON lines",
        {
            "train.jsonl": lines(
                *(
                    {"text": s, "spans": span_objects(p, "start", "end", "type")}
                    for s, p in zip(SENTENCES, SPANS, strict=True)
                )
            )
        },
        TOKEN,
        ENTITIES,
        BIO,
    ),
    Published(
        "brat (.txt and .ann)",
        {
            f"corpus/{n}.{e}": c
            for n, (s, p) in enumerate(zip(SENTENCES, SPANS, strict=True))
            for e, c in (("txt", s), ("ann", brat(p, s)))
        },
        TOKEN,
        ENTITIES,
        BIO,
        argument="corpus",
    ),
    # --- classes ---
    Published(
        "IMDB as unpacked",
        {
            "aclImdb/README": "read me",
            "aclImdb/imdbEr.txt": "0.1\n",
            "aclImdb/train/urls_pos.txt": "http://x\n",
            "aclImdb/train/unsup/0_0.txt": "unknown",
            **{
                f"aclImdb/train/{label}/{n}_8.txt": text
                for n, (text, label) in enumerate(sorted(CLASSES, key=lambda row: row[1]))
            },
            **{f"aclImdb/test/{label}/{n}_8.txt": text for n, (text, label) in enumerate(CLASSES[:2])},
        },
        TEXT,
        sorted(CLASSES, key=lambda row: row[1]),
        ("bad", "good"),
        argument="aclImdb",
        note="left out unsup",
    ),
    Published(
        "20 Newsgroups (a folder per class, files without extension)",
        {f"news/{label}/{5000 + n}": text for n, (text, label) in enumerate(CLASSES)},
        TEXT,
        sorted(CLASSES, key=lambda row: row[1]),
        ("bad", "good"),
        argument="news",
    ),
    Published(
        "fastText",
        {"cooking.train": "".join(f"__label__{label} {text}\n" for text, label in CLASSES)},
        TEXT,
        CLASSES,
        ("bad", "good"),
    ),
    Published(
        "fastText, several labels",
        {
            "cooking.valid": "".join(
                " ".join([*(f"__label__{x}" for x in labels), text]) + "\n" for text, labels in SET_ROWS if labels
            )
        },
        TEXT,
        [row for row in SET_ROWS if row[1]],
        SET_NAMES,
    ),
    Published(
        "Yelp, Amazon: class first, all quoted, no header",
        {"train.csv": table(None, [s for _, s in STARS], TEXTS, quoting=csv.QUOTE_ALL)},
        TEXT,
        STARS,
        ("1", "2"),
    ),
    Published(
        "AG News, DBpedia: class, title, text, no header",
        {
            "train.csv": table(
                None, [s for _, s in STARS], [f"News of day {n}" for n in range(6)], TEXTS, quoting=csv.QUOTE_ALL
            )
        },
        TEXT,
        STARS,
        ("1", "2"),
        settings=("data.columns.text=column3",),
    ),
    Published(
        "CoLA: source, label, mark, sentence, no header",
        {
            "in_domain_train.tsv": table(
                None,
                ["gj04", "gj04", "cj99", "cj99", "bc01", "bc01"],
                [n % 2 for n in range(6)],
                ["", "*"] * 3,
                TEXTS,
                mark="\t",
            )
        },
        TEXT,
        ZERO_ONE,
        ("0", "1"),
        settings=("data.columns.text=column4", "data.columns.label=column2"),
    ),
    Published(
        "ChnSentiCorp: text and label, no header",
        {"train.tsv": table(None, CHINESE, [1, 0, 1, 0], mark="\t")},
        TEXT,
        list(zip(CHINESE, ["1", "0", "1", "0"], strict=True)),
        ("0", "1"),
    ),
    Published(
        "ChnSentiCorp: label and text_a",
        {"train.tsv": table(["label", "text_a"], [1, 0, 1, 0], CHINESE, mark="\t")},
        TEXT,
        list(zip(CHINESE, ["1", "0", "1", "0"], strict=True)),
        ("0", "1"),
    ),
    Published(
        "LCQMC: two texts and label, no header",
        {"train.tsv": table(None, CHINESE, CHINESE[::-1], [1, 0, 1, 0], mark="\t")},
        TEXT,
        list(zip(CHINESE, ["1", "0", "1", "0"], strict=True)),
        ("0", "1"),
        settings=("data.columns.text=column1", "data.columns.text_pair=column2", "data.columns.label=column3"),
    ),
    Published(
        "AFQMC (JSON lines, labels as text)",
        {
            "train.json": lines(
                *(
                    {"sentence1": a, "sentence2": b, "label": str(n % 2)}
                    for n, (a, b) in enumerate(zip(CHINESE, CHINESE[::-1], strict=True))
                )
            )
        },
        TEXT,
        [(text, str(n % 2)) for n, text in enumerate(CHINESE)],
        ("0", "1"),
    ),
    Published(
        "MRPC (GLUE's TSV)",
        {
            "train.tsv": table(
                ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"],
                [n % 2 for n in range(6)],
                range(6),
                range(6),
                TEXTS,
                TEXTS[::-1],
                mark="\t",
            )
        },
        TEXT,
        ZERO_ONE,
        ("0", "1"),
    ),
    Published(
        "SNLI (labels '-' dropped)",
        {
            "train.jsonl": lines(
                *(
                    {"gold_label": x, "sentence1": t, "sentence2": u}
                    for t, u, x in zip(TEXTS, TEXTS[::-1], ["yes", "no", "-", "yes", "no", "yes"], strict=True)
                )
            )
        },
        TEXT,
        [(TEXTS[n], x) for n, x in ((0, "yes"), (1, "no"), (3, "yes"), (4, "no"), (5, "yes"))],
        ("no", "yes"),
        note="dropped 1 row without a label",
    ),
    # --- several labels ---
    Published(
        "Jigsaw: a column of 0 and 1 per label",
        {"train.csv": table(["id", "comment_text", *FLAGS], range(6), TEXTS, *FLAGS.values())},
        TEXT,
        FLAG_ROWS,
        SET_NAMES,
    ),
    Published(
        "multi-hot lists",
        {"train.jsonl": lines(*({"text": t, "labels": [FLAGS[x][n] for x in FLAGS]} for n, t in enumerate(TEXTS)))},
        TEXT,
        FLAG_ROWS,
        ("joy", "love", "fear"),
        settings=("data.label_names=[joy, love, fear]",),
    ),
    Published(
        "lists of names in CSV cells (Python)",
        {"train.csv": table(["text", "labels"], TEXTS, map(str, SETS))},
        TEXT,
        SET_ROWS,
        SET_NAMES,
    ),
    Published(
        "lists of names in CSV cells (JSON)",
        {"train.csv": table(["text", "labels"], TEXTS, map(json.dumps, SETS))},
        TEXT,
        SET_ROWS,
        SET_NAMES,
    ),
    Published(
        "GoEmotions: labels with commas, an empty cell for none",
        {"train.tsv": table(["text", "label", "id"], TEXTS, ["0,2", "0", "", "1", "2", "0,1"], range(6), mark="\t")},
        TEXT,
        [(t, x) for t, x in zip(TEXTS, ["0,2", "0", (), "1", "2", "0,1"], strict=True)],
        ("0", "1", "2"),
        settings=("problem=multi-label",),
    ),
    # --- spreadsheets ---
    Published(
        "Excel (.xlsx), numbers as classes",
        {"": sheet([["Review", "Stars"], *([t, float(n % 2 + 1)] for n, t in enumerate(TEXTS))])},
        TEXT,
        STARS,
        ("1", "2"),
        argument="data.xlsx",
    ),
    Published(
        "Excel with a title, a date column and an empty sheet",
        {
            "": sheet(
                [
                    ["Reviews of May", None, None],
                    [],
                    ["Date", "Review", "Stars"],
                    *([datetime.date(2026, 5, n + 1), t, n % 2 + 1] for n, t in enumerate(TEXTS)),
                ],
                others=["Notes"],
            )
        },
        TEXT,
        STARS,
        ("1", "2"),
        argument="data.xlsx",
        note="skipped 1 title line",
    ),
    Published(
        "LibreOffice (.ods)",
        {"data.ods": ods([["text", "label"], *([t, x] for t, x in CLASSES)])},
        TEXT,
        CLASSES,
        ("bad", "good"),
    ),
    Published(
        "Excel's CSV in German (semicolons, cp1252, title line)",
        {
            "export.csv": (
                "Auswertung\n"
                + table(
                    ["Datum", "Artikel-Nr.", "Kommentar des Kunden", "Sterne (1-5)"],
                    [f"0{n + 1}.05.2026" for n in range(6)],
                    [1000 + n // 2 for n in range(6)],
                    [f"{t}, schön" for t in TEXTS],
                    [n % 2 + 1 for n in range(6)],
                    mark=";",
                )
            ).encode("cp1252")
        },
        TEXT,
        [(f"{t}, schön", s) for t, s in STARS],
        ("1", "2"),
    ),
    Published(
        "a Chinese CSV in gb18030",
        {
            "评论.csv": table(["评论", "评分"], [f"{t} 我的天 不是一般的好" for t in CHINESE], [1, 2, 1, 2]).encode(
                "gb18030"
            )
        },
        TEXT,
        [(f"{t} 我的天 不是一般的好", s) for t, s in zip(CHINESE, ["1", "2", "1", "2"], strict=True)],
        ("1", "2"),
    ),
    Published(
        "compressed JSON lines",
        {"train.jsonl.gz": gzip.compress(lines(*({"text": t, "label": x} for t, x in CLASSES)).encode())},
        TEXT,
        CLASSES,
        ("bad", "good"),
    ),
    Published(
        "Amazon reviews of Kaggle (train.ft.txt)",
        {"train.ft.txt": "".join(f"__label__{s} {t}\n" for t, s in STARS)},
        TEXT,
        STARS,
        ("1", "2"),
    ),
]
