"""The exact texts of data errors: each says where the problem is, what is wrong, and what to do."""

import pytest

from fasttune.data.sources import load_source
from fasttune.errors import DataError

TEXTS = [
    (
        "reviews.csv",
        "text,label\ngood,1\nwell, yes,0\n",
        "E110 reviews.csv row 3: found 3 fields (first extra: '0'), expected 2 as in the header\n"
        "  hint: put double quotes around a field that contains a comma",
    ),
    (
        "reviews.csv",
        "text,label\ngood,1\nwell\n",
        "E111 reviews.csv row 3: found 1 field ('label' missing), expected 2 as in the header\n"
        "  hint: an empty value still needs its comma",
    ),
    (
        "reviews.csv",
        'text,label\n"good,1\nbad,0\n',
        'E112 reviews.csv row 2: the quote (") opened in this row is never closed\n'
        '  hint: inside a quoted field, write a quote twice: "a 15"" screen"',
    ),
    (
        "reviews.csv",
        'text,label\n"a 15" screen",1\nbad,0\n',
        "E112 reviews.csv row 2: found text right after the closing quote, "
        "expected a delimiter or the end of the line\n"
        '  hint: inside a quoted field, write a quote twice: "a 15"" screen"',
    ),
    (
        "reviews.csv",
        "text,text\na,b\n",
        "E113 reviews.csv row 1: two columns are named 'text'\n"
        "  hint: rename one of them in the first line of the file",
    ),
    (
        "reviews.tsv",
        "good\tpos\nbad\tneg\nfine\tpos\nwell\tpos\n",
        "E114 reviews.tsv row 1: found a row of data ('pos' occurs again further down), "
        "expected column names\n"
        "    'good' | 'pos'\n"
        "    'bad' | 'neg'\n"
        "    'fine' | 'pos'\n"
        "  hint: data.header=false names the columns column1, column2 and so on; data.header=true if this is the "
        "header",
    ),
    (
        "reviews.csv",
        "",
        "E103 reviews.csv: the file is empty (0 bytes)\n"
        "  hint: write the file again: the program that wrote it may have been interrupted",
    ),
    (
        "reviews.csv",
        "text,label\n",
        "E104 reviews.csv: there are no rows below the header\n"
        "  hint: write the file again: the program that wrote it may have been interrupted; if the file has no header: "
        "data.header=false",
    ),
    (
        "reviews.csv",
        b"PK\x03\x04",
        "E105 reviews.csv: found a spreadsheet or a zip archive under the extension of a text file, expected a text "
        "file\n"
        "  hint: rename it: reviews.xlsx (or .xls, .ods, .zip)",
    ),
    (
        "reviews.pkl",
        b"\x80",
        "E109 reviews.pkl: found a .pkl file, expected one of .conll, .conllu, .bio, .iob, .iob2, .bioes, .bmes, .ner, "
        ".ft, .csv, .tsv, .txt, .tab, .jsonl, .ndjson, .json, .xlsx, .xlsm, .xlsb, .xls, .ods, .parquet, .arrow, "
        ".feather\n"
        "  hint: fasttune never reads pickle, which can run any code: save the data as .parquet or .csv instead",
    ),
    (
        "reviews.jsonl",
        '{"text": "a"}\n{"text": oops}\n',
        "E115 reviews.jsonl line 2 column 10: found 'oops}', expected a value\n"
        "  hint: write the file with a JSON library, one object per line",
    ),
    (
        "reviews.json",
        '{"data": [{"paragraphs": [{"context": "Ann came.", "qas": [{"id": "q", "answers": []}]}]}]}',
        "E124 reviews.json article 1, paragraph 1, question 1: found no question, expected a string, as in SQuAD files",
    ),
    (
        "reviews.jsonl",
        '{"text": "a", "label": 1}\n{"text": "b"}\n{"text": "c"}\n',
        "E117 reviews.jsonl: the key 'label' is missing in 2 of 3 rows (first: row 2)\n"
        "  hint: write the key in every row, with null if there is no value",
    ),
    (
        "reviews.jsonl",
        '{"text": "a", "label": NaN}\n',
        "E118 reviews.jsonl line 1: found NaN, expected a finite number or null\n"
        "  hint: remove the row, or write the number",
    ),
    (
        "reviews.csv",
        b"text,label\nok,1\ntr\xe8s,1\n",
        "E121 reviews.csv row 3: found byte 0xE8, which is not valid UTF-8, expected UTF-8\n"
        "    data.encoding=cp1252: tr\u00e8s\n"
        "    data.encoding=cp1250: tr\u010ds\n"
        "  hint: the setting whose words are right",
    ),
    (
        "reviews.csv",
        "text,label\ncaf\u00e9,1\n".encode() + b"caf\xe9,1\n",
        "E122 reviews.csv row 3: found byte 0xE9, which is not valid UTF-8, in a file with 1 row of valid UTF-8, "
        "expected text in one encoding\n"
        "  hint: fix these rows: 3",
    ),
    (
        "reviews.csv",
        "text,label\na\0b,1\n",
        "E123 reviews.csv row 2: found a NUL character (1 in the file), expected text\n"
        "  hint: to remove the NUL bytes: tr -d '\\000' < reviews.csv > clean.csv",
    ),
    (
        "reviews.jsonl",
        '{"label": 1}\n{"label": "x"}\n',
        "E125 reviews.jsonl, column 'label': found a number (row 1) and a text (row 2), expected values of one type",
    ),
]


@pytest.mark.parametrize(("name", "content", "text"), TEXTS, ids=[text[:4] for _, _, text in TEXTS])
def test_the_text_of_an_error(tmp_path, monkeypatch, name, content, text):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError) as caught:
        raise DataError(*load_source(name).unreadable.values())
    assert str(caught.value) == text
    assert caught.value.exit_code == 4


def test_the_text_of_a_missing_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Reviews.csv").write_text("text\na\n")
    with pytest.raises(DataError) as caught:
        load_source("reviews.csv")
    assert str(caught.value) == ("E101 reviews.csv: no such file or folder\n  hint: did you mean Reviews.csv?")
