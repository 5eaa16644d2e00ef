"""Files whose columns, labels and cells differ from those that the run was trained on."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from tiny import make_rows, write_csv, write_jsonl

import fasttune
from fasttune.cli import commands as cli
from fasttune.data.label_matching import match_labels
from fasttune.data.labels import Vocabulary

STARS = ["1 star", "2 stars", "3 stars", "4 stars", "5 stars"]


def fit(model: Path, folder: Path, rows: list[dict[str, Any]], **sections: Any) -> fasttune.Run:
    folder.mkdir(exist_ok=True)
    recipe = {
        "model": str(model),
        "data": {"train": str(write_jsonl(folder / "rows.jsonl", rows))},
        "training": {"max_steps": 4, "precision": "fp32", "device": "cpu"},
        "tracking": {"report_to": "none"},
    }
    return fasttune.fit(recipe, output=folder / "run", progress=False, **sections)


def starred(num_rows: int = 60) -> list[dict[str, str]]:
    return [{"text": row["text"], "label": STARS[number % 5]} for number, row in enumerate(make_rows(num_rows))]


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    return fit(tiny_model, tmp_path_factory.mktemp("stars"), starred())


@pytest.fixture(scope="module")
def pairs(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    rows = [{"sentence1": row["text"], "sentence2": "the food", "label": row["label"]} for row in make_rows(60)]
    return fit(tiny_model, tmp_path_factory.mktemp("pairs"), rows)


def renamed(path: Path, rows: list[dict[str, str]], *names: str) -> str:
    return str(write_csv(path, [dict(zip(names, row.values(), strict=True)) for row in rows]))


def said(capsys: pytest.CaptureFixture[str]) -> str:
    """What was logged, without the warning that so short a run predicts one class."""
    lines = capsys.readouterr().err.splitlines(keepends=True)
    return "".join(line for line in lines if "every prediction is" not in line)


# --- columns --------------------------------------------------------------------------------------------------------


def test_columns_with_other_names_are_guessed_and_reported(
    run: fasttune.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = starred(20)
    expected = fasttune.evaluate(run.folder, data=str(write_csv(tmp_path / "same.csv", rows)))
    assert said(capsys) == ""
    other = renamed(tmp_path / "other.csv", rows, "review", "stars")
    found = fasttune.evaluate(run.folder, data=other)
    assert found["eval_loss"] == expected["eval_loss"] and found["eval_samples"] == 20
    assert said(capsys) == (
        f"{other}: column 'review' is used as the text; in the run it was 'text'\n"
        f"{other}: column 'stars' is used as the label; in the run it was 'label'\n"
    )
    predicted = fasttune.predict(run.folder, data=other)
    assert predicted == fasttune.predict(run.folder, data=str(tmp_path / "same.csv"), progress=False)
    assert capsys.readouterr().err == f"{other}: column 'review' is used as the text; in the run it was 'text'\n"


def test_a_file_with_a_header_for_a_run_without_one(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = make_rows(60, longest=40)
    path = tmp_path / "rows.csv"
    path.write_text("".join(f"the food was {row['text']},{row['label']}\n" for row in rows))
    recipe = {"model": str(tiny_model), "data": {"train": str(path)}, "training": {"max_steps": 2, "device": "cpu"}}
    folder = fasttune.fit(recipe, output=tmp_path / "run", progress=False).folder
    assert "header: false" in (folder / "recipe.yaml").read_text()
    other = tmp_path / "other.csv"
    other.write_text("text,label\n" + path.read_text())
    capsys.readouterr()
    found = fasttune.evaluate(folder, data=str(other))
    assert found["eval_loss"] == fasttune.evaluate(folder, data=str(path), progress=False)["eval_loss"]
    assert "the first row is read as the header, unlike in the run" in said(capsys)
    assert len(fasttune.predict(folder, data=str(other))) == 60


def test_the_only_column_of_a_file_to_predict_is_the_text(run: fasttune.Run, tmp_path: Path) -> None:
    data = renamed(tmp_path / "one.csv", [{"text": "good"}, {"text": "bad"}], "Kommentar")
    assert [one["id"] for one in fasttune.predict(run.folder, data=data, progress=False)] == ["0", "1"]


def test_unclear_columns_are_one_message_with_the_whole_command(
    run: fasttune.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"a": row["text"], "b": row["text"][::-1], "stars": row["label"]} for row in starred(20)]
    data = str(write_csv(tmp_path / "unclear rows.csv", rows))
    assert cli.run(["evaluate", str(run.folder), "--data", data]) == 4
    said = capsys.readouterr().err
    assert said.count("E201") == 1 and "E202" not in said
    command = f"fasttune evaluate {run.folder} --data '{data}' data.columns.text=COLUMN data.columns.label=stars"
    assert f"cannot tell which column is the text; the columns are 'a', 'b', 'stars'\n  hint: {command}\n" in said
    typed = shlex.split(command.replace("COLUMN", "a"))[1:]
    assert cli.run(typed) == 0
    assert cli.run(["evaluate", str(run.folder), "--data", data, "data.columns.text=none"]) == 4
    assert "E202 data.columns.text: found 'none'" in capsys.readouterr().err, "a name just typed is not guessed"


def test_the_second_text_of_pairs_is_guessed_but_never_invented(
    run: fasttune.Run, pairs: fasttune.Run, tmp_path: Path
) -> None:
    rows = [{"text": "good", "text_pair": "bad", "label": "positive"}, {"text": "bad", "text_pair": "", "label": "x"}]
    premises = renamed(tmp_path / "premises.csv", rows[:1], "premise", "hypothesis", "label")
    (found,) = fasttune.predict(pairs.folder, data=premises, progress=False)
    assert found["label"] == fasttune.predict(pairs.folder, [("good", "bad")], progress=False)[0]["label"]
    single = renamed(tmp_path / "single.csv", [{"a": "good", "b": "positive"}], "sentence1", "label")
    with pytest.raises(fasttune.Error, match=r"E2\d\d data\.columns\.text_pair"):
        fasttune.predict(pairs.folder, data=single)
    # A run for single texts reads the first text alone.
    assert len(fasttune.predict(run.folder, data=premises, progress=False)) == 1


# --- labels ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        (["5", "1"], STARS, [4, 0]),
        (["5.0", "01"], STARS, [4, 0]),
        ([" 5  Stars", "1 STAR"], STARS, [4, 0]),
        (["POS", "neg"], ["neg", "pos"], [1, 0]),
        (["5 stars", "1 star"], ["1", "5"], [1, 0]),
        (["1", "0"], ["neg", "pos"], [1, 0]),  # class numbers
        (["0", "4"], STARS, [0, 4]),
        (["2", "3"], STARS, None),  # 2 stars, or class 2
        (["POS", "pos"], ["neg", "pos"], None),  # two labels, one class
        (["good", "bad"], ["neg", "pos"], None),
        (["not spam"], ["ham", "spam"], None),
        (["5", "1", "0"], STARS, None),
        (["very neg", "mostly pos"], ["neg", "pos"], None),  # not the same word is left over
        (["-1"], STARS, None),
    ],
)
def test_labels_match_if_exactly_one_way_is_possible(
    labels: list[str], names: list[str], expected: list[int] | None
) -> None:
    vocabulary = Vocabulary(tuple(names), {name: number for number, name in enumerate(names)})
    found = match_labels(labels, vocabulary)
    assert found == (None if expected is None else dict(zip(labels, expected, strict=True)))


def test_labels_written_otherwise_are_mapped_and_the_mapping_is_reported(
    run: fasttune.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = starred(20)
    expected = fasttune.evaluate(run.folder, data=str(write_csv(tmp_path / "same.csv", rows)))
    numbers = str(write_csv(tmp_path / "numbers.csv", [{**row, "label": row["label"][0]} for row in rows]))
    found = fasttune.evaluate(run.folder, data=numbers)
    assert (found["eval_loss"], found["eval_accuracy"]) == (expected["eval_loss"], expected["eval_accuracy"])
    listed = ", ".join(f"'{name[0]}' -> '{name}'" for name in STARS)
    assert said(capsys) == f"{numbers}: labels read as the run's: {listed}\n"


def test_unknown_labels_are_one_message_with_a_command_that_works(
    run: fasttune.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [
        {**row, "label": {"5 stars": "great", "1 star": "awful"}.get(row["label"], row["label"])} for row in starred(20)
    ]
    data = str(write_csv(tmp_path / "words.csv", rows))
    assert cli.run(["evaluate", str(run.folder), "--data", data]) == 4
    said = capsys.readouterr().err
    assert said.count("E214") == 1
    assert "2 labels that the run does not know: 'awful' (first: row 2), 'great' (first: row 6); its labels are" in said
    hint = said.partition("hint: ")[2].strip()
    assert hint == (f"fasttune evaluate {run.folder} --data {data} 'data.label_names={{awful: LABEL, great: LABEL}}'")
    typed = shlex.split(hint.replace("awful: LABEL", "awful: 1 star").replace("great: LABEL", "great: 5 stars"))[1:]
    assert cli.run([*typed, "--json"]) == 0
    said = capsys.readouterr()
    expected = fasttune.evaluate(run.folder, data=str(write_csv(tmp_path / "same.csv", starred(20))))
    assert json.loads(said.out)["eval_loss"] == expected["eval_loss"]
    assert "labels read as the run's: 'awful' -> '1 star', 'great' -> '5 stars'" in said.err


def test_a_table_of_labels_names_labels_of_the_run_and_needs_a_file(run: fasttune.Run, tmp_path: Path) -> None:
    data = str(write_csv(tmp_path / "rows.csv", starred(20)))
    overrides = ["data.label_names={great: 6 stars, awful: 1 star}"]
    with pytest.raises(fasttune.Error, match=r"E220 data\.label_names: found '6 stars', expected a label of the run"):
        fasttune.evaluate(run.folder, data=data, overrides=overrides)
    for refuse in (
        lambda: fasttune.evaluate(run.folder, overrides=overrides),
        lambda: fasttune.load(run.folder, overrides),
    ):
        with pytest.raises(fasttune.Error, match="a finished run cannot change this setting"):
            refuse()


def test_several_labels_of_a_row_are_mapped_too(tiny_model: Path, tmp_path: Path) -> None:
    labels = [["food"], ["room"], ["food", "room"]]
    rows = [{"text": row["text"], "labels": labels[number % 3]} for number, row in enumerate(make_rows(40))]
    several = fit(tiny_model, tmp_path / "several", rows)
    upper = [{**row, "labels": [label.upper() for label in row["labels"]]} for row in rows]
    found = fasttune.evaluate(several.folder, data=str(write_jsonl(tmp_path / "upper.jsonl", upper)), progress=False)
    expected = fasttune.evaluate(several.folder, data=str(tmp_path / "several" / "rows.jsonl"), progress=False)
    assert found["eval_loss"] == expected["eval_loss"]


# --- empty, long and foreign texts ----------------------------------------------------------------------------------


def read_back(path: Path) -> list[dict[str, Any]]:
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_rows_without_a_text_get_an_empty_prediction_in_their_place(
    run: fasttune.Run, tmp_path: Path, ending: str, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = ["", "good food", " ", "bad room", ""]
    data = str(write_csv(tmp_path / "new.csv", [{"text": text, "note": "x"} for text in texts]))
    predictions = fasttune.predict(run.folder, data=data, output=tmp_path / f"found{ending}")
    assert capsys.readouterr().err == f"{data}: 3 rows without a text: the prediction is empty\n"
    full = {one["id"]: one for one in predictions if one["label"] is not None}
    assert [one["id"] for one in predictions] == ["0", "1", "2", "3", "4"] and list(full) == ["1", "3"]
    alone = fasttune.predict(run.folder, ["good food", "bad room"], progress=False)
    assert [one["label"] for one in full.values()] == [one["label"] for one in alone]
    assert predictions[0]["probabilities"] == dict.fromkeys(STARS)
    found = read_back(tmp_path / f"found{ending}")
    assert [row["text"] for row in found] == texts
    assert [bool(row["label"]) for row in found] == [False, True, False, True, False]
    assert len({tuple(row) for row in found}) == 1, "all rows have the same columns"


def test_an_empty_prediction_is_printed_as_such(
    run: fasttune.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = str(write_csv(tmp_path / "new.csv", [{"text": "good", "n": "1"}, {"text": "", "n": "2"}]))
    assert cli.run(["predict", str(run.folder), "--data", data]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.endswith("  row 0  good") and second == "(no text)  row 1"
    nothing = str(write_csv(tmp_path / "nothing.csv", [{"text": "", "n": "1"}]))
    assert cli.run(["predict", str(run.folder), "--data", nothing]) == 4
    assert "E210" in capsys.readouterr().err


def test_truncated_texts_are_counted(run: fasttune.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(write_csv(tmp_path / "long.csv", [{"text": "good " * 100, "n": "1"}, {"text": "bad", "n": "2"}]))
    fasttune.predict(run.folder, data=data)
    assert capsys.readouterr().err == f"{data}: 1 of 2 texts truncated to 64 tokens\n"


def test_predict_warns_if_the_tokenizer_does_not_know_the_language(
    run: fasttune.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["predict", str(run.folder), "很好"]) == 0
    said = capsys.readouterr()
    assert said.out and said.err.startswith("warning: texts: 50% of the tokens are unknown to the model's tokenizer")
    assert cli.run(["predict", str(run.folder), "the food was good"]) == 0
    assert not capsys.readouterr().err
