"""Predictions as files and from several threads: the same answers in every form."""

from __future__ import annotations

import csv
import json
import math
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from tiny import make_questions, make_rows, make_sentences, write_csv, write_jsonl

import fasttune
from fasttune import api
from fasttune.cli import commands as cli
from fasttune.data import file_stream
from fasttune.evaluation import parts, predictions
from fasttune.evaluation.predictor import Predictor
from fasttune.tasks import Prediction


def fit(model: Path, folder: Path, rows: list[dict[str, Any]], **sections: Any) -> fasttune.Run:
    recipe = {
        "model": str(model),
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", rows))},
        "training": {"max_steps": 4, "precision": "fp32", "device": "cpu"},
        "tracking": {"report_to": "none"},
    }
    return fasttune.fit(recipe, output=folder / "run", progress=False, **sections)


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    return fit(tiny_model, tmp_path_factory.mktemp("run"), [dict(row) for row in make_rows(60)])


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    texts = ['good, "bad"\nfood', "the room was not good", "=1+1 staff"]
    return write_csv(tmp_path / "new.csv", [{"id": f"n{number}", "text": text} for number, text in enumerate(texts)])


def read_back(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text()
        return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_a_table_has_a_row_for_each_prediction(run: fasttune.Run, rows: Path, tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"found{ending}"
    expected = fasttune.predict(run.folder, data=str(rows), output=output)
    found = read_back(output)
    assert list(found[0]) == ["id", "text", "label", "score", "probability_negative", "probability_positive"]
    formula = "=1+1 staff" if ending == ".parquet" else "'=1+1 staff"  # which no spreadsheet computes
    assert [row["text"] for row in found] == ['good, "bad"\nfood', "the room was not good", formula]
    for row, prediction in zip(found, expected, strict=True):
        assert (row["id"], row["label"]) == (prediction["id"], prediction["label"])
        assert float(row["score"]) == prediction["score"]
        assert float(row["probability_positive"]) == prediction["probabilities"]["positive"]


@pytest.mark.parametrize("ending", [".json", ".jsonl"])
def test_json_holds_the_objects_with_their_texts(run: fasttune.Run, rows: Path, tmp_path: Path, ending: str) -> None:
    output = tmp_path / f"found{ending}"
    expected = fasttune.predict(run.folder, data=str(rows), output=output)
    texts = ['good, "bad"\nfood', "the room was not good", "=1+1 staff"]
    assert read_back(output) == [{**one, "text": text} for one, text in zip(expected, texts, strict=True)]


def test_the_command_writes_what_the_ending_says(run: fasttune.Run, rows: Path, tmp_path: Path) -> None:
    output = tmp_path / "found.csv"
    assert cli.run(["predict", str(run.folder), "--data", str(rows), "--output", str(output)]) == 0
    assert output.read_text().startswith("id,text,label,score,")


def test_tables_of_the_other_tasks(tiny_model: Path, tmp_path: Path) -> None:
    questions = fit(
        tiny_model, tmp_path, make_questions(30, longest=20), task="question-answering",
        preprocessing={"doc_stride": 8},
    )  # fmt: skip
    fasttune.predict(questions.folder, [("what was good", "great food w1")], output=tmp_path / "answers.csv")
    (row,) = read_back(tmp_path / "answers.csv")
    assert list(row)[:6] == ["id", "question", "context", "answer", "start", "end"] and "n_best" not in row
    (tmp_path / "words").mkdir()
    tagger = fit(tiny_model, tmp_path / "words", make_sentences(30), task="token-classification")
    (prediction,) = fasttune.predict(tagger.folder, ["good food w1"], output=tmp_path / "tags.csv")
    (row,) = read_back(tmp_path / "tags.csv")
    assert row["text"] == "good food w1" and json.loads(row["tags"]) == prediction["tags"]
    (tmp_path / "several").mkdir()
    labelled = [
        {"text": one["text"], "labels": [["a"], ["b"], ["a", "b"]][n % 3]} for n, one in enumerate(make_rows(40))
    ]
    several = fit(tiny_model, tmp_path / "several", labelled)
    (prediction,) = fasttune.predict(several.folder, ["good food"], output=tmp_path / "labels.csv")
    (row,) = read_back(tmp_path / "labels.csv")
    assert json.loads(row["labels"]) == prediction["labels"]


def no_answers_first(number: int) -> list[dict[str, Any]]:
    """Predictions of which only the last has an answer, entities and a finite score."""
    empty = {"answer": "", "start": None, "end": None, "score": math.nan, "labels": [], "entities": []}
    entity = {"type": "PER", "text": "Ann", "start": 0, "end": 3, "score": 0.5}
    full = {"answer": "Ann", "start": 0, "end": 3, "score": 0.5, "labels": ["a"], "entities": [entity]}
    return [{"id": str(row), **(full if row == number - 1 else empty)} for row in range(number)]


def test_the_first_rows_of_a_table_do_not_decide_what_later_ones_may_hold(tmp_path: Path) -> None:
    made = no_answers_first(predictions.ROWS_AT_ONCE + 1)
    for ending in (".parquet", ".csv", ".jsonl"):
        assert predictions.write(tmp_path / f"found{ending}", made) == len(made)
    table = read_back(tmp_path / "found.parquet")
    assert table[-1] == made[-1] and table[0] == {**made[0], "score": None}
    cells = read_back(tmp_path / "found.csv")
    assert (cells[0]["score"], cells[0]["start"], cells[-1]["end"]) == ("", "", "3")
    assert read_back(tmp_path / "found.jsonl")[0]["score"] is None


def test_a_table_without_rows(tmp_path: Path) -> None:
    assert predictions.write(tmp_path / "none.parquet", []) == 0
    assert read_back(tmp_path / "none.parquet") == []


def test_nothing_is_computed_for_a_form_that_is_not_written(run: fasttune.Run, tmp_path: Path) -> None:
    with pytest.raises(fasttune.Error, match=r"found the extension '\.xls'") as caught:
        fasttune.predict(run.folder, ["good"], output=tmp_path / "found.xls")
    assert caught.value.exit_code == 2 and not list(tmp_path.iterdir())


def test_precision_and_device_are_chosen_when_a_run_is_loaded(run: fasttune.Run) -> None:
    loaded = fasttune.load(run.folder, precision="bf16", device="cpu")
    assert loaded.recipe.training.precision == "bf16"
    assert fasttune.load(run.folder, {"training": {"device": "cpu"}}, precision="fp32").recipe.training.device == "cpu"
    with pytest.raises(fasttune.Error, match="E310"):
        fasttune.load(run.folder, precision="fp16")


def test_threads_share_a_predictor(run: fasttune.Run) -> None:
    """As a web server does: texts of 1 to 200 words, some of them above the longest that the model reads."""
    predictor = fasttune.load(run.folder)
    texts = [" ".join(f"w{(7 * number + place) % 60}" for place in range(1 + 5 * number % 200)) for number in range(80)]
    expected = [predictor.predict([text])[0]["score"] for text in texts]
    with ThreadPoolExecutor(8) as pool:
        found = [predictions[0]["score"] for predictions in pool.map(lambda text: predictor.predict([text]), texts)]
    assert found == pytest.approx(expected, abs=1e-6)


def test_weights_that_were_cast_before_give_the_same_bits(run: fasttune.Run) -> None:
    """In bf16 autocast would cast them in every forward pass."""
    texts = [row["text"] for row in make_rows(20, seed=9)]
    overrides = ["training.precision=bf16", "training.device=cpu"]
    cast = Predictor.open(run.folder, overrides)
    linear = [module for module in cast.setup.model.modules() if type(module) is torch.nn.Linear]
    assert linear and all(module.weight.dtype == torch.bfloat16 for module in linear)
    found = cast.predict(texts)
    for module in linear:
        module.float()
    saved = load_file(run.folder / "model.safetensors")
    cast.setup.model.load_state_dict(saved, strict=False)
    assert cast.predict(texts) == found


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """45 rows, one of them empty, for parts of 10."""
    monkeypatch.setattr(parts, "PART_ROWS", 10)
    monkeypatch.setattr("fasttune.evaluation.predictor.ROWS_AT_ONCE", 10)
    return write_csv(tmp_path / "many.csv", rows_with_an_empty_one(45))


def rows_with_an_empty_one(number: int) -> list[dict[str, Any]]:
    rows = [{"text": row["text"]} for row in make_rows(number, seed=4)]
    rows[12]["text"] = ""
    return rows


@pytest.fixture
def in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is large, and read in pieces of a few rows."""
    monkeypatch.setattr(parts, "MOST_BYTES", 0)
    monkeypatch.setattr(file_stream, "LEAST_BLOCK", 500)
    monkeypatch.setattr(file_stream, "LARGEST_BLOCK", 500)


@dataclass
class Killed:
    """`Predictor.predict_rows` that ends the process, so to speak, after `limit` predictions."""

    limit: float = math.inf
    predicted: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        own = Predictor.predict_rows

        def predict_rows(predictor: Predictor, *arguments: Any) -> Iterator[Prediction]:
            for prediction in own(predictor, *arguments):
                if len(self.predicted) >= self.limit:
                    raise KeyboardInterrupt
                self.predicted.append(prediction["id"])
                yield prediction

        self.predict_rows = predict_rows


@pytest.mark.parametrize("reading", ["whole", "in_pieces"])
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".tsv", ".json", ".parquet", ".xlsx"])
def test_a_killed_prediction_continues_after_the_last_whole_part(
    run: fasttune.Run,
    many: Path,
    tmp_path: Path,
    ending: str,
    reading: str,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if reading == "in_pieces":
        request.getfixturevalue("in_pieces")
    whole, output = tmp_path / f"whole{ending}", tmp_path / f"found{ending}"
    assert api.write_predictions(run.folder, data=str(many), output=whole) == 45
    killed = Killed(25)
    monkeypatch.setattr(Predictor, "predict_rows", killed.predict_rows)
    with pytest.raises(KeyboardInterrupt):
        api.write_predictions(run.folder, data=str(many), output=output)
    assert not output.exists() and len(killed.predicted) == 25
    (tmp_path / f".{output.name}.0123456789abcdef.staged").write_text("of a process that could not remove it")
    killed.limit = math.inf
    assert api.write_predictions(run.folder, data=str(many), output=output) == 45
    assert len(killed.predicted) < 25 + 40, "whole parts were not computed again"
    if ending == ".xlsx":  # the file holds its time
        assert sheet(output) == sheet(whole)
    else:
        assert output.read_bytes() == whole.read_bytes()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("with_ids", [False, True], ids=["numbers", "ids"])
@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_large_file_gives_the_same_predictions_as_when_it_is_read_as_a_whole(
    run: fasttune.Run,
    tmp_path: Path,
    ending: str,
    with_ids: bool,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = rows_with_an_empty_one(45)
    rows = [{"id": f"row {number}", **row} for number, row in enumerate(rows)] if with_ids else rows
    path = tmp_path / f"rows{ending}"
    table = pa.Table.from_pylist(rows)
    if ending == ".parquet":
        pq.write_table(table, path, row_group_size=10)
    elif ending == ".jsonl":
        write_jsonl(path, rows)
    else:
        pacsv.write_csv(table, path, pacsv.WriteOptions(delimiter="," if ending == ".csv" else "\t"))
    whole, pieces = tmp_path / "whole.jsonl", tmp_path / "pieces.jsonl"
    assert api.write_predictions(run.folder, data=str(path), output=whole) == 45
    said = capsys.readouterr().err
    request.getfixturevalue("in_pieces")
    own, read = file_stream.Stream.piece, []
    monkeypatch.setattr(file_stream.Stream, "piece", lambda stream, number: read.append(number) or own(stream, number))
    assert api.write_predictions(run.folder, data=str(path), output=pieces) == 45
    assert len(read) > 4
    said_again = capsys.readouterr().err
    for line in ("1 row without a text: the prediction is empty", "texts truncated to"):
        assert (line in said_again) == (line in said), line
    found, expected = read_back(pieces), read_back(whole)
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    assert [row["label"] for row in found] == [row["label"] for row in expected]
    assert [row["score"] for row in found if row["label"]] == pytest.approx(
        [row["score"] for row in expected if row["label"]], abs=1e-6
    )
    assert found[12]["label"] is None and found[12]["text"] == ""


def test_a_cell_of_several_lines_is_read_with_the_whole_file(
    run: fasttune.Run, tmp_path: Path, in_pieces: None
) -> None:
    path, output = tmp_path / "rows.csv", tmp_path / "found.jsonl"
    path.write_text("text\n" + '"good food\nand more"\n' * 60)
    assert api.write_predictions(run.folder, data=str(path), output=output) == 60
    assert {row["text"] for row in read_back(output)} == {"good food\nand more"}


def test_parts_of_other_rows_are_not_used(run: fasttune.Run, many: Path, tmp_path: Path) -> None:
    output = tmp_path / "found.jsonl"
    folder = tmp_path / ".found.jsonl.parts"
    folder.mkdir()
    (folder / "plan.json").write_text('{"rows": "of another file"}')
    (folder / "000000.jsonl").write_text('{"id": "0", "label": "wrong"}\n' * 10)
    api.write_predictions(run.folder, data=str(many), output=output)
    expected = fasttune.predict(run.folder, data=str(many), progress=False)
    assert [row["label"] for row in read_back(output)] == [row["label"] for row in expected]


def sheet(path: Path) -> list[list[Any]]:
    from python_calamine import CalamineWorkbook

    return CalamineWorkbook.from_path(str(path)).get_sheet_by_index(0).to_python()


def test_a_sheet_holds_texts_as_texts_and_numbers_as_numbers(run: fasttune.Run, rows: Path, tmp_path: Path) -> None:
    expected = fasttune.predict(run.folder, data=str(rows), output=tmp_path / "found.xlsx", progress=False)
    header, *found = sheet(tmp_path / "found.xlsx")
    assert header == ["id", "text", "label", "score", "probability_negative", "probability_positive"]
    assert found[2][1] == "=1+1 staff"
    for cells, one in zip(found, expected, strict=True):
        assert cells[2] == one["label"] and cells[3] == pytest.approx(one["score"])
    with zipfile.ZipFile(tmp_path / "found.xlsx") as archive:
        assert b"<f>" not in archive.read("xl/worksheets/sheet1.xml"), "a formula"
