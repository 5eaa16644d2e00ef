"""What a user can name as data (files, globs, lists, saved folders), and how other names are refused with a hint."""

import hashlib

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fasttune.data.sources import from_dataset, from_frame, from_rows, load_source
from fasttune.errors import DataError


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(spec, **options):
    with pytest.raises(DataError) as caught:
        load_source(spec, **options)
    return caught.value.problems


def two_splits():
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    return datasets.DatasetDict(
        {
            "train": datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features),
            "test": datasets.Dataset.from_dict({"text": ["c"], "label": [1]}, features=features),
        }
    )


def test_a_file_is_described_and_fingerprinted(in_tmp_path):
    content = b"text,label\na,1\nb,0\n"
    (in_tmp_path / "data.csv").write_bytes(content)
    source = load_source("data.csv")
    assert source.description == "data.csv: 2 rows, columns text, label"
    assert source.fingerprint == hashlib.sha256(content).hexdigest()
    assert source.split_names == ()


def test_the_same_file_gives_the_same_dataset_fingerprint(in_tmp_path):
    (in_tmp_path / "data.csv").write_text("text,label\na,1\nb,0\n")
    assert load_source("data.csv").dataset._fingerprint == load_source("data.csv").dataset._fingerprint


def test_globs_and_lists_are_read_as_one_table(in_tmp_path):
    (in_tmp_path / "b.csv").write_text("label;text\n0;b\n1;c\n")
    (in_tmp_path / "a.csv").write_text("text,label\na,1\n")
    source = load_source("*.csv")
    assert source.dataset.to_dict() == {"text": ["a", "b", "c"], "label": ["1", "0", "1"]}
    assert [source.place(index) for index in range(3)] == ["a.csv row 2", "b.csv row 2", "b.csv row 3"]
    assert source.description == "*.csv (2 files): 3 rows, columns text, label"
    assert load_source(["b.csv", "a.csv"]).dataset["text"][:] == ["b", "c", "a"]
    assert load_source(str(in_tmp_path / "[ab].csv")).dataset.num_rows == 3
    assert load_source(["a*.csv", "*.csv"]).fingerprint == source.fingerprint
    assert load_source("b.csv").fingerprint != source.fingerprint


def test_a_file_name_with_glob_characters_is_first_of_all_a_name(in_tmp_path):
    (in_tmp_path / "data[1].csv").write_text("text,label\na,1\n")
    assert load_source("data[1].csv").dataset.num_rows == 1


def test_files_that_do_not_agree(in_tmp_path):
    (in_tmp_path / "a.csv").write_text("text,label\na,1\n")
    (in_tmp_path / "b.csv").write_text("text,stars\na,1\n")
    (in_tmp_path / "c.jsonl").write_text('{"text": "a", "label": 1}\n')
    (in_tmp_path / "d.jsonl").write_text('{"text": "a", "label": "x"}\n')
    (in_tmp_path / "e.jsonl").write_text('{"text": "a", "label": null}\n')
    (problem,) = refused("[ab].csv")
    assert (problem.code, problem.where, problem.found) == ("E128", "b.csv", "the columns 'text', 'stars'")
    assert problem.expected == "'text', 'label' as in a.csv"
    (problem,) = refused(["c.jsonl", "d.jsonl"])
    assert (problem.code, problem.where) == ("E128", "d.jsonl, column 'label'")
    assert [problem.code for problem in refused(["a.csv", "c.jsonl"])] == ["E129"]
    assert load_source(["e.jsonl", "c.jsonl"]).dataset["label"][:] == [None, 1]
    (problem,) = refused(["e.jsonl", "c.jsonl", "d.jsonl"])
    assert (problem.where, problem.expected) == ("d.jsonl, column 'label'", "int64 as in c.jsonl")


def test_the_problems_of_all_files_come_together(in_tmp_path):
    (in_tmp_path / "a.csv").write_text("text,label\na\n")
    (in_tmp_path / "b.csv").write_text("text,label\n")
    assert [(problem.code, problem.where) for problem in refused("*.csv")] == [
        ("E111", "a.csv row 2"),
        ("E104", "b.csv"),
    ]
    (in_tmp_path / "c.csv").write_text("text,label\n" + "a\n" * 50)
    problems = refused("[bc].csv")
    assert len(problems) == 21 and problems[-1].found == "31 more problems"


def test_parquet_keeps_types_and_class_names(in_tmp_path):
    two_splits()["train"].to_parquet("hf.parquet")
    source = load_source("hf.parquet")
    assert source.dataset.features["label"].names == ["neg", "pos"]
    assert source.fingerprint == hashlib.sha256((in_tmp_path / "hf.parquet").read_bytes()).hexdigest()
    frame = pd.DataFrame({"text": ["a", "b", None], "label": pd.Categorical(["x", "y", "x"])})
    frame.to_parquet("pandas.parquet")
    assert load_source("pandas.parquet").dataset["label"][:] == ["x", "y", "x"]
    assert load_source("pandas.parquet").dataset["text"][:] == ["a", "b", None]


