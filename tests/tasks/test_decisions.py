"""The threshold of two classes and predictions that are withheld: chosen on validation rows, kept with the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score
from tiny import make_rows, write_csv
from typer.testing import CliRunner

import fasttune
from fasttune.cli.commands import app
from fasttune.errors import RecipeError
from fasttune.tasks.metrics.classification import confidence_for


def fit(model: Path, folder: Path, train: list[dict[str, str]], **evaluation: Any) -> fasttune.Run:
    write_csv(folder / "train.csv", train)
    write_csv(folder / "validation.csv", make_rows(120, seed=2))
    recipe = {
        "model": str(model),
        "data": {name: str(folder / f"{name}.csv") for name in ("train", "validation")},
        "training": {"preset": "tutorial", "learning_rate": 3e-3, "precision": "fp32", "num_train_epochs": 2},
        "evaluation": {"baselines": False, **evaluation},
        "tracking": {"report_to": "none"},
    }
    return fasttune.fit(recipe, output=folder / "run", progress=False)


def predictions(run: fasttune.Run) -> list[dict[str, Any]]:
    return list(map(json.loads, (run.folder / "predictions" / "validation.jsonl").read_text().splitlines()))


def test_a_tuned_threshold_gains_and_travels_with_the_model(tiny_model: Path, tmp_path: Path) -> None:
    rare = [row for row in make_rows(120) if row["label"] == "negative"] + make_rows(40, seed=1)
    run = fit(tiny_model, tmp_path, rare, tune_threshold=True)
    labels = [row["label"] == "positive" for row in make_rows(120, seed=2)]
    shares = np.array([row["probabilities"]["positive"] for row in predictions(run)])
    predicted = [row["label"] == "positive" for row in predictions(run)]
    assert f1_score(labels, predicted) > f1_score(labels, shares >= 0.5, zero_division=0.0)
    assert run.metrics["eval_f1"] == pytest.approx(f1_score(labels, predicted))
    again = fasttune.load(run.folder).predict([row["text"] for row in make_rows(120, seed=2)])
    assert [row["label"] == "positive" for row in again] == predicted
    config = json.loads((run.folder / "config.json").read_text())
    assert list(config["thresholds"]) == ["positive"]
    assert fasttune.evaluate(run.folder, progress=False)["eval_f1"] == pytest.approx(run.metrics["eval_f1"])


def test_unsure_predictions_are_withheld(tiny_model: Path, tmp_path: Path) -> None:
    run = fit(tiny_model, tmp_path, make_rows(160), min_precision=0.6)
    rows = predictions(run)
    limit = json.loads((run.folder / "config.json").read_text())["min_confidence"]
    given = [row["label"] is not None for row in rows]
    assert given == [row["score"] >= limit for row in rows]
    assert run.metrics["eval_coverage"] == pytest.approx(np.mean(given))
    assert run.metrics["eval_accuracy_where_given"] >= 0.6
    texts = [row["text"] for row in make_rows(120, seed=2)]
    assert [row["label"] is not None for row in fasttune.load(run.folder).predict(texts)] == given
    if not all(given):
        unsure = texts[given.index(False)]
        assert CliRunner().invoke(app, ["predict", str(run.folder), unsure]).stdout.startswith("(unsure)")
    output = tmp_path / "predicted.csv"
    fasttune.predict(run.folder, texts, output=output, progress=False)
    assert output.read_text().count("positive,") + output.read_text().count("negative,") >= sum(given)


def test_confidence_for_a_precision() -> None:
    confidence = np.linspace(1, 0.5, 100)
    is_right = np.array([True] * 50 + [False, True] * 25)
    limit = confidence_for(confidence, is_right, 0.9)
    assert limit is not None
    given = confidence >= limit
    assert is_right[given].mean() >= 0.9
    assert is_right[: given.sum() + 2].mean() < 0.9 or is_right[: given.sum() + 1].mean() < 0.9
    assert confidence_for(confidence, np.zeros(100, dtype=bool), 0.9) is None
    assert confidence_for(np.full(100, 0.7), is_right, 0.9) is None  # equal confidences stay together


def test_a_threshold_needs_two_classes(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{**row, "label": str(number % 3)} for number, row in enumerate(make_rows(60))]
    with pytest.raises(RecipeError, match="one threshold needs two classes, and these labels have 3"):
        fit(tiny_model, tmp_path, rows, tune_threshold=True)


def test_a_run_that_starts_from_another_takes_over_no_threshold(tiny_model: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    first = fit(tiny_model, tmp_path / "first", make_rows(160), tune_threshold=True, min_precision=0.6)
    second = fit(first.folder, tmp_path / "second", make_rows(160))
    config = json.loads((second.folder / "config.json").read_text())
    assert not {"thresholds", "min_confidence"} & set(config)
    scores = fasttune.evaluate(second.folder, progress=False)
    assert scores["eval_f1"] == second.metrics["eval_f1"] and "eval_coverage" not in scores


@pytest.mark.parametrize("setting", ["tune_threshold=true", "min_precision=0.9"])
def test_settings_that_a_regression_has_no_use_for(tiny_model: Path, tmp_path: Path, setting: str) -> None:
    rows = [{**row, "label": str(number / 10)} for number, row in enumerate(make_rows(60))]
    write_csv(tmp_path / "rows.csv", rows)
    recipe = {"model": str(tiny_model), "problem": "regression", "data": {"train": str(tmp_path / "rows.csv")}}
    with pytest.raises(RecipeError, match="and this is regression"):
        fasttune.fit(recipe, output=tmp_path / "run", overrides=[f"evaluation.{setting}"], progress=False)
