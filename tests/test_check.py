"""`fasttune check`: its errors, warnings and forecast, and that it leaves nothing behind; `train` warns alike."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from bad_data import known_questions
from tiny import make_rows, write_csv

import fasttune
from fasttune.cli import commands as cli
from fasttune.runs.folder import RunFolder
from fasttune.training import preflight


@pytest.fixture
def recipe_with_problems(recipe: dict, tmp_path: Path) -> dict:
    """A recipe whose test file holds a training row, and a training text with two labels."""
    rows = make_rows(80)
    write_csv(tmp_path / "reviews.csv", [*rows, {**rows[5], "label": "positive"}, {**rows[5], "label": "negative"}])
    recipe["data"]["test"] = str(write_csv(tmp_path / "test.csv", [rows[9], *make_rows(9, seed=7)]))
    return recipe


def test_a_run_is_foretold_and_nothing_is_kept(
    recipe_with_problems: dict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    checked = fasttune.check(recipe_with_problems, training={"num_train_epochs": 2}, progress=False)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert capsys.readouterr() == ("", "")
    forecast = checked.forecast
    assert forecast.num_steps == 2 * -(-61 // 8)
    assert forecast.measured["num_evaluations"] == forecast.measured["num_saves"] == 2
    assert forecast.measured["num_steps"] >= 1
    assert forecast.train_runtime > 0 and forecast.peak_memory_bytes > 10**7
    assert [warning.code for warning in checked.warnings] == ["W250", "W251", "W258"]
    assert checked.recipe.preprocessing.max_length == 64, "what is left open is filled in"
    assert checked.report["splits"]["train"]["num_rows"] + checked.report["splits"]["validation"]["num_rows"] == 82


def test_the_model_of_the_caller_is_not_trained_by_a_check(recipe: dict, tiny_model: Path) -> None:
    weights = (tiny_model / "model.safetensors").read_bytes()
    fasttune.check(recipe, progress=False)
    assert (tiny_model / "model.safetensors").read_bytes() == weights


def test_training_says_and_stores_the_same_warnings(
    recipe_with_problems: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = fasttune.check(recipe_with_problems, progress=False)
    capsys.readouterr()
    run = fasttune.fit(recipe_with_problems, output=tmp_path / "run", training={"max_steps": 1})
    said = capsys.readouterr().err
    for warning in checked.warnings:
        assert f"warning: {warning.code} {warning.where}" in said
    stored = json.loads(RunFolder(run.folder).data_report.read_text())["warnings"]
    assert [entry["code"] for entry in stored] == [warning.code for warning in checked.warnings]
    assert stored[0]["rows"] == [["row 2", "row 11"]] and stored[0]["num_exact"] == 1


def test_a_few_near_duplicates_are_in_the_report_only(
    recipe: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draw = random.Random(0)
    texts = [" ".join(f"w{draw.randrange(60)}" for _ in range(12)) for _ in range(61)]
    rows = [{"text": text, "label": ["negative", "positive"][number % 2]} for number, text in enumerate(texts)]
    write_csv(tmp_path / "reviews.csv", rows[:31])
    near = {**rows[4], "text": rows[4]["text"] + " food"}
    recipe["data"]["validation"] = str(write_csv(tmp_path / "dev.csv", [near, *rows[31:]]))
    checked = fasttune.check(recipe)
    assert "W250" not in capsys.readouterr().err and "W250" not in [warning.code for warning in checked.warnings]
    (entry,) = checked.report["observations"]
    assert (entry["code"], entry["num_exact"], entry["num_near"]) == ("W250", 0, 1)
    assert entry["rows"] == [("row 2", "row 6")]


def test_only_a_sample_of_many_rows_is_tokenised(
    recipe: dict, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = fasttune.check(recipe, progress=False)
    monkeypatch.setattr(preflight, "SAMPLE", 20)
    checked = fasttune.check(recipe)
    assert "train: counted tokens in a random sample of 20 of 60 rows" in capsys.readouterr().err
    assert checked.report["splits"]["train"]["num_examples"] == 20
    assert checked.forecast.num_steps == whole.forecast.num_steps
    per_step = checked.forecast.measured["tokens_per_step"]
    assert per_step == pytest.approx(whole.forecast.measured["tokens_per_step"], rel=0.3)


def test_questions_are_known_by_their_columns_and_checked_too(
    tmp_path: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "questions.jsonl").write_text(known_questions(), encoding="utf-8")
    settings = [f"model={tiny_model}", "training.precision=fp32", "preprocessing.doc_stride=8"]
    assert cli.run(["check", str(tmp_path / "questions.jsonl"), *settings]) == 0
    said = capsys.readouterr()
    assert "Ready to train" in said.out


def test_json_is_one_object(recipe: dict, capsys: pytest.CaptureFixture[str]) -> None:
    data, model = recipe["data"]["train"], recipe["model"]
    assert cli.run(["check", data, f"model={model}", "training.precision=fp32", "--json", "--quiet"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert found["forecast"]["train_runtime"] > 0 and found["columns"] == {"text": "text", "label": "label"}
    assert not said.err


def test_a_set_of_steps_shorter_than_the_warm_up(recipe: dict) -> None:
    assert fasttune.check(recipe, training={"batch_size": 60}, progress=False).forecast.num_steps == 3
