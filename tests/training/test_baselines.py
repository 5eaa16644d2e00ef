"""The baselines of a run: what scikit-learn gives on the same rows, and the paired gain of fine-tuning."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from tiny import make_rows, write_csv

import fasttune
from fasttune.training import baselines

TRAIN, HELD_OUT = make_rows(120, longest=8), make_rows(100, seed=2, longest=8)


def fit(model: Path, folder: Path, relabel: Any = None, **settings: Any) -> fasttune.Run:
    for name, rows in (("train", TRAIN), ("validation", HELD_OUT)):
        write_csv(folder / f"{name}.csv", [{**row, "label": relabel(row)} if relabel else row for row in rows])
    recipe = {
        "model": str(model),
        "data": {name: str(folder / f"{name}.csv") for name in ("train", "validation")},
        "training": {"preset": "tutorial", "learning_rate": 1e-3, "precision": "fp32", "num_train_epochs": 1},
        "tracking": {"report_to": "none"},
    }
    return fasttune.fit(recipe, output=folder / "run", progress=False, **settings)


def kept(run: fasttune.Run) -> list[dict[str, Any]]:
    return json.loads((run.folder / "baselines.json").read_text())


@pytest.fixture(scope="module")
def run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> fasttune.Run:
    return fit(tiny_model, tmp_path_factory.mktemp("baselines"))


def means_of(model: Path, rows: list[dict[str, str]]) -> np.ndarray:
    encoder = transformers.AutoModel.from_pretrained(model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    with torch.no_grad():
        states = [encoder(**tokenizer(row["text"], return_tensors="pt")).last_hidden_state[0].mean(0) for row in rows]
    return torch.nn.functional.normalize(torch.stack(states)).numpy()


def test_values_are_those_of_scikit_learn(run: fasttune.Run, tiny_model: Path) -> None:
    labels = [[row["label"] for row in rows] for rows in (TRAIN, HELD_OUT)]
    texts = [[row["text"] for row in rows] for rows in (TRAIN, HELD_OUT)]
    vectorizer = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), token_pattern=r"\b\w+\b")
    features = [vectorizer.fit_transform(texts[0]), vectorizer.transform(texts[1])]
    means = [means_of(tiny_model, rows) for rows in (TRAIN, HELD_OUT)]
    expected = [np.mean([label == max(set(labels[0]), key=labels[0].count) for label in labels[1]])]
    for train, held_out in (features, means):
        model = LogisticRegression(C=10, max_iter=300, tol=1e-3).fit(train, labels[0])
        expected.append(model.score(held_out, labels[1]))
    found = kept(run)
    assert [one["value"] for one in found] == pytest.approx(expected, abs=0.011)  # one row on the edge
    assert [one["name"] for one in found] == [
        "most frequent class",
        "TF-IDF, logistic regression",
        "frozen encoder, logistic regression",
    ]
    for one in found:
        assert one["difference"] == pytest.approx(run.metrics["eval_accuracy"] - one["value"])
        assert one["difference_low"] < one["difference"] < one["difference_high"]
        assert one["num_training_rows"] == 120 and one["split"] == "validation"
    assert "| TF-IDF, logistic regression | 0." in (run.folder / "README.md").read_text()


def test_labels_and_numbers(tiny_model: Path, tmp_path: Path) -> None:
    names = {"positive": "good,new", "negative": "bad"}
    for folder in ("labels", "numbers"):
        (tmp_path / folder).mkdir()
    multi = {"overrides": ["problem=multi-label", "data.label_separator=,"]}
    several = kept(fit(tiny_model, tmp_path / "labels", lambda row: names[row["label"]], **multi))
    assert [one["metric"] for one in several] == ["f1_micro"] * 3 and several[1]["value"] > 0.5
    numbers = kept(fit(tiny_model, tmp_path / "numbers", lambda row: row["text"].count("w") / 7 + 0.5))
    assert [one["metric"] for one in numbers] == ["pearson"] * 3 and numbers[0]["value"] == 0


def test_at_most_so_many_training_rows(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(baselines, "MOST_TRAINING_ROWS", 60)
    windows = {"overrides": ["preprocessing.long_text=windows", "preprocessing.max_length=8"]}
    assert [one["num_training_rows"] for one in kept(fit(tiny_model, tmp_path, **windows))] == [60, 60, 60]


def test_ordered_classes_and_another_metric(tiny_model: Path, tmp_path: Path) -> None:
    chosen = ["problem=ordinal", "evaluation.metrics=[accuracy]", "evaluation.metric_for_best_model=accuracy"]
    stars = lambda row: str(1 + len(row["text"].split()) % 5)  # noqa: E731
    found = kept(fit(tiny_model, tmp_path, stars, overrides=chosen))
    labels = [stars(row) for row in HELD_OUT]
    most = max(set(map(stars, TRAIN)), key=[*map(stars, TRAIN)].count)
    assert found[0]["metric"] == "accuracy" and found[0]["value"] == pytest.approx(labels.count(most) / 100)


def test_a_failure_costs_the_baselines_alone(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As for texts without a single word, of which TF-IDF makes no feature."""
    monkeypatch.setattr(baselines, "_tfidf", lambda train, texts: TfidfVectorizer().fit_transform(["! ?"]))
    run = fit(tiny_model, tmp_path)
    assert run.is_complete and "eval_accuracy" in run.metrics
    assert not (run.folder / "baselines.json").exists()


@pytest.mark.parametrize("override", ["evaluation.baselines=false", "training.max_time=10m"])
def test_left_out(tiny_model: Path, tmp_path: Path, override: str) -> None:
    assert not (fit(tiny_model, tmp_path, overrides=[override]).folder / "baselines.json").exists()
