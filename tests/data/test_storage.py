"""Compressed files and addresses read like the plain file; dangerous or truncated ones are refused."""

from __future__ import annotations

import bz2
import gzip
import lzma
import zipfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest

from fasttune.data.formats import storage
from fasttune.data.formats.storage import ReadOptions
from fasttune.data.sources import Source, load_source
from fasttune.errors import DataError, Problem

PLAIN = b"text,label\nwell,1\nfine,0\n"


@pytest.fixture(autouse=True)
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(spec: str, **options: object) -> Problem:
    with pytest.raises(DataError) as caught:
        load_source(spec, **options)  # type: ignore[arg-type]
    return caught.value.problems[0]


def rows_of(source: Source) -> list[dict]:
    return source.dataset.to_list()


ROWS = [{"text": "well", "label": "1"}, {"text": "fine", "label": "0"}]


def zstandard(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("suffix", "pack"), [("gz", gzip.compress), ("bz2", bz2.compress), ("xz", lzma.compress), ("zst", zstandard)]
)
def test_compressed_files_are_read_and_cut_ones_are_told(suffix: str, pack) -> None:
    name = f"data.csv.{suffix}"
    Path(name).write_bytes(pack(PLAIN))
    source = load_source(name)
    assert rows_of(source) == ROWS
    Path("data.csv").write_bytes(PLAIN)
    assert source.fingerprint == load_source("data.csv").fingerprint, "the content counts, not its packing"
    assert [row["text"] for row in rows_of(load_source(["data.csv", name]))] == ["well", "fine"] * 2
    Path(name).write_bytes(pack(PLAIN * 50)[:-9])
    assert refused(name).code == "E106"
    Path(name).write_bytes(b"no archive at all")
    assert refused(name).code == "E106"
    Path(name).write_bytes(b"")
    assert refused(name).code == "E103"


def zip_of(*members: tuple[str, bytes]) -> None:
    with zipfile.ZipFile("data.zip", "w") as archive:
        for name, content in members:
            archive.writestr(name, content)


def test_a_zip_of_one_data_file_is_read() -> None:
    zip_of(("folder/data.csv", PLAIN), ("__MACOSX/._data.csv", b"x"), ("folder/.hidden", b"x"), ("LICENSE.txt", b"x"))
    assert rows_of(load_source("data.zip")) == ROWS
    zip_of(("a.csv", PLAIN), ("b.csv", PLAIN))
    assert refused("data.zip").code == "E102"
    zip_of()
    assert refused("data.zip").found == "an archive without files"
    zip_of(("data.pkl", PLAIN))
    assert refused("data.zip").code == "E109"
    zip_of(("data.png", PLAIN))
    assert refused("data.zip").code == "E100"
    Path("data.zip").write_bytes(b"PK\x03\x04 and no more")
    assert refused("data.zip").code == "E106"


@pytest.mark.parametrize("name", ["../data.csv", "/data.csv", "a/../../data.csv", "..\\data.csv"])
def test_a_zip_with_a_path_outside_itself_is_refused(name: str) -> None:
    zip_of((name, PLAIN))
    assert refused("data.zip").code == "E108"


def test_how_much_an_archive_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = b"text,label\n" + b"well,1\n" * 500_000
    Path("data.csv.gz").write_bytes(gzip.compress(bomb))
    assert load_source("data.csv.gz").dataset.num_rows == 500_000, "a gibibyte is always allowed"
    monkeypatch.setattr(storage, "ALWAYS_ALLOWED", 1000)
    problem = refused("data.csv.gz")
    assert problem.code == "E107" and problem.hint.startswith("data.max_bytes=")
    assert load_source("data.csv.gz", reading=ReadOptions(max_bytes=10**7)).dataset.num_rows == 500_000
    zip_of(("data.csv", PLAIN))
    assert refused("data.zip", reading=ReadOptions(max_bytes=5)).code == "E107"


