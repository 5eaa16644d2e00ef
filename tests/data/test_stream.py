"""A stream yields every row of its files once per epoch, unchanged, and reports what it cannot read."""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fasttune.data.file_stream import LEAST_BLOCK, Stream, lines_between, open_stream
from fasttune.data.formats import hub
from fasttune.data.formats.storage import ReadOptions
from fasttune.data.sources import load_source
from fasttune.errors import DataError

NUM_ROWS = 12_000  # of each file: several blocks of the least size
ROWS = [
    {"id": str(row), "text": f"{'é' * (row % 50)} «{row}», " + "word " * (row % 17), "label": "ab"[row % 2]}
    for row in range(2 * NUM_ROWS)
]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=700)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        mark = "," if path.suffix == ".csv" else "\t"
        lines = [mark.join(rows[0]), *(mark.join(f'"{value}"' for value in row.values()) for row in rows)]
        path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return path


def opened(spec: Path | str | list[str], rows_at_once: int = 3000, **reading: object) -> Stream:
    return open_stream(spec if isinstance(spec, list) else str(spec), "train", ReadOptions(**reading), rows_at_once, 1)  # type: ignore[arg-type]


def epoch_of(stream: Stream, epoch: int = 0) -> list[dict[str, str]]:
    return [row for number in range(stream.num_windows) for row in stream.window(epoch, number).dataset]


def by_id(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    return sorted(rows, key=lambda row: int(row["id"]))


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".tsv", ".parquet"])
def test_every_row_once_an_epoch_as_it_stands_in_the_file(tmp_path: Path, suffix: str) -> None:
    write(tmp_path / f"a{suffix}", ROWS[:NUM_ROWS])
    write(tmp_path / f"b{suffix}", ROWS[NUM_ROWS:])
    stream = opened(str(tmp_path / f"*{suffix}"))
    first, second = epoch_of(stream), epoch_of(stream, 1)
    assert by_id(first) == by_id(second) == list(load_source(str(tmp_path / f"*{suffix}")).dataset) == ROWS
    assert [row["id"] for row in first] != [row["id"] for row in second]
    sizes = [len(stream.window(0, number).dataset) for number in range(stream.num_windows)]
    assert stream.num_windows > 3 and max(sizes) < 2 * 3000
    assert stream.num_rows == pytest.approx(2 * NUM_ROWS, rel=0 if suffix == ".parquet" else 0.03)


def test_a_window_is_a_function_of_files_seed_epoch_and_number(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    one, same = (opened(path).window(3, 2) for _ in range(2))
    assert one.dataset["id"] == same.dataset["id"] and opened(path).fingerprint == opened(path).fingerprint
    other = open_stream(str(path), "train", ReadOptions(), 3000, 2).window(3, 2)
    assert one.dataset["id"] != other.dataset["id"]


def test_a_window_mixes_places_of_sorted_files(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", [row for row in ROWS if row["label"] == "a"])
    write(tmp_path / "b.jsonl", [row for row in ROWS if row["label"] == "b"])
    stream = opened(str(tmp_path / "*.jsonl"), 6000)
    counts = Counter(stream.sample.dataset["label"])
    assert min(counts.values()) > 0.1 * sum(counts.values())


lines = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b" ")), max_size=30)


@given(lines, st.booleans(), st.integers(0, 20), st.integers(1, 60))
def test_blocks_of_any_size_hold_every_line_once(lines: list[bytes], ends: bool, begin: int, size: int) -> None:
    header = b"h" * begin + b"\n"
    content = b"\n".join(lines) + (b"\n" if ends and lines else b"")
    file, first = io.BytesIO(header + content), len(header)
    bounds = range(first, first + len(content), size)
    found = [lines_between(file, one, min(one + size, first + len(content)), first) for one in bounds]
    assert b"".join(found) == content
    assert all(block.endswith(b"\n") for block in found[:-1] if block and not content.endswith(block))


def test_rows_longer_than_a_block_blank_lines_and_no_line_feed_at_the_end(tmp_path: Path) -> None:
    rows = [{"id": str(row), "text": "x" * (3 * LEAST_BLOCK if row % 5 == 0 else 10)} for row in range(20)]
    path = tmp_path / "a.jsonl"
    path.write_text("\n\n" + "\n \n".join(json.dumps(row) for row in rows))
    assert by_id(epoch_of(opened(path, 10))) == rows


