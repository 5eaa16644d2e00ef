"""`problem: ordinal`: ordered classes, by their distance."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import cohen_kappa_score, mean_absolute_error
from tiny import make_rows, write_csv

import fasttune
from fasttune.data.labels import Vocabulary
from fasttune.errors import RecipeError
from fasttune.tasks.targets import Ordinal

STARS = [{**row, "label": str(1 + row["text"].count("w1") % 4)} for row in make_rows(120)]
NAMES = ("1", "2", "3", "4")
TARGET = Ordinal(Vocabulary(NAMES, {name: number for number, name in enumerate(NAMES)}), ("accuracy",))


def fit(model: Path, folder: Path, rows: list[dict[str, str]], **data: Any) -> fasttune.Run:
    write_csv(folder / "rows.csv", rows)
    recipe = {
        "model": str(model),
        "problem": "ordinal",
        "data": {"train": str(folder / "rows.csv"), **data},
        "training": {"preset": "tutorial", "learning_rate": 3e-3, "num_train_epochs": 2, "precision": "fp32"},
        "tracking": {"report_to": "none"},
    }
    return fasttune.fit(recipe, output=folder / "run", progress=False)


def test_loss_by_hand() -> None:
    logits, labels = torch.randn(5, 4), torch.tensor([0, 3, 1, 2, 2])
    expected = 0.0
    for row, label in zip(logits.softmax(-1), labels, strict=True):
        below = [float(row[: number + 1].sum()) for number in range(4)]
        expected += -float(row[label].log()) + sum((below[n] - float(label <= n)) ** 2 for n in range(4))
    assert float(TARGET.loss(logits, labels, True)) == pytest.approx(expected, rel=1e-5)


def test_median_has_the_least_expected_distance() -> None:
    logits = np.random.default_rng(0).normal(scale=2, size=(200, 4))
    distances = np.abs(np.arange(4)[:, None] - np.arange(4))  # [predicted, true]
    least = (softmax(logits, axis=1) @ distances).min(axis=1)
    expected = (softmax(logits, axis=1) * distances[TARGET.classes(logits)]).sum(axis=1)
    assert expected == pytest.approx(least)


def test_run_scores_and_predicts_by_distance(tiny_model: Path, tmp_path: Path) -> None:
    run = fit(tiny_model, tmp_path, STARS)
    rows = list(map(json.loads, (run.folder / "predictions" / "validation.jsonl").read_text().splitlines()))
    position = {row["text"]: number for number, row in enumerate(STARS)}
    kept = json.loads((run.folder / "data_report.json").read_text())["splits"]["validation"]["positions"]
    gold = [int(STARS[number]["label"]) for number in kept]
    predicted = [int(row["label"]) for row in rows]
    assert len(position) == 120
    assert run.metrics["eval_mae"] == pytest.approx(mean_absolute_error(gold, predicted))
    kappa = cohen_kappa_score(gold, predicted, labels=[1, 2, 3, 4], weights="quadratic")
    assert run.metrics["eval_quadratic_kappa"] == pytest.approx(kappa)
    assert run.metrics["eval_mae_low"] < run.metrics["eval_mae"] < run.metrics["eval_mae_high"]
    texts = [STARS[number]["text"] for number in kept]
    assert [row["label"] for row in fasttune.load(run.folder).predict(texts)] == [row["label"] for row in rows]


def test_order_must_be_known(tiny_model: Path, tmp_path: Path) -> None:
    words = {"1": "bad", "2": "fair", "3": "good", "4": "great"}
    rows = [{**row, "label": words[row["label"]]} for row in STARS]
    with pytest.raises(RecipeError, match="whose order is not known"):
        fit(tiny_model, tmp_path, rows)
    assert fit(tiny_model, tmp_path, rows, label_names=list(words.values())).is_complete
