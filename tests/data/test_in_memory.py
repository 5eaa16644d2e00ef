"""Rows from a Python program are stored under a hash of their content, with types and class names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pyarrow as pa
import pytest
from tiny import make_rows

import fasttune
from fasttune.api import recipe_of, show
from fasttune.data.formats.in_memory import is_rows, stored
from fasttune.data.sources import load_source
from fasttune.errors import DataError

ROWS = [{"text": "NA", "label": "01"}, {"text": "b", "label": "1"}]
COLUMNS = {name: [row[name] for row in ROWS] for name in ROWS[0]}


class Polars:
    """What polars' frames offer to others: their columns as an Arrow stream."""

    def __arrow_c_stream__(self, schema: Any = None) -> Any:
        return pa.table(COLUMNS, schema=pa.schema({name: pa.string_view() for name in COLUMNS})).__arrow_c_stream__(
            schema
        )


@pytest.mark.parametrize(
    "rows",
    [ROWS, pd.DataFrame(COLUMNS, index=[5, 6]), pa.table(COLUMNS), datasets.Dataset.from_dict(COLUMNS), Polars()],
    ids=lambda rows: type(rows).__name__,
)
def test_rows_are_read_as_they_are(rows: Any) -> None:
    assert is_rows(rows)
    path = stored(rows)
    assert load_source(path).dataset.to_list() == ROWS
    assert stored(rows) == path, "the same rows, the same file"
    assert not list(Path(path).parent.glob("*.tmp"))


def test_a_split_cannot_leave_the_folder() -> None:
    rows = datasets.Dataset.from_list([{"text": "a", "label": "b"}] * 4)
    folder = Path(stored({"train": rows, "../../../evil": rows}))
    assert [path.name for path in folder.iterdir()] == ["train.parquet"]
    assert not list(folder.parents[3].glob("evil*"))


def test_splits_become_a_folder_and_class_names_stay() -> None:
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    parts = {
        split: datasets.Dataset.from_dict({"text": [split], "label": [1]}, features=features)
        for split in ("train", "test")
    }
    path = stored(datasets.DatasetDict(parts))
    assert stored(datasets.DatasetDict(parts)) == path
    source = load_source(path, "test")
    assert source.dataset.features["label"].names == ["no", "yes"] and source.split_names == ("train",)


def test_categories_become_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    labels = pa.array(["no", "yes", "no"], pa.string_view()).dictionary_encode()
    assert load_source(stored(pa.table({"text": list("abc"), "label": labels}))).dataset["label"][:] == [
        "no",
        "yes",
        "no",
    ]
    assert capsys.readouterr() == ("", ""), "nor is a progress bar shown"


@pytest.mark.parametrize("value", ["data.csv", ["a.csv"], {"data": {"train": "x"}}, Path("x"), None, []])
def test_what_is_no_rows(value: Any) -> None:
    assert not is_rows(value)


@pytest.mark.parametrize("value", [pd.Series(["a"]), datasets.Dataset.from_dict(COLUMNS).to_iterable_dataset()])
def test_objects_that_are_no_table(value: Any) -> None:
    with pytest.raises(DataError, match=r"E125 rows: found a .*, expected a pandas or polars frame"):
        show(value)


def test_rows_that_make_no_table() -> None:
    with pytest.raises(DataError, match="E125"):
        stored(pd.DataFrame({"text": ["a", 1]}))
    with pytest.raises(DataError, match="E104"):
        stored(pa.table({"text": pa.array([], pa.string())}))


def test_frames_go_through_the_whole_interface(recipe: dict, tmp_path: Path) -> None:
    frame = pd.DataFrame(make_rows(80))
    model = {"model": recipe["model"], "training": {**recipe["training"], "max_steps": 2}}
    run = fasttune.fit({**model, "data": {"train": frame, "test": frame[:9]}}, output=tmp_path / "a", progress=False)
    assert run.metrics["test_samples_per_second"] > 0
    again = fasttune.fit(run.folder / "recipe.yaml", output=tmp_path / "b", progress=False)
    assert again.metrics["test_loss"] == run.metrics["test_loss"], "the saved recipe finds the rows"
    assert len(fasttune.predict(run.folder, data=frame[["text"]][:3])) == 3
    assert fasttune.evaluate(run.folder, data=frame)["eval_accuracy"] >= 0
    assert show(frame, num_rows=2).rows[0].keys() == {"text", "label"}
    assert recipe_of(frame)[0].data.train.endswith(".parquet")  # type: ignore[union-attr]
    words = [{"tokens": ["Ann", "came"], "tags": ["B-PER", "O"]}]
    assert recipe_of(words)[0].task == "token-classification"