def test_other_encodings_and_files_without_a_header(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("".join(f"{row},café {row}\n" for row in range(9000)).encode("cp1252"))
    stream = opened(path, encoding="cp1252", header=False)
    found = epoch_of(stream)
    assert {row["column2"] for row in found} == {f"café {row}" for row in range(9000)} and len(found) == 9000
    (tmp_path / "b.jsonl").write_bytes(b"\xef\xbb\xbf" + b'{"id": "1"}\n{"id": "2"}\n')
    assert by_id(epoch_of(opened(tmp_path / "b.jsonl"))) == [{"id": "1"}, {"id": "2"}]


def test_addresses_lists_and_folders_of_splits(tmp_path: Path) -> None:
    content = "".join(json.dumps(row) + "\n" for row in ROWS[:300])
    with fsspec.open("memory://stream/train.jsonl", "w") as file:
        file.write(content)
    assert by_id(epoch_of(opened("memory://stream/*.jsonl"))) == ROWS[:300]
    write(tmp_path / "train.csv", ROWS[:300])
    write(tmp_path / "dev.csv", ROWS[300:310])
    stream = opened(tmp_path)
    assert by_id(epoch_of(stream)) == ROWS[:300] and stream.split_names == ("validation",)
    assert by_id(epoch_of(opened([str(tmp_path / "train.csv"), str(tmp_path / "dev.csv")]))) == ROWS[:310]


def test_the_files_of_a_repository_on_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "repository"
    folder.mkdir()
    write(folder / "train.parquet", ROWS[:300])
    write(folder / "test.parquet", ROWS[300:310])
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    real = datasets.load_dataset_builder
    monkeypatch.setattr(
        datasets, "load_dataset_builder", lambda name, config, revision: real(str(tmp_path / name.split("/")[1]))
    )
    monkeypatch.setattr(hub, "is_of", lambda file, repository: file.startswith(str(folder)))
    stream = opened("owner/repository")
    assert by_id(epoch_of(stream)) == ROWS[:300] and stream.split_names == ("test",)
    assert by_id(epoch_of(opened("owner/repository:test"))) == ROWS[300:310]


@pytest.mark.parametrize(
    ("name", "content", "code", "found"),
    [
        (
            "a.csv",
            b'text,label\r\n"one\r\ntwo",a\r\nthree,b\r\n',
            "E137",
            "a field spans several lines (row 2)",
        ),
        ("a.csv", b'text,label\nfine,a\n"never closed,b\n', "E137", "never closed"),
        ("a.json", b'[{"text": "a"}]', "E138", "a .json file"),
        ("a.jsonl.gz", gzip.compress(b'{"text": "a"}\n', mtime=0), "E138", "a .gz file"),
        ("a.csv", "text,label\na,b\n".encode("utf-16"), "E138", "a file in UTF-16"),
        ("a.csv", b"text,label\rone,a\rtwo,b\r", "E138", "no line feed"),
        ("a.jsonl", b"", "E103", "the file is empty"),
        ("a.jsonl", b"\n\n", "E104", "no rows"),
        ("a.parquet", b"PAR1 and no more", "E127", ""),
    ],
)
def test_what_cannot_be_streamed_is_refused_with_the_way_out(
    tmp_path: Path, name: str, content: bytes, code: str, found: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError) as caught:
        opened(tmp_path / name).sample  # noqa: B018
    (problem,) = caught.value.problems
    assert problem.code == code and found in problem.found
    assert (tmp_path / name).read_bytes() == content


def test_a_bad_row_is_named_by_its_byte_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS[:NUM_ROWS])
    text = path.read_bytes().split(b"\n")
    text[9000] = b'{"id": "9000", "text": }'
    path.write_bytes(b"\n".join(text))
    with pytest.raises(DataError) as caught:
        epoch_of(opened(path))
    (problem,) = caught.value.problems
    assert problem.code == "E115"
    begin = int(problem.where.partition("from byte ")[2].partition(" ")[0].replace(",", ""))
    number = int(problem.where.partition(" line ")[2].partition(" ")[0])
    assert path.read_bytes()[begin - 1 :].split(b"\n")[number].startswith(b'{"id": "9000"')


def test_a_file_that_changed_has_another_fingerprint(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", ROWS)
    before = opened(path).fingerprint
    with path.open("a") as file:
        file.write(json.dumps(ROWS[0]) + "\n")
    assert opened(path).fingerprint != before


def test_parquet_without_rows_and_first_lines_of_a_megabyte(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    with pytest.raises(DataError) as caught:
        opened(tmp_path / "empty.parquet")
    assert caught.value.problems[0].code == "E104"
    rows = [{"id": str(row), "text": "x" * 1_000_000} for row in range(3)]
    assert by_id(epoch_of(opened(write(tmp_path / "long.jsonl", rows)))) == rows
    (tmp_path / "long.csv").write_text("id,text\n" + "".join(f"{row['id']},{row['text']}\n" for row in rows))
    assert by_id(epoch_of(opened(tmp_path / "long.csv"))) == rows
