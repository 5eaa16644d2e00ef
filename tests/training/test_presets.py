"""`training.preset` fills what the recipe leaves open, and nothing else."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tiny import make_rows, write_csv
from transformers import AlbertConfig, BertConfig

import fasttune
from fasttune import recipe as recipes
from fasttune.errors import RecipeError
from fasttune.training.presets import with_preset

PLAIN = recipes.load({"data": {"train": "-"}}).training  # the defaults


def settings(model: Path, folder: Path, num_rows: int = 200, **training: Any) -> dict[str, Any]:
    path = folder / f"{num_rows}.csv"
    return {
        "model": str(model),
        "data": {"train": str(path if path.exists() else write_csv(path, make_rows(num_rows)))},
        "training": {"precision": "fp32", "device": "cpu", **training},
        "output": {"save_strategy": "no"},
        "evaluation": {"eval_strategy": "no"},
        "tracking": {"report_to": "none"},
    }


def interrupt_at(step: int) -> Any:
    return lambda event: signal.raise_signal(signal.SIGINT) if event.step == step else None


def planned(recipe: dict[str, Any]) -> Any:
    """The resolved training section, from `check`, which trains only a few steps."""
    return fasttune.check(recipe, progress=False).recipe.training


@pytest.mark.parametrize(
    ("preset", "num_epochs"),
    # 180 training rows in batches of 8 are 23 steps per epoch; there are at least 60, 150 and 300 steps.
    [("fast", 3), ("auto", 7), ("accurate", 14)],
)
def test_a_preset_fills_what_is_left_open(preset: str, num_epochs: int, tiny_model: Path, tmp_path: Path) -> None:
    training = planned(settings(tiny_model, tmp_path, preset=preset))
    assert training.num_train_epochs == num_epochs
    assert (training.batch_size, training.learning_rate, training.head_learning_rate) == (8, 1e-4, 5e-4)
    assert (training.layer_decay, training.warmup_steps, training.attention_dropout) == (0.9, 0.1, 0.0)


def test_a_setting_of_the_recipe_wins_and_the_head_follows_its_rate(tiny_model: Path, tmp_path: Path) -> None:
    own = {"learning_rate": 2e-5, "num_train_epochs": 2, "layer_decay": 1.0}
    training = planned(settings(tiny_model, tmp_path, **own))
    assert {name: getattr(training, name) for name in own} == own
    assert training.head_learning_rate == pytest.approx(1e-4)
    overridden = fasttune.check(
        settings(tiny_model, tmp_path), overrides=["training.batch_size=4"], progress=False
    ).recipe.training
    assert (overridden.batch_size, overridden.num_train_epochs) == (4, 4)  # 45 steps per epoch


def test_the_tutorial_keeps_the_defaults(tiny_model: Path, tmp_path: Path) -> None:
    training = planned(settings(tiny_model, tmp_path, preset="tutorial"))
    for name in ("num_train_epochs", "batch_size", "learning_rate", "head_learning_rate", "layer_decay"):
        assert getattr(training, name) == getattr(PLAIN, name)
    assert training.warmup_steps == 0


def test_a_time_limit_starts_from_the_long_run(tiny_model: Path, tmp_path: Path) -> None:
    assert planned(settings(tiny_model, tmp_path, max_time="10h")).num_train_epochs == 14


def test_max_steps_leaves_the_epochs_alone(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checked = fasttune.check(settings(tiny_model, tmp_path, max_steps=5))
    assert checked.recipe.training.num_train_epochs == PLAIN.num_train_epochs
    assert "no effect: training.num_train_epochs" not in capsys.readouterr().err


def test_a_batch_is_never_larger_than_the_data(tiny_model: Path, tmp_path: Path) -> None:
    training = planned(settings(tiny_model, tmp_path, num_rows=6))
    assert (training.batch_size, training.num_train_epochs) == (4, 40)  # 2 of the 6 rows are held out


def test_the_run_says_and_saves_it_and_resumes(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = settings(tiny_model, tmp_path, preset="fast")
    whole = fasttune.fit(recipe, output=tmp_path / "whole")
    said = "for 180 rows: num_train_epochs=3 batch_size=8 learning_rate=0.0001 head_learning_rate=0.0005 "
    said += "layer_decay=0.9 warmup_steps=0.1 attention_dropout=0"
    choice = json.loads((whole.folder / "environment.json").read_text())["preset"]
    assert choice == {"value": "fast", "reason": said}
    assert said in capsys.readouterr().err
    saved = recipes.load(whole.folder / "recipe.yaml")
    again = fasttune.fit(saved, output=tmp_path / "again", progress=False)
    stopped = fasttune.fit(recipe, output=tmp_path / "stopped", progress=False, observers=[interrupt_at(20)])
    assert stopped.signal == signal.SIGINT
    resumed = fasttune.fit(recipe, output=stopped.folder, resume=True, progress=False)
    weights = [(run.folder / "model.safetensors").read_bytes() for run in (whole, again, resumed)]
    assert weights[0] == weights[1] == weights[2]
    with pytest.raises(RecipeError, match="preset"):
        fasttune.fit(recipe, training={"preset": "accurate"}, output=stopped.folder, resume=True, progress=False)


@pytest.mark.parametrize(
    ("hidden_size", "num_rows", "expected"),
    [
        (384, 1_000, {"learning_rate": 1e-4, "batch_size": 8, "num_train_epochs": 3.0, "attention_dropout": 0.0}),
        (768, 50_000, {"learning_rate": 5e-5, "batch_size": 16, "num_train_epochs": 2.0, "attention_dropout": "auto"}),
        (
            1024,
            500_000,
            {"learning_rate": 3e-5, "batch_size": 32, "num_train_epochs": 1.0, "attention_dropout": "auto"},
        ),
    ],
)
def test_values_follow_the_rows_and_the_size(hidden_size: int, num_rows: int, expected: dict[str, Any]) -> None:
    recipe, _ = with_preset(recipes.load({"data": {"train": "-"}}), num_rows, BertConfig(hidden_size=hidden_size))
    assert {name: getattr(recipe.training, name) for name in expected} == expected


def test_shared_layers_have_one_rate() -> None:
    recipe, _ = with_preset(recipes.load({"data": {"train": "-"}}), 1_000, AlbertConfig(hidden_size=384))
    assert (recipe.training.layer_decay, recipe.training.learning_rate) == (1.0, 1e-4)
