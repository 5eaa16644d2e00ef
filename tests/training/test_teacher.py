"""`training.teacher`: the loss beside the labels, rows without labels, and refusals."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tiny import make_rows, write_csv
from torch.nn.functional import cross_entropy

import fasttune
from fasttune.errors import RecipeError

ROWS = make_rows(80)


@pytest.fixture(scope="module")
def teacher(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher")
    write_csv(folder / "rows.csv", ROWS)
    settings = {"learning_rate": 3e-3, "num_train_epochs": 2}
    run = fasttune.fit(recipe(tiny_model, folder / "rows.csv", **settings), output=folder / "run", progress=False)
    return run.folder


def recipe(model: Path, train: Path, data: dict[str, Any] | None = None, **training: Any) -> dict[str, Any]:
    return {
        "model": str(model),
        "data": {"train": str(train), **(data or {})},
        "training": {"preset": "tutorial", "precision": "fp32", **training},
        "tracking": {"report_to": "none"},
    }


def first_loss(folder: Path) -> float:
    steps = (json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines())
    return next(float(step["loss"]) for step in steps if step["event"] == "step")


def without_dropout(tiny_model: Path, folder: Path) -> Path:
    config = json.loads((tiny_model / "config.json").read_text())
    folder.mkdir()
    for file in tiny_model.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_loss_is_the_mean_of_both(teacher: Path, tiny_model: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ROWS[:8])
    write_csv(tmp_path / "validation.csv", ROWS[8:20])
    held_out = {"validation": str(tmp_path / "validation.csv")}
    one_step = {"max_steps": 1, "batch_size": 8, "learning_rate": 1e-12, "teacher": str(teacher)}
    model = without_dropout(tiny_model, tmp_path / "model")
    run = fasttune.fit(
        recipe(model, tmp_path / "train.csv", held_out, **one_step), output=tmp_path / "run", progress=False
    )

    plain = transformers.AutoModelForSequenceClassification.from_pretrained(run.folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(run.folder)
    texts = [row["text"] for row in ROWS[:8]]
    with torch.no_grad():
        logits = plain(**tokenizer(texts, padding=True, return_tensors="pt")).logits
    names = ["negative", "positive"]
    labels = torch.tensor([names.index(row["label"]) for row in ROWS[:8]])
    given = [row["probabilities"] for row in fasttune.load(teacher).predict(texts)]
    probabilities = torch.tensor([[row[name] for name in names] for row in given])
    expected = (cross_entropy(logits, labels) + cross_entropy(logits, probabilities)) / 2
    assert first_loss(run.folder) == pytest.approx(expected.item(), rel=1e-5)


def test_rows_without_labels_get_the_teachers(teacher: Path, tiny_model: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "few.csv", ROWS[:16])
    write_csv(tmp_path / "validation.csv", ROWS[16:40])
    texts = [row["text"] for row in make_rows(50, seed=7)]
    write_csv(tmp_path / "more.csv", [{"text": text} for text in [*texts, *(row["text"] for row in ROWS[16:19])]])
    data = {"validation": str(tmp_path / "validation.csv"), "unlabelled": str(tmp_path / "more.csv")}
    settings = recipe(tiny_model, tmp_path / "few.csv", data, teacher=str(teacher), max_steps=1)
    run = fasttune.fit(settings, output=tmp_path / "run", progress=False)
    report = json.loads((run.folder / "data_report.json").read_text())
    labels = Counter(row["label"] for row in [*ROWS[:16], *fasttune.load(teacher).predict(texts)])
    assert report["splits"]["train"]["labels"] == labels
    assert "unlabelled: left out 3 rows whose text is also a held-out text" in report["notes"]
    environment = json.loads((run.folder / "environment.json").read_text())
    assert "it labelled 50 rows of data.unlabelled" in environment["teacher"]["reason"]
    assert fasttune.check(settings).report["splits"]["train"]["labels"] == labels


def test_resumes_with_the_same_teacher_only(teacher: Path, tiny_model: Path, tmp_path: Path) -> None:
    write_csv(tmp_path / "train.csv", ROWS[:40])
    settings = recipe(tiny_model, tmp_path / "train.csv", teacher=str(teacher), num_train_epochs=1)
    whole = fasttune.fit(settings, output=tmp_path / "whole", progress=False)
    assert whole.is_complete
    again = fasttune.fit(settings, output=tmp_path / "whole", resume=True, progress=False)
    assert again.metrics == whole.metrics
    with pytest.raises(RecipeError, match=r"training\.teacher"):
        changed = recipe(tiny_model, tmp_path / "train.csv", num_train_epochs=1)
        fasttune.fit(changed, output=tmp_path / "whole", resume=True, progress=False)


def test_refuses_other_labels_and_tasks(teacher: Path, tiny_model: Path, tmp_path: Path) -> None:
    other = [{**row, "label": {"negative": "no", "positive": "yes"}[row["label"]]} for row in ROWS[:40]]
    write_csv(tmp_path / "other.csv", other)
    with pytest.raises(RecipeError) as caught:
        fasttune.fit(recipe(tiny_model, tmp_path / "other.csv", teacher=str(teacher)), output=tmp_path / "run")
    (problem,) = caught.value.problems
    assert problem.code == "E416"
    assert problem.found == "labels 'negative', 'positive'"
    assert problem.expected == "the labels of the training rows: 'no', 'yes'"
    with pytest.raises(RecipeError, match="applies to text-classification only"):
        fasttune.fit({"task": "question-answering", **recipe(tiny_model, tmp_path / "q.json", teacher=str(teacher))})
    with pytest.raises(RecipeError, match="nothing that learns from them"):
        fasttune.fit(recipe(tiny_model, tmp_path / "other.csv", {"unlabelled": "more.csv"}))