def test_damaged_parquet(in_tmp_path):
    pq.write_table(pa.table({"a": pa.array([], pa.string())}), "empty.parquet")
    (in_tmp_path / "half.parquet").write_bytes(b"PAR1 and nothing else")
    (in_tmp_path / "none.parquet").write_bytes(b"")
    (in_tmp_path / "sheet.parquet").write_bytes(b"PK\x03\x04....")
    pq.write_table(pa.Table.from_arrays([pa.array([1]), pa.array([2])], names=["a", "a"]), "twice.parquet")
    found = {problem.where: problem.code for problem in refused("*.parquet")}
    assert found == {
        "empty.parquet": "E104",
        "half.parquet": "E127",
        "none.parquet": "E103",
        "sheet.parquet": "E105",
        "twice.parquet": "E113",
    }


def test_saved_folders(in_tmp_path):
    two_splits().save_to_disk("saved")
    two_splits()["test"].save_to_disk("one")
    source = load_source("saved")
    assert source.dataset["text"][:] == ["a", "b"] and source.split_names == ("test",)
    assert source.dataset.features["label"].names == ["neg", "pos"]
    assert source.description == "saved:train: 2 rows, columns text, label"
    for asked in (load_source("saved:test"), load_source("saved", split="test"), load_source("one")):
        assert asked.dataset["text"][:] == ["c"]
    (problem,) = refused("saved:tset")
    assert (problem.code, problem.expected, problem.hint) == ("E131", "one of train, test", "saved:test")
    assert [problem.code for problem in refused("one:train")] == ["E131"]
    assert source.fingerprint == load_source("saved").fingerprint != load_source("saved:test").fingerprint


def test_a_damaged_saved_folder(in_tmp_path):
    two_splits()["test"].save_to_disk("one")
    for file in in_tmp_path.glob("one/*.arrow"):
        file.unlink()
    assert [problem.code for problem in refused("one")] == ["E127"]


def test_other_folders(in_tmp_path):
    (in_tmp_path / "folder").mkdir()
    (problem,) = refused("folder")
    assert (problem.code, problem.hint) == ("E102", "")
    (in_tmp_path / "folder" / "a.csv").write_text("text\na\n")
    assert load_source("folder").dataset.num_rows == load_source("folder/").dataset.num_rows == 1
    (problem,) = refused(["folder"])
    assert (problem.code, problem.hint) == ("E102", "pass the files: 'folder/*.csv'")


@pytest.mark.parametrize(
    ("spec", "hint"),
    [("data.csv", "did you mean Data.csv?"), ("./dta.csv", "did you mean ./Data.csv?"), ("other.jsonl", "")],
)
def test_a_missing_file_gets_the_nearest_name(in_tmp_path, spec, hint):
    (in_tmp_path / "Data.csv").write_text("text\na\n")
    (problem,) = refused(spec)
    assert (problem.code, problem.where, problem.hint) == ("E101", spec, hint)


@pytest.mark.parametrize(
    "spec",
    ["no/such/data.csv", "*.csv", "a[bc", "nowhere://example.org/data.csv", [], ["nothing"], "a b", "/no/such", ""],
)
def test_what_does_not_exist(spec):
    expected = {"": "E102", "nowhere://example.org/data.csv": "E140"}.get(str(spec), "E101")
    assert [problem.code for problem in refused(spec)] == [expected]


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("data.xlsx", b"anything", "E127"),
        ("data.xlsx", b"PK\x03\x04rest", "E127"),
        ("data.csv", b"PK\x03\x04rest", "E105"),
        ("data.csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1rest", "E105"),
        ("data.jsonl", b"PK\x03\x04rest", "E105"),
        ("data.pkl", b"\x80\x04", "E109"),
        ("model.PT", b"PK\x03\x04", "E109"),
        ("data.pth", b"", "E109"),
        ("data.csv.gz", b"\x1f\x8b", "E106"),
        ("data", b"text\na\n", "E100"),
        ("data.py", b"import os", "E100"),
        ("data.csv", b"", "E103"),
        ("data.csv", b"\n\n", "E103"),
        ("data.csv", b"text,label\n", "E104"),
        ("data.jsonl", b"", "E103"),
        ("data.csv", b"text\na\0b\n", "E123"),
    ],
)
def test_files_that_are_refused(in_tmp_path, name, content, code):
    (in_tmp_path / name).write_bytes(content)
    assert [problem.code for problem in refused(name)] == [code]


def test_a_file_that_may_not_be_read(in_tmp_path, monkeypatch):
    (in_tmp_path / "data.csv").write_text("text\na\n")

    def denied(path, *mode):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", denied)
    (problem,) = refused("data.csv")
    assert (problem.code, problem.found) == ("E101", "cannot be read: Permission denied")


def test_data_given_in_python():
    source = from_dataset(two_splits()["train"])
    assert source.dataset.features["label"].names == ["neg", "pos"] and source.fingerprint
    frame = pd.DataFrame({"text": ["a", "NA"], "label": ["01", "1"]}, index=[7, 8])
    assert from_frame(frame).dataset.to_dict() == {"text": ["a", "NA"], "label": ["01", "1"]}
    with pytest.raises(DataError, match="E125"):
        from_frame(pd.DataFrame({"a": [1, "x"]}))
    with pytest.raises(DataError, match="E104"):
        from_frame(pd.DataFrame({"a": []}))
    assert from_rows([{"text": "a"}]).description == "rows: 1 row, column text"
