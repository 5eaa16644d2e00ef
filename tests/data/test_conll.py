"""Columns of words and tags as CoNLL publishes them: what is read, under which extension, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fasttune
from fasttune import cli
from fasttune.api import recipe_of
from fasttune.data.file_stream import open_stream
from fasttune.data.formats.storage import ReadOptions
from fasttune.data.sources import Source, load_source
from fasttune.errors import DataError

CONLL_2003 = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O
# NN B-NP O

Peter NNP B-NP B-PER
Blackburn NNP I-NP I-PER
"""
TOKENS = [["EU", "rejects", "#"], ["Peter", "Blackburn"]]
TAGS = [["B-ORG", "O", "O"], ["B-PER", "I-PER"]]
CONLLU = """# sent_id = 1
# text = Ann ate.
1\tAnn\tAnn\tPROPN\tNNP\t_\t2\tnsubj\t_\t_
2-3\tdidn't\t_\t_\t_\t_\t_\t_\t_\t_
2\tate\teat\tVERB\tVBD\t_\t0\troot\t_\tSpaceAfter=No
2.1\tate\teat\tVERB\tVBD\t_\t_\t_\t_\t_
3\t.\t.\tPUNCT\t.\t_\t2\tpunct\t_\t_
"""


def read(folder: Path, name: str, content: str) -> Source:
    path = folder / name
    path.write_bytes(content.encode())
    return load_source(str(path))


@pytest.mark.parametrize("name", ["eng.conll", "eng.testa", "eng.txt", "eng.tsv", "eng.bio", "eng.iob2"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_conll_2003_under_any_extension(name: str, line_end: str, tmp_path: Path) -> None:
    source = read(tmp_path, name, CONLL_2003.replace("\n", line_end))
    assert source.dataset.column_names == ["tokens", "column2", "column3", "tags"]
    assert source.dataset["tokens"][:] == TOKENS and source.dataset["tags"][:] == TAGS
    assert source.dataset["column2"][0] == ["NNP", "VBZ", "NN"]
    assert "skipped 1 comment or document line" in source.notes[-1]
    assert recipe_of(str(tmp_path / name))[0].task == "token-classification"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("weibo.ner", "科\tO\n技\tO\n\n李\tB-PER\n明\tE-PER\n"),
        ("resume.char.bmes", "科 O\n技 O\n\n李 B-PER\n明 E-PER\n"),
        ("blank-lines.bmes", "\n\n科 O\n技 O\n \n\n李 B-PER\n明 E-PER\n\n\n"),
        ("no-end.txt", "科 O\n技 O\n\n李 B-PER\n明 E-PER"),
    ],
)
def test_a_character_and_a_tag(name: str, content: str, tmp_path: Path) -> None:
    source = read(tmp_path, name, content)
    assert source.dataset.to_list() == [
        {"tokens": ["科", "技"], "tags": ["O", "O"]},
        {"tokens": ["李", "明"], "tags": ["B-PER", "E-PER"]},
    ]