def test_addresses_of_other_file_systems() -> None:
    """fsspec's own file system in memory stands for s3:// and the others: the same calls."""
    memory = fsspec.filesystem("memory")
    memory.pipe({"/bucket/a.csv": PLAIN, "/bucket/b.csv.gz": gzip.compress(PLAIN), "/bucket/c.json": b"[]"})
    load_source("memory://bucket/a.csv").dataset.to_parquet("d.parquet")
    memory.pipe("/bucket/d.parquet", Path("d.parquet").read_bytes())
    assert rows_of(load_source("memory://bucket/a.csv")) == ROWS
    assert rows_of(load_source("memory://bucket/*.csv*")) == ROWS * 2
    assert rows_of(load_source(["memory://bucket/b.csv.gz"])) == ROWS
    assert rows_of(load_source("memory://bucket/d.parquet")) == ROWS
    assert refused("memory://bucket/e.csv").code == "E101"
    assert refused("nowhere://bucket/e.csv").code == "E140"
    assert refused("s3://bucket/e.csv").code == "E136", "s3fs is not installed here"


def test_arrow_files_and_streams() -> None:
    table = pa.table({"text": ["well", "fine"], "label": ["1", "0"]})
    with pa.OSFile("a.arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile("b.arrow", "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    assert rows_of(load_source("a.arrow")) == rows_of(load_source("b.arrow")) == ROWS
    Path("a.arrow").write_bytes(Path("a.arrow").read_bytes()[:50])
    assert refused("a.arrow").code == "E127"


def test_an_encoding_and_a_missing_header_are_read_where_they_are_named() -> None:
    Path("data.csv").write_bytes("café,1\nthé,0\n".encode("cp1252"))
    source = load_source("data.csv", reading=ReadOptions(encoding="cp1252", header=False))
    assert rows_of(source) == [{"column1": "café", "column2": "1"}, {"column1": "thé", "column2": "0"}]
    assert source.place(1) == "row 2"
    assert source.notes == ("data.csv: read as cp1252, as data.encoding says",)
    assert refused("data.csv", reading=ReadOptions(encoding="ascii")).code == "E121"


def folder_of(**files: bytes) -> None:
    Path("data").mkdir(exist_ok=True)
    for path in Path("data").iterdir():
        path.unlink()
    for name, content in files.items():
        Path("data", name.replace("__", ".").replace("_", "-")).write_bytes(content)


def test_a_folder_of_splits_by_their_names() -> None:
    folder_of(reviews_train__csv=PLAIN, dev__tsv=b"text\tlabel\na\t1\n", test_00000_of_2__csv=PLAIN, labels__txt=b"x\n")
    source = load_source("data")
    assert rows_of(source) == ROWS
    assert set(source.split_names) == {"validation", "test"}
    assert "train, by file name: reviews-train.csv; ignored: labels.txt" in source.notes[0]
    assert rows_of(load_source("data", "validation")) == [{"text": "a", "label": "1"}]
    assert rows_of(load_source("data:test")) == ROWS
    assert refused("data:tset").hint == "data:test"


def test_a_folder_of_parts_is_one_table() -> None:
    folder_of(a__csv=PLAIN, b__csv__gz=gzip.compress(PLAIN))
    assert rows_of(load_source("data")) == ROWS * 2
    folder_of(a__csv=PLAIN, b__jsonl=b'{"text": "a"}\n')
    assert refused("data").code == "E102"
    folder_of(readme__md=b"x")
    assert refused("data").found == "a folder without data files"


def test_names_of_splits_are_found_wherever_they_stand() -> None:
    for train, test in (
        ("reviews.train.csv", "reviews.test.csv"),
        ("v1.0_train.csv", "v1.0_test.csv"),
        ("TrainData.csv", "TestData.csv"),
    ):
        folder_of()
        Path("data", train).write_bytes(PLAIN)
        Path("data", test).write_bytes(PLAIN)
        assert load_source("data").split_names == ("test",)
    folder_of(reviews__csv=PLAIN, test__csv=PLAIN)
    problem = refused("data")
    assert (problem.code, problem.found) == ("E102", "a folder with files for test but none for train")


def test_an_encoding_that_cannot_say_where_it_fails() -> None:
    Path("data.csv").write_bytes(b"text,label\n\xff,1\n")
    assert refused("data.csv", reading=ReadOptions(encoding="punycode")).code == "E121"
