"""Large tables are mapped from unnamed files: the rows are the same, and few pages stay in memory after release."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fasttune.data.columns import Texts, label_values, text_values
from fasttune.data.rows import NumbersAsIds, Rows
from fasttune.data.sources import Source, load_source
from fasttune.data.tokens import mapped

ROWS = [{"text": f"row {number} " + "word " * 300, "label": "ab"[number % 2]} for number in range(3000)]


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    monkeypatch.setattr(mapped, "LARGE", 1)
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["text", "label"])
        writer.writeheader()
        writer.writerows(ROWS)
    return load_source(str(tmp_path / "rows.csv"))


def pages_of_files() -> int:
    """Bytes of files without names that are in the memory of this process."""
    parts = Path("/proc/self/smaps").read_text().split("VmFlags")
    return sum(int(part.split("Rss:")[1].split()[0]) * 1024 for part in parts if "/fasttune/rows/" in part)


def test_a_mapped_table_has_the_same_rows(source: Source) -> None:
    assert list(source.dataset) == ROWS
    assert source.dataset.select([7, 3])["label"][:] == ["b", "b"]
    assert source.take([5, 8]).place(1) == "row 10"


@pytest.mark.skipif(not os.path.exists("/proc/self/smaps"), reason="asks the kernel of Linux")  # noqa: PTH110
def test_its_pages_can_be_released(source: Source) -> None:
    texts = text_values(source.dataset, "text", "rows.csv")
    assert sum(map(len, texts)) == sum(len(row["text"]) for row in ROWS)
    assert pages_of_files() > 3e6
    mapped.release_pages()
    assert pages_of_files() < 1e5
    assert texts[2999] == ROWS[2999]["text"]


def test_rows_that_are_taken_are_numbers(source: Source) -> None:
    texts, labels = text_values(source.dataset, "text", "rows.csv"), label_values(source.dataset, "label", "rows.csv")
    rows = Rows(NumbersAsIds(range(3000)), {"text": texts, "label": labels}, place=source.place)
    taken = rows.take([2, 1, 2000]).take([2, 0])
    assert isinstance(taken.values["text"], Texts) and list(taken.values["text"]) == [
        ROWS[2000]["text"],
        ROWS[2]["text"],
    ]
    assert list(taken.values["label"]) == ["a", "a"] and list(taken.ids) == ["2000", "2"]
    assert taken.place(1) == "row 4"
    for some in (texts, rows.take(range(3000)).values["text"]):
        assert some[-1] == ROWS[-1]["text"]
        assert some[4:1:-1] == [ROWS[number]["text"] for number in (4, 3, 2)]
        assert some[2998:9999] == [row["text"] for row in ROWS[2998:]]
    assert taken.ids[:1] == ["2000"]


def test_chosen_rows_are_one_piece(source: Source) -> None:
    """Arrow gives each row that is chosen as a piece of its own."""
    texts = text_values(source.take(range(0, 3000, 2)).dataset, "text", "rows.csv")
    assert list(texts) == [row["text"] for row in ROWS[::2]]
    assert texts._column.num_chunks == 1


def test_what_such_a_file_cannot_hold_stays_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lists of categories, of other categories in each of two files."""
    monkeypatch.setattr(mapped, "LARGE", 1)
    for name, words in (("a", ["x", "y"]), ("b", ["z", "y"])):
        values = pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int32()), words)
        labels = pa.ListArray.from_arrays([0, 1, 2], values)
        pq.write_table(pa.table({"text": ["one", "two"], "label": labels}), tmp_path / f"{name}.parquet")
    source = load_source([str(tmp_path / "a.parquet"), str(tmp_path / "b.parquet")])
    assert [row["label"] for row in source.dataset] == [["x"], ["y"], ["z"], ["y"]]