def test_conllu_has_its_own_columns(tmp_path: Path) -> None:
    source = read(tmp_path, "en.conllu", CONLLU)
    (row,) = source.dataset.to_list()
    assert row["tokens"] == ["Ann", "ate", "."] and row["tags"] == ["PROPN", "VERB", "PUNCT"]
    assert row["xpos"] == ["NNP", "VBD", "."] and row["deprel"] == ["nsubj", "root", "punct"]


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("texts.txt", "the food was good\n\nthe room was not\n", ["column1"]),
        ("reviews.tsv", "text\tlabel\ngood\tO\nbad\tB-x\n", ["text", "label"]),
        ("lyrics.txt", "hold on\ncome on\n\ngo on\n", ["column1"]),
    ],
)
def test_other_text_files_stay_what_they_are(name: str, content: str, columns: list[str], tmp_path: Path) -> None:
    assert read(tmp_path, name, content).dataset.column_names == columns


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a O\nb\n\nc O\n", "line 2: found 1 field ('b'), expected 2 as in most lines"),
        ("a O\n\nc X O\n\nd O\n", "line 3: found 3 fields ('c X O'), expected 2 as in most lines"),
        ("a\nb\n", "line 1: found 1 field ('a'), expected a word and its tag"),
        ("\n\n", "the file has no words"),
    ],
)
def test_what_cannot_be_read_is_named(content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as raised:
        read(tmp_path, "rows.conll", content)
    assert message in str(raised.value)


def test_a_first_word_that_looks_like_a_comment_is_kept(tmp_path: Path) -> None:
    source = read(tmp_path, "rows.conll", "# NN B-NP O\none CD I-NP O\n\n# newdoc\ntwo CD B-NP O\n")
    assert source.dataset["tokens"][:] == [["#", "one"], ["two"]]


def test_numbered_words_are_not_trained_on(tmp_path: Path) -> None:
    source = read(tmp_path, "rows.conll", "1 Ann B-PER\n2 ate O\n\n1 Bob B-PER\n")
    assert source.dataset.column_names == ["id", "tokens", "tags"]
    assert source.dataset["tokens"][:] == [["Ann", "ate"], ["Bob"]]


@pytest.mark.parametrize("name", ["eng.txt", "eng.tsv", "eng.testa"])
def test_a_tag_too_few_is_reported_under_any_extension(name: str, tmp_path: Path) -> None:
    lines = [f"w{number}\tO\n\n" for number in range(40)]
    with pytest.raises(DataError, match=r"E142 .*line 5: found 1 field \('word'\), expected 2 as in most lines"):
        read(tmp_path, name, "".join([*lines[:2], "word\n\n", *lines[2:]]))


@pytest.mark.parametrize("content", [b"\x00\xff" * 100, b"nothing of the kind\n" * 9, b""])
def test_other_unknown_files_are_refused_as_before(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "rows.testa"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"E100 .*found a .testa file"):
        load_source(str(path))


def test_rows_are_named_by_their_first_line(tmp_path: Path) -> None:
    assert [read(tmp_path, "rows.conll", CONLL_2003).place(row) for row in range(2)] == ["row 3", "row 7"]


def test_it_is_not_streamed(tmp_path: Path) -> None:
    (tmp_path / "eng.txt").write_text(CONLL_2003)
    with pytest.raises(DataError, match="found a file in the form of CoNLL columns"):
        open_stream(str(tmp_path / "eng.txt"), "train", ReadOptions(), 10, 1)


def test_the_same_run_as_from_lists_of_words(tiny_model: Path, tmp_path: Path) -> None:
    words = ["the", "food", "was", "good"]
    sentences = [[(word, "B-X" if word == words[number % 4] else "O") for word in words] for number in range(24)]
    conll = "\n\n".join("\n".join(f"{word} {tag}" for word, tag in sentence) for sentence in sentences)
    (tmp_path / "rows.conll").write_text(conll)
    rows = [{"tokens": [word for word, _ in row], "tags": [tag for _, tag in row]} for row in sentences]
    runs = []
    for name, source in (("conll", str(tmp_path / "rows.conll")), ("lists", rows)):
        settings = {"model": str(tiny_model), "task": "token-classification", "data": {"train": source}}
        settings["training"] = {"max_steps": 3, "device": "cpu", "precision": "fp32"}
        runs.append(fasttune.fit(settings, output=tmp_path / name, progress=False, tracking={"report_to": "none"}))
    first, second = ((run.metrics["train_loss"], run.metrics["eval_f1"]) for run in runs)
    assert first == second


def test_a_command_shows_what_was_understood(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "eng.conll").write_text(CONLL_2003)
    assert cli.run(["show", str(tmp_path / "eng.conll"), "-n", "2", "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert sorted(row["tokens"] for row in rows) == sorted(TOKENS)
