"""Published data sets as they are: unbalanced quotes, byte order marks, files without a header."""

import os
from pathlib import Path

import pytest

from fasttune.data.columns import label_values, label_vocabulary, text_values
from fasttune.data.sources import load_source
from fasttune.data.splits import holdout

ROOT = Path(__file__).resolve().parents[2]
FOLDER = (ROOT / os.environ.get("FASTTUNE_REAL_DATA", "../shared/data")).resolve()

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not FOLDER.is_dir(), reason="no real data: FASTTUNE_REAL_DATA names no folder"),
]


def load(name):
    return load_source(str(FOLDER / name))


@pytest.mark.parametrize(
    ("name", "num_rows", "columns"),
    [
        ("yelp_review_full/train.jsonl", 4000, ["label", "text"]),
        ("yelp_review_full/validation.jsonl", 500, ["label", "text"]),
        ("mrpc/train.tsv", 3668, ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]),
        ("mrpc/dev.tsv", 408, ["Quality", "#1 ID", "#2 ID", "#1 String", "#2 String"]),
        ("goemotions/train.tsv", 43410, ["text", "label", "id"]),
        ("goemotions/dev.tsv", 5426, ["text", "label", "id"]),
        ("weibo_ner/train.json", 1350, ["text", "label"]),
    ],
)
def test_rows_and_columns(name, num_rows, columns):
    dataset = load(name).dataset
    assert dataset.num_rows == num_rows and dataset.column_names == columns


@pytest.mark.parametrize(("name", "num_rows"), [("stsb/train.tsv", 5749), ("stsb/dev.tsv", 1500)])
def test_stsb(name, num_rows):
    dataset = load(name).dataset
    assert dataset.num_rows == num_rows and dataset.column_names[-3:] == ["sentence1", "sentence2", "score"]
    assert all(0 <= float(score) <= 5 for score in dataset["score"])


@pytest.mark.parametrize("name", ["mrpc/train.tsv", "mrpc/dev.tsv", "stsb/train.tsv"])
def test_unquoted_files_are_the_lines_split_at_tabs(name):
    lines = (FOLDER / name).read_text(encoding="utf-8-sig").removesuffix("\n").split("\n")
    source = load(name)
    assert [list(row.values()) for row in source.dataset] == [line.split("\t") for line in lines[1:]]
    assert any("read as text" in note for note in source.notes)


def test_yelp_becomes_texts_and_classes():
    source = load("yelp_review_full/train.jsonl")
    texts = text_values(source.dataset, "text", "train.jsonl", source.place)
    labels = label_values(source.dataset, "label", "train.jsonl", source.place)
    vocabulary = label_vocabulary(labels)
    assert len(texts) == 4000 and vocabulary.names == ("0", "1", "2", "3", "4")
    train, validation = holdout([vocabulary.index[label] for label in labels], 0.1, seed=0)
    assert (len(train), len(validation)) == (3600, 400)


@pytest.mark.parametrize("name", ["chnsenticorp/train.tsv", "chnsenticorp/dev.tsv"])
def test_a_file_without_a_header(name):
    source = load(name)
    assert source.dataset.column_names == ["column1", "column2"]
    assert set(source.dataset["column2"]) == {"positive", "negative"}
