"""What a run says about itself: one class for all, a class without rows, a long warm-up, a loss that does not fall."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import make_rows, write_csv

import fasttune
from fasttune import recipe as recipes
from fasttune.runs.folder import RunFolder, write_json
from fasttune.training.finalize import duration, flat_loss, past_the_best, step_losses
from fasttune.training.loop import TrainState
from fasttune.training.model import checksums


def fit(model: Path, folder: Path, training: dict[str, Any], rows: list[dict[str, str]], **data: Any) -> fasttune.Run:
    recipe = {
        "model": str(model),
        "data": {"train": str(write_csv(folder / "rows.csv", rows)), **data},
        "training": {"preset": "tutorial", "precision": "fp32", "device": "cpu", **training},
        "tracking": {"report_to": "none"},
    }
    return fasttune.fit(recipe, output=folder / "run")


def test_one_class_for_all_rows_is_a_warning_after_training_and_in_evaluate(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(tiny_model, tmp_path, {"max_steps": 2, "learning_rate": 1e-6}, make_rows(60))
    path = run.folder / "model.safetensors"
    tensors = load_file(path)
    tensors["classifier.bias"] = torch.tensor([0.0, 100.0])
    save_file(tensors, path, metadata={"format": "pt"})
    write_json(RunFolder(run.folder).checksums, checksums(run.folder))
    capsys.readouterr()
    fasttune.evaluate(run.folder)
    expected = "every prediction is 'positive'; the model does not tell the classes apart"
    assert expected in capsys.readouterr().err
    assert fasttune.evaluate(run.folder, progress=False) and not capsys.readouterr().err
    positive = [row for row in make_rows(40) if row["label"] == "positive"]
    fasttune.evaluate(run.folder, data=str(write_csv(tmp_path / "positive.csv", positive)))
    assert "every prediction" not in capsys.readouterr().err, "which is right for a file of one class"
    (tmp_path / "again").mkdir()
    fit(run.folder, tmp_path / "again", {"max_steps": 1, "learning_rate": 1e-9}, make_rows(60))
    assert f"warning: validation: {expected}" in capsys.readouterr().err


def test_classes_without_rows_in_a_scored_file_are_named(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"text": row["text"], "label": "abc"[number % 3]} for number, row in enumerate(make_rows(60))]
    run = fit(tiny_model, tmp_path, {"max_steps": 2}, rows)
    assert "no row has" not in capsys.readouterr().err
    data = str(write_csv(tmp_path / "few.csv", [row for row in rows if row["label"] == "b"]))
    fasttune.evaluate(run.folder, data=data)
    said = capsys.readouterr().err
    assert f"{data}: no row has 'a', 'c'; each class without rows counts 0 in f1_macro\n" in said


@pytest.mark.parametrize(("warmup", "is_said"), [(3, False), (4, True), (100, True), (0.5, False)])
def test_a_warm_up_as_long_as_the_run_is_said_at_the_start(
    warmup: float, is_said: bool, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(tiny_model, tmp_path, {"max_steps": 4, "warmup_steps": warmup, "learning_rate": 1e-3}, make_rows(60))
    start = capsys.readouterr().err.partition("training: ")[0]
    line = f"warning: the warm-up takes {warmup} steps and the run 4 steps, so the learning rate never reaches 0.001"
    assert (line in start) is is_said


def test_a_loss_that_does_not_fall_is_a_warning_at_the_end(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rising = [0.5] * 20 + [0.6] * 20
    (line,) = flat_loss(rising, 1e-3)
    assert "did not fall: 0.5000 on average in the first third of the steps, 0.6000 in the last" in line
    assert "training.learning_rate=0.0001" in line
    assert not list(flat_loss(rising[::-1], 1e-3)) and not list(flat_loss([0.5] * 29, 1e-3))
    assert list(flat_loss([0.4, 0.9] * 15, 1e-3)), "it oscillates"
    run = fit(tiny_model, tmp_path, {"max_steps": 30, "learning_rate": 0.03, "warmup_steps": 25}, make_rows(60))
    said = capsys.readouterr().err
    losses = step_losses(RunFolder(run.folder))
    assert len(losses) == 30 and sum(losses[:10]) < sum(losses[-10:])
    assert "warning: the training loss did not fall" in said


def trained(metric: str, values: list[float], seconds: float) -> TrainState:
    evaluations = [{"step": 10 * n, "epoch": float(n), metric: value} for n, value in enumerate(values, 1)]
    return TrainState(step=10 * len(values), seconds=seconds, evaluations=evaluations)


@pytest.mark.parametrize(
    ("metric", "values", "changes", "expected"),
    [
        (
            "eval_accuracy",
            [0.5, 0.617, 0.61, 0.605, 0.601, 0.6, 0.6, 0.6],
            [],
            "accuracy was best at epoch 2: the last 6 epochs took 24 h and cost 1.7 points of accuracy; "
            "evaluation.early_stopping_patience=2 would stop such a run earlier",
        ),
        (
            "eval_loss",
            [0.5, 0.4, 0.75],
            ["output.save_strategy=no"],
            "loss was best at epoch 2: the last epoch took 10 h 40 min and raised loss by 0.35; "
            "output.save_strategy=no has kept only the last weights",
        ),
        (
            "eval_f1",
            [70.0, 80.5, 80.5, 79.5],
            ["task=question-answering", "evaluation.early_stopping_patience=2"],
            "f1 was best at epoch 2: the last 2 epochs took 16 h and cost 1.0 points of f1",
        ),
        (
            "eval_accuracy",
            [0.9, 0.9],
            [],
            "accuracy was best at epoch 1: the last epoch took 16 h and did not improve accuracy",
        ),
        ("eval_accuracy", [0.5, 0.6], [], None),
        ("eval_accuracy", [], [], None),
    ],
)
def test_training_past_the_best_epoch_is_said_with_its_cost(
    metric: str, values: list[float], changes: list[str], expected: str | None
) -> None:
    recipe = recipes.load({"data": {"train": "rows.csv"}}, changes)
    assert next(past_the_best(trained(metric, values, 32 * 3600.0), metric, recipe), None) == expected


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (45, "45 s"), (750, "12 min 30 s"), (3600, "1 h"), (12000, "3 h 20 min")]
)
def test_a_duration_has_two_units_at_most(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_run_made_to_overfit_says_so(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Labels at random: the training rows can be learned, the validation rows cannot."""
    random = torch.Generator().manual_seed(1)
    rows = [{**row, "label": "ab"[int(torch.randint(2, (1,), generator=random))]} for row in make_rows(60, longest=8)]
    training = {"num_train_epochs": 30, "learning_rate": 3e-3}
    fit(tiny_model, tmp_path, training, rows, validation_fraction=0.4)
    said = capsys.readouterr().err
    assert "accuracy was best at epoch " in said and " points of accuracy; evaluation.early_stopping_patience=2" in said
